"""The best arm, chosen within the label budget and never on test.

From 4 labels a class: stratified cross-validation on the labelled images, the same folds
for every arm. Below that no fold can be trusted, and a fixed, documented order decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fewlabels.core.seeding import stream
from fewlabels.evaluation.intervals import wilson
from fewlabels.pipeline.stages import features, score
from fewlabels.pipeline.task import Task
from fewlabels.study.arms import FIXED_ORDER, Arm
from fewlabels.study.cells import fit, head_probabilities
from fewlabels.study.encoders import Encoder
from fewlabels.study.plan import Steps

ENOUGH = 4  # labels in the smallest class
FOLDS = 5


def folds_of(labels: np.ndarray, seed: int) -> np.ndarray | None:
    """Return the fold of each labelled image, or None where there are too few to hold out.

    Parameters
    ----------
    labels : ndarray
        ``(n,)`` int64.

    Returns
    -------
    ndarray or None
        ``(n,)`` int64 in ``[0, FOLDS)``.
    """
    counts = np.bincount(labels)
    smallest = int(counts[counts > 0].min())
    if smallest < ENOUGH:
        return None
    folds = np.empty(len(labels), np.int64)
    rng = np.random.default_rng(seed)
    for name in np.unique(labels):
        place = rng.permutation(np.flatnonzero(labels == name))
        folds[place] = np.arange(len(place)) % min(FOLDS, smallest)
    return folds


def held_out_hits(
    task: Task, arm: Arm, encoder: Encoder, rows: np.ndarray, folds: np.ndarray, steps: Steps
) -> np.ndarray:
    """Return for each labelled image whether an arm that did not see its label is right."""
    hits = np.zeros(len(rows), bool)
    labels = task.dataset.labels[rows]
    for fold in np.unique(folds):
        out = folds == fold
        seed = stream(0, "fold", arm.name, int(fold)) % 2**31
        fitted = fit(task, arm, encoder, rows[~out], steps, seed)
        if arm.trains:
            probabilities = score(task, fitted.classifier, rows[out])
        else:
            x = features(task, encoder.backbone, rows[out])
            probabilities = head_probabilities(fitted.classifier.head, x)
        hits[out] = probabilities.argmax(1) == labels[out]
    return hits


def choose(
    task: Task,
    arms: Sequence[Arm],
    encoders: Mapping[str, Encoder],
    rows: np.ndarray,
    steps: Steps,
    *,
    seed: int,
) -> dict[str, Any]:
    """Choose the best arm from the labels of `rows` alone.

    Parameters
    ----------
    arms : sequence of Arm
    encoders : mapping
        The encoder of each arm, by its name.
    rows : ndarray
        ``(n,)`` labelled rows.
    seed : int
        Of the folds.

    Returns
    -------
    dict
        ``name``, ``reason`` and ``candidates`` [{arm, score, low, high}].
    """
    labels = task.dataset.labels[rows]
    usable = [arm for arm in arms if not encoders[arm.name].warning] or list(arms)
    folds = folds_of(labels, stream(seed, "folds") % 2**32)
    rank = {name: place for place, name in enumerate(FIXED_ORDER)}
    ordered = sorted(usable, key=lambda arm: rank.get(arm.name, len(rank)))
    if folds is None:
        reason = (
            f"fewer than {ENOUGH} labels in the smallest class are too few to choose by, so the "
            "documented order decides"
        )
        return {"name": ordered[0].name, "reason": reason, "candidates": []}
    candidates = []
    for arm in ordered:
        hits = held_out_hits(task, arm, encoders[arm.name], rows, folds, steps)
        low, high = wilson(int(hits.sum()), len(hits))
        candidates.append({"arm": arm.name, "score": float(hits.mean()), "low": low, "high": high})
    # max() keeps the first of equals, so ties fall to the documented order.
    best = max(candidates, key=lambda row: row["score"])
    reason = (
        f"highest accuracy ({best['score']:.1%}) in {int(folds.max()) + 1}-fold cross-validation "
        f"on the {len(rows)} labelled images"
    )
    return {"name": best["arm"], "reason": reason, "candidates": candidates}
