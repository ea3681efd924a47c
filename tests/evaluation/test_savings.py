"""Label savings on curves whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fewlabels.evaluation.intervals import clustered
from fewlabels.evaluation.savings import _spread, curves, label_saving, labels_needed


def cells_of(arm, means, *, splits=6, noise=0.0, seed=0, metric="accuracy"):
    rng = np.random.default_rng(seed)
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


BASELINE = {1: 0.2, 4: 0.4, 16: 0.6, 64: 0.8}


def test_interpolation_is_in_doublings():
    assert labels_needed([1, 4, 16, 64], list(BASELINE.values()), 0.5) == pytest.approx(8)
    assert labels_needed([1, 4], [0.2, 0.4], 0.2) == 1
    assert labels_needed([1, 4], [0.2, 0.4], 0.41) == math.inf
    assert labels_needed([1, 4], [0.2, 0.4], 0.1) == 0


def test_a_dip_in_the_curve_is_smoothed_not_followed():
    assert labels_needed([1, 4, 16], [0.3, 0.2, 0.5], 0.25) == 1
    assert 4 < labels_needed([1, 4, 16], [0.3, 0.2, 0.5], 0.4) < 16


def test_the_saving_of_a_better_arm():
    cells = cells_of("scratch", BASELINE, noise=0.01) + cells_of("a", {4: 0.6}, noise=0.01, seed=1)
    found = label_saving(cells, "a", "scratch", 4)
    assert found["factor"] == pytest.approx(4, rel=0.1)
    assert found["low"] < 4 < found["high"]
    assert found["low"] > 3
    assert found["bound"] is None
    assert found == label_saving(cells, "a", "scratch", 4)


def test_a_worse_arm_wastes_labels():
    cells = cells_of("scratch", BASELINE) + cells_of("a", {16: 0.4})
    assert label_saving(cells, "a", "scratch", 16)["factor"] == pytest.approx(0.25)


def test_an_arm_against_itself_saves_nothing():
    cells = cells_of("scratch", BASELINE, noise=0.01)
    twin = [{**c, "arm": "a"} for c in cells]
    assert label_saving(cells + twin, "a", "scratch", 16)["factor"] == pytest.approx(1)


def test_out_of_the_baselines_reach_is_unbounded():
    cells = cells_of("scratch", BASELINE, noise=0.01) + cells_of("a", {4: 0.95}, noise=0.01)
    found = label_saving(cells, "a", "scratch", 4)
    assert found["factor"] is None
    assert found["high"] is None
    assert found["low"] == 16
    assert found["bound"] == "at least"


def test_below_the_baselines_first_point_is_at_most():
    found = label_saving(cells_of("b", BASELINE) + cells_of("a", {4: 0.1}), "a", "b", 4)
    assert (found["factor"], found["low"], found["bound"]) == (0.25, 0.0, "at most")


def test_near_the_end_of_the_curve_the_interval_is_open():
    cells = cells_of("b", BASELINE, noise=0.02) + cells_of("a", {4: 0.795}, noise=0.02, seed=1)
    found = label_saving(cells, "a", "b", 4)
    assert found["high"] is None
    assert found["low"] < 16


def test_lower_is_better_metrics():
    cells = cells_of("b", {1: 2.0, 4: 1.5, 16: 1.0}, metric="nll")
    cells += cells_of("a", {4: 1.0}, metric="nll")
    assert label_saving(cells, "a", "b", 4, metric="nll")["factor"] == pytest.approx(4)


def test_an_arm_without_cells_is_unknown():
    found = label_saving(cells_of("b", BASELINE), "a", "b", 4)
    assert (found["factor"], found["low"], found["high"]) == (None, None, None)


def crossed_trial(rng):
    """A true factor of 4; draws that share an encoder share its luck."""
    encoders, cells = rng.normal(0, 0.015, 3), []
    for arm, means in {"b": BASELINE, "a": {4: 0.6}}.items():
        for shots, mean in means.items():
            draws = rng.normal(0, 0.02, 10)
            for p in range(3) if arm == "a" else [None]:
                for d in range(10):
                    value = (
                        mean + draws[d] + rng.normal(0, 0.01) + (encoders[p] if arm == "a" else 0)
                    )
                    streams = {"split": 0, "labels": d, "pretraining": p, "training": 0}
                    cells.append(
                        {
                            "arm": arm,
                            "shots": shots,
                            "failed": None,
                            "streams": streams,
                            "accuracy": float(value),
                        }
                    )
    return cells


def split_trial(rng, noise=0.03):
    seeds = rng.integers(0, 2**31, 2)
    return cells_of("b", BASELINE, splits=10, noise=noise, seed=seeds[0]) + cells_of(
        "a", {4: 0.6}, splits=10, noise=noise, seed=seeds[1]
    )


@pytest.mark.medium
@pytest.mark.parametrize("trial", [crossed_trial, split_trial])
def test_the_interval_of_the_saving_covers(trial):
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(60):
        found = label_saving(trial(rng), "a", "b", 4, resamples=200)
        hits += found["low"] <= 4 <= (found["high"] or math.inf)
    assert hits >= 54


def test_curves_have_a_row_for_each_arm_and_shots():
    cells = cells_of("b", BASELINE, noise=0.01) + cells_of("a", {4: 0.6}, noise=0.01)
    cells[0]["failed"] = "diverged"
    rows = curves(cells, ["a", "b", "missing"])
    assert [(r["arm"], r["shots"], r["seeds"]) for r in rows] == [
        ("a", 4, 6),
        ("b", 1, 5),
        ("b", 4, 6),
        ("b", 16, 6),
        ("b", 64, 6),
    ]
    assert all(r["low"] < r["mean"] < r["high"] for r in rows)


def test_random_weights_give_the_t_interval_of_a_mean():
    values = np.random.default_rng(0).normal(size=5)
    weights = _spread(np.random.default_rng(1), 5, 40_000, 0.125)
    assert weights.sum(axis=0) == pytest.approx(1)
    found = clustered(values, overlap=0.125)
    low, high = np.quantile(values @ weights, [0.025, 0.975])
    assert (low, high) == pytest.approx((found.low, found.high), rel=0.05)
