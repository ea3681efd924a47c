"""Calibration against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from fewlabels.evaluation import calibration


def probabilities(n: int = 500) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), size=n)
    return np.array([rng.choice(3, p=row) for row in p]), p


def test_brier_and_nll_agree_with_scikit_learn():
    labels, p = probabilities()
    assert calibration.brier(labels, p) == pytest.approx(
        reference.brier_score_loss(labels, p, scale_by_half=False)
    )
    assert calibration.nll(labels, p) == pytest.approx(reference.log_loss(labels, p))


def test_a_zero_probability_costs_a_finite_price():
    loss = calibration.nll(np.array([1]), np.array([[1.0, 0.0]], dtype=np.float32))
    assert loss == pytest.approx(-np.log(1e-7))


def test_ece_by_hand():
    # Two bins are used: confidence 0.8 with 1 of 2 right, confidence 0.6 with 2 of 2 right.
    p = np.array([[0.8, 0.2], [0.8, 0.2], [0.6, 0.4], [0.6, 0.4]])
    assert calibration.ece(np.array([0, 1, 0, 0]), p) == pytest.approx((0.3 + 0.4) / 2)


def test_ece_agrees_with_bins_of_scipy():
    labels, p = probabilities()
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
    edges = np.linspace(0, 1, calibration.BINS + 1)
    gaps = [
        stats.binned_statistic(confidence, values, "sum", bins=edges).statistic
        for values in (right.astype(float), confidence)
    ]
    expected = np.abs(gaps[0] - gaps[1]).sum() / len(labels)
    assert calibration.ece(labels, p) == pytest.approx(expected)


def test_ece_is_small_when_the_probabilities_are_true_ones():
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(3), size=20_000)
    labels = (rng.random((20_000, 1)) > p.cumsum(axis=1)).sum(axis=1)
    assert calibration.ece(labels, p) < 0.02
    sharpened = p**3 / (p**3).sum(axis=1, keepdims=True)
    assert calibration.ece(labels, sharpened) > 0.1


def test_the_reliability_table_adds_up_to_the_ece():
    labels, p = probabilities()
    table = calibration.reliability(labels, p)
    assert len(table) == 15
    assert sum(row["n"] for row in table) == len(labels)
    assert table[0] == {"low": 0.0, "high": 1 / 15, "n": 0, "confidence": None, "accuracy": None}
    gaps = [row["n"] * abs(row["accuracy"] - row["confidence"]) for row in table if row["n"]]
    assert sum(gaps) / len(labels) == pytest.approx(calibration.ece(labels, p))


def test_a_bin_holds_its_upper_edge():
    table = calibration.reliability(np.array([0, 0]), np.array([[1.0, 0.0], [0.5, 0.5]]), bins=2)
    assert [row["n"] for row in table] == [1, 1]
