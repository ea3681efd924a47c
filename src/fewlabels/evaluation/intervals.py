"""Intervals for one mean: over test images, over crossed seeds, over repeated splits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy import special

from fewlabels.evaluation.components import Components, mean_squares, of_splits, of_table
from fewlabels.evaluation.variances import (
    ALPHA,
    Variance,
    detectable,
    median_unbiased,
    one_way,
    over_splits,
    plus,
    quantile_of,
    sure_p,
    two_way,
    two_way_ahead,
)

Floats = npt.NDArray[np.floating]

RESAMPLES = 1000
"""Bootstrap resamples: the ends of a 95 % interval then move by a tenth of its width."""

OVERLAP = 0.125
"""Test images over training images in the package's own 8:1:1 split."""

FEWEST = 5
"""Splits for a verdict among many where it is not known what test images account for: the
scores of fewer may agree to the image by luck, and the far tails take that for certainty."""

ROUNDING = 1e-12
"""Relative spread under which values differ by floating-point rounding alone."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its standard error, degrees of freedom and interval.

    Attributes
    ----------
    value : float
    se, df : float
        Standard error and degrees of freedom; nan where nothing was repeated.
    low, high : float
        Interval at `alpha`; nan where the standard error is unknown.
    detectable : float
        The smallest true distance from zero that this design finds with
        80 % power.
    n : int
        Independent units the mean rests on: cells, or splits.
    note : str
        What the interval does not cover, in words; empty if nothing is left out.
    sure_p : float
        Two-sided, of no difference from zero, as a test among many needs it: see
        `variances.reach`; nan where there is too little for one (`FEWEST`).
    components : Components
        Where the standard error comes from.
    """

    value: float
    se: float
    df: float
    low: float
    high: float
    detectable: float
    n: int
    note: str
    sure_p: float = math.nan
    components: Components = field(default_factory=Components)


def estimate(
    value: float,
    known: Variance,
    n: int,
    *,
    usual: Variance | None = None,
    note: str = "",
    alpha: float = ALPHA,
) -> Estimate:
    """Return the t interval of a mean from its variance and degrees of freedom.

    `usual` is as often above the truth as below: the detectable difference goes by it.
    """
    variance, df = float(known.value), float(known.df)
    if not (variance >= 0 and df > 0):
        nan = math.nan
        return Estimate(value, nan, nan, nan, nan, nan, n, note)
    se = math.sqrt(variance)
    if se < ROUNDING * max(1.0, abs(value)):
        return Estimate(value, 0.0, df, value, value, 0.0, n, note, 1.0 if not value else math.nan)
    half = float(quantile_of(df, alpha)) * se
    if usual:
        least = detectable(usual, alpha)
    else:  # with few degrees of freedom the plain one mostly is small
        least = math.sqrt(median_unbiased(1.0, known.plain_df)) * detectable(known, alpha)
    sure = sure_p(value, known)
    return Estimate(value, se, df, value - half, value + half, least, n, note, sure)


def variance_of_mean(images: Floats) -> float:
    """Return the variance of the mean of ``(n,)`` numbers, nan of fewer than two."""
    if len(images) < 2:
        return math.nan
    return float(images.astype(np.float64).var(ddof=1)) / len(images)


