"""The best arm, chosen within the label budget and never on test.

From 4 labels a class (8 labels, where a number is predicted): cross-validation on the labelled
images, the same folds for every arm. Below that no fold can be trusted, and a fixed, documented
order decides.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fewlabels.core.errors import ModelError
from fewlabels.core.seeding import stream
from fewlabels.pipeline.frozen import features
from fewlabels.pipeline.goals import Goal
from fewlabels.pipeline.stages import score
from fewlabels.pipeline.task import Task
from fewlabels.results.files import read_arrays, write_atomic
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


def tried_in_order(arms: Sequence[Arm]) -> list[Arm]:
    """Return the arms as they are cross-validated.

    Frozen features first: they are cheap, and set the mark for the arms that train.
    """
    return sorted(documented(arms), key=lambda arm: arm.trains)


def documented(arms: Sequence[Arm]) -> list[Arm]:
    """Return the arms in the documented order."""
    rank = {name: place for place, name in enumerate(FIXED_ORDER)}
    return sorted(arms, key=lambda arm: rank.get(arm.name, len(rank)))


def until_behind(
    goal: Goal, arm: Arm, scores: Iterable[np.ndarray], leader: Sequence[float]
) -> list[np.ndarray]:
    """Return an arm's fold scores up to where it is clearly behind.

    Training on every fold is dear. An arm that trains and is more than two standard errors
    behind the `leader` (its goodness fold by fold) after some fold is not tried on the rest.

    Parameters
    ----------
    scores : iterable of ndarray
        As `fold_scores`, fold by fold; what is not needed is not asked for.
    """
    found: list[np.ndarray] = []
    for part in scores:
        found.append(part)
        done = np.concatenate(found)
        ahead = float(np.mean(leader[: len(found)])) if leader else -np.inf
        if arm.trains and done.mean() + 2 * goal.error_of(done) < ahead:
            break
    return found


def counted(
    goal: Goal, arms: Sequence[Arm], found: Mapping[str, Sequence[np.ndarray]], folds: int
) -> tuple[dict[str, list[np.ndarray]], list[float]]:
    """Return the fold scores that count for each arm, and the leader's goodness fold by fold.

    The same, whoever computed the scores, in which order, and on how many folds too many.
    """
    used: dict[str, list[np.ndarray]] = {}
    leader: list[float] = []
    for arm in tried_in_order(arms):
        used[arm.name] = until_behind(goal, arm, found[arm.name], leader)
        each = [float(part.mean()) for part in used[arm.name]]
        if len(each) == folds and (not leader or np.mean(each) > np.mean(leader)):
            leader = each
    return used, leader


def choose(
    goal: Goal,
    arms: Sequence[Arm],
    rows: np.ndarray,
    found: Mapping[str, Sequence[np.ndarray]],
    *,
    seed: int,
) -> dict[str, Any]:
    """Choose the best arm from the labels of `rows` alone.

    Parameters
    ----------
    goal : Goal
    arms : sequence of Arm
        Those that may be chosen.
    rows : ndarray
        ``(n,)`` labelled rows.
    found : mapping
        `fold_scores` of each arm, fold by fold, by its name; not read where there are too few
        labels to fold.
    seed : int
        Of the folds.

    Returns
    -------
    dict
        ``name``, ``reason`` and ``candidates`` [{arm, score, low, high, folds}], the score an
        accuracy or, for a number, a mean squared error.
    """
    ordered = documented(arms)
    if len(ordered) == 1 and not found:
        return {"name": ordered[0].name, "reason": "there is no other arm", "candidates": []}
    folds = goal.folds(rows, seed)
    if folds is None:
        reason = f"{goal.few} are too few to choose by, so the documented order decides"
        return {"name": ordered[0].name, "reason": reason, "candidates": []}
    count = len(np.unique(folds))
    used, _ = counted(goal, arms, found, count)
    whole = {name: np.concatenate(parts) for name, parts in used.items() if parts}
    candidates: list[dict[str, Any]] = [
        {"arm": arm.name, **goal.chosen_by(whole[arm.name]), "folds": len(used[arm.name])}
        for arm in ordered
        if arm.name in whole
    ]
    # max() keeps the first of equals, so ties fall to the documented order.
    complete = [row for row in candidates if row["folds"] == count] or candidates
    best = max(complete, key=lambda row: float(whole[row["arm"]].mean()))
    reason = (
        f"{goal.best(best['score'])} in {int(folds.max()) + 1}-fold cross-validation "
        f"on the {len(rows)} labelled images"
    )
    return {"name": best["arm"], "reason": reason, "candidates": candidates}


def save_folds(path: Path, parts: Sequence[np.ndarray]) -> None:
    """Write fold scores; none at all stands for an arm that could not be cross-validated."""
    buffer = io.BytesIO()
    named: dict[str, Any] = {f"fold_{place:03d}": part for place, part in enumerate(parts)}
    np.savez_compressed(buffer, **named)
    write_atomic(path, buffer.getvalue())


def load_folds(path: Path) -> list[np.ndarray] | None:
    """Return stored fold scores, or None where there are none that are sound."""
    try:
        found = read_arrays(path)
        return [np.asarray(found[name], dtype=np.float64) for name in sorted(found)]
    except (ModelError, ValueError):
        return None
