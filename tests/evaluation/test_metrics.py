"""Scores against scikit-learn, and what happens at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from fewlabels.evaluation import metrics

CLASSES = ["ant", "bee", "cat", "dog"]


def predictions(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, size=n, p=[0.5, 0.3, 0.15, 0.05])
    logits = rng.normal(size=(n, 4)) + 1.5 * np.eye(4)[labels]
    p = np.exp(logits)
    return labels, p / p.sum(axis=1, keepdims=True)


def test_scores_agree_with_scikit_learn():
    labels, p = predictions()
    out = metrics.classification(labels, p, CLASSES)
    guess = p.argmax(axis=1)
    precision, recall, f1, _ = reference.precision_recall_fscore_support(labels, guess)
    expected = {
        "accuracy": reference.accuracy_score(labels, guess),
        "balanced_accuracy": reference.balanced_accuracy_score(labels, guess),
        "precision_macro": precision.mean(),
        "recall_macro": recall.mean(),
        "f1_macro": f1.mean(),
    }
    for name, value in expected.items():
        assert out[name]["value"] == pytest.approx(value), name
        assert out[name]["low"] < value < out[name]["high"], name
    assert out["nll"] == pytest.approx(reference.log_loss(labels, p))
    assert out["confusion"] == reference.confusion_matrix(labels, guess).tolist()
    assert [c["f1"] for c in out["per_class"]] == pytest.approx(list(f1))
    assert [c["precision"] for c in out["per_class"]] == pytest.approx(list(precision))
    assert out["n"] == 300


def test_point_equals_the_full_evaluation():
    labels, p = predictions()
    full = metrics.classification(labels, p, CLASSES)
    for name, value in metrics.point(labels, p).items():
        assert value == (full[name]["value"] if isinstance(full[name], dict) else full[name])


def test_macro_averages_run_over_the_classes_present():
    labels = np.array([0, 0, 1, 1])
    p = np.eye(4)[[0, 3, 1, 1]]  # one image of class 0 is taken for the absent class 3
    out = metrics.classification(labels, p, CLASSES)
    guess = p.argmax(axis=1)
    assert out["f1_macro"]["value"] == pytest.approx(
        reference.f1_score(labels, guess, labels=[0, 1], average="macro")
    )
    assert out["recall_macro"]["value"] == 0.75
    cat, dog = out["per_class"][2:]
    assert cat == {"name": "cat", "n": 0, "precision": None, "recall": None, "f1": None}
    assert dog == {"name": "dog", "n": 0, "precision": 0.0, "recall": None, "f1": None}
    assert np.array(out["confusion"]).shape == (4, 4)


def test_a_perfect_score_is_not_a_certain_one():
    labels = np.arange(20) % 4
    out = metrics.classification(labels, np.eye(4)[labels], CLASSES)
    for name in ("accuracy", "f1_macro", "balanced_accuracy"):
        assert out[name]["value"] == out[name]["high"] == 1.0
        assert 0.7 < out[name]["low"] < 0.9


def test_intervals_are_seeded_and_shrink_with_n():
    labels, p = predictions()
    assert metrics.classification(labels, p, CLASSES) == metrics.classification(labels, p, CLASSES)
    wide = metrics.classification(labels[:100], p[:100], CLASSES)["f1_macro"]
    many = metrics.classification(*predictions(3000), CLASSES)["f1_macro"]
    assert many["high"] - many["low"] < (wide["high"] - wide["low"]) / 3


@pytest.mark.medium
def test_macro_intervals_cover_the_truth():
    labels, p = predictions(100_000, seed=1)
    truth = metrics.point(labels, p)
    hits = {"accuracy": 0, "balanced_accuracy": 0, "f1_macro": 0}
    for trial in range(40):
        rows = slice(trial * 500, trial * 500 + 500)
        out = metrics.classification(labels[rows], p[rows], CLASSES)
        for name in hits:
            hits[name] += out[name]["low"] <= truth[name] <= out[name]["high"]
    assert min(hits.values()) >= 34  # 38 expected; below 34 has a chance of 1 in 70 at 95 %


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "f1_macro", "nll"])
def test_image_scores_average_to_the_metric_and_carry_its_variance(metric):
    labels, p = predictions(400)
    scores = metrics.image_scores(labels, p, metric)
    assert scores.mean() == pytest.approx(metrics.point(labels, p)[metric])
    rng = np.random.default_rng(0)
    resampled = []
    for _ in range(400):
        rows = rng.integers(0, 400, 400)
        resampled.append(metrics.point(labels[rows], p[rows])[metric])
    assert np.std(resampled) == pytest.approx(scores.std() / 20, rel=0.15)


@pytest.mark.parametrize(
    ("labels", "p", "message"),
    [
        ([0, -1], np.full((2, 2), 0.5), "unlabelled"),
        ([0, 2], np.full((2, 2), 0.5), r"\[0, 2\)"),
        ([0], np.full((2, 2), 0.5), "n >= 1"),
        ([], np.zeros((0, 2)), "n >= 1"),
        ([0, 1], np.full((2, 2), 0.4), "sum to 1"),
        ([0, 1], np.array([[np.nan, 1], [0.5, 0.5]]), "finite"),
    ],
)
def test_what_cannot_be_scored_is_refused(labels, p, message):
    with pytest.raises(ValueError, match=message):
        metrics.point(np.array(labels, dtype=int), p)


def test_class_names_must_fit():
    labels, p = predictions()
    with pytest.raises(ValueError, match="4 columns"):
        metrics.classification(labels, p, ["a", "b"])
