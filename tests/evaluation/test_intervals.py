"""Intervals cover what they say, and agree with independent formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fewlabels.evaluation.intervals import bootstrap, clustered, crossed, wilson
from fewlabels.evaluation.variances import one_way, plus

TRUTH = 0.03


def covers(found) -> bool:
    return found.low <= TRUTH <= found.high


def table(rng, p: int, draws: int, sds: tuple[float, float, float]) -> np.ndarray:
    seeds, labels, rest = sds
    return (
        TRUTH
        + seeds * rng.normal(size=(p, 1))
        + labels * rng.normal(size=(1, draws))
        + rest * rng.normal(size=(p, draws))
    )


@pytest.mark.parametrize(
    "sds", [(0.02, 0.0, 0.005), (0.0, 0.02, 0.01), (0.02, 0.02, 0.02), (0.0, 0.0, 0.02)]
)
def test_crossed_intervals_cover_the_truth(sds):
    rng = np.random.default_rng(0)
    hits = [covers(crossed(table(rng, 3, 10, sds))) for _ in range(800)]
    assert np.mean(hits) >= 0.93


def test_draws_that_share_an_encoder_are_not_independent():
    """The t interval over all 30 cells, which many papers print, does not cover."""
    rng = np.random.default_rng(0)
    tables = [table(rng, 3, 10, (0.02, 0.0, 0.01)) for _ in range(400)]
    naive = [stats.ttest_1samp(t.ravel(), TRUTH).pvalue > 0.05 for t in tables]
    assert np.mean(naive) < 0.7
    assert np.mean([covers(crossed(t)) for t in tables]) >= 0.93


def test_test_images_are_a_source_of_variance():
    """All cells see the same 200 test images: their luck is in every one of them."""
    rng = np.random.default_rng(0)
    hits, blind = [], []
    for _ in range(400):
        images = TRUTH + 0.3 * rng.normal(size=200)
        cells = table(rng, 3, 10, (0.005, 0.005, 0.005)) - TRUTH + images.mean()
        hits.append(covers(crossed(cells, image_differences=images)))
        blind.append(covers(crossed(cells)))
    assert np.mean(hits) >= 0.93
    assert np.mean(blind) < 0.6


def test_clustered_intervals_cover_the_truth_for_independent_clusters():
    rng = np.random.default_rng(0)
    means = TRUTH + 0.02 * rng.normal(size=(1000, 10))
    assert np.mean([covers(clustered(row, overlap=0.0)) for row in means]) >= 0.93


def test_overlapping_splits_need_the_correction():
    """Splits of one data set share its luck: correlation n_test / (n_test + n_train)."""
    rng = np.random.default_rng(0)
    shared, own = np.sqrt(0.2), np.sqrt(0.8)  # overlap 0.25
    noise = shared * rng.normal(size=(1000, 1)) + own * rng.normal(size=(1000, 10))
    means = TRUTH + 0.02 * noise
    assert np.mean([covers(clustered(row, overlap=0.25)) for row in means]) >= 0.93
    assert np.mean([covers(clustered(row, overlap=0.0)) for row in means]) < 0.85


def test_splits_that_agree_to_the_image_are_not_certain():
    """One image more in each of three splits: their equality is rounding, not knowledge."""
    n = 197
    one = (1 / n) * (1 - 1 / n) / n
    found = clustered(np.full(3, 1 / n), image_variance=one)
    assert found.se > 0.1 / n
    assert found.low > 0  # at 95 % one may say so,
    assert 2 * stats.t.sf(found.value / found.se, found.df) > 0.02  # as one of 24 tests not


def test_clustered_without_overlap_is_the_t_interval():
    values = np.random.default_rng(0).normal(size=7)
    found = clustered(values, overlap=0.0)
    low, high = stats.t.interval(0.95, 6, loc=values.mean(), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_one_seed_or_one_draw_is_the_t_interval_of_the_rest():
    values = np.random.default_rng(0).normal(size=8)
    expected = stats.t.interval(0.95, 7, loc=values.mean(), scale=stats.sem(values))
    row, column = crossed(values[None, :]), crossed(values[:, None])
    assert (row.low, row.high) == pytest.approx(expected)
    assert (column.low, column.high) == pytest.approx(expected)
    assert "label draw" in column.note


def test_crossed_agrees_with_a_two_way_analysis_of_variance():
    """Components from the textbook's expected mean squares, where none is negative.

    The standard error raises mean squares of few degrees of freedom and takes more from them.
    """
    cells = table(np.random.default_rng(3), 4, 6, (0.05, 0.05, 0.01))
    rows, columns = cells.mean(axis=1), cells.mean(axis=0)
    ss_rows = 6 * ((rows - cells.mean()) ** 2).sum()
    ss_columns = 4 * ((columns - cells.mean()) ** 2).sum()
    ss_rest = ((cells - cells.mean()) ** 2).sum() - ss_rows - ss_columns
    rest = ss_rest / 15
    seeds, draws = (ss_rows / 3 - rest) / 6, (ss_columns / 5 - rest) / 4
    assert min(seeds, draws) > 0
    found = crossed(cells)
    told = (found.components.pretraining, found.components.draws, found.components.rest)
    assert told == pytest.approx(np.sqrt([seeds, draws, rest]))
    high = [ss_rows / (3 - 0.7), ss_columns / (5 - 0.7)]
    assert found.se == pytest.approx(np.sqrt((sum(high) - 2 * 1.5 * rest + rest) / 24))


def test_a_single_cell_or_split_has_no_interval():
    assert np.isnan(crossed(np.array([[0.5]])).low)
    assert "one split" in clustered(np.array([0.5])).note
    assert np.isnan(clustered(np.array([0.5])).se)


def test_rounding_is_not_spread():
    assert crossed(np.array([[0.1 + 0.2, 0.3, 0.3]])).se == 0.0


def test_detectable_differences_are_found_at_the_promised_rate():
    """What is printed, in the median of many comparisons, is found in four of five."""
    rng = np.random.default_rng(0)
    designs = {
        "3 splits": lambda gain: clustered(gain + rng.normal(size=3), overlap=0.0),
        "10 splits": lambda gain: clustered(gain + rng.normal(size=10), overlap=0.0),
        "3 seeds": lambda gain: crossed(gain + table(rng, 3, 10, (1, 0.1, 0.1)) - TRUTH),
        "as on CIFAR-10": lambda gain: crossed(gain + table(rng, 3, 10, (0.5, 1.5, 0.4)) - TRUTH),
        "5 of equal": lambda gain: crossed(gain + table(rng, 5, 10, (1, 1, 0.4)) - TRUTH),
    }
    for kind, trial in designs.items():
        printed = np.median([trial(0.0).detectable for _ in range(600)])
        found = [trial(printed).low > 0 for _ in range(600)]
        assert 0.75 < np.mean(found) < 0.86, kind


def test_crossed_refuses_what_is_no_table():
    with pytest.raises(ValueError, match="shape"):
        crossed(np.zeros(3))


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (3, 17), (372, 400)])
def test_wilson_agrees_with_scipy(k, n):
    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((expected.low, expected.high))


def test_degrees_of_freedom_of_a_sum_are_welchs():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 6), rng.normal(0, 3, 11)
    known = plus(one_way(a.var(ddof=1), 6), float(b.var(ddof=1)) / 11, 10)
    found = stats.ttest_ind(a, b, equal_var=False)
    assert known.df == pytest.approx(found.df)
    assert (a.mean() - b.mean()) / np.sqrt(known.value) == pytest.approx(found.statistic)


def test_the_bootstrap_agrees_with_scipys():
    values = np.random.default_rng(0).exponential(size=40)
    found = bootstrap(
        lambda rows: {"mean": float(values[rows].mean())}, np.zeros(40, int), resamples=4000
    )["mean"]
    rng = np.random.default_rng(1)
    other = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=rng)
    interval = other.confidence_interval
    assert found == pytest.approx((interval.low, interval.high), abs=0.03)


def test_the_bootstrap_keeps_the_class_counts():
    strata = np.array([1, 0, 1, 1, 2])
    seen = []

    def count(rows):
        seen.append(np.bincount(strata[rows], minlength=3).tolist())
        return {"x": float(rows.sum())}

    bootstrap(count, strata, resamples=20)
    assert seen == [[1, 3, 1]] * 20
