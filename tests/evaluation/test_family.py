"""Holm's correction against an independent one, and what it is for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewlabels.evaluation.family import adjust, holm, holm_levels


def step_down(p_values, alpha=0.05):
    """Reject from the smallest p on, each at alpha over those left, until one fails (Holm 1979)."""
    rejected = [False] * len(p_values)
    for place, i in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[i] > alpha / (len(p_values) - place):
            break
        rejected[i] = True
    return rejected


def test_holm_by_hand():
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") -> 0.03 0.06 0.06 0.02
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    with_gap = holm([0.01, math.nan])
    assert with_gap[0] == 0.02
    assert math.isnan(with_gap[1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_adjusted_values_decide_as_the_procedure_does(p_values):
    near = [abs(p * k - 0.05) < 1e-9 for p in p_values for k in range(1, len(p_values) + 1)]
    if any(near):
        return  # on the edge rounding decides
    assert [p <= 0.05 for p in holm(p_values)] == step_down(p_values)


@pytest.mark.parametrize("seed", range(5))
def test_levels_are_those_of_the_ranks(seed):
    p_values = np.random.default_rng(seed).random(7)
    levels = holm_levels(p_values.tolist())
    assert sorted(levels) == pytest.approx([0.05 / k for k in range(7, 0, -1)])
    assert np.argsort(levels).tolist() == np.argsort(p_values).tolist()
    assert holm_levels([math.nan, 0.2]) == pytest.approx([0.05, 0.025])


def row(p, *, primary=False, difference=0.1):
    return {"p": p, "p_family": p, "primary": primary, "difference": difference}


def test_the_primary_row_stays_outside_the_family():
    rows = adjust([row(0.04, primary=True), row(0.03), row(None, difference=None)])
    assert [r["verdict"] for r in rows[1:]] == ["undecided", "undecided"]
    assert [r["p_holm"] for r in rows] == [0.04, pytest.approx(0.06), None]
    assert [r["level"] for r in rows] == [0.05, 0.025, 0.05]


def test_what_is_worse_hurts():
    rows = adjust([row(0.001), row(0.002, difference=-0.1), row(0.5)])
    assert [r["verdict"] for r in rows] == ["helps", "hurts", "undecided"]


def test_the_family_errs_as_often_as_it_says():
    """Twelve true nulls: some verdict is false in one family of twenty."""
    rng = np.random.default_rng(0)
    false = [min(holm(rng.random(12).tolist())) <= 0.05 for _ in range(2000)]
    assert 0.035 < np.mean(false) < 0.065
