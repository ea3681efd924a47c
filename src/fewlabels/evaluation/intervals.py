"""Intervals for one mean: over test images, over crossed seeds, over repeated splits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.floating]

ALPHA = 0.05
"""Two-sided error rate of intervals and verdicts."""

POWER = 0.8
"""How often a difference of the printed detectable size is found."""

RESAMPLES = 1000
"""Bootstrap resamples: the ends of a 95 % interval then move by a tenth of its width."""

OVERLAP = 0.125
"""Test images over training images in the package's own 8:1:1 split."""


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
    """

    value: float
    se: float
    df: float
    low: float
    high: float
    detectable: float
    n: int
    note: str


def estimate(
    value: float, variance: float, df: float, n: int, *, note: str = "", alpha: float = ALPHA
) -> Estimate:
    """Return the t interval of a mean from its variance and degrees of freedom."""
    if not (variance >= 0 and df > 0):
        nan = math.nan
        return Estimate(value, nan, nan, nan, nan, nan, n, note)
    se = math.sqrt(variance)
    if se < ROUNDING * max(1.0, abs(value)):
        se = 0.0
    quantile = float(stats.t.ppf(1 - alpha / 2, df))
    detectable = (quantile + float(stats.t.ppf(POWER, df))) * se
    half = quantile * se
    return Estimate(value, se, df, value - half, value + half, detectable, n, note)


def _join(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _satterthwaite(parts: Sequence[tuple[float, float]], total: float) -> float:
    """Return the degrees of freedom of a sum of variances ``(value, df)``."""
    spread = sum(value**2 / df for value, df in parts if df > 0)
    return total**2 / spread if spread > 0 else sum(df for _, df in parts)


def _mean_squares(table: Floats) -> tuple[float, float, float]:
    """Return the mean squares of rows, columns and the rest of a two-way table."""
    p, draws = table.shape
    rows, columns = table.mean(axis=1), table.mean(axis=0)
    rest = table - rows[:, None] - columns[None, :] + table.mean()
    return (
        draws * float(rows.var(ddof=1)),
        p * float(columns.var(ddof=1)),
        float((rest**2).sum()) / ((p - 1) * (draws - 1)),
    )


def _variance_of_mean(table: Floats) -> tuple[float, float]:
    """Return variance of the mean of a crossed table, and its degrees of freedom."""
    p, draws = table.shape
    if min(p, draws) == 1:
        n = table.size
        return (float(table.var(ddof=1)) / n, n - 1.0) if n > 1 else (math.nan, math.nan)
    seeds, labels, rest = _mean_squares(table)
    # E[seeds + labels - rest] is n times the variance of the mean (Scheffe 1959, ch. 7).
    # The estimate can fall below any one of its parts, even below zero: never believe that.
    total = max(seeds + labels - rest, seeds, labels, rest)
    parts = [(seeds, p - 1.0), (labels, draws - 1.0), (rest, (p - 1.0) * (draws - 1.0))]
    df = _satterthwaite(parts, total)
    return total / table.size, float(np.clip(df, min(p, draws) - 1, table.size - 1))


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
    the wide side. Coverage at the nominal 95 %, simulated: 93-99 % with 3
    seeds and more, 92 % at worst with 2.

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
    variance, df = _variance_of_mean(values)
    if image_differences is not None and len(image_differences) > 1:
        images = float(image_differences.astype(np.float64).var(ddof=1)) / len(image_differences)
        parts = [(variance, df), (images, len(image_differences) - 1.0)]
        variance, df = variance + images, _satterthwaite(parts, variance + images)
    if table.shape[1] == 1 < table.shape[0]:
        note = _join(note, "one label draw: the interval does not cover the choice of labels")
    return estimate(float(values.mean()), variance, df, table.size, note=note, alpha=alpha)


def clustered(
    means: Floats, *, overlap: float = OVERLAP, note: str = "", alpha: float = ALPHA
) -> Estimate:
    """Return the mean over repeated random splits of one data set.

    Random splits share most of their images, so their results agree more than
    independent ones would: the variance is ``s^2 (1/G + n_test/n_train)``
    instead of ``s^2 / G`` (Nadeau and Bengio 2003).

    Parameters
    ----------
    means : ndarray
        ``(G,)``: one mean a split, whatever was repeated inside the split.
    overlap : float
        ``n_test / n_train``; 0 for splits that share no image.
    note : str
    alpha : float
    """
    count = len(means)
    values = means.astype(np.float64)
    if count < 2:
        note = _join(note, "one split: no interval")
        return estimate(float(values.mean()), math.nan, math.nan, count, note=note, alpha=alpha)
    variance = float(values.var(ddof=1)) * (1.0 / count + overlap)
    return estimate(float(values.mean()), variance, count - 1.0, count, note=note, alpha=alpha)


def wilson(successes: float, n: int, alpha: float = ALPHA) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion, honest at 0 and at 1."""
    z2 = float(stats.norm.ppf(1 - alpha / 2)) ** 2
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
