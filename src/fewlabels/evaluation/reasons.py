"""Why an arm may lose: only what a measurement of its own comparison supports.

Every function says whether one kind of reason is supported, and by which numbers; None where it
is not, or where the numbers are not there. What each rests on, and why they come in this
order: ``docs/decisions/0011-comparisons.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Measured = dict[str, float]
Facts = Mapping[str, Any]
"""What is known of one encoder: ``rank``, ``least_rank``, ``passes``, ``auc``, ``p``."""


def collapsed(encoders: Sequence[Facts]) -> Measured | None:
    """Say whether the features of half of the encoders, or more, span too few directions.

    Returns
    -------
    dict or None
        ``encoders``, ``collapsed`` (how many), ``rank`` (the median of those), ``least_rank``.
    """
    known = _known(encoders, "rank", "least_rank")
    bad = [one for one in known if one["rank"] < one["least_rank"]]
    if not _most(bad, encoders):
        return None
    measured = {"rank": _median(bad, "rank"), "least_rank": _median(bad, "least_rank")}
    return {"encoders": len(encoders), "collapsed": len(bad), **measured}


def short(encoders: Sequence[Facts]) -> Measured | None:
    """Say whether half of the encoders, or more, saw their images less than once over.

    Returns
    -------
    dict or None
        ``encoders``, ``short`` (how many), ``passes`` (the median of those).
    """
    bad = [one for one in _known(encoders, "passes") if one["passes"] < 1]
    if not _most(bad, encoders):
        return None
    return {"encoders": len(encoders), "short": len(bad), "passes": _median(bad, "passes")}


def far(encoders: Sequence[Facts], *, apart: float, level: float) -> Measured | None:
    """Say whether the images of most pre-trainings look like another world than the labelled ones.

    Parameters
    ----------
    apart, level : float
        From which ``auc`` on, and up to which ``p``, they do: those of `fewlabels.data.likeness`.

    Returns
    -------
    dict or None
        ``auc`` and ``p``.
    """
    known = _known(encoders, "auc", "p")
    bad = [one for one in known if one["auc"] >= apart and one["p"] <= level]
    return {name: _median(bad, name) for name in ("auc", "p")} if _most(bad, encoders) else None


def _known(encoders: Sequence[Facts], *names: str) -> list[Facts]:
    return [one for one in encoders if all(one.get(name) is not None for name in names)]


def _most(bad: Sequence[Facts], encoders: Sequence[Facts]) -> bool:
    return bool(bad) and 2 * len(bad) >= len(encoders)


def _median(encoders: Sequence[Facts], name: str) -> float:
    return float(np.median([one[name] for one in encoders]))


def in_other_hands(row: Facts, pairs: Sequence[Facts]) -> Facts | None:
    """Return the pair that says that the same encoder, transferred otherwise, does better.

    Parameters
    ----------
    row : mapping
        The verdict that hurts.
    pairs : sequence of mapping
        Rows of `verdicts.verdict_row` of other arms from the same encoder against this one, of
        those alone that do not lose to the row's baseline.

    Returns
    -------
    mapping or None
        The one with the largest difference, where it is found at the row's own error rate,
        shared out over the pairs.
    """
    found = [p for p in pairs if p["p_family"] is not None and p["difference"] > 0]
    best = max(found, key=lambda pair: pair["difference"], default=None)
    return best if best and best["p_family"] <= row["level"] / len(pairs) else None


def as_untrained(row: Facts, pair: Facts | None) -> Facts | None:
    """Return the pair of an arm and the same on an untrained network, where nothing was gained.

    That is: the arm is not found better, and its interval ends below the size of the loss, so that
    what pre-training may have added is less than what is missing.
    """
    if pair is None or pair["low"] is None or pair["high"] is None:
        return None
    return pair if pair["low"] <= 0 and pair["high"] < -row["difference"] else None
