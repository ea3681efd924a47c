"""What people read on stdout: a few lines and tables, from the results alone."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

Record = dict[str, Any]

_WIDTH = 110  # of what goes into a file or a pipe, where there is no terminal to fit
_WHOLE = 400  # of a table that is not to be folded: wider than any of ours
_MANY = 20  # rows; a longer list is cut, and says so
_SCORES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "precision_macro": "macro precision",
    "recall_macro": "macro recall",
    "f1_macro": "macro F1",
}


def _console(piped: int = _WIDTH) -> Console:
    from rich.console import Console

    width = None if sys.stdout.isatty() else piped
    return Console(width=width, markup=False, highlight=False, emoji=False)


def _say(text: str = "") -> None:
    """Print a line that is not broken: paths stay whole and can be copied."""
    _console().print(text, soft_wrap=True)


def _facts(rows: list[tuple[str, str]]) -> None:
    for label, value in rows:
        if value:
            _say(f"{label + ':':<18}{value}")


def _table(
    title: str, headings: list[str], rows: list[list[str]], *, whole: bool = False, hint: str = ""
) -> None:
    """Print a table whose first column is text and whose others are numbers.

    Parameters
    ----------
    whole : bool
        Every row, each on a line of its own however long, as what is searched or kept must be.
    hint : str
        What else shows the rows that are left out, beside ``--json``.
    """
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", overflow="fold")
    most = len(rows) if whole else _MANY
    for row in rows[:most]:
        table.add_row(*row)
    _console(_WHOLE if whole else _WIDTH).print(table)
    if len(rows) > most:
        _say(f"... and {len(rows) - most} more; --json shows all{hint}")


def _warn(result: Record) -> None:
    for text in result.get("warnings") or []:
        _say(f"warning: {text}")


def _begin(result: Record) -> bool:
    """Print a plan, or that there was nothing to do; return whether that was all."""
    if "plan" in result:
        _show_plan(result)
        return True
    if result.get("already_done"):
        _say("already done: a finished run with this configuration is there")
    return False


def _show_plan(result: Record) -> None:
    from fewlabels.report.words import count, duration

    rows = [
        [
            str(step.get("stage", "")),
            count(step.get("steps")),
            duration(step.get("seconds")),
            str(step.get("note") or ""),
        ]
        for step in result["plan"]
    ]
    _table("the plan; nothing was run or written", ["stage", "steps", "time", "note"], rows)
    disk = result.get("disk_mb")
    _facts(
        [
            ("time in all", f"about {duration(result.get('seconds'))}"),
            ("disk", f"about {disk:,.0f} MB" if disk is not None else ""),
            ("will see", (result.get("precision") or {}).get("said", "")),
            ("note", str(result.get("note") or "")),
        ]
    )


def show_inspect(result: Record) -> None:
    """Print what lies in a data set."""
    splits = ", ".join(f"{n:,} {name}" for name, n in result["splits"].items())
    sides = result.get("sizes", {}).get("short_side", {})
    spread = f"{sides['min']:g} to {sides['max']:g} pixels" if sides else ""
    imbalance = result.get("imbalance")
    _facts(
        [
            ("images", f"{result['images']:,}"),
            ("labelled", _labelled(result)),
            ("unlabelled", f"{result['unlabelled']:,}"),
            ("splits", splits),
            ("shorter side", spread),
            ("imbalance", f"{imbalance:.1f} to 1" if imbalance else ""),
            ("unreadable", f"{result['unreadable']:,}"),
            ("duplicates", f"{len(result['duplicates']):,} pictures more than once"),
            ("leaks", _leaks(result["leaks"])),
            ("conflicts", _conflicts(result.get("label_conflicts") or [])),
            ("likeness", _likeness(result.get("likeness"))),
        ]
    )
    _show_target(result.get("target") or {})
    classes = sorted(result["classes"].items(), key=lambda pair: -pair[1])
    if classes:
        _table("classes", ["class", "images"], [[name, f"{n:,}"] for name, n in classes])
    for row in result["quarantine"][:_MANY]:
        _say(f"unreadable: {row['path']}: {row['reason']}")
    _warn(result)


def _leaks(rows: list[Record]) -> str:
    near = sum(row.get("kind") == "near" for row in rows)
    return f"{len(rows):,} between splits" + (f", {near:,} of them near-copies" if near else "")


def _conflicts(rows: list[Record]) -> str:
    return f"{len(rows):,} pairs of copies with different labels" if rows else ""


def _likeness(found: Record | None) -> str:
    """Say how near the unlabelled images are to the labelled ones."""
    if not found:
        return ""
    pairs = f"an unlabelled image is told from a labelled one in {100 * found['auc']:.0f} of 100"
    return f"{pairs} pairs (50 by guessing)"


def _labelled(result: Record) -> str:
    target = result.get("target")
    if target:
        return f"{result['labelled']:,} with a number in {target['name']!r}"
    return f"{result['labelled']:,} in {len(result['classes'])} classes"


def _show_target(target: Record) -> None:
    """Print how the numbers to be predicted are spread."""
    if not target.get("count"):
        return
    quantiles = [(f"{float(share):.0%}", value) for share, value in target["quantiles"].items()]
    shown = [("lowest", target["min"]), *quantiles, ("highest", target["max"])]
    shown += [("mean", target["mean"]), ("standard deviation", target["std"])]
    _table(target["name"], ["", "value"], [[name, f"{value:.4g}"] for name, value in shown])


def show_training(result: Record) -> None:
    """Print what a pre-training or a fine-tune did, cost and reached."""
    from fewlabels.report.words import count, duration, memory
    from fewlabels.results.told import told

    if _begin(result):
        return
    rate = result.get("images_per_second")
    final = ", ".join(f"{k} {v:.4g}" for k, v in told(result["final"]).items() if v is not None)
    carried = result.get("carried") or {}
    _facts(
        [
            ("start", str(result.get("start") or "")),
            ("transfer", str(result.get("transfer") or "")),
            ("method", str(result.get("method") or "")),
            ("backbone", f"{result.get('backbone')}, {count(result.get('parameters'))} parameters"),
            ("tensors", ", ".join(f"{n} {name}" for name, n in carried.items())),
            ("steps", f"{count(result['steps'])} in {duration(result['seconds'])}"),
            ("rate", f"{rate:,.0f} images/s" if rate else ""),
            ("multiply-adds", _amount(result.get("multiply_adds"))),
            ("energy", _amount(result.get("energy_joules"), "J")),
            ("peak memory", memory(result.get("peak_memory_mb"))),
            ("processes", str(result["processes"]) if result.get("processes", 1) > 1 else ""),
            ("final", final),
            ("probe", _probe(result)),
            ("likeness", _likeness(result.get("likeness"))),
            ("unlabelled", (result.get("unlabelled") or {}).get("said", "")),
            ("validation", (result.get("stopping") or {}).get("said", "")),
        ]
    )
    _show_tensors(result)
    if result.get("val"):
        show_scores(result["val"])
    _warn(result)
    _facts([("run", str(result["run"]))])


def _amount(value: Any, unit: str = "") -> str:
    from fewlabels.report.words import large

    return "" if value is None else f"{large(value)}{unit}".strip()


def _probe(result: Record) -> str:
    from fewlabels.report.measures import measure_of

    if result.get("probe_score") == "r2" and result.get("probe"):
        value, bounds = measure_of("r2").interval(result["probe"])
        return f"R2 {value} {bounds} leave-one-out neighbours"
    return _percent(result.get("probe"), "leave-one-out neighbours")


def _show_tensors(result: Record) -> None:
    """Print which tensors of a changed structure were not carried over whole."""
    changed = [row for row in result.get("tensors") or [] if row["fate"] != "carried"]
    if not changed:
        return
    sizes = [
        ["x".join(map(str, row[key])) or "-" for key in ("before", "shape")] for row in changed
    ]
    rows = [[row["name"], row["fate"], *size] for row, size in zip(changed, sizes, strict=True)]
    _table("tensors not carried whole", ["tensor", "fate", "before", "now"], rows[:_MANY])
    if len(rows) > _MANY:
        _say(f"and {len(rows) - _MANY} more in results.json")


def _percent(interval: Any, note: str = "") -> str:
    from fewlabels.report.words import MISSING, percent, spread

    value = interval or {}
    if percent(value.get("value")) == MISSING:
        return ""
    bounds = spread(value.get("low"), value.get("high"))
    return " ".join(f"{percent(value['value'])} % {bounds} {note}".split())


def show_scores(result: Record) -> None:
    """Print the scores of a model on one split, each with its interval."""
    from fewlabels.report.copies import beside

    split, looks = result["split"], result.get("looks_at_test")
    rows = [[words, _percent(result.get(name))] for name, words in _SCORES.items()]
    rows += _number_rows(result)
    rows = [row for row in rows if row[1]]
    _table(f"{split}: {result['n']:,} images, 95 % intervals", ["score", "value"], rows)
    headings = ["class", "images", "precision", "recall", "F1"]
    if result.get("per_class"):
        _table("classes, in %", headings, [_class_row(row) for row in result["per_class"]])
    if said := beside(result):
        _say(said)
    if split == "test" and looks:
        _say(f"This test set has been looked at {looks} time{'s' if looks > 1 else ''}.")


def _number_rows(result: Record) -> list[list[str]]:
    """Return the scores of predicted numbers, each in its unit."""
    from fewlabels.report.measures import measure_of

    rows = []
    for name in ("mse", "mae", "r2", "spearman"):
        measure = measure_of(name, result.get("target"))
        value, bounds = measure.interval(result.get(name))
        if result.get(name):
            rows.append([measure.name, " ".join(filter(None, [value, measure.unit, bounds]))])
    return rows


def _class_row(row: Record) -> list[str]:
    from fewlabels.report.words import percent

    scores = [percent(row.get(key)) for key in ("precision", "recall", "f1")]
    return [str(row["name"]), f"{row['n']:,}", *scores]


def show_explained(result: Record) -> None:
    """Print what each image was called, what lies nearest, and which maps were shown."""
    from fewlabels.report.words import percent

    target = result.get("target")
    middle = ["number", "predicted"] if target else ["label", "called", "%"]
    rows = [
        [
            str(row["path"]),
            *(_numbers(row) if target else [row["label"] or "-", row["predicted"] or "-"]),
            *([] if target else [percent(row["probability"])]),
            ", ".join(_known(near) for near in row["neighbours"]) or "-",
        ]
        for row in result["images"]
    ]
    unit = f", {target['name']}" if target else ""
    _table(f"{len(rows)} images{unit}", ["image", *middle, "nearest training images"], rows)
    for row in result["maps"]:
        said = row["reason"]
        if row["shown"]:
            said = f"shown (rank correlation with random weights {row['correlation']:.2f})"
        _say(f"{row['map'] + ':':<22}{said}")
    _warn(result)
    if result["split"] == "test" and result["looks_at_test"]:
        _say(f"Looks at this test set so far: {result['looks_at_test']}.")
    facts = [("pictures", result["folder"])]
    if result.get("weights") is None:  # what is no run has no page
        facts.append(("on the page", f"fewlabels report {result['run']}"))
    _facts(facts)


def _numbers(row: Record) -> list[str]:
    """Return the true and the predicted number of an image."""
    found = (row.get("value"), row["predicted"])
    return ["-" if value is None else f"{value:.4g}" for value in found]


def _known(near: Record) -> str:
    """Return the class, or the number, of a neighbour."""
    value = near.get("value")
    return near["label"] or "?" if value is None else f"{value:.4g}"


def show_comparison(result: Record) -> None:
    """Print the verdict, the table of arms, the chosen arm and where the page is."""
    from fewlabels.report.findings import Comparison, by_rule, headline, tested

    if result.get("kind") == "pretrain":  # the main job without a label
        show_training(result)
        return
    if _begin(result):
        return
    found = Comparison(result.get("compare") or result)
    top = headline(found)
    for text in (top["sentence"], top["reason"], top["detail"], top["seen"]):
        if text:
            _say(text)
    for text in [*by_rule(found), *tested(found, "hurts")]:
        _say(text)
    _say()
    _arms(found)
    best = found.found.get("best") or {}
    _facts(
        [
            ("best", " - ".join(filter(None, [str(best.get("name") or ""), best.get("reason")]))),
            ("its test score", _test_score(found, result.get("test") or {})),
            ("run", str(result.get("run") or "")),
            ("report", _page(result)),
        ]
    )
    _warn(found.found)


def show_names(result: Record) -> None:
    """Print the name of every cell, one a line, for a script to read."""
    for cell in result["cells"]:
        _say(cell["id"])


def show_cells(result: Record) -> None:
    """Print which cells are there now, or were before."""
    what = "already done" if result["already_done"] else "done"
    for cell in result["cells"]:
        said = f"failed: {cell['failed']}" if cell["failed"] else what
        _say(f"{cell['id']}  {cell['arm']} at {cell['shots'] or 'all'} labels: {said}")


def show_paper_table(result: Record, form: str) -> None:
    """Print the table of a comparison for a paper and nothing else; but a plan as it is."""
    from fewlabels.report.paper import paper_table

    if "plan" in result:
        _show_plan(result)
    else:
        sys.stdout.write(paper_table(result, form))


def _test_score(found: Any, test: Record) -> str:
    metric = str(found.primary.get("metric") or "accuracy")
    if found.measure.whole:
        value, bounds = found.measure.interval(test.get(metric))
        return " ".join([value, found.measure.unit, bounds]).strip() if test else ""
    return _percent(test.get("accuracy"))


def _arms(found: Any) -> None:
    from fewlabels.report.tables import arms_table

    table = arms_table(found)
    if table is None:
        return
    headings = ["arm", *table["headings"], "vs baseline", "time"]
    rows = [
        [("* " if row["chosen"] else "  ") + row["name"]]
        + [" ".join(filter(None, score[:2])) for score in row["scores"]]
        + [row["verdict"], row["seconds"]]
        for row in table["rows"]
    ]
    unit = "%" if found.measure.share else found.measure.unit
    said = f"{found.metric} on test images{f' in {unit}' if unit else ''}"
    title = f"{said}, mean (95 % interval); * is the chosen arm"
    _table(title, headings, rows)


def _page(result: Record) -> str:
    page = result.get("report")
    if not page and result.get("run"):
        place = Path(result["run"]) / "report.html"
        page = place if place.exists() else ""
    return str(page or "")


def show_report(result: Record) -> None:
    """Print where the page is."""
    _say(result["report"])


def show_predictions(rows: list[Record]) -> None:
    """Print one line an image; a long list is printed whole."""
    from fewlabels.report.words import percent

    width = max((len(str(row["path"])) for row in rows), default=4)
    if any("value" in row for row in rows):
        _say(f"{'image':<{width}}  value")
        for row in rows:
            said = f"({row.get('issue')})" if row["value"] is None else f"{row['value']:.6g}"
            _say(f"{row['path']!s:<{width}}  {said}")
        return
    _say(f"{'image':<{width}}  {'%':>5}  class")
    for row in rows:
        label = (
            row["label"] if row.get("label") is not None else f"({row.get('issue', 'unreadable')})"
        )
        _say(f"{row['path']!s:<{width}}  {percent(row.get('probability')):>5}  {label}")


def show_suggestions(rows: list[Record]) -> None:
    """Print the images to label next, in their order, and why each; a long list whole."""
    width = max((len(str(row["path"])) for row in rows), default=4)
    for row in rows:
        _say(f"{row['rank']:>4}  {row['path']!s:<{width}}  {row['reason']}")


def show_suspects(rows: list[Record]) -> None:
    """Print the labels to look at again, the most doubtful first; a long list whole."""
    if not rows:
        _say("no label is suspect")
    width = max((len(str(row["path"])) for row in rows), default=4)
    for row in rows:
        told = f"labelled {row['label']}, may be {row['suggested']}"
        _say(f"{row['score']:.2f}  {row['path']!s:<{width}}  {told}")


def show_csv(rows: list[Record]) -> None:
    """Print the predictions as CSV."""
    sys.stdout.write(predictions_csv(rows))


def predictions_csv(rows: list[Record]) -> str:
    """Return predictions as CSV: path, label, probability, then a column for each class.

    From a regressor: path and value.

    Examples
    --------
    >>> row = {"path": "a.jpg", "label": "cat", "probability": 0.9}
    >>> print(predictions_csv([row | {"probabilities": {"cat": 0.9, "dog": 0.1}}]), end="")
    path,label,probability,p(cat),p(dog)
    a.jpg,cat,0.9,0.9,0.1
    """
    classes = list(dict.fromkeys(name for row in rows for name in row.get("probabilities") or {}))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if any("value" in row for row in rows):
        writer.writerows([["path", "value"], *([row["path"], row["value"]] for row in rows)])
        return text.getvalue()
    writer.writerow(["path", "label", "probability", *(f"p({name})" for name in classes)])
    for row in rows:
        shares = row.get("probabilities") or {}
        writer.writerow(
            [row["path"], row["label"], row["probability"], *(shares.get(name) for name in classes)]
        )
    return text.getvalue()


def show_models(rows: list[Record]) -> None:
    """Print what can be started from; where it was scored, how well it suits."""
    fitted = any(row["fit"] for row in rows)
    headings = ["name", "parameters", "multiply-adds", "accuracy", "here", "input"]
    numbers = any(row["fit"] and row["fit"].get("knn_r2") for row in rows)
    headings += ["LogME", "neighbours R2" if numbers else "neighbours %"] if fitted else []
    shown = [_model_row(row, fitted) for row in rows]
    hint = ", and so does a pipe; fewlabels models NAME shows what has NAME in its name"
    whole = not sys.stdout.isatty()
    _table("what can be started from", headings, shown, whole=whole, hint=hint)
    for row in rows:
        if row.get("warning"):
            _say(f"warning: {row['name']} {row['warning']}")


def _model_row(row: Record, fitted: bool) -> list[str]:
    from fewlabels.report.words import percent

    def large(value: float | None) -> str:
        return "" if value is None else f"{value / 1e6:,.1f} M"

    shown = [row["name"], large(row["parameters"]), large(row["macs"])]
    accuracy = row["published_accuracy"]
    shown += ["" if accuracy is None else f"{percent(accuracy)} %"]
    shown += ["yes" if row["available"] else "", "x".join(map(str, row["input_size"] or []))]
    fit = row["fit"]
    scores = ["", ""] if fit is None else [f"{fit['logme']:.3f}", _neighbours(fit)]
    return shown + (scores if fitted else [])


def _neighbours(fit: Record) -> str:
    """Return the accuracy of the neighbours in percent, or their R2."""
    from fewlabels.report.measures import measure_of
    from fewlabels.report.words import percent

    if fit["knn"] is not None:
        return percent(fit["knn"]["value"])
    return measure_of("r2").interval(fit.get("knn_r2"))[0]


def show_export(result: Record) -> None:
    """Print where the exported model is, and how it was checked."""
    _facts(
        [
            ("written", result["path"]),
            ("size", f"{result['bytes'] / 1e6:,.1f} MB"),
            ("checked", f"outputs differ by at most {result['max_abs_difference']:.2g}"),
        ]
    )


def show_cache(result: Record) -> None:
    """Print where the cache is and what it takes."""
    freed = f"{result['freed'] / 1e6:,.1f} MB" if result["freed"] else ""
    size = f"{result['bytes'] / 1e6:,.1f} MB of decoded and unpacked images"
    kept = f"{result['downloads'] / 1e6:,.1f} MB, in datasets/" if result["downloads"] else ""
    _facts([("place", result["path"]), ("size", size), ("downloads", kept), ("freed", freed)])
