"""Components of variance against least squares, and against a truth that is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from fewlabels.evaluation.components import mean_squares, of_splits, of_table


def made(rng, p, draws, seeds, labels, rest):
    return (
        seeds * rng.normal(size=(p, 1))
        + labels * rng.normal(size=(1, draws))
        + rest * rng.normal(size=(p, draws))
    )


def explained(columns, values):
    """Return the sum of squares that a regression on indicator columns explains."""
    fitted = columns @ np.linalg.lstsq(columns, values, rcond=None)[0]
    return float(((fitted - values.mean()) ** 2).sum())


@pytest.mark.parametrize("seed", range(3))
def test_the_moments_are_those_of_a_regression_on_indicators(seed):
    table = made(np.random.default_rng(seed), 4, 6, 1.0, 1.0, 0.2)
    seeds, draws = np.indices(table.shape).reshape(2, -1)
    by_seed, by_draw = np.eye(4)[seeds], np.eye(6)[draws]
    values = table.ravel()
    ss_seeds, ss_draws = explained(by_seed, values), explained(by_draw, values)
    both = explained(np.hstack([by_seed, by_draw]), values)
    rest = (float(((values - values.mean()) ** 2).sum()) - both) / 15
    found = of_table(table)
    assert found.rest == pytest.approx(math.sqrt(rest))
    assert found.pretraining == pytest.approx(math.sqrt((ss_seeds / 3 - rest) / 6))
    assert found.draws == pytest.approx(math.sqrt((ss_draws / 5 - rest) / 4))


def test_they_estimate_what_was_put_in():
    rng = np.random.default_rng(0)
    found = [of_table(made(rng, 5, 12, 2.0, 1.0, 0.5)) for _ in range(400)]
    for name, truth in (("pretraining", 2.0), ("draws", 1.0), ("rest", 0.5)):
        squares = [getattr(one, name) ** 2 for one in found]
        assert np.mean(squares) == pytest.approx(truth**2, rel=0.1), name


def test_what_is_not_there_is_zero_and_never_below():
    rng = np.random.default_rng(0)
    found = [of_table(made(rng, 3, 8, 0.0, 0.0, 1.0)) for _ in range(200)]
    assert min(one.pretraining for one in found) == 0.0
    assert np.mean([one.pretraining == 0 for one in found]) > 0.4


def test_what_was_not_repeated_is_unknown():
    row = of_table(np.array([[1.0, 2.0, 4.0]]))
    assert row.draws == pytest.approx(np.std([1, 2, 4], ddof=1))
    assert math.isnan(row.pretraining)
    assert math.isnan(row.rest)
    column = of_table(np.array([[1.0], [2.0]]), images=0.04)
    assert (column.pretraining, column.images) == pytest.approx((math.sqrt(0.5), 0.2))
    assert math.isnan(column.draws)
    assert math.isnan(of_table(np.ones((1, 1))).draws)
    assert math.isnan(of_splits([np.ones(3)]).splits)


def test_splits_and_the_draws_within_them():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(400):
        groups = [3.0 * rng.normal() + 2.0 * rng.normal(size=size) for size in (2, 2, 3, 3, 2)]
        found.append(of_splits(groups))
    assert np.mean([one.splits**2 for one in found]) == pytest.approx(9, rel=0.12)
    assert np.mean([one.draws**2 for one in found]) == pytest.approx(4, rel=0.12)
    single = of_splits([np.array([1.0]), np.array([3.0])])
    assert single.splits == pytest.approx(math.sqrt(2))
    assert math.isnan(single.draws)


def test_splits_are_those_of_a_one_way_analysis_of_variance():
    groups = np.random.default_rng(0).normal(size=(5, 1)) + np.random.default_rng(1).normal(
        size=(5, 4)
    )
    found, ratio = of_splits(list(groups)), stats.f_oneway(*groups).statistic
    assert found.draws**2 == pytest.approx(groups.var(axis=1, ddof=1).mean())
    assert 1 + 4 * found.splits**2 / found.draws**2 == pytest.approx(ratio)


def test_many_tables_are_told_one_by_one():
    tables = np.random.default_rng(0).normal(size=(3, 4, 6))
    together = np.transpose(mean_squares(tables))
    assert together == pytest.approx(np.array([mean_squares(table) for table in tables]))
