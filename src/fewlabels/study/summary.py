"""From cells to a finding: curves, verdicts, label savings, and the sentence that says it."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fewlabels.evaluation import regression
from fewlabels.evaluation.cells import design_of
from fewlabels.evaluation.family import adjust
from fewlabels.evaluation.forecast import forecast
from fewlabels.evaluation.metrics import LOWER_IS_BETTER
from fewlabels.evaluation.planning import add_more, components_of
from fewlabels.evaluation.savings import curves, label_saving
from fewlabels.evaluation.variances import least_visible
from fewlabels.evaluation.verdicts import Images, verdict_table
from fewlabels.study.arms import Arm
from fewlabels.study.cells import load_scores
from fewlabels.study.reasons import Reasons

PLAIN = ("mean", "pixels", "pixels+spreading", "random+features", "autoencoder+features")


def summarise(  # noqa: PLR0913 - what the numbers rest on, each by its name
    cells: Sequence[dict[str, Any]],
    arms: Sequence[Arm],
    declared: Mapping[str, Any],
    *,
    baseline: str,
    overlap: float,
    cell_folder: Path,
    chosen: str | None = None,
    classes: int | None = None,
    folds: int = 0,
) -> dict[str, Any]:
    """Return the statistical part of ``comparison.json``.

    Parameters
    ----------
    cells : sequence of dict
        All cells, failed ones included.
    declared : mapping
        ``arm``, ``baseline``, ``shots``, ``metric``, from before the run.
    overlap : float
        Test images over training images.
    chosen : str, optional
        The arm chosen within the label budget; test images had no part in that.
    classes : int, optional
        Their number; by it the forecast knows what guessing scores.
    folds : int
        Of a cross-validation.
    """
    names = [arm.name for arm in arms]
    metric = str(declared["metric"])
    design = design_of(cells, overlap=overlap, folds=folds)
    images = _image_scores(cells, cell_folder)
    table = []
    pairs = pairs_judged(names, str(declared["arm"]), baseline, chosen)
    for other, judged in [pair for pair in pairs if pair[1]]:
        against = declared if other == baseline else {**declared, "arm": judged[0]}
        against = {**against, "baseline": other}
        table += verdict_table(cells, against, judged, other, design=design, images=images)
    primary = next((row for row in table if row["primary"] and row["baseline"] == baseline), None)
    for row in table:
        row["primary"] = row is primary
    add_more(adjust(table), design)
    said, unit = functools.partial(_said, metric=metric), _unit(metric)
    Reasons(cells, arms, design, images, said, unit).add(table)
    shots = sorted({cell["shots"] for cell in cells})
    savings = [
        label_saving(cells, name, baseline, n, metric=metric, design=design)
        for name in names
        if name != baseline and len(shots) > 1
        for n in shots
    ]
    result: dict[str, Any] = {
        "curves": curves(cells, names, design=design, metric=metric, images=images),
        "verdicts": table,
        "label_saving": savings,
        "forecast": forecast(
            cells, names, design=design, metric=metric, classes=classes, images=images
        ),
        "primary": None,
    }
    if primary is not None:
        count = _test_images(images, primary, folds)
        result["primary"] = {
            **primary,
            "sentence": sentence(primary),
            "outlook": outlook(primary, count, folds=folds),
            "unseen": unseen(primary, count, folds=folds),
        }
    return result


def pairs_judged(
    names: Sequence[str], declared: str, baseline: str, chosen: str | None = None
) -> list[tuple[str, list[str]]]:
    """Return which arms are judged against which: all against the baseline, and some others.

    The plain baselines get verdicts of their own, on the declared and the chosen arm: beating
    scratch but not pixels is no win.

    Examples
    --------
    >>> pairs_judged(["scratch", "pixels", "a", "b"], "a", "scratch")
    [('scratch', ['pixels', 'a', 'b']), ('pixels', ['a'])]
    """
    pairs = [(baseline, [name for name in names if name != baseline])]
    judged = list(dict.fromkeys([declared, *([chosen] if chosen else [])]))
    for other in PLAIN:
        rivals = [name for name in judged if name != other]
        if other in names and other != baseline and rivals:
            pairs.append((other, rivals))
    return pairs


def _image_scores(cells: Sequence[dict[str, Any]], folder: Path) -> Images:
    """Return the mean score of each test image by arm and shots, and by split."""
    found: dict[tuple[str, int], dict[Any, list[np.ndarray]]] = {}
    for cell in cells:
        scores = None if cell["failed"] else load_scores(folder, cell["id"])
        if scores is not None:
            splits = found.setdefault((cell["arm"], cell["shots"]), {})
            splits.setdefault(cell["streams"]["split"], []).append(scores)
    return {
        key: {split: np.mean(parts, axis=0) for split, parts in splits.items()}
        for key, splits in found.items()
    }


def _test_images(images: Images, row: Mapping[str, Any], folds: int) -> int:
    """Return how many test images a verdict rests on, 0 where that is not known."""
    splits = images.get((row["arm"], row["shots"]), {})
    counts: dict[int, int] = {}
    for split, scores in splits.items():  # the folds of a repeat are one test set
        repeat = split // folds if folds else split
        counts[repeat] = counts.get(repeat, 0) + len(scores)
    return max(counts.values(), default=0)


_METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "recall_macro": "macro recall",
    "f1_macro": "macro F1",
    "nll": "negative log-likelihood",
    "mse": "mean squared error",
    "mae": "mean absolute error",
    "r2": "R2",
}
_PLAIN_NUMBERS = frozenset({"nll", *regression.METRICS})  # all others are shares


def sentence(row: Mapping[str, Any], *, whole: bool = False) -> str:
    """Return a verdict in words.

    Parameters
    ----------
    row : mapping
    whole : bool
        Whether labels are counted in all, and not per class.

    Examples
    --------
    >>> sentence({"arm": "a", "baseline": "b", "shots": 4, "metric": "accuracy",
    ...     "difference": 0.08, "low": 0.05, "high": 0.11, "verdict": "helps", "detectable": 0.04})
    'a helps: accuracy is 8.0 points (5.0 to 11.0) above b at 4 labels per class.'
    >>> sentence({"arm": "a", "baseline": "b", "shots": 40, "metric": "mse",
    ...     "difference": 1.5, "low": 1.2, "high": 1.8, "verdict": "helps", "detectable": 0.4})
    'a helps: mean squared error is 1.5 (1.2 to 1.8) below b at 40 labels.'
    """
    metric = str(row["metric"])
    whole = whole or metric in regression.METRICS
    name, where = _METRICS.get(metric, metric), _where(row["shots"], whole=whole)
    if row["difference"] is None or row["low"] is None:
        return f"{row['arm']} against {row['baseline']} {where}: too few repetitions to judge."
    unit = _unit(metric)
    # Differences are positive where the arm is better; what falls is then below.
    sign = -1 if metric in LOWER_IS_BETTER else 1
    value = sign * row["difference"]
    low, high = sorted((sign * row["low"], sign * row["high"]))
    if row["verdict"] == "undecided":
        seen = "the smallest difference this design could have seen is not known"
        if row["detectable"] is not None:
            seen = f"this design could have seen {_said(row['detectable'], metric)}{unit}"
        return (
            f"Undecided: {row['arm']} differs from {row['baseline']} by "
            f"{_said(value, metric, signed=True)}{unit} ({_said(low, metric, signed=True)} to "
            f"{_said(high, metric, signed=True)}) in {name} {where}; {seen}."
        )
    side = "above" if value > 0 else "below"
    low, high = sorted((abs(low), abs(high)))
    return (
        f"{row['arm']} {row['verdict']}: {name} is {_said(abs(value), metric)}{unit} "
        f"({_said(low, metric)} to {_said(high, metric)}) {side} {row['baseline']} {where}."
    )


def outlook(row: Mapping[str, Any], images: int, *, folds: int = 0) -> str:
    """Return in words what a verdict leaves open: of one encoder, or undecided; or "".

    Parameters
    ----------
    row : mapping
        With the fields that `planning.add_more` wrote.
    images : int
        Test images.
    folds : int
        Of a cross-validation.

    Examples
    --------
    >>> row = {"more": None, "repeats": {"splits": 1, "pretraining": 1, "draws": 5}}
    >>> outlook(row, 400)
    'It speaks of one pre-trained encoder: another of the same kind may do otherwise.'
    """
    counts = row["repeats"]
    alone = counts["pretraining"] == 1 and (folds > 0 or counts["splits"] == 1)
    one = "It speaks of one pre-trained encoder: another of the same kind may do otherwise."
    return " ".join(filter(None, [_to_decide(row, images, folds), one if alone else ""]))


def _to_decide(row: Mapping[str, Any], images: int, folds: int = 0) -> str:
    """Return what would probably decide an undecided verdict.

    Examples
    --------
    >>> row = {"metric": "accuracy", "difference": 0.01, "level": 0.05, "components": {}}
    >>> _to_decide(row | {"more": {"draws": 12, "pretraining": 2, "splits": None}}, 400)
    'About 12 more draws of labels, or 2 more pre-training seeds, would probably decide it.'
    """
    if row["more"] is None:
        return ""
    named = (
        ("draws", "repeat{} of the cross-validation" if folds else "draw{} of labels"),
        ("pretraining", "pre-training seed{}"),
        ("splits", "random split{}"),
    )
    numbers = [(row["more"][key], words) for key, words in named if row["more"][key]]
    if numbers:
        said = [f"{n:,} more {words.format('s' if n > 1 else '')}" for n, words in numbers]
        return f"About {', or '.join(said)}{',' if len(said) > 1 else ''} would probably decide it."
    limit = least_visible(components_of(row).images, row["level"])
    if limit > abs(row["difference"]):
        kind = "repeats" if folds else "splits" if row["repeats"]["splits"] > 1 else "seeds"
        return (
            f"No number of {kind} would decide it: with these {images:,} test images differences "
            f"under {_least(limit, row['metric'])} cannot be seen."
        )
    if both := row["more"]["both"]:
        return (
            "Neither more draws of labels nor more pre-training seeds alone would decide it; "
            f"about {both:,} more of each probably would."
        )
    return "A difference so small would not be decided by a thousand more repetitions."


FEW_IMAGES = 300
"""Test images under which it is always said what they cannot show."""


def unseen(row: Mapping[str, Any], images: int, *, folds: int = 0) -> str:
    """Return in words what the number of test images hides, however often all is repeated.

    Nothing where that is not known, where there are many, and where `outlook` has said it.

    Examples
    --------
    >>> row = {"metric": "accuracy", "difference": 0.1, "level": 0.05, "more": None,
    ...     "repeats": {"pretraining": 2}, "components": {"images": 0.01}}
    >>> unseen(row, 60, folds=5)
    '60 test images: differences under 4.9 points cannot be seen.'
    """
    limit = least_visible(components_of(row).images, row["level"])
    said = "cannot be seen" in outlook(row, images, folds=folds)
    if math.isnan(limit) or not images or said or (images >= FEW_IMAGES and not folds):
        return ""
    if row["metric"] not in _PLAIN_NUMBERS:
        # Of so rare a difference no image would show anything: "the rule of three"
        # (Hanley and Lippman-Hand 1983), exactly.
        limit = max(limit, 1 - row["level"] ** (1 / images))
    least = _least(limit, row["metric"])
    return f"{images:,} test images: differences under {least} cannot be seen."


def _least(limit: float, metric: str) -> str:
    return _said(limit, metric) + _unit(metric)


def _where(shots: int, *, whole: bool) -> str:
    """Return a label budget in words; where a number is predicted, it is one in all."""
    if not shots:
        return "with the labels there are"
    noun = f"at {shots} label{'s' if shots != 1 else ''}"
    return noun if whole else f"{noun} per class"


def _unit(metric: str) -> str:
    return "" if metric in _PLAIN_NUMBERS else " points"


def _said(value: float, metric: str, *, signed: bool = False) -> str:
    """Return a difference of scores: shares in points, others with three digits."""
    if metric in _PLAIN_NUMBERS:
        digits = ",.0f" if 999.5 <= abs(value) < 1e7 else ".3g"
        return f"{value:{'+' if signed else ''}{digits}}"
    return f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}"
