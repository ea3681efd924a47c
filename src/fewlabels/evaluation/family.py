"""Many verdicts at once: one declared beforehand, the others corrected as a family (Holm 1979)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from fewlabels.evaluation.variances import ALPHA


def word(difference: float, p: float, alpha: float) -> Literal["helps", "hurts", "undecided"]:
    """Return a verdict; a p that is not known decides nothing."""
    if not p <= alpha:
        return "undecided"
    return "helps" if difference > 0 else "hurts"


def _order(p_values: Sequence[float]) -> list[int]:
    """Return the places from the least p to the largest, the unknown last."""
    return sorted(
        range(len(p_values)), key=lambda i: math.inf if math.isnan(p_values[i]) else p_values[i]
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given.

    A nan (nothing could be tested) stays nan and still counts in the family.

    Examples
    --------
    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    count = len(p_values)
    out, highest = [math.nan] * count, 0.0
    for rank, i in enumerate(_order(p_values)):
        if not math.isnan(p_values[i]):
            highest = max(highest, min(1.0, (count - rank) * p_values[i]))
            out[i] = highest
    return out


def holm_levels(p_values: Sequence[float], alpha: float = ALPHA) -> list[float]:
    """Return the error rate that each p-value must stay under, by its rank, in the order given.

    Examples
    --------
    >>> [round(level, 4) for level in holm_levels([0.01, 0.04, 0.03])]
    [0.0167, 0.05, 0.025]
    """
    count = len(p_values)
    rank = {i: place for place, i in enumerate(_order(p_values))}
    return [alpha / (count - rank[i]) for i in range(count)]


def adjust(rows: list[dict[str, Any]], alpha: float = ALPHA) -> list[dict[str, Any]]:
    """Judge all rows but the primary one as one family, and return them.

    Writes ``p_holm`` and ``verdict`` into each, and ``level``, the error rate at which Holm's
    procedure judges a row of its rank.
    """
    others = [row for row in rows if not row["primary"]]
    p_values = [math.nan if row["p_family"] is None else row["p_family"] for row in others]
    for row, p, level in zip(others, holm(p_values), holm_levels(p_values, alpha), strict=True):
        row["p_holm"], row["level"] = None if math.isnan(p) else p, level
        row["verdict"] = word(row["difference"] or 0.0, p, alpha)
    for row in rows:
        if row["primary"]:
            row["p_holm"], row["level"] = row["p"], alpha
    return rows
