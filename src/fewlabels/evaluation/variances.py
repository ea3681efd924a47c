"""The variance of a mean, how well it is known, and what a test with it sees."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

Floats = npt.NDArray[np.floating]

ALPHA = 0.05
"""Two-sided error rate of intervals and verdicts."""

POWER = 0.8
"""How often a difference of the printed detectable size is found."""


_LEAST, _MOST = -60.0, -1e-12  # logarithms of the p that are told from zero and from one


_LEGENDRE = np.polynomial.legendre.leggauss(16)
_PLACES, _SHARES = (_LEGENDRE[0] + 1) / 2, _LEGENDRE[1] / 2  # of an integral from 0 to 1
_WEIGHTS = np.outer(_SHARES, _SHARES).ravel()


class Part(NamedTuple):
    """A mean square's share in the variance of a mean, with its degrees of freedom."""

    value: Floats
    df: Floats


class Variance(NamedTuple):
    """The variance of a mean; its numbers may be arrays.

    Attributes
    ----------
    value, df
        What intervals and single tests go by, with its degrees of freedom.
    plain, plain_df
        By the mean squares themselves, without the caution that `value` takes.
    parts : tuple of Part
        Independent sources, of which the sum is never less than the variance.
    likely : Variance, optional
        As other experiments of the kind would find it, were `plain` true: along a last axis,
        of which the places weigh `_WEIGHTS`. None where `plain_df` says it.
    """

    value: Floats
    df: Floats
    plain: Floats
    plain_df: Floats
    parts: tuple[Part, ...]
    likely: Variance | None = None


def quantile_of(df: npt.ArrayLike, alpha: float = ALPHA) -> Floats:
    """Return the two-sided t quantile."""
    return -np.asarray(special.stdtrit(df, alpha / 2))


def median_unbiased(square: npt.ArrayLike, df: npt.ArrayLike) -> Floats:
    """Return a mean square raised so that it is as often too small as too large.

    With one or two degrees of freedom it is far too small more often than far too large: an
    interval that took it at its face would be too short exactly then, and be sure of itself.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(square * np.asarray(df) / special.chdtri(df, 0.5))


def one_way(square: npt.ArrayLike, n: npt.ArrayLike) -> Variance:
    """Return the variance of the mean of `n` independent values with this mean square."""
    return of_one(np.asarray(square) / np.asarray(n), np.asarray(n) - 1.0)


def of_one(value: Floats, df: Floats) -> Variance:
    """Return a variance of a single source."""
    return Variance(value, df, value, df, (Part(value, df),))


def _quantiles(df: Floats, axis: int) -> Floats:
    """Return quantiles of a mean square that is 1 on average, along one of two axes in a row."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = special.chdtri(df[..., None], 1 - _PLACES) / df[..., None]
    size = len(_PLACES)
    return np.repeat(found, size, -1) if axis == 0 else np.tile(found, size)


def spread_out(known: Variance) -> Variance:
    """Return a variance of a single source with what is `likely` of it."""
    value = np.asarray(known.value)[..., None] * _quantiles(np.asarray(known.df), 0)
    return known._replace(likely=of_one(value, np.asarray(known.df)[..., None]))


def two_way(
    squares: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike],
    seeds: npt.ArrayLike,
    draws: npt.ArrayLike,
) -> Variance:
    """Return the variance of the mean of a crossed table, rows and columns both random.

    What seeds or draws add is what their mean square has beyond the rest's. For intervals it is
    raised first, to a little over `median_unbiased`, since of few degrees of freedom it is mostly
    too small; and one and a half times the rest's is taken from it, or a source that is not there
    would count for what luck makes of it. Not of a single degree of freedom, which hides too much.
    How often such intervals hold the truth: ``benchmarks/coverage.csv``.

    Parameters
    ----------
    squares : tuple
        Mean squares of seeds, of draws and of the rest: observed or expected.
    seeds, draws
        Their numbers, 2 or more.
    """
    rows, columns, rest = (np.asarray(square, np.float64) for square in squares)
    p, n = np.asarray(seeds, np.float64), np.asarray(draws, np.float64)
    raised = tuple(square * df / (df - 0.7) for square, df in ((rows, p - 1), (columns, n - 1)))
    taken = tuple(np.where(df > 1, 1.5, 1.0) * rest for df in (p - 1, n - 1))
    parts = Part(rows / (p * n), p - 1), Part(columns / (p * n), n - 1)
    value = _sum_of(raised, taken, rest, p, n)
    plain = _sum_of((rows, columns), (rest, rest), rest, p, n)
    return Variance(*value, *plain, parts)


def two_way_ahead(
    squares: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike],
    seeds: npt.ArrayLike,
    draws: npt.ArrayLike,
) -> Variance:
    """Return what `two_way` does, and what is `likely` to be found if the squares are true."""
    rows, columns, rest = (np.asarray(square, np.float64)[..., None] for square in squares)
    p, n = np.asarray(seeds, np.float64), np.asarray(draws, np.float64)
    found = np.maximum(rows, rest) * _quantiles(p - 1, 0)
    others = np.maximum(columns, rest) * _quantiles(n - 1, 1)
    likely = two_way((found, others, rest), p[..., None], n[..., None])
    return two_way(squares, seeds, draws)._replace(likely=likely)


