"""The best arm, chosen within the label budget and never on test.

From 4 labels a class (8 labels, where a number is predicted): cross-validation on the labelled
images, the same folds for every arm. Below that no fold can be trusted, and a fixed, documented
order decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fewlabels.core.seeding import stream
from fewlabels.pipeline.frozen import features
from fewlabels.pipeline.stages import score
from fewlabels.pipeline.task import Task
from fewlabels.study.arms import FIXED_ORDER, Arm
from fewlabels.study.cells import fit, head_predictions
from fewlabels.study.encoders import Encoder, task_of
from fewlabels.study.plan import Steps


def fold_scores(
    own: Task, arm: Arm, encoder: Encoder, rows: np.ndarray, out: np.ndarray, steps: Steps
) -> np.ndarray:
    """Return how good an arm that did not see the labels of the fold `out` is about them.

    Parameters
    ----------
    rows : ndarray
        ``(n,)`` labelled rows.
    out : ndarray
        ``(n,)`` bool, the fold.

    Returns
    -------
    ndarray
        ``(out.sum(),)`` float64, the goal's `goodness`: the more the better.
    """
    task = task_of(arm, encoder, own)
    seed = stream(0, "fold", arm.name, int(np.flatnonzero(out)[0])) % 2**31
    fitted = fit(task, arm, encoder, rows[~out], steps, seed)
    if arm.trains:
        predictions = score(task, fitted.classifier, rows[out])
    else:
        x = features(task, encoder.backbone, rows[out])
        predictions = head_predictions(fitted.classifier.head, x)
    return task.goal.goodness(rows[out], predictions)


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
    behind the `leader` (its goodness fold by fold) after some fold is not tried on the rest.
    """
    found: list[np.ndarray] = []
    for place, fold in enumerate(np.unique(folds)):
        found.append(fold_scores(task, arm, encoder, rows, folds == fold, steps))
        done = np.concatenate(found)
        ahead = float(np.mean(leader[: place + 1])) if leader else -np.inf
        if arm.trains and done.mean() + 2 * task.goal.error_of(done) < ahead:
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
        ``name``, ``reason`` and ``candidates`` [{arm, score, low, high, folds}], the score an
        accuracy or, for a number, a mean squared error.
    """
    usable = [arm for arm in arms if not encoders[arm.name].warning] or list(arms)
    folds = task.goal.folds(rows, stream(seed, "folds") % 2**32)
    rank = {name: place for place, name in enumerate(FIXED_ORDER)}
    ordered = sorted(usable, key=lambda arm: rank.get(arm.name, len(rank)))
    if folds is None:
        reason = f"{task.goal.few} are too few to choose by, so the documented order decides"
        return {"name": ordered[0].name, "reason": reason, "candidates": []}
    candidates: list[dict[str, Any]] = []
    goodness: dict[str, float] = {}
    leader: list[float] = []
    count = len(np.unique(folds))
    # Frozen features first: they are cheap, and set the mark for the arms that train.
    for arm in sorted(ordered, key=lambda arm: arm.trains):
        found = held_out(task, arm, encoders[arm.name], rows, folds, steps, leader=leader)
        whole = np.concatenate(found)
        goodness[arm.name] = float(whole.mean())
        row = {"arm": arm.name, **task.goal.chosen_by(whole), "folds": len(found)}
        candidates.append(row)
        each = [float(part.mean()) for part in found]
        if len(found) == count and (not leader or np.mean(each) > np.mean(leader)):
            leader = each
    place = {arm.name: number for number, arm in enumerate(ordered)}
    # max() keeps the first of equals, so ties fall to the documented order.
    candidates.sort(key=lambda row: place[row["arm"]])
    whole_rows = [row for row in candidates if row["folds"] == count]
    best = max(whole_rows, key=lambda row: goodness[row["arm"]])
    reason = (
        f"{task.goal.best(best['score'])} in {int(folds.max()) + 1}-fold cross-validation "
        f"on the {len(rows)} labelled images"
    )
    return {"name": best["arm"], "reason": reason, "candidates": candidates}
