"""Confident learning against its definition written out, on labels with planted errors."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_curve
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from fewlabels.evaluation.suspects import judge, precision_at, stratified_folds, thresholds


def planted(noise: float = 0.15, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, held-out probabilities and which labels are wrong, of three blobs."""
    rng = np.random.default_rng(seed)
    true = np.repeat([0, 1, 2], [80, 60, 40])
    x = rng.normal(size=(180, 5)) + 2.5 * np.eye(3, 5)[true]
    wrong = rng.random(180) < noise
    labels = np.where(wrong, (true + rng.integers(1, 3, 180)) % 3, true)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    shares = cross_val_predict(LogisticRegression(), x, labels, cv=folds, method="predict_proba")
    return labels, shares, wrong


def test_thresholds_are_the_mean_self_confidence() -> None:
    labels, shares, _ = planted()
    expected = [shares[labels == name, name].mean() for name in range(3)]
    np.testing.assert_allclose(thresholds(labels, shares), expected)


def test_suspects_are_off_the_diagonal_of_the_confident_joint() -> None:
    labels, shares, _ = planted()
    limits = thresholds(labels, shares)
    found = judge(labels, shares)
    for number, (label, share) in enumerate(zip(labels, shares, strict=True)):
        counting = [name for name in range(3) if share[name] >= limits[name]]
        best = max(counting, key=lambda name: share[name], default=label)
        assert found.suspect[number] == (best != label != share.argmax())
        if found.suspect[number]:
            assert found.suggested[number] == best
        assert found.suggested[number] != label
        away = share[found.suggested[number]] - share[label]
        assert found.score[number] == pytest.approx((1 + away) / 2)


def test_planted_errors_are_found() -> None:
    labels, shares, wrong = planted()
    found = judge(labels, shares)
    assert precision_at(0.5, wrong, found.score) > 0.9
    assert (wrong & found.suspect).sum() / wrong.sum() > 0.5
    assert (wrong & found.suspect).sum() / found.suspect.sum() > 0.7


def test_clean_labels_are_left_alone() -> None:
    labels, shares, _ = planted(noise=0.0)
    assert judge(labels, shares).suspect.mean() < 0.05


def test_a_class_nobody_is_sure_of_is_not_suspected_wholesale() -> None:
    """Every image labelled 1 gets 0.4 for it: that is as sure as one is of this class."""
    labels = np.repeat([0, 1], 10)
    shares = np.where(labels[:, None] == 0, [0.9, 0.1], [0.6, 0.4])
    assert (shares.argmax(1) != labels).sum() == 10
    assert not judge(labels, shares).suspect.any()


def test_a_class_with_hardly_any_label_is_never_suggested() -> None:
    labels = np.array([0] * 10 + [1] * 10 + [2])
    shares = np.full((21, 3), 1 / 3)
    found = judge(labels, np.where(np.arange(3) == 2, 0.5, 0.25) * np.ones_like(shares))
    assert np.isinf(thresholds(labels, shares)[2])
    assert 2 not in found.suggested[found.suspect]


def test_precision_at_recall_is_scikit_learns() -> None:
    labels, shares, wrong = planted(seed=3)
    score = judge(labels, shares).score
    precision, recall, _ = precision_recall_curve(wrong, score)
    for wanted in (0.25, 0.5, 0.75, 1.0):
        # The curve runs from all to none: the last point that has found enough.
        expected = precision[np.flatnonzero(recall >= wanted - 1e-12)[-1]]
        assert precision_at(wanted, wrong, score) == pytest.approx(expected)


def test_folds_are_stratified_and_even() -> None:
    labels = np.repeat([0, 1, 2], [57, 20, 5])
    folds = stratified_folds(labels, 10, np.random.default_rng(0))
    sizes = np.bincount(folds, minlength=10)
    assert sizes.max() - sizes.min() <= 1
    for name in range(3):
        counts = np.bincount(folds[labels == name], minlength=10)
        assert counts.max() - counts.min() <= 1


def test_the_same_labels_are_suspect_to_cleanlab() -> None:
    """A second opinion, where it happens to be installed; nothing needs it."""
    filters = pytest.importorskip("cleanlab.filter")
    rank = pytest.importorskip("cleanlab.rank")
    for seed in range(3):
        labels, shares, _ = planted(noise=0.25, seed=seed)
        theirs = filters.find_label_issues(labels, shares, filter_by="confident_learning", n_jobs=1)
        found = judge(labels, shares)
        np.testing.assert_array_equal(found.suspect, theirs)
        quality = rank.get_label_quality_scores(labels, shares, method="normalized_margin")
        others = np.where(np.arange(3) == labels[:, None], -1, shares).argmax(1)
        same = found.suggested == others  # they take the most probable class, whether it counts
        assert same.mean() > 0.95
        np.testing.assert_allclose(found.score[same], 1 - quality[same], atol=1e-9)
