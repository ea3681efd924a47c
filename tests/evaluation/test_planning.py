"""What a design will see: as such cells then show, and as more of them would."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from fewlabels.evaluation.cells import Design
from fewlabels.evaluation.components import Components, of_table
from fewlabels.evaluation.intervals import clustered, crossed
from fewlabels.evaluation.planning import add_more, expected, half_width_forecast, more
from fewlabels.evaluation.variances import detectable, least_visible, missed, one_way

GIVEN = Design("given", 1, 10, 3)
SPREAD = Components(pretraining=0.01, draws=0.02, rest=0.01)


def cells(rng, p, draws, c=SPREAD, mean=0.0):
    return (
        mean
        + c.pretraining * rng.normal(size=(p, 1))
        + c.draws * rng.normal(size=(1, draws))
        + c.rest * rng.normal(size=(p, draws))
    )


def test_the_forecast_is_what_such_cells_then_give():
    rng = np.random.default_rng(0)
    half, detectable = half_width_forecast(GIVEN, SPREAD)
    found = [crossed(cells(rng, 3, 10)) for _ in range(300)]
    assert np.median([one.high - one.value for one in found]) == pytest.approx(half, rel=0.15)
    assert np.median([one.detectable for one in found]) == pytest.approx(detectable, rel=0.15)
    assert half_width_forecast(GIVEN, SPREAD, comparisons=18)[0] > 1.5 * half
    assert math.isnan(half_width_forecast(Design("given", 1, 1, 1), SPREAD)[0])


@pytest.mark.parametrize("shape", [(3, 10), (1, 6), (5, 1), (2, 4)])
def test_with_its_own_components_a_table_is_told_its_own_error(shape):
    """Where no component is cut off at zero, the expectation is the estimate itself."""
    table = cells(np.random.default_rng(3), *shape, Components(draws=3.0, pretraining=2.0, rest=1))
    own = of_table(table)
    p, draws = shape
    known = expected(Design("given", 1, draws, p), own)
    found = crossed(table)
    assert (math.sqrt(known.value), known.df) == pytest.approx((found.se, found.df))


def test_images_are_added_and_no_seed_removes_them():
    known = Components(draws=0.02, images=0.01)
    variance, df, *_ = expected(Design("given", 1, 5, 0), known)
    assert variance == pytest.approx(0.02**2 / 5 + 0.01**2)
    assert df == pytest.approx(4 * (variance / (0.02**2 / 5)) ** 2)
    assert least_visible(known.images) == pytest.approx(
        0.01 * (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)), rel=1e-5
    )


def test_splits_are_told_their_own_error_too():
    groups = [np.array([0.1, 0.2]), np.array([0.4, 0.2]), np.array([0.35, 0.3])]
    found = clustered(groups, overlap=0.125, image_variance=0.002)
    variance, df, *_ = expected(Design("repeated", 3, 6, 3, 0.125), found.components)
    assert (math.sqrt(variance), df) == pytest.approx((found.se, 2))
    blind = clustered(groups, overlap=0.125)
    variance = expected(Design("repeated", 3, 6, 3, 0.125), blind.components).value
    assert math.sqrt(variance) == pytest.approx(blind.se)


@pytest.mark.parametrize("df", [1, 2.5, 9, 60])
def test_the_detectable_difference_is_that_of_the_noncentral_t(df):
    """scipy.stats integrates the density; the package asks for the noncentrality itself."""
    steps = detectable(one_way(df + 1, df + 1))
    assert stats.nct.sf(stats.t.ppf(0.975, df), df, steps) == pytest.approx(0.8, abs=1e-4)
    assert missed(steps, one_way(df + 1, df + 1)) == pytest.approx(0.2, abs=1e-4)


def seen(design, components, level=0.05):
    return detectable(expected(design, components), level)


@pytest.mark.parametrize("level", [0.05, 0.05 / 18])
def test_more_is_the_smallest_number_that_will_do(level):
    c = Components(pretraining=0.004, draws=0.02, rest=0.01, images=0.002)
    difference = 0.016 if level == 0.05 else 0.03
    found = more(difference, GIVEN, c, level)
    assert found["splits"] is None
    least = [n for n in range(200) if seen(Design("given", 1, 10 + n, 3), c, level) <= difference]
    assert found["draws"] == least[0] > 0
    least = [n for n in range(200) if seen(Design("given", 1, 10, 3 + n), c, level) <= difference]
    assert found["pretraining"] == (least[0] if least else None)
    least = [
        n for n in range(200) if seen(Design("given", 1, 10 + n, 3 + n), c, level) <= difference
    ]
    assert found["both"] == least[0]


def test_more_splits_or_more_draws_within_them():
    c = Components(splits=0.02, draws=0.04, images=0.005)
    found = more(0.06, Design("repeated", 3, 6, 3, 0.125), c)
    least = [n for n in range(200) if seen(Design("repeated", 3 + n, 6 + 2 * n, 3 + n), c) <= 0.06]
    assert found["splits"] == least[0]
    least = [n for n in range(200) if seen(Design("repeated", 3, 6 + n, 3), c) <= 0.06]
    assert found["draws"] == (least[0] if least else None)
    assert found["pretraining"] is None


def test_a_corrected_verdict_on_splits_of_which_nothing_is_known_takes_five():
    known, blind = (Components(splits=0.001, draws=0.001, images=i) for i in (0.0001, math.nan))
    design = Design("repeated", 3, 3, 3, 0.125)
    assert more(0.5, design, known, corrected=True)["splits"] == 1
    assert more(0.5, design, blind)["splits"] == 1
    assert more(0.5, design, blind, corrected=True)["splits"] == 2
    assert more(0.5, design, blind, corrected=True)["draws"] is None


def test_what_nothing_can_decide():
    c = Components(pretraining=0.01, draws=0.01, rest=0.0, images=0.01)
    nothing = {"draws": None, "pretraining": None, "splits": None, "both": None}
    assert more(0.02, GIVEN, c) == nothing
    assert more(0.0, GIVEN, SPREAD) == nothing
    alone = more(0.05, Design("given", 1, 5, 1), Components(draws=0.05))
    assert alone["draws"] is not None
    assert alone["pretraining"] is None


def test_as_many_more_find_it_four_times_of_five():
    rng = np.random.default_rng(0)
    c = Components(pretraining=0.005, draws=0.02, rest=0.01)
    count = more(0.02, Design("given", 1, 5, 3), c)["draws"]
    assert count is not None
    found = [crossed(cells(rng, 3, 5 + count, c, mean=0.02)).low > 0 for _ in range(400)]
    assert 0.72 < np.mean(found) < 0.92


def row(**changes):
    return {
        "difference": 0.01,
        "detectable": 0.02,
        "verdict": "undecided",
        "primary": True,
        "level": 0.05,
        "components": {"draws": 0.02, "pretraining": None},
        "repeats": {"splits": 1, "pretraining": 0, "draws": 5},
    } | changes


def test_only_undecided_rows_are_told_of_more():
    rows = [row(), row(verdict="helps"), row(difference=None, detectable=None)]
    add_more(rows, Design("given", 1, 99, 99))
    assert (
        rows[0]["more"]["draws"]
        == more(0.01, Design("given", 1, 5, 0), Components(draws=0.02))["draws"]
    )
    assert [r["more"] for r in rows[1:]] == [None, None]