def _join(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _variance_of_table(table: Floats) -> tuple[Variance, Variance | None]:
    """Return the variance of the mean of a table, and the usual one; nan of a single cell."""
    p, draws = table.shape
    if table.size == 1:
        return one_way(math.nan, 1), None
    if min(p, draws) == 1:
        return one_way(table.var(ddof=1), table.size), None
    rows, columns, rest = mean_squares(table)
    usual = median_unbiased(rows, p - 1), median_unbiased(columns, draws - 1), rest
    return two_way((rows, columns, rest), p, draws), two_way_ahead(usual, p, draws)


def crossed(
    table: Floats,
    *,
    image_differences: Floats | None = None,
    note: str = "",
    alpha: float = ALPHA,
) -> Estimate:
    """Return the mean over pre-training seeds crossed with label draws.

    Both are random effects: another seed and another draw would have been as
    good. The test images are a third source; its variance is added in full,
    although a part of it is in the residual already, so the interval errs on
    the wide side. What it covers with few seeds is simulated in
    ``benchmarks/coverage.csv``.

    Parameters
    ----------
    table : ndarray
        ``(P, L)``: pre-training seeds by label draws.
    image_differences : ndarray, optional
        ``(n_test,)``: the same quantity for each test image, averaged over the
        cells of the table.
    note : str
        Put before what this function itself has to say.
    alpha : float

    Raises
    ------
    ValueError
        If the table is not ``(P, L)`` with at least one cell.
    """
    if table.ndim != 2 or table.size == 0:
        raise ValueError(f"table must be (P, L) with P, L >= 1, got shape {table.shape}")
    values = table.astype(np.float64)
    (known, usual), images = _variance_of_table(values), math.nan
    if image_differences is not None and len(image_differences) > 1:
        images = variance_of_mean(image_differences)
        df = len(image_differences) - 1
        known, usual = plus(known, images, df), plus(usual, images, df) if usual else None
    if table.shape[1] == 1 < table.shape[0]:
        note = _join(note, "one label draw: the interval does not cover the choice of labels")
    mean = float(values.mean())
    found = estimate(mean, known, table.size, usual=usual, note=note, alpha=alpha)
    return replace(found, components=of_table(values, images))


def clustered(
    groups: Sequence[Floats] | Floats,
    *,
    overlap: float = OVERLAP,
    image_variance: float = math.nan,
    images_alone: bool = True,
    note: str = "",
    alpha: float = ALPHA,
) -> Estimate:
    """Return the mean over repeated random splits of one data set.

    Random splits share images, so their results agree more than independent ones would.
    Nadeau and Bengio (2003) take the variance as ``s^2 (1/G + n_test/n_train)`` instead of
    ``s^2 / G``: what test images share, where all of the spread is due to them. Where it is
    known how much of the spread is due to them, the second term needs no more than that.

    Parameters
    ----------
    groups : sequence of ndarray
        ``G`` splits: the values found in each, of which the means are repeated; or the means.
    overlap : float
        ``n_test / n_train``; 0 for splits that share no image.
    image_variance : float
        Of the mean over the test images of one split; nan where it is not known.
    images_alone : bool
        Whether splits share nothing that varies but test images. Otherwise, and where it is
        not known how much those vary, all of the spread is taken as shared.
    note : str
    alpha : float
    """
    means = np.array([np.mean(group) for group in groups], dtype=np.float64)
    count, value = len(means), float(means.mean())
    if count < 2:
        note = _join(note, "one split: no interval")
        return estimate(value, one_way(math.nan, 1), count, note=note, alpha=alpha)
    # A mean over n images moves in steps of 1/n, and splits may agree by that alone: rounding
    # leaves 1/(12 n^2) unseen (Sheppard 1898), a twelfth of what one image that differs adds.
    unseen = 0.0 if math.isnan(image_variance) else image_variance / 12
    spread = max(float(means.var(ddof=1)), unseen)
    told = images_alone and not math.isnan(image_variance)
    shared = overlap * (min(spread, image_variance) if told else spread)
    found = estimate(value, over_splits(spread, shared, count), count, note=note, alpha=alpha)
    parts = of_splits([np.atleast_1d(g) for g in groups], shared if told else math.nan)
    sure = found.sure_p if told or count >= FEWEST else math.nan
    return replace(found, components=parts, sure_p=sure)


def wilson(successes: float, n: int, alpha: float = ALPHA) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion, honest at 0 and at 1."""
    z2 = float(special.ndtri(1 - alpha / 2)) ** 2
    rate = successes / n
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (rate * (1 - rate) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap(
    statistics: Callable[[npt.NDArray[np.int64]], dict[str, float]],
    strata: npt.NDArray[np.integer],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    alpha: float = ALPHA,
) -> dict[str, tuple[float, float]]:
    """Return percentile intervals, resampling images within their stratum.

    Parameters
    ----------
    statistics : callable
        From ``(n,)`` row numbers to named numbers.
    strata : ndarray
        ``(n,)`` class of each image; every resample keeps the class counts.
    seed, resamples, alpha
        Of the bootstrap; the same seed gives the same interval.
    """
    order = np.argsort(strata, kind="stable")
    _, start, count = np.unique(strata[order], return_index=True, return_counts=True)
    first, size = np.repeat(start, count), np.repeat(count, count)
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(resamples):
        rows = order[first + (rng.random(len(order)) * size).astype(np.int64)]
        draws.append(statistics(rows))
    tails = [alpha / 2, 1 - alpha / 2]
    # Without interpolation, so that an infinite resample stays a rank like any other.
    ends = {k: np.quantile([d[k] for d in draws], tails, method="inverted_cdf") for k in draws[0]}
    return {k: (float(v[0]), float(v[1])) for k, v in ends.items()}
