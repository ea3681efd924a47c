"""Small models on frozen features: row order, classes without labels, votes that add up."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewlabels.transfer import features as features_module
from fewlabels.transfer.features import Space, build_space
from fewlabels.transfer.probes import (
    centroid,
    logistic,
    neighbours,
    ridge,
    spread_labels,
    spreading,
    svm,
)

CLASSES = 4
PER_CLASS = 40
LABELS = np.arange(CLASSES * PER_CLASS) % CLASSES


@pytest.fixture
def space() -> Space:
    """Four clouds of 40; the rows of the data set are 1000 upwards, shuffled."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASSES, 8)) * 3
    x = centres[LABELS] + rng.normal(size=(len(LABELS), 8))
    order = rng.permutation(len(LABELS))
    return build_space(1_000 + order, torch.tensor(x[order], dtype=torch.float32))


def truth(space: Space) -> np.ndarray:
    return LABELS[space.rows - 1_000]


def hits(space: Space, head: torch.nn.Module) -> float:
    return float((head(space.features).argmax(1).detach().numpy() == truth(space)).mean())


ROWS = 1_000 + np.arange(3 * CLASSES)


@pytest.mark.parametrize("fit", [logistic, ridge, svm, centroid, neighbours, spreading])
def test_three_labels_a_class_tell_the_clouds_apart(fit: object, space: Space) -> None:
    assert callable(fit)
    assert hits(space, fit(space, ROWS, LABELS[ROWS - 1_000], CLASSES)) > 0.85


@pytest.mark.parametrize("fit", [logistic, ridge, svm, centroid, neighbours, spreading])
def test_the_order_of_the_labels_does_not_matter(fit: object, space: Space) -> None:
    assert callable(fit)
    shuffled = np.random.default_rng(1).permutation(ROWS)
    one = fit(space, ROWS, LABELS[ROWS - 1_000], CLASSES)(space.features)
    other = fit(space, shuffled, LABELS[shuffled - 1_000], CLASSES)(space.features)
    assert torch.allclose(one.softmax(1), other.softmax(1), atol=2e-3)


@pytest.mark.parametrize("fit", [logistic, neighbours, spreading])
def test_a_class_without_a_label_is_never_preferred(fit: object, space: Space) -> None:
    assert callable(fit)
    rows = ROWS[LABELS[ROWS - 1_000] != 2]
    shares = fit(space, rows, LABELS[rows - 1_000], CLASSES)(space.features).softmax(1)
    # An image that no label reaches over the graph says nothing of any class.
    assert torch.all(shares[:, 2] <= shares[:, [0, 1, 3]].amax(1) + 1e-6)
    assert (shares[:, 2] < 0.01).float().mean() > 0.6
    assert torch.isfinite(shares).all()


@pytest.mark.parametrize("fit", [logistic, ridge, svm, centroid, neighbours, spreading])
def test_one_label_a_class_is_enough_to_fit(fit: object, space: Space) -> None:
    assert callable(fit)
    rows = ROWS[:CLASSES]
    assert hits(space, fit(space, rows, LABELS[rows - 1_000], CLASSES)) > 0.6


def test_labels_spread_over_every_image(space: Space) -> None:
    votes = spread_labels(space, ROWS, LABELS[ROWS - 1_000], CLASSES)
    assert votes.shape == (len(LABELS), CLASSES)
    assert torch.allclose(votes.sum(1), torch.ones(len(LABELS)), atol=1e-4)
    assert float((votes.argmax(1).numpy() == truth(space)).mean()) > 0.85


def test_spreading_reads_no_label_it_was_not_given(space: Space) -> None:
    one = spread_labels(space, ROWS, LABELS[ROWS - 1_000], CLASSES)
    wrong = (LABELS[ROWS - 1_000] + 1) % CLASSES
    other = spread_labels(space, ROWS, wrong, CLASSES)
    assert torch.allclose(one.roll(1, 1), other, atol=1e-5)


def test_an_unbalanced_draw_does_not_swallow_the_small_class(space: Space) -> None:
    few = ROWS[LABELS[ROWS - 1_000] == 1][:1]
    rows = np.concatenate([ROWS[LABELS[ROWS - 1_000] != 1], few])
    votes = spread_labels(space, np.sort(rows), LABELS[np.sort(rows) - 1_000], CLASSES)
    found = votes.argmax(1).numpy()[truth(space) == 1]
    assert (found == 1).mean() > 0.6


