"""A comparison's scores on the test images of which no copy was there to learn from.

They come from what every cell has kept of each test image, so that nothing is computed anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fewlabels.data.leaks import copied
from fewlabels.pipeline.task import Task
from fewlabels.study.cells import load_predicted, load_scores
from fewlabels.study.grid import Comparison


def without_copies(comparison: Comparison) -> dict[str, Any] | None:
    """Return each arm's mean score without the test images that have a copy in training.

    Returns
    -------
    dict or None
        ``left_out`` and ``n``, test images over all splits, and ``rows``; None where no test
        image has a copy, exact or near, in train or val.
    """
    tasks = {unit.split: comparison.own(unit) for unit in comparison.units}
    clean = {split: _clean(task) for split, task in tasks.items()}
    left_out = sum(int((~mask).sum()) for mask in clean.values())
    if not left_out:
        return None
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    metric = comparison.settings.metric
    for cell in comparison.cells:
        split = cell["streams"]["split"]
        if not cell["failed"] and clean[split].any():
            score = _score(comparison, tasks[split], cell["id"], clean[split])
            if score is not None:
                pairs = found.setdefault((cell["arm"], cell["shots"]), [])
                pairs.append((score, cell[metric]))
    rows = [
        {"arm": arm, "shots": shots, "metric": metric, "mean": mean, "all_images": every}
        for (arm, shots), pairs in found.items()
        for mean, every in [np.mean(pairs, axis=0).tolist()]
    ]
    return {"left_out": left_out, "n": sum(int(m.sum()) for m in clean.values()), "rows": rows}


def _clean(task: Task) -> np.ndarray:
    mask: np.ndarray = ~copied(task.dataset, task.dataset.rows("test"))
    return mask


def _score(comparison: Comparison, task: Task, name: str, clean: np.ndarray) -> float | None:
    """Return the metric of a cell on some of the test images."""
    folder, metric = comparison.folder / "cells", comparison.settings.metric
    scores, predicted = load_scores(folder, name), load_predicted(folder, name)
    if scores is None or predicted is None:
        return None
    if metric == "nll":  # of probabilities, of which a cell keeps this score alone
        return float(scores[clean].mean())
    said = np.eye(task.num_classes)[predicted] if task.num_classes else predicted
    return task.goal.point(task.dataset.rows("test")[clean], said[clean])[metric]
