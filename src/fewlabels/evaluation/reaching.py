"""How long an arm took at most until it was as good as the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fewlabels.evaluation.metrics import LOWER_IS_BETTER


def time_to_baseline(
    cells: Sequence[Mapping[str, Any]], arms: Sequence[str], baseline: str, *, metric: str
) -> list[dict[str, Any]]:
    """Return within how many seconds each arm reached the mean score of the baseline.

    An arm that ends at or above the baseline has reached it by the seconds its own cells took,
    pre-training included. When within that time it did is not known, since no cell is scored
    before its end: the number is an upper bound. Whether the difference is more than chance is
    what the verdicts say.

    Returns
    -------
    list of dict
        ``arm``, ``baseline``, ``shots``, ``seconds`` (None where the arm ends below the
        baseline) and ``baseline_seconds``; means over the cells that did not fail.

    Examples
    --------
    >>> cells = [{"arm": "a", "accuracy": 0.8, "seconds": 9.0}]
    >>> cells += [{"arm": "b", "accuracy": 0.7, "seconds": 30.0}]
    >>> cells = [cell | {"shots": 4, "failed": None} for cell in cells]
    >>> time_to_baseline(cells, ["a", "b"], "b", metric="accuracy")
    [{'arm': 'a', 'baseline': 'b', 'shots': 4, 'seconds': 9.0, 'baseline_seconds': 30.0}]
    """
    sign = -1 if metric in LOWER_IS_BETTER else 1
    means = _means(cells, metric)
    rows: list[dict[str, Any]] = []
    for arm in arms:
        for shots in sorted({key[1] for key in means}):
            mine, theirs = means.get((arm, shots)), means.get((baseline, shots))
            if arm == baseline or mine is None or theirs is None:
                continue
            reached = sign * mine[0] >= sign * theirs[0]
            row = {"arm": arm, "baseline": baseline, "shots": shots}
            row |= {"seconds": mine[1] if reached else None, "baseline_seconds": theirs[1]}
            rows.append(row)
    return rows


def _means(
    cells: Sequence[Mapping[str, Any]], metric: str
) -> dict[tuple[str, int], tuple[float, float]]:
    """Return mean score and seconds by arm and shots."""
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for cell in cells:
        if not cell["failed"] and cell[metric] is not None:
            found.setdefault((cell["arm"], cell["shots"]), []).append(
                (cell[metric], cell["seconds"])
            )
    return {
        key: (float(score), float(seconds))
        for key, pairs in found.items()
        for score, seconds in [np.mean(pairs, axis=0)]
    }
