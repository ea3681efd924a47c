"""Losses and small models against other implementations: loops, closed forms, scikit-learn."""

from __future__ import annotations

import math
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading
from torch import Tensor

from fewlabels.core.types import Batch, Pictures
from fewlabels.data.augment import POLICIES, normalise
from fewlabels.methods import create_method
from fewlabels.methods.autoencoder import reconstruction_loss
from fewlabels.methods.simclr import nt_xent
from fewlabels.models.backbones import create_backbone
from fewlabels.transfer.features import Space, build_space
from fewlabels.transfer.probes import (
    INVERSE_PENALTY,
    SPREAD,
    _graph,
    logistic,
    neighbours,
    spread_labels,
    spreading,
)

# ---- losses ----------------------------------------------------------------------------------


def slow_nt_xent(z: np.ndarray, temperature: float) -> float:
    """Equation 1 of Chen et al. 2020, pair by pair."""
    count = len(z) // 2
    unit = [row / math.sqrt(float((row * row).sum())) for row in z]
    total = 0.0
    for one in range(2 * count):
        partner = (one + count) % (2 * count)
        scores = [
            math.exp(float((unit[one] * unit[other]).sum()) / temperature)
            for other in range(2 * count)
            if other != one
        ]
        match = math.exp(float((unit[one] * unit[partner]).sum()) / temperature)
        total -= math.log(match / sum(scores))
    return total / (2 * count)


