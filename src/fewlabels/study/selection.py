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
from fewlabels.study.encoders import Encoder, task_of
from fewlabels.study.plan import Steps

ENOUGH = 4  # labels in the smallest class
FOLDS = 4


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


def fold_hits(
    own: Task, arm: Arm, encoder: Encoder, rows: np.ndarray, out: np.ndarray, steps: Steps
) -> np.ndarray:
    """Return whether an arm that did not see the labels of the fold `out` is right about them.

    Parameters
    ----------
    rows : ndarray
        ``(n,)`` labelled rows.
    out : ndarray
        ``(n,)`` bool, the fold.

    Returns
    -------
    ndarray
        ``(out.sum(),)`` bool.
    """
    task = task_of(arm, encoder, own)
    seed = stream(0, "fold", arm.name, int(np.flatnonzero(out)[0])) % 2**31
    fitted = fit(task, arm, encoder, rows[~out], steps, seed)
    if arm.trains:
        probabilities = score(task, fitted.classifier, rows[out])
    else:
        x = features(task, encoder.backbone, rows[out])
        probabilities = head_probabilities(fitted.classifier.head, x)
    return np.asarray(probabilities.argmax(1) == task.dataset.labels[rows[out]])


def held_out(
    task: Task,
    arm: Arm,
    encoder: Encoder,
    rows: np.ndarray,
    folds: np.ndarray,
    steps: Steps,
    *,
    leader: list[float],
) -> list[np.ndarray]:
    """Cross-validate an arm fold by fold; stop where it is clearly behind.

    Training on every fold is dear. An arm that trains and is more than two standard errors
    behind the `leader` (its accuracy fold by fold) after some fold is not tried on the rest.
    """
    found: list[np.ndarray] = []
    for place, fold in enumerate(np.unique(folds)):
        found.append(fold_hits(task, arm, encoder, rows, folds == fold, steps))
        done = np.concatenate(found)
        error = np.sqrt(max(done.mean() * (1 - done.mean()), 0.05) / len(done))
        ahead = float(np.mean(leader[: place + 1])) if leader else 0.0
        if arm.trains and done.mean() + 2 * error < ahead:
            break
    return found


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
        ``name``, ``reason`` and ``candidates`` [{arm, score, low, high, folds}].
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
    candidates: list[dict[str, Any]] = []
    leader: list[float] = []
    count = len(np.unique(folds))
    # Frozen features first: they are cheap, and set the mark for the arms that train.
    for arm in sorted(ordered, key=lambda arm: arm.trains):
        found = held_out(task, arm, encoders[arm.name], rows, folds, steps, leader=leader)
        hits = np.concatenate(found)
        low, high = wilson(int(hits.sum()), len(hits))
        row = {"arm": arm.name, "score": float(hits.mean()), "low": low, "high": high}
        candidates.append({**row, "folds": len(found)})
        accuracies = [float(part.mean()) for part in found]
        if len(found) == count and (not leader or np.mean(accuracies) > np.mean(leader)):
            leader = accuracies
    place = {arm.name: number for number, arm in enumerate(ordered)}
    # max() keeps the first of equals, so ties fall to the documented order.
    candidates.sort(key=lambda row: place[row["arm"]])
    best = max((row for row in candidates if row["folds"] == count), key=lambda r: r["score"])
    reason = (
        f"highest accuracy ({best['score']:.1%}) in {int(folds.max()) + 1}-fold cross-validation "
        f"on the {len(rows)} labelled images"
    )
    return {"name": best["arm"], "reason": reason, "candidates": candidates}
