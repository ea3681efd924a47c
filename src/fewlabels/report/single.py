"""The shorter page of one run: a pre-training, or one classifier."""

from __future__ import annotations

from fewlabels.report import copies, words
from fewlabels.report.health import likeness_facts
from fewlabels.report.measures import measure_of
from fewlabels.report.reading import Folder
from fewlabels.report.words import Record, number, record
from fewlabels.results.told import RECONSTRUCTION, told

_EMPTY: Record = {
    "statements": [],
    "failed": [],
    "chosen": None,
    "curves": None,
    "arms": None,
    "verdicts": None,
    "savings": [],
    "cost": None,
    "price": None,
    "metric": "accuracy",
    "measure": measure_of("accuracy"),
}


def single_run(folder: Folder) -> Record:
    """Return the sections of a pretrain, finetune, evaluate or run folder."""
    results = folder.results
    evaluation = folder.evaluations[-1] if folder.evaluations else _evaluation(results)
    sentence = _classified(results, evaluation) if evaluation else _pretrained(results)
    hero = {"verdict": "", "sentence": sentence, "detail": _detail(results, evaluation)}
    return {
        **_EMPTY,
        "name": str(results.get("name") or results.get("run") or folder.path.name),
        "kind": str(results.get("kind") or ("classifier" if evaluation else "pre-training")),
        "hero": {**hero, "reason": "", "seen": "", "strip": None},
        "warnings": words.texts(results.get("warnings")),
        "tiles": _tiles(results, evaluation),
        "facts": _facts(results),
        "evaluation": evaluation,
        "split": str(evaluation.get("split") or ("test" if results.get("test") else "val")),
    }


def _evaluation(results: Record) -> Record:
    """Return the test scores, else validation, else the results where they are scores."""
    nested = record(results.get("test")) or record(results.get("val"))
    scored = any(results.get(key) is not None for key in ("accuracy", "confusion", "mse"))
    return nested or (results if scored else {})


def _pretrained(results: Record) -> str:
    method = words.method_title(results.get("method") or "The encoder")
    backbone = f" ({results['backbone']})" if results.get("backbone") else ""
    taken = words.duration(results.get("seconds"))
    after = f" for {taken}" if taken != words.MISSING else ""
    r2 = results.get("probe_score") == "r2"
    value, _ = measure_of("r2").interval(results.get("probe")) if r2 else _share(results)
    if value == words.MISSING:
        return f"{method}{backbone} was trained{after}; no labels were there to probe it with."
    if r2:
        return f"{method}{backbone} was trained{after}; R² of its nearest neighbours is {value}."
    return (
        f"{method}{backbone} was trained{after}; its nearest neighbours get "
        f"{value} % of the visible labels right."
    )


def _share(results: Record) -> tuple[str, str]:
    return words.interval(results.get("probe"))


def _classified(results: Record, evaluation: Record) -> str:
    start = words.inside(words.method_title(results.get("start") or results.get("method") or ""))
    noun = "The regressor" if evaluation.get("mse") else "The classifier"
    beginning = f"{noun} started from {start}" if start else noun
    images = number(evaluation.get("n"))
    amount = f"{images:,.0f} held-out images" if images else "the held-out images"
    value, _ = words.interval(evaluation.get("accuracy"))
    if value != words.MISSING:
        return f"{beginning} gets {value} % of {amount} right."
    measure = measure_of("mae", record(evaluation.get("target")))
    error, _ = measure.interval(evaluation.get("mae"))
    if error != words.MISSING:
        size = f"{error} {measure.unit}".rstrip()
        return f"{beginning} is off by {size} on average over {amount}."
    return f"{beginning} was scored on {amount}."


def _detail(results: Record, evaluation: Record) -> str:
    if evaluation.get("mse") or results.get("probe_score") == "r2":
        lead = _lead_of_number(results, evaluation)
    else:
        _, spread = words.interval(evaluation.get("accuracy") or results.get("probe"))
        lead = f"95 % interval {spread.strip('()')} %. " if spread else ""
    lead += f"{said} " if (said := copies.beside(evaluation)) else ""
    return f"{lead}Only a comparison can tell whether pre-training helped: run `fewlabels compare`."