def test_an_island_without_a_label_asks_its_nearest_labelled_image() -> None:
    angles = np.concatenate([np.linspace(0, 0.05, 20), np.linspace(2, 2.05, 20)])
    angles = np.concatenate([angles, np.linspace(2.4, 2.45, 20)])  # nearer to the second island
    features = torch.from_numpy(np.stack([np.cos(angles), np.sin(angles)], 1)).float()
    island = build_space(np.arange(60), features)
    votes = spread_labels(island, np.array([0, 20]), np.array([0, 1]), 2)
    assert (votes[40:].argmax(1) == 1).all()
    assert torch.allclose(votes.sum(1), torch.ones(60))


def test_more_labels_than_the_graph_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features_module, "GRAPH_IMAGES", 60)
    rng = np.random.default_rng(0)
    x = np.eye(CLASSES)[LABELS] * 4 + rng.normal(size=(len(LABELS), CLASSES))
    rows = np.arange(len(LABELS))
    crowded = build_space(rows, torch.tensor(x, dtype=torch.float32))
    assert len(crowded.bank) == 60
    head = spreading(crowded, rows, LABELS, CLASSES)
    assert float((head(crowded.features).argmax(1).numpy() == LABELS).mean()) > 0.8


@pytest.mark.parametrize("whitened", [False, True])
def test_logistic_regression_is_scikit_learns(whitened: bool, space: Space) -> None:
    """Against its probabilities on the features changed by hand."""
    from sklearn.linear_model import LogisticRegression

    head = logistic(space, ROWS, LABELS[ROWS - 1_000], CLASSES, whitened=whitened)
    centred = space.features - space.mean
    x = (centred @ space.turn if whitened else centred * space.scale).numpy()
    places = [int(np.flatnonzero(space.rows == row)[0]) for row in ROWS]
    model = LogisticRegression(C=0.01, max_iter=1000).fit(x[places], LABELS[ROWS - 1_000])
    found = head(space.features).softmax(1).detach().numpy()
    assert np.allclose(found, model.predict_proba(x), atol=1e-3)


@pytest.mark.parametrize("fit", [logistic, ridge, svm, centroid])
def test_linear_models_never_name_a_class_without_a_label(fit: object, space: Space) -> None:
    assert callable(fit)
    for kept in ([0, 1, 3], [1, 3], [2]):
        rows = ROWS[np.isin(LABELS[ROWS - 1_000], kept)]
        named = fit(space, rows, LABELS[rows - 1_000], CLASSES)(space.features).argmax(1)
        assert set(named.tolist()) <= set(kept)
        if len(kept) > 1:
            right = named.numpy() == truth(space)
            assert right[np.isin(truth(space), kept)].mean() > 0.85


def test_ridge_is_scikit_learns_classifier(space: Space) -> None:
    from sklearn.linear_model import RidgeClassifier

    head = ridge(space, ROWS, LABELS[ROWS - 1_000], CLASSES)
    x = ((space.features - space.mean) * space.scale).numpy()
    places = [int(np.flatnonzero(space.rows == row)[0]) for row in ROWS]
    model = RidgeClassifier(alpha=x.shape[1]).fit(x[places], LABELS[ROWS - 1_000])
    found = head(space.features).detach().numpy()
    assert np.allclose(found, model.decision_function(x), atol=1e-3)


def test_the_nearest_mean_is_scikit_learns(space: Space) -> None:
    from sklearn.neighbors import NearestCentroid

    head = centroid(space, ROWS, LABELS[ROWS - 1_000], CLASSES)
    x = ((space.features - space.mean) @ space.turn).numpy()
    places = [int(np.flatnonzero(space.rows == row)[0]) for row in ROWS]
    model = NearestCentroid().fit(x[places], LABELS[ROWS - 1_000])
    assert np.array_equal(head(space.features).argmax(1).numpy(), model.predict(x))


def test_the_support_vector_machine_is_scikit_learns(space: Space) -> None:
    from sklearn.svm import LinearSVC

    head = svm(space, ROWS, LABELS[ROWS - 1_000], CLASSES)
    x = ((space.features - space.mean) * space.scale).numpy()
    places = [int(np.flatnonzero(space.rows == row)[0]) for row in ROWS]
    model = LinearSVC(C=0.01, max_iter=20_000).fit(x[places], LABELS[ROWS - 1_000])
    found = head(space.features).detach().numpy()
    assert np.allclose(found, model.decision_function(x), atol=2e-2)
