"""Write the report: one HTML file with everything inside, from the files of a folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fewlabels.report import (
    costs,
    explained,
    fates,
    figures,
    findings,
    health,
    maps,
    numbers,
    scores,
    tables,
    words,
)
from fewlabels.report.findings import Comparison
from fewlabels.report.reading import Folder, Training, read_folder
from fewlabels.report.single import single_run
from fewlabels.report.words import Record, record
from fewlabels.results.files import write_atomic
from fewlabels.results.told import RECONSTRUCTION

_WIDE, _NARROW = 960, 340
# C0 controls are not allowed in HTML; names read from disk may hold them.
_CONTROLS = {code: "\N{REPLACEMENT CHARACTER}" for code in range(32) if chr(code) not in "\n\t"}


def write_report(folder: Path) -> Path:
    """Write ``report.html`` of a run or comparison folder from the files it holds.

    Parameters
    ----------
    folder : Path
        Holds a comparison.json or a results.json; every other part is optional,
        and a damaged one is named in the report.

    Returns
    -------
    Path
        Of the page: one file, no network, no script.

    Raises
    ------
    DataError
        If the folder holds nothing to report on.
    """
    folder = Path(folder)
    page = render(read_folder(folder))
    target = folder / "report.html"
    # A name that was not UTF-8 on disk carries lone surrogates: shown as escapes.
    write_atomic(target, page.encode("utf-8", "backslashreplace"))
    return target


def render(folder: Folder) -> str:
    """Return the page of what was read from a folder."""
    environment = Environment(
        loader=PackageLoader("fewlabels.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["style"] = Markup(_template_text(environment, "style.css"))
    template = environment.get_template("page.html.j2")
    return template.render(_context(folder)).translate(_CONTROLS)


def _template_text(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _context(folder: Folder) -> dict[str, Any]:
    shown = _compared(folder) if folder.comparison else single_run(folder)
    evaluation = shown["evaluation"]
    names = scores.class_names(evaluation)
    inspected = record(folder.results.get("inspect")) or record(folder.comparison.get("inspect"))
    return {
        **shown,
        "symbols": findings.SYMBOLS,
        "scores": scores.score_rows(evaluation),
        "confusion": scores.confusion(evaluation, names),
        "scatter": numbers.scatter(evaluation),
        "of_number": bool(evaluation.get("mse") or inspected.get("target")),
        "per_class": scores.per_class(evaluation),
        "mistakes": scores.mistakes(folder.mistakes),
        "errors": numbers.largest_errors(folder.mistakes, evaluation),
        "trainings": [_training(one) for one in folder.trainings],
        "map": _map(folder, names or list(record(inspected.get("classes")))),
        "explained": explained.explanation(folder.explained),
        "fates": fates.fates(folder.results),
        "paintings": explained.paintings(folder.paintings),
        "health": health.data_health(inspected),
        "settings": health.settings(folder),
        "unread": folder.unread,
    }


def _compared(folder: Folder) -> Record:
    """Return the sections of a comparison."""
    comparison = Comparison(folder.comparison)
    test = record(folder.results.get("test"))
    best = record(comparison.found.get("best"))
    return {
        "name": str(comparison.found.get("name") or folder.path.name),
        "kind": "comparison",
        "hero": findings.headline(comparison),
        "statements": findings.statements(comparison),
        "warnings": words.texts(comparison.found.get("warnings")),
        "failed": [_failed(comparison, cell) for cell in comparison.failed],
        "tiles": tables.tiles(comparison, test),
        "chosen": (comparison.title(best["name"]), str(best.get("reason") or ""))
        if best.get("name")
        else None,
        "curves": _curves(comparison),
        "arms": tables.arms_table(comparison),
        "verdicts": tables.verdicts_table(comparison),
        "savings": tables.savings_table(comparison),
        "cost": costs.cost_table(comparison),
        "price": _price(comparison),
        "metric": comparison.metric,
        "measure": comparison.measure,
        "facts": [],
        "evaluation": test,
        "split": str(test.get("split") or "test"),
    }


def _failed(comparison: Comparison, cell: Record) -> str:
    where = comparison.measure.shots(cell.get("shots"))
    return f"{comparison.title(cell.get('arm'))}, {where}: {cell['failed']}"


def _curves(comparison: Comparison) -> Record | None:
    """Return the main figure, wide and narrow: curves, or rows where shots never vary."""
    series = tables.all_series(comparison)
    if not series:
        return None
    measure = comparison.measure
    if len({point.shots for one in series for point in one.points}) == 1:
        pictures = [figures.dot_plot(series, width=w, measure=measure) for w in (_WIDE, _NARROW)]
        where = measure.shots(comparison.shots[0])
        return {"pictures": pictures, "legend": [], "rows": True, "where": where}
    chance = _chance(comparison)
    pictures = [
        figures.label_efficiency(series, width=w, height=h, measure=measure, chance=chance)
        for w, h in ((_WIDE, 480), (_NARROW, 330))
    ]
    ahead = any(one.ahead for one in series)
    legend = [_legend(one) for one in series]
    return {"pictures": pictures, "legend": legend, "rows": False, "ahead": ahead}


def _price(comparison: Comparison) -> Record | None:
    """Return the figure of scores against seconds, with its legend."""
    found = costs.cost_figure(comparison)
    return found and {**found, "legend": [_legend(one) for one in found["series"]]}


def _legend(one: figures.Series) -> Record:
    return {"title": one.title, "swatch": figures.swatch(one)}


def _chance(comparison: Comparison) -> float | None:
    classes = len(record(record(comparison.found.get("inspect")).get("classes")))
    even = comparison.metric in ("accuracy", "balanced accuracy")
    return 1 / classes if classes > 1 and even else None


def _training(one: Training) -> Record:
    """Return the pictures of one training: losses in one, accuracies in the other."""
    panels = []
    losses = [("training", "loss"), ("validation", "val_loss")]
    probes = [("live probe", "probe"), ("training", "plain_train_accuracy")]
    probes.append(("validation", "val_accuracy"))
    shares = [("live probe", "probe_r2"), ("training", "plain_train_r2"), ("validation", "val_r2")]
    loss = "reconstruction error" if RECONSTRUCTION in one.curves else "loss"
    kinds = ((loss, losses, False), ("accuracy, %", probes, True), ("R²", shares, False))
    for words_of, keys, share in kinds:
        drawn = [(name, one.curves[key]) for name, key in keys if key in one.curves]
        if drawn:
            label = f"{words_of} of {one.title}"
            picture = figures.training_curve(drawn, share=share, label=label, kept=one.kept)
            panels.append({"words": words_of, "names": [n for n, _ in drawn], "picture": picture})
    return {
        "title": one.title,
        "name": one.name,
        "panels": panels,
        "seconds": words.duration(one.seconds),
        "probe": _probed(one),
        "kept": words.count(one.kept),
    }


def _probed(one: Training) -> str:
    """Return where the live probe ended, in words."""
    share, r2 = one.curves.get("probe"), one.curves.get("probe_r2")
    if share is not None:
        return f"{words.percent(float(share[-1, 1]))} %"
    return words.MISSING if r2 is None else f"R² {r2[-1, 1]:.2f}"


def _map(folder: Folder, classes: list[str]) -> maps.EmbeddingMap | None:
    found = folder.embedding
    if found is None:
        return None
    names = found.classes or classes
    return maps.embedding_map(
        found.xy, found.label, found.kind, names, ordered=found.ordered, layout=found.layout
    )
