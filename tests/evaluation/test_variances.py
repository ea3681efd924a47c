"""What a difference must exceed: alone, and among many where the far tails decide."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from fewlabels.evaluation.components import mean_squares
from fewlabels.evaluation.variances import (
    detectable,
    median_unbiased,
    missed,
    one_way,
    over_splits,
    plus,
    quantile_of,
    reach,
    spread_out,
    sure_p,
    two_way,
    two_way_ahead,
)


def test_a_mean_square_is_raised_to_its_median():
    rng = np.random.default_rng(0)
    for df in (1, 2, 9):
        squares = median_unbiased(rng.chisquare(df, 4000) / df, df)
        assert np.mean(squares < 1) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("df", [1, 2, 4.5, 30])
def test_quantiles_and_medians_are_scipys(df):
    assert quantile_of(df, 0.01) == pytest.approx(stats.t.ppf(0.995, df))
    assert median_unbiased(2.0, df) == pytest.approx(2 * df / stats.chi2.median(df))


def drawn(rng, p, draws, seeds, labels, rest):
    return (
        seeds * rng.normal(size=(p, 1))
        + labels * rng.normal(size=draws)
        + rest * rng.normal(size=(p, draws))
    )


@pytest.mark.parametrize("sds", [(1, 1, 0.2), (0.5, 0.0, 0.4), (0.5, 1.5, 0.4)])
def test_among_many_tests_it_errs_no_more_often_than_it_may(sds):
    """Where the sum's own quantile errs five times too often, three seeds by twenty draws."""
    rng = np.random.default_rng(0)
    alpha, wrong, short = 0.004, 0, 0
    for _ in range(4000):
        table = drawn(rng, 3, 20, *sds)
        known = two_way(mean_squares(table), 3, 20)
        wrong += table.mean() ** 2 > reach(known, alpha, corrected=True).value
        short += table.mean() ** 2 > reach(known, alpha).value
    assert wrong / 4000 <= stats.binom.ppf(0.999, 4000, alpha) / 4000
    if sds == (1, 1, 0.2):
        assert short / 4000 > 2 * alpha


@pytest.mark.parametrize("difference", [0.3, 1.0, -4.0, 30.0])
def test_the_sure_p_is_the_rate_at_which_the_difference_is_just_decided(difference):
    known = plus(two_way((6.0, 4.0, 1.0), 3, 8), 0.01, 400)
    p = sure_p(difference, known)
    assert 0 < p < 1
    assert reach(known, p, corrected=True).value == pytest.approx(difference**2, rel=1e-6)
    by_hand = stats.t.ppf(1 - p / 2, 2) ** 2 * 6 / 24 + stats.t.ppf(1 - p / 2, 7) ** 2 * 4 / 24
    by_hand += stats.t.ppf(1 - p / 2, 400) ** 2 * 0.01
    assert by_hand == pytest.approx(difference**2, rel=1e-4)


def test_with_a_single_source_it_is_the_t_test():
    values = np.random.default_rng(0).normal(0.4, 1, 8)
    known = one_way(values.var(ddof=1), 8)
    assert sure_p(values.mean(), known) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert sure_p(0.0, known) == 1.0
    assert math.isnan(sure_p(0.1, one_way(0.0, 8)))
    assert sure_p(1e300, plus(known, 1.0)) == 0.0
    assert sure_p(1e-17, plus(known, 1.0)) == 1.0


def test_power_among_many_is_as_it_is_told():
    """A difference that is found four times of five at the level of the hardest of 18 tests."""
    rng = np.random.default_rng(0)
    sds = (0.5, 1.5, 0.4)
    seeds, labels, rest = (sd**2 for sd in sds)
    known = two_way_ahead((rest + 10 * seeds, rest + 5 * labels, rest), 5, 10)
    size = detectable(known, 0.05 / 18, corrected=True)
    assert size > detectable(known, 0.05 / 18) > detectable(known)
    found = 0
    for _ in range(2000):
        table = size + drawn(rng, 5, 10, *sds)
        own = two_way(mean_squares(table), 5, 10)
        found += sure_p(float(table.mean()), own) <= 0.05 / 18
    assert found / 2000 == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize(("p", "draws"), [(2, 10), (3, 10), (5, 10), (5, 20)])
def test_a_source_that_is_not_there_hardly_widens_and_one_that_is_small_is_not_lost(p, draws):
    """Mean squares are drawn for themselves; the mean's own chance is counted exactly."""
    rng = np.random.default_rng(0)
    n, held = 20_000, {}
    for seeds, labels in ((0, 0), (0.1, 0.1), (0.1, 1), (1, 1), (3, 0.3), (30, 30)):
        rows, columns = 1 + draws * seeds, 1 + p * labels
        sizes = ((rows, p - 1), (columns, draws - 1), (1, (p - 1) * (draws - 1)))
        squares = tuple(e * rng.chisquare(df, n) / df for e, df in sizes)
        half = np.sqrt(reach(two_way(squares, p, draws)).value)
        sd = np.sqrt((rows + columns - 1) / (p * draws))
        held[seeds, labels] = float(np.mean(2 * stats.norm.cdf(half / sd) - 1))
    assert min(held.values()) > 0.93
    if p > 3:  # where it took each mean square for its own source, 0.995
        assert held[0, 0] < 0.976


@pytest.mark.parametrize("df", [2, 9])
def test_what_is_likely_of_a_single_source_is_the_noncentral_t(df):
    known = one_way(df + 1.0, df + 1)
    for alpha in (0.05, 0.002):
        exact = detectable(known, alpha)
        assert detectable(spread_out(known), alpha) == pytest.approx(exact, rel=0.02)
        assert missed(exact, spread_out(known), alpha) == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("sds", [(0.5, 1.5, 0.4), (1, 1, 1), (1, 1, 0.2), (0, 0, 1)])
def test_of_several_sources_what_is_told_to_be_found_is(sds):
    """Where the noncentral t of Satterthwaite's degrees of freedom promises too much."""
    rng = np.random.default_rng(0)
    seeds, labels, rest = (sd**2 for sd in sds)
    p, n = 3, 20
    true = (rest + n * seeds, rest + p * labels, rest)
    size, short = detectable(two_way_ahead(true, p, n)), detectable(two_way(true, p, n))
    found = [e * rng.chisquare(d, 4000) / d for e, d in zip(true, (2, 19, 38), strict=True)]
    half = np.sqrt(reach(two_way((found[0], found[1], found[2]), p, n)).value)
    sd = np.sqrt((true[0] + true[1] - true[2]) / (p * n))
    assert stats.norm.cdf((size - half) / sd).mean() == pytest.approx(0.8, abs=0.015)
    assert stats.norm.cdf((short - half) / sd).mean() < 0.785


def test_arrays_are_told_one_by_one():
    many = over_splits(np.array([1.0, 4.0]), 0.1, np.array([3, 10]))
    single = [over_splits(1.0, 0.1, 3), over_splits(4.0, 0.1, 10)]
    for corrected in (False, True):
        together = missed(2.0, many, corrected=corrected)
        apart = [float(missed(2.0, one, corrected=corrected)) for one in single]
        assert together == pytest.approx(apart)