def _lead_of_number(results: Record, evaluation: Record) -> str:
    key = "mae" if evaluation.get("mae") else "r2"
    measure = measure_of(key, record(evaluation.get("target")))
    _, bounds = measure.interval(evaluation.get("mae") or results.get("probe"))
    return f"95 % interval {bounds.strip('()')} {measure.unit}".rstrip() + ". " if bounds else ""


def _number_tiles(evaluation: Record) -> list[tuple[str, str, str, str]]:
    """Return the scores of a regressor, in units."""
    shown = []
    for key in ("mae", "r2"):
        measure = measure_of(key, record(evaluation.get("target")))
        value, bounds = measure.interval(evaluation.get(key))
        name = measure.name[:1].upper() + measure.name[1:]
        shown.append((name, value, measure.unit, bounds))
    return shown


def _probe_tile(results: Record) -> tuple[str, str, str, str]:
    r2 = results.get("probe_score") == "r2"
    probe, spread = measure_of("r2" if r2 else "accuracy").interval(results.get("probe"))
    unit = "R²" if r2 else "%"
    return "Live probe", probe, unit, f"{spread} leave-one-out neighbours".strip()


def _reconstruction_tile(results: Record) -> tuple[str, str, str, str]:
    error = number(record(results.get("final")).get(RECONSTRUCTION))
    value = words.MISSING if error is None else f"{error:.4g}"
    return "Reconstruction error", value, "", "mean square, pixels from 0 to 1"


def _tiles(results: Record, evaluation: Record) -> list[Record]:
    accuracy, spread = words.interval(evaluation.get("accuracy"))
    f1, f1_spread = words.interval(evaluation.get("f1_macro"))
    rate = number(results.get("images_per_second"))
    shown = [
        ("Accuracy", accuracy, "%", spread),
        ("Macro F1", f1, "%", f1_spread),
        *_number_tiles(evaluation),
        _probe_tile(results),
        _reconstruction_tile(results),
        (
            "Time",
            words.duration(results.get("seconds")),
            "",
            f"{rate:,.0f} images/s" if rate else "",
        ),
        ("Images seen", words.count(results.get("images_seen")), "", "augmented views of images"),
    ]
    return [
        {"label": label, "value": value, "unit": unit, "note": note}
        for label, value, unit, note in shown
        if value != words.MISSING
    ]


def _likeness(results: Record) -> list[tuple[str, str, str]]:
    return likeness_facts(record(results.get("likeness")))


def _energy(results: Record) -> str:
    known = number(results.get("energy_joules"))
    return "" if known is None else f"{words.large(known)}J"


def _facts(results: Record) -> list[tuple[str, str]]:
    """Return what was run, as label and value."""
    carried = record(results.get("carried"))
    tensors = ", ".join(f"{words.count(n)} {key}" for key, n in carried.items())
    final = record(results.get("final"))
    facts = [
        ("method", str(results.get("method") or "")),
        ("backbone", str(results.get("backbone") or "")),
        ("transfer", str(results.get("transfer") or "")),
        ("start", str(results.get("start") or "")),
        ("weights (tensors)", tensors),
        ("parameters", words.count(results.get("parameters"))),
        ("steps", words.count(results.get("steps"))),
        ("multiply-adds", words.large(results.get("multiply_adds"))),
        ("energy", _energy(results)),
        ("peak memory", words.memory(results.get("peak_memory_mb"))),
        ("unlabelled", str(record(results.get("unlabelled")).get("said") or "")),
        ("validation", str(record(results.get("stopping")).get("said") or "")),
        *((f"{label}, by its features", v) for label, v, _ in _likeness(results)),
        *(
            (f"final {k}", f"{v:.4g}")
            for k, x in told(final).items()
            if (v := number(x)) is not None
        ),
    ]
    return [(label, value) for label, value in facts if value and value != words.MISSING]
