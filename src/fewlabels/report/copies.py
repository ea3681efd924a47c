"""What the scores are without the images of which a copy was there to learn from, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fewlabels.report import words
from fewlabels.report.measures import measure_of
from fewlabels.report.words import Record, number, record, records

if TYPE_CHECKING:
    from fewlabels.report.findings import Comparison


def beside(evaluation: Record) -> str:
    """Return a sentence to stand beside the scores of one model; "" where there is no copy.

    Examples
    --------
    >>> beside({"n": 10, "without_near_duplicates": {"left_out": 2, "n": 8,
    ...     "accuracy": {"value": 0.5, "low": 0.2, "high": 0.8}}}).replace(words.DASH, "-")
    'Of 2 of the 10 images a copy lies in training; on the others accuracy is 50.0 % (20.0-80.0).'
    """
    found = record(evaluation.get("without_near_duplicates"))
    if not found:
        return ""
    start = f"Of {words.count(found.get('left_out'))} of the {words.count(evaluation.get('n'))} "
    start += "images a copy lies in training; "
    metric = "accuracy" if found.get("accuracy") else "mse"
    measure = measure_of(metric, record(evaluation.get("target")))
    value, bounds = measure.interval(found.get(metric))
    if value == words.MISSING:
        return f"{start}no other image is left to score."
    unit = "%" if measure.share else measure.unit
    said = " ".join(filter(None, [value, unit, bounds]))
    return f"{start}on the others {measure.name} is {said}."


def compared(comparison: Comparison) -> str:
    """Return a sentence on the declared arm and its baseline; "" where there is no copy."""
    found = record(comparison.found.get("without_near_duplicates"))
    primary = comparison.primary
    rows = {
        row.get("arm"): row
        for row in records(found.get("rows"))
        if row.get("shots") == primary.get("shots")
    }
    said = []
    for name in (primary.get("arm"), primary.get("baseline")):
        mean, every = (number(record(rows.get(name)).get(k)) for k in ("mean", "all_images"))
        if mean is not None and every is not None:
            measure = comparison.measure
            unit = "%" if measure.share else measure.unit
            title = words.inside(comparison.title(name))
            scores = f"{measure.value(mean)} {unit}".rstrip()
            said.append(f"{title} scores {scores} ({measure.value(every)} on all)")
    if not found:
        return ""
    start = f"Of {words.count(found.get('left_out'))} test images a copy lies in training"
    others = f"on the other {words.count(found.get('n'))} "
    return f"{start}; {others}{words.joined(said)}." if said else f"{start}."
