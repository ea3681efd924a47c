"""The forecast: its algebra against least squares, its intervals against curves it knows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fewlabels.evaluation.cells import design_of
from fewlabels.evaluation.forecast import (
    FLOORS,
    LOSSES,
    SHARES,
    Prior,
    _line,
    error_of,
    forecast,
    predict,
    z_of,
)


def mmf(n, floor=0.1, guess=0.9, m=20.0, d=0.7):
    return floor + (guess - floor) / (1 + (np.asarray(n, float) / m) ** d)


def test_z_is_a_straight_line_in_log_n_where_the_curve_is_of_the_form():
    n = np.array([1.0, 4.0, 16.0, 64.0])
    z, steep = z_of(mmf(n), 0.1, 0.9, np.full(4, 1e-9))
    assert z == pytest.approx(0.7 * np.log(n / 20))
    assert error_of(z, 0.1, 0.9) == pytest.approx(mmf(n))
    nearby, _ = z_of(mmf(n) - 1e-6, 0.1, 0.9, np.full(4, 1e-9))
    assert (nearby - z) / 1e-6 == pytest.approx(steep, rel=1e-3)
    power, _ = z_of(0.2 + 3 * n**-0.4, 0.2, None, np.full(4, 1e-9))
    assert power == pytest.approx(0.4 * np.log(n) - math.log(3))
    assert error_of(power, 0.2, None) == pytest.approx(0.2 + 3 * n**-0.4)


def test_without_a_prior_it_is_weighted_least_squares():
    x = np.array([0.0, 2.0, 4.0, 7.0])
    errors, se = np.array([0.8, 0.66, 0.5, 0.37]), np.array([0.02, 0.01, 0.02, 0.01])
    wide = Prior(slope=0.0, slope_sd=1e3, wander=0.0)
    found = _line(x, errors, se, np.array([9.0]), 0.1, 0.9, wide)
    z, steep = z_of(errors, 0.1, 0.9, np.full(4, 1e-9))
    weights = 1 / (se * steep)
    fit, covariance = np.polyfit(x, z, 1, w=weights, cov="unscaled")
    assert found.mean[0] == pytest.approx(np.polyval(fit, 9.0), rel=1e-3)
    at = np.array([9.0, 1.0])
    noise = (se * steep)[-1] ** 2
    assert found.variance[0] == pytest.approx(at @ covariance @ at + noise, rel=1e-2)


def test_the_last_point_tells_most():
    def ahead(errors):
        return predict([1, 4, 16], errors, [0.002] * 3, [64], guess=0.9)[0].value

    plain = ahead([0.8, 0.6, 0.4])
    assert ahead([0.8, 0.6, 0.38]) < plain
    first, last = ahead([0.79, 0.6, 0.4]) - plain, ahead([0.8, 0.6, 0.39]) - plain
    assert abs(last) > 2 * abs(first)


def test_the_farther_ahead_the_less_is_known():
    found = predict([1, 4, 16], [0.8, 0.6, 0.4], [0.01] * 3, [64, 256, 1024], guess=0.9)
    widths = [z_of(np.array([p.low]), 0, 0.9, 1e-9)[0] for p in found]
    widths = [
        w - z_of(np.array([p.high]), 0, 0.9, 1e-9)[0] for w, p in zip(widths, found, strict=True)
    ]
    assert widths == sorted(widths)
    assert all(p.low < p.value < p.high for p in found)
    noisy = predict([1, 4, 16], [0.8, 0.6, 0.4], [0.04] * 3, [64], guess=0.9)[0]
    assert noisy.high - noisy.low > found[0].high - found[0].low


def test_two_points_and_errors_at_their_limits_are_survived():
    for errors in ([0.95, 0.9], [0.1, 0.0], [0.0, 0.0], [0.5, 0.5]):
        found = predict([1, 4], errors, [0.01, 0.0], [16, 64], guess=0.9)
        assert all(0 <= p.low <= p.value <= p.high <= 0.9 for p in found)


@pytest.mark.parametrize(("guess", "prior"), [(0.9, SHARES), (None, LOSSES)])
def test_eight_of_ten_curves_of_its_own_kind_are_held(guess, prior):
    rng = np.random.default_rng(0)
    x, held = np.array([0.0, 2.0, 4.64, 6.64]), 0
    for _ in range(300):
        slope = prior.slope + prior.slope_sd * rng.normal()
        walk = np.cumsum(prior.wander * rng.normal(size=4) * np.sqrt(np.diff(x, prepend=0)))
        z, share = -1.0 + slope * x + walk, rng.choice(FLOORS)
        rest = float(error_of(z[2], 0.0, guess)) / (guess or 1.0)
        floor = (
            share * rest / (1 - share)
            if guess is None
            else (share * guess * rest / (1 - share * (1 - rest)))
        )
        true = error_of(z, floor, guess)
        errors = true * (1 + 0.003 * rng.normal(size=4))
        spreads = 0.003 * true[:3]
        found = predict(2 ** x[:3], errors[:3], spreads, [2 ** x[3]], guess=guess, prior=prior)[0]
        held += found.low <= errors[3] <= found.high
    assert 0.72 < held / 300 < 0.9


def cells_of(arm, means, *, metric="accuracy", noise=0.01, splits=6):
    rng = np.random.default_rng(len(arm))
    return [
        {
            "arm": arm,
            "shots": shots,
            "failed": None,
            metric: mean + float(rng.normal(0, noise)),
            "streams": {"split": s, "labels": 0, "pretraining": None, "training": 0},
        }
        for shots, mean in means.items()
        for s in range(splits)
    ]


def rows(cells, arms, **more):
    return forecast(cells, arms, design=design_of(cells), **more)


def test_each_arm_is_told_at_four_and_sixteen_times_its_labels():
    cells = cells_of("good", {1: 0.5, 4: 0.7, 25: 0.8}) + cells_of(
        "bad", {1: 0.2, 4: 0.25, 25: 0.4}
    )
    cells += cells_of("once", {4: 0.5}) + cells_of("own", {0: 0.5})
    found = rows(cells, ["good", "bad", "once", "own", "missing"], classes=10)
    assert [(r["arm"], r["shots"]) for r in found] == [
        ("good", 100),
        ("good", 400),
        ("bad", 100),
        ("bad", 400),
    ]
    assert all(0 < r["low"] < r["value"] < r["high"] < 1 for r in found)
    assert found[0]["value"] > 0.8 > found[2]["value"] > 0.4
    assert {r["level"] for r in found} == {0.8}
    with_one_split = cells_of("good", {1: 0.5, 4: 0.7}, splits=1)
    assert rows(with_one_split, ["good"], classes=10) == []


def test_what_falls_is_told_as_it_falls():
    cells = cells_of("a", {10: 100.0, 40: 60.0}, metric="mse", noise=2.0)
    found = rows(cells, ["a"], metric="mse")
    assert [r["shots"] for r in found] == [160, 640]
    assert 0 < found[0]["low"] < found[0]["value"] < found[0]["high"]
    assert found[0]["value"] < 60
    scaled = [{**c, "mse": 1e-6 * c["mse"]} for c in cells]
    assert rows(scaled, ["a"], metric="mse")[0]["value"] == pytest.approx(
        1e-6 * found[0]["value"], rel=0.01
    )
    r2 = cells_of("a", {10: 0.1, 40: 0.4}, metric="r2")
    assert 0.4 < rows(r2, ["a"], metric="r2")[0]["value"] < 1