@pytest.mark.parametrize("temperature", [0.1, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_nt_xent_is_equation_1(count: int, temperature: float) -> None:
    rng = np.random.default_rng(count)
    z = rng.normal(size=(2 * count, 5)) * rng.uniform(0.1, 10, (2 * count, 1))
    ours = float(nt_xent(torch.tensor(z, dtype=torch.float64), temperature))
    assert ours == pytest.approx(slow_nt_xent(z, temperature), rel=1e-5, abs=1e-6)


def test_nt_xent_knows_which_views_belong_together() -> None:
    first = torch.eye(6)
    together = nt_xent(torch.cat([first, first]), 0.1)
    apart = nt_xent(torch.cat([first, first.roll(1, 0)]), 0.1)
    assert together < 0.01 < 5 < apart


def test_nt_xent_gradients_agree_with_finite_differences() -> None:
    z = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z.requires_grad_(True)
    (gradient,) = torch.autograd.grad(nt_xent(z, 0.5), z)
    for place in [(0, 0), (3, 2), (7, 1)]:
        step = torch.zeros_like(z)
        step[place] = 1e-2
        up, down = (slow_nt_xent((z + s * step).detach().numpy(), 0.5) for s in (1, -1))
        assert float(gradient[place]) == pytest.approx((up - down) / 2e-2, rel=1e-2, abs=1e-4)


def test_the_reconstruction_loss_is_the_mean_squared_error() -> None:
    rng = np.random.default_rng(0)
    painted, picture = rng.random((3, 2, 4, 4)), rng.random((3, 2, 4, 4))
    total = 0.0
    for place in np.ndindex(painted.shape):
        total += (painted[place] - picture[place]) ** 2
    ours = float(reconstruction_loss(torch.tensor(painted), torch.tensor(picture)))
    assert ours == pytest.approx(total / painted.size, rel=1e-5)


@pytest.mark.parametrize("name", ["autoencoder", "denoising"])
def test_an_autoencoder_is_asked_for_the_picture_itself(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Painting the undamaged picture on the 0-1 scale costs nothing, whatever the mean and std."""
    pictures = Pictures(8, 3, (0.5, 0.3, 0.2), (0.2, 0.1, 0.3))
    backbone = create_backbone("tiny", in_chans=3, image_size=8)
    method = create_method(name, backbone, pictures, POLICIES["digits"])
    key = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8, generator=key)
    rows = torch.arange(6)
    seen: list[Tensor] = []

    def perfect(x: Tensor) -> Tensor:
        seen.append(x)
        return (images.float() / 255).requires_grad_()

    monkeypatch.setattr(method, "reconstruct", perfect)
    asked: list[float] = []
    step: Any = SimpleNamespace(
        seed=0,
        images=6,
        span=slice(0, 6),
        generator=key,
        autocast=nullcontext,
        backward=lambda loss, _name: asked.append(float(loss.detach())),
        apply=lambda _name: None,
    )
    method.update(Batch(images, None, rows, rows * 0), step)
    assert asked[0] == pytest.approx(0, abs=1e-10)
    clean = normalise(images.float() / 255, pictures)
    assert torch.allclose(seen[0], clean, atol=1e-4) == (name == "autoencoder")


# ---- small models on features ----------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> tuple[Space, np.ndarray]:
    """400 digits as 64 features, and their labels."""
    x, y = load_digits(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(x))[:400]
    return build_space(rows, torch.tensor(x[rows], dtype=torch.float32)), y


def visible(space: Space, labels: np.ndarray, shots: int) -> np.ndarray:
    chosen = [space.rows[labels[space.rows] == name][:shots] for name in range(10)]
    return np.sort(np.concatenate(chosen))


def places(space: Space, rows: np.ndarray) -> np.ndarray:
    return np.array([int(np.flatnonzero(space.rows == row)[0]) for row in rows])


def standardised(space: Space) -> np.ndarray:
    """Features as scikit-learn scales them; its variance divides by n, ours by n - 1."""
    x = space.features.double().numpy()
    n = len(x)
    return np.asarray(StandardScaler().fit_transform(x) * math.sqrt((n - 1) / n))


def shares(x: Tensor) -> np.ndarray:
    return np.asarray(x.softmax(1).detach())


@pytest.mark.parametrize("shots", [2, 5, 20])
def test_logistic_regression_is_scikit_learns(digits: tuple[Space, np.ndarray], shots: int) -> None:
    """2 and 5 labels a class go through the QR shortcut, 20 do not."""
    space, labels = digits
    rows = visible(space, labels, shots)
    assert (len(rows) < space.features.shape[1]) == (shots < 6)
    live = space.features.std(0).numpy() > 0.05  # constant pixels carry nothing
    x = standardised(space)
    theirs = LogisticRegression(C=INVERSE_PENALTY, max_iter=5_000, tol=1e-8)
    theirs.fit(x[places(space, rows)][:, live], labels[rows])
    head = logistic(space, rows, labels[rows], 10)
    expected = theirs.predict_proba(x[:, live])
    found = shares(head(space.features))
    assert np.abs(found - expected).max() < 2e-3
    assert np.mean(found.argmax(1) == expected.argmax(1)) > 0.99


def test_logistic_regression_of_two_classes_is_scikit_learns(
    digits: tuple[Space, np.ndarray],
) -> None:
    space, labels = digits
    rows = np.sort(np.concatenate([space.rows[labels[space.rows] == n][:8] for n in (3, 8)]))
    live = space.features.std(0).numpy() > 0.05
    x = standardised(space)
    theirs = LogisticRegression(C=INVERSE_PENALTY, max_iter=5_000, tol=1e-8)
    theirs.fit(x[places(space, rows)][:, live], labels[rows])
    found = shares(logistic(space, rows, labels[rows], 10)(space.features))
    assert np.abs(found[:, [3, 8]] - theirs.predict_proba(x[:, live])).max() < 2e-3
    assert found[:, [0, 1, 2, 4, 5, 6, 7, 9]].max() < 1e-6


def test_one_class_alone_is_always_predicted(digits: tuple[Space, np.ndarray]) -> None:
    space, labels = digits
    rows = space.rows[labels[space.rows] == 4][:3]
    found = shares(logistic(space, rows, labels[rows], 10)(space.features))
    assert np.all(found.argmax(1) == 4)


@pytest.mark.parametrize("k", [1, 5])
def test_the_neighbour_head_is_scikit_learns(digits: tuple[Space, np.ndarray], k: int) -> None:
    space, labels = digits
    rows = visible(space, labels, 5)
    x = ((space.features - space.mean) @ space.turn).double().numpy()
    x /= np.linalg.norm(x, axis=1, keepdims=True)

    def weights(distances: np.ndarray) -> np.ndarray:
        """Cosine distance to ``exp(similarity / 0.1)``."""
        return np.exp((1 - distances) / 0.1)

    theirs = KNeighborsClassifier(k, metric="cosine", weights=weights, algorithm="brute")
    theirs.fit(x[places(space, rows)], labels[rows])
    found = shares(neighbours(space, rows, labels[rows], 10, k=k)(space.features))
    expected = theirs.predict_proba(x)
    assert np.abs(found - expected).max() < 1e-3


def closed_form(space: Space, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return ``(I - aS)^-1 Y`` with every class given the same weight, ``(m, 10)``."""
    count = len(space.bank)
    affinity = np.zeros((count, count))
    for one in range(count):
        for other, similar in zip(
            space.neighbours[one].tolist(), space.weights[one].tolist(), strict=True
        ):
            affinity[one, other] += max(similar, 0.0) ** 3
            affinity[other, one] += max(similar, 0.0) ** 3
    degree = affinity.sum(1)
    graph = affinity / np.sqrt(np.outer(degree, degree))
    start = np.zeros((count, 10))
    for place, label in zip(places(space, rows), labels, strict=True):
        start[place, label] = 1 / np.sum(labels == label)
    return np.asarray(np.linalg.solve(np.eye(count) - SPREAD * graph, start))


def test_label_spreading_converges_to_its_closed_form(digits: tuple[Space, np.ndarray]) -> None:
    space, labels = digits
    rows = visible(space, labels, 3)[:-2]  # two classes or one with fewer labels
    exact = closed_form(space, rows, labels[rows])
    exact /= exact.sum(0)
    exact /= exact.sum(1, keepdims=True)
    found = spread_labels(space, rows, labels[rows], 10, rounds=3_000).numpy()
    assert np.abs(found - exact).max() < 1e-3
    assert np.mean(found.argmax(1) == labels[space.rows]) > 0.8


def test_fifty_rounds_of_spreading_are_enough(digits: tuple[Space, np.ndarray]) -> None:
    space, labels = digits
    rows = visible(space, labels, 2)
    soon = spread_labels(space, rows, labels[rows], 10).argmax(1)
    late = spread_labels(space, rows, labels[rows], 10, rounds=3_000).argmax(1)
    assert (soon == late).float().mean() > 0.95


def test_label_spreading_is_scikit_learns(digits: tuple[Space, np.ndarray]) -> None:
    space, labels = digits
    rows = visible(space, labels, 3)
    graph = _graph(space).toarray().astype(float)
    partial = np.full(len(space.rows), -1)
    partial[places(space, rows)] = labels[rows]
    # The kernel hands over an affinity whose normalised form is our graph: itself.
    theirs = LabelSpreading(kernel=lambda _a, _b: _affinity(space), alpha=SPREAD, max_iter=5_000)
    theirs.tol = 1e-9
    theirs.fit(space.features.double().numpy(), partial)
    # Theirs divides by the rows alone; ours first by what each class holds in all.
    mass = closed_form(space, rows, labels[rows]).sum(0)
    expected = theirs.label_distributions_ / mass
    expected /= expected.sum(1, keepdims=True)
    found = spread_labels(space, rows, labels[rows], 10, rounds=3_000).numpy()
    assert np.abs(found - expected).max() < 2e-3
    assert np.allclose(graph, graph.T, atol=1e-6)


def _affinity(space: Space) -> np.ndarray:
    count = len(space.bank)
    affinity = np.zeros((count, count))
    source = np.repeat(np.arange(count), space.neighbours.shape[1])
    np.add.at(
        affinity,
        (source, space.neighbours.numpy().ravel()),
        space.weights.double().numpy().ravel().clip(min=0) ** 3,
    )
    return affinity + affinity.T


def test_the_spreading_head_asks_the_nearest_training_images(
    digits: tuple[Space, np.ndarray],
) -> None:
    space, labels = digits
    rows = visible(space, labels, 2)
    votes = spread_labels(space, rows, labels[rows], 10).numpy()
    head = spreading(space, rows, labels[rows], 10)
    x = space.features[:20]
    unit = ((x - space.mean) @ space.turn).numpy()
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = np.zeros((20, 10))
    for place, row in enumerate(unit):
        similar = space.bank.numpy() @ row
        near = np.argsort(-similar)[:10]
        weight = np.exp(similar[near] / 0.1)
        expected[place] = (weight[:, None] * votes[near]).sum(0) / weight.sum()
    assert np.abs(shares(head(x)) - expected).max() < 1e-3
