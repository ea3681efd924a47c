"""What a comparison will probably see, said before it is run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fewlabels.evaluation.cells import Design, cross_validation
from fewlabels.evaluation.planning import TYPICAL, prospect, typical
from fewlabels.pipeline.task import Task
from fewlabels.study.arms import Arm, headline
from fewlabels.study.folding import count_encoders, images_of
from fewlabels.study.plan import OWN_LABELS, Unit
from fewlabels.study.settings import Settings, label_count
from fewlabels.study.summary import pairs_judged

SHARES = ("accuracy", "balanced_accuracy", "recall_macro", "f1_macro")


def precision(
    task: Task, arms: Sequence[Arm], units: Sequence[Unit], settings: Settings
) -> dict[str, Any]:
    """Return the smallest difference that a comparison will probably see.

    Typical spreads stand in for its own, which nobody knows yet: those of the committed
    comparisons, from the data set with the narrower ones to the one with the wider.

    Returns
    -------
    dict
        ``verdicts`` (how many there will be at least); ``declared`` and ``corrected`` (the
        hardest step of Holm's correction): ``{"low", "high"}`` as shares, None where nothing
        is repeated or the metric has no typical spread; ``useless``; ``said``, all in words.
    """
    shots = settings.labels or (OWN_LABELS,)
    if len(arms) < 2:
        nothing = {"verdicts": 0, "declared": None, "corrected": None, "useless": False}
        return {**nothing, "said": "one arm is scored, and compared with nothing"}
    names = [arm.name for arm in arms]
    declared = headline(arms, settings.baseline)
    judged = pairs_judged(names, declared, settings.baseline)
    verdicts = len(shots) * sum(len(rivals) for _, rivals in judged)
    found: dict[str, Any] = {"verdicts": verdicts, "declared": None, "corrected": None}
    found["useless"] = False
    if settings.metric not in SHARES:
        return {**found, "said": f"no typical spread of {settings.metric} is known"}
    planned = planned_design(task, units)
    design = replace(planned, all_labels=planned.all_labels or shots == (OWN_LABELS,))
    images = images_of(task)[1] // max(1, planned.folds)
    each = min(shots) or max(1, label_count(task, OWN_LABELS) // task.num_classes)
    spreads = [typical(name, each) for name in TYPICAL]
    first = [prospect(design, spread, images) for spread in spreads]
    if any(math.isnan(one) for one in first):
        return {**found, "said": "nothing is repeated, so nothing can be decided: more --seeds"}
    found["declared"] = {"low": min(first), "high": max(first)}
    said = f"{declared} against {settings.baseline}: differences from about {_both(first)}"
    if verdicts > 1:
        hardest = [prospect(design, spread, images, verdicts - 1) for spread in spreads]
        found["corrected"] = {"low": min(hardest), "high": max(hardest)}
        said += f"; the {verdicts - 1} others, corrected, at worst from {_both(hardest)}"
        pairs = zip(hardest, spreads, strict=True)
        found["useless"] = any(least > spread.largest for least, spread in pairs)
    if found["useless"]:
        said += (
            ". Such corrected verdicts are useless: no arm of the committed tables differs so "
            "much. More --pretraining-seeds or --seeds, fewer --arms or --labels"
        )
    return {**found, "said": said}


def planned_design(task: Task, units: Sequence[Unit]) -> Design:
    """Return how the cells of some units will be repeated."""
    draws = len({(unit.split, draw) for unit in units for draw in unit.draws})
    splits = len({unit.split for unit in units})
    folds, encoders = task.dataset.folds, count_encoders(units)
    if folds:
        repeats = len({draw for unit in units for draw in unit.draws})
        return cross_validation(folds, splits, repeats, encoders)
    train, test = images_of(task)
    overlap = test / max(1, train)
    return Design("repeated" if splits > 1 else "given", splits, draws, encoders, overlap)


def _both(values: Sequence[float]) -> str:
    """Return the differences in points that are seen with the spreads of each data set."""
    pairs = zip(values, TYPICAL, strict=True)
    return " or ".join(f"{100 * value:.1f} points (spreads as on {name})" for value, name in pairs)
