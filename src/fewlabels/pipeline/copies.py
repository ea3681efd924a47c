"""Scores on the held-out images of which no copy, exact or near, was there to learn from."""

from __future__ import annotations

from typing import Any

import numpy as np

from fewlabels.data.dataset import Dataset
from fewlabels.data.leaks import copied
from fewlabels.pipeline.goals import goal_of

_LONG = ("n", "per_class", "confusion", "pairs", "target")  # told for all images alone


def scored(dataset: Dataset, rows: np.ndarray, predictions: np.ndarray) -> dict[str, Any]:
    """Return the scores of `evaluate`, on all images and on those without a copy in training.

    Parameters
    ----------
    dataset : Dataset
    rows : ndarray
        Held-out rows of one split.
    predictions : ndarray
        As `fewlabels.pipeline.stages.score` gives them, row for row.

    Returns
    -------
    dict
        As the goal's `scores`, and ``without_near_duplicates``: ``left_out``, ``n`` and scores;
        None where no image has a copy in an earlier split that is in use.
    """
    goal, twice = goal_of(dataset), copied(dataset, rows)
    found = goal.scores(rows, predictions)
    if not twice.any():
        return {**found, "without_near_duplicates": None}
    without: dict[str, Any] = {"left_out": int(twice.sum()), "n": int((~twice).sum())}
    if not twice.all():
        scores = goal.scores(rows[~twice], predictions[~twice])
        without |= {name: value for name, value in scores.items() if name not in _LONG}
    return {**found, "without_near_duplicates": without}
