"""The interval of a repeated cross-validation: folds overlap, and so do their results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fewlabels.evaluation.components import of_splits
from fewlabels.evaluation.intervals import Estimate, estimate
from fewlabels.evaluation.variances import ALPHA, one_way, over_splits

ONE_ENCODER = "one pre-training seed: the interval does not cover pre-training randomness"


def cross_validated(
    folds: Sequence[float],
    *,
    overlap: float,
    encoders: Sequence[float] = (),
    image_variance: float = math.nan,
    note: str = "",
    alpha: float = ALPHA,
) -> Estimate:
    """Return the mean over the folds of a repeated cross-validation, with its interval.

    That of the corrected resampled t test (Nadeau and Bengio 2003; for repeated folds Bouckaert
    and Frank 2004): the variance is ``s^2 (1/(k r) + n_test/n_train)``, with `s` the standard
    deviation of the ``k r`` folds and ``k r - 1`` degrees of freedom. Test images lie in the
    folds, so `s` knows how much they vary, and the second term, which no repeat makes smaller,
    is about what their number leaves open: with ``n_test = n/k`` and nothing but images that
    vary it is ``1/(k-1) k/n``, a little more than the ``1/n`` of independent images.

    Where several folds share an encoder, their number says nothing of encoders: the variance is
    never less than that of the mean over encoders alone, with its own few degrees of freedom.

    Parameters
    ----------
    folds : sequence of float
        ``k r`` scores, or paired differences.
    overlap : float
        ``n_test / n_train``.
    encoders : sequence of float
        Means over the folds of each encoder. One value where all share one, or where nothing
        was pre-trained; as many as folds where each has its own.
    image_variance : float
        Of the mean over the test images of one fold; nan where it is not known.
    note : str
    alpha : float

    Examples
    --------
    >>> found = cross_validated([0.1, 0.0, 0.2, 0.1, 0.1], overlap=0.25)
    >>> round(found.value, 3), round(found.se, 4), found.df
    (0.1, 0.0474, 4.0)
    """
    values = np.asarray(folds, np.float64)
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return estimate(mean, one_way(math.nan, 1), count, note="one fold: no interval")
    # As in `intervals.clustered`: folds of a few images agree by rounding alone.
    unseen = 0.0 if math.isnan(image_variance) else image_variance / 12
    spread = max(float(values.var(ddof=1)), unseen)
    shared = overlap * spread
    known = over_splits(spread, shared, count)
    seeds = len(encoders)
    if 1 < seeds < count:
        among = one_way(np.var(encoders, ddof=1), seeds)
        known = among if among.value > known.value else known
    found = estimate(mean, known, count, note=note, alpha=alpha)
    return replace(found, components=of_splits([np.atleast_1d(v) for v in values], shared))