def _sum_of(
    squares: tuple[Floats, ...], taken: tuple[Floats, ...], rest: Floats, p: Floats, n: Floats
) -> tuple[Floats, Floats]:
    # The mean of p n cells has the variance (E[rows] - rest + E[columns] - rest + rest) / p n
    # (Scheffe 1959, ch. 7). Degrees of freedom are Satterthwaite's, of what counts.
    own = [np.maximum(square - less, 0.0) for square, less in zip(squares, taken, strict=True)]
    total = own[0] + own[1] + rest
    with np.errstate(divide="ignore", invalid="ignore"):
        counted = [np.where(more > 0, (more + rest) ** 2, 0.0) for more in own]
        below = counted[0] / (p - 1) + counted[1] / (n - 1) + rest**2 / ((p - 1) * (n - 1))
        df = np.where(below > 0, total**2 / below, p * n - 1)
    return total / (p * n), np.clip(df, np.minimum(p, n) - 1, p * n - 1)


def over_splits(spread: npt.ArrayLike, shared: npt.ArrayLike, splits: npt.ArrayLike) -> Variance:
    """Return the variance of a mean over splits that share some of it, however many they are."""
    count = np.asarray(splits)
    return of_one(np.asarray(spread) / count + np.asarray(shared), count - 1.0)


def plus(known: Variance, more: npt.ArrayLike, df: float = math.inf) -> Variance:
    """Return a variance with an independent one added."""
    more = np.asarray(more, np.float64)

    def summed(value: Floats, own: Floats) -> tuple[Floats, Floats]:
        with np.errstate(divide="ignore", invalid="ignore"):
            below = value**2 / own + more**2 / df
            return value + more, np.where(below > 0, (value + more) ** 2 / below, own)

    parts = (*known.parts, Part(more, np.asarray(df)))
    likely = plus(known.likely, more[..., None], df) if known.likely else None
    one, plain = summed(known.value, known.df), summed(known.plain, known.plain_df)
    return Variance(*one, *plain, parts, likely)


def reach(known: Variance, alpha: float = ALPHA, *, corrected: bool = False) -> Part:
    """Return the square of what a difference must exceed to be decided, and how well it is known.

    A single test takes the t quantile of the sum. A test among many needs the far tails, where
    that is too short with few seeds: a mean square that happens to be small then makes its own
    few degrees of freedom forgotten. So each source takes the quantile of its own
    (Banerjee 1961), which errs no more often than `alpha`, however small.

    Returns
    -------
    Part
        Whose degrees of freedom are those of a scaled chi-square with its variance.
    """
    if not corrected:
        return Part(quantile_of(known.df, alpha) ** 2 * known.value, known.plain_df)
    terms = [quantile_of(part.df, alpha) ** 2 * part.value for part in known.parts]
    total = np.sum(np.broadcast_arrays(*terms), axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        below = sum(term**2 / part.df for term, part in zip(terms, known.parts, strict=True))
        df = np.where(below > 0, total**2 / below, known.plain_df)
    return Part(np.asarray(total), df)


def sure_p(difference: float, known: Variance) -> float:
    """Return the least error rate at which a test among many decides a difference.

    Examples
    --------
    >>> round(sure_p(2.262157, one_way(10.0, 10)), 6)
    0.05
    """
    if not difference or not known.plain > 0:
        return 1.0 if not difference else math.nan
    if len(known.parts) == 1:
        return float(2 * special.stdtr(known.df, -abs(difference) / np.sqrt(known.value)))

    values, freedom = np.array([(part.value, part.df) for part in known.parts], np.float64).T
    least = 2 * math.log(abs(difference))

    def off(exponent: float) -> float:
        # What `reach` gives: it is asked dozens of times.
        short = float(values @ special.stdtrit(freedom, 10.0**exponent / 2) ** 2)
        return math.log(max(short, 1e-300)) - least

    if off(_LEAST) <= 0:
        return 0.0
    if off(_MOST) >= 0:  # a difference of rounding alone
        return 1.0
    return float(10.0 ** optimize.brentq(off, _LEAST, _MOST, xtol=1e-10))


def missed(
    difference: float, known: Variance, alpha: float = ALPHA, *, corrected: bool = False
) -> Floats:
    """Return how often a test fails to find a true difference.

    Of a single source the statistic is a noncentral t. Of several it is summed up over what is
    likely to be found of them. That the test falls to the wrong side is left out.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        if known.likely:
            least = np.sqrt(reach(known.likely, alpha, corrected=corrected).value)
            steps = (least - difference) / np.sqrt(known.plain)[..., None]
            return np.asarray(special.ndtr(steps) @ _WEIGHTS)
        own = reach(known, alpha, corrected=corrected)
        threshold = np.sqrt(own.value / known.plain)
        steps = np.minimum(difference / np.sqrt(known.plain), 1e4)
        return np.asarray(special.nctdtr(own.df, steps, threshold))


def detectable(known: Variance, alpha: float = ALPHA, *, corrected: bool = False) -> float:
    """Return the true difference that a test finds with `POWER`.

    Examples
    --------
    >>> round(detectable(one_way(10.0, 10)), 3)
    3.15
    """
    if not known.plain > 0:
        return 0.0
    sd = math.sqrt(known.plain)
    if known.likely:
        halves = np.sqrt(reach(known.likely, alpha, corrected=corrected).value)

        def off(difference: float) -> float:
            return float(special.ndtr((halves - difference) / sd) @ _WEIGHTS) - (1 - POWER)

        return float(optimize.brentq(off, 0.0, float(halves.max()) + 9 * sd, rtol=1e-9))
    least = reach(known, alpha, corrected=corrected)
    threshold = math.sqrt(least.value / known.plain)
    return float(special.nctdtrinc(least.df, 1 - POWER, threshold)) * sd


def least_visible(sd: float, alpha: float = ALPHA) -> float:
    """Return the detectable difference where the standard error is known: of a normal test.

    Examples
    --------
    >>> round(least_visible(1.0), 3)
    2.802
    """
    return float(special.ndtri(1 - alpha / 2) + special.ndtri(POWER)) * sd
