"""Class weights and logit adjustment against plain loops and scikit-learn's own optimum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch.nn import functional as F

from fewlabels.models.heads import LinearHead
from fewlabels.transfer import probes
from fewlabels.transfer.features import build_space
from fewlabels.transfer.imbalance import (
    ClassLoss,
    adjust,
    class_weights,
    head_remedy,
    log_priors,
)

LABELS = np.repeat([0, 1, 2], [30, 8, 2])


def looped(logits: np.ndarray, target: np.ndarray, smoothing: float, kind: str) -> float:
    """Return the loss by one image, and one class, at a time."""
    count = [int((np.equal(LABELS, c)).sum()) for c in range(3)]
    total = 0.0
    for z, y in zip(logits, target, strict=True):
        adjusted = [z[c] + (np.log(count[c] / 40) if kind == "logits" else 0.0) for c in range(3)]
        norm = np.log(sum(np.exp(a) for a in adjusted))
        for c in range(3):
            wanted = smoothing / 3 + (1 - smoothing if c == y else 0.0)
            weight = 40 / (3 * count[c]) if kind == "weights" else 1.0
            total += -wanted * weight * (adjusted[c] - norm)
    return total / len(target)


@pytest.mark.parametrize("kind", ["none", "sampling", "weights", "logits"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_what_loops_give(kind: str, smoothing: float) -> None:
    rng = np.random.default_rng(0)
    logits, target = rng.normal(size=(12, 3)), rng.integers(0, 3, 12)
    loss = ClassLoss(LABELS, 3, kind, smoothing)
    found = float(loss(torch.from_numpy(logits).float(), torch.from_numpy(target)))
    assert found == pytest.approx(looped(logits, target, smoothing, kind), rel=1e-5)


def test_weighted_over_the_whole_training_set_it_is_torchs_own() -> None:
    """torch divides by the sum of weights, which over all images is their number."""
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    target = torch.from_numpy(LABELS)
    weight = torch.tensor([40 / 90, 40 / 24, 40 / 6])
    wanted = F.cross_entropy(logits, target, weight=weight)
    assert float(ClassLoss(LABELS, 3, "weights", 0.0)(logits, target)) == pytest.approx(
        float(wanted), rel=1e-5
    )


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40))
def test_every_class_weighs_the_same_and_priors_are_shares(drawn: list[int]) -> None:
    labels = np.array(drawn)
    weights, shares = class_weights(labels, 6), np.exp(log_priors(labels, 6))
    mass = np.bincount(labels, weights[labels], minlength=6)
    seen = np.bincount(labels, minlength=6) > 0
    assert mass[seen] == pytest.approx(len(labels) / seen.sum())
    assert weights[~seen].tolist() == [0.0] * int((~seen).sum())
    assert shares[seen].sum() == pytest.approx(1.0)
    assert np.isfinite(log_priors(labels, 6)).all()


def test_a_class_without_a_label_is_learned_away() -> None:
    """Its logit has no prior to be lifted by, whatever the remedy."""
    labels = np.repeat([0, 2], [30, 5])
    for kind in ("none", "weights", "logits"):
        logits = torch.zeros(35, 3, requires_grad=True)
        loss = ClassLoss(labels, 3, kind, 0.0)(logits, torch.from_numpy(labels))
        loss.backward()
        assert logits.grad is not None
        assert torch.isfinite(loss)
        assert (logits.grad[:, 1] > 0).all()


def test_learned_logits_speak_for_equal_classes() -> None:
    """Menon et al. 2021: at the optimum the network gives balanced class probabilities."""
    rng = np.random.default_rng(1)
    labels = rng.choice(2, 4000, p=[0.9, 0.1])
    x = (labels + rng.normal(size=4000) * 0.8).astype(np.float32)
    line = torch.nn.Linear(1, 2)
    loss = ClassLoss(labels, 2, "logits", 0.0)
    optimizer = torch.optim.LBFGS(line.parameters(), max_iter=200)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value: torch.Tensor = loss(line(torch.from_numpy(x)[:, None]), torch.from_numpy(labels))
        value.backward()
        return value

    optimizer.step(closure)
    weight, bias = (line.weight[1] - line.weight[0]), (line.bias[1] - line.bias[0])
    # Two Gaussians of equal size meet halfway between their means, 0 and 1.
    assert float((-bias / weight).detach()) == pytest.approx(0.5, abs=0.06)


def space_of(x: np.ndarray) -> probes.Space:
    return build_space(np.arange(len(x)), torch.from_numpy(x).float())


def gaussians(counts: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    return rng.normal(size=(len(labels), 4)) + 1.5 * np.eye(len(counts), 4)[labels], labels


def test_adjusted_afterwards_a_logistic_regression_is_the_adjusted_loss() -> None:
    """The two forms are one where intercepts are free; the loss form is minimised by scipy."""
    x, labels = gaussians((60, 20, 5))
    space = space_of(x)
    head = adjust(probes.logistic(space, np.arange(85), labels, 3), labels)
    z = ((space.features - space.mean) * space.scale).double().numpy()
    shift = np.log(np.array([60, 20, 5]) / 85)

    def objective(flat: np.ndarray) -> float:
        w, b = flat[:12].reshape(3, 4), flat[12:]
        logits = z @ w.T + b + shift
        norm = np.log(np.exp(logits).sum(1))
        loss = (norm - logits[np.arange(85), labels]).sum()
        return probes.INVERSE_PENALTY * loss + (w**2).sum() / 2

    best = minimize(objective, np.zeros(15), method="BFGS", options={"gtol": 1e-7}).x
    wanted = z @ best[:12].reshape(3, 4).T + best[12:]
    found = head(space.features).detach().numpy()
    spread = (found - wanted) - (found - wanted).mean(1, keepdims=True)
    assert np.abs(spread).max() < 2e-3


@pytest.mark.parametrize("kind", ["logistic", "ridge", "svm"])
@pytest.mark.parametrize("counts", [(60, 12), (60, 20, 5)])
def test_weights_count_like_copies(kind: str, counts: tuple[int, ...]) -> None:
    """A class of weight w is one whose images are there w times."""
    x, labels = gaussians(counts)
    copies = np.array([max(counts) // n for n in counts])
    places = np.repeat(np.arange(len(x)), copies[labels])
    space = space_of(x)
    fit = {"logistic": probes.logistic, "ridge": probes.ridge, "svm": probes.svm}[kind]
    classes = len(counts)
    weighted = fit(space, np.arange(len(x)), labels, classes, copies.astype(float))
    copied = fit(space, places, labels[places], classes)
    found, wanted = (h(space.features).detach().numpy() for h in (weighted, copied))
    assert np.abs(found - wanted).max() < 5e-3 * np.abs(wanted).max()


def test_remedies_find_the_rare_class_more_often() -> None:
    x, labels = gaussians((300, 12), seed=3)
    fresh, truth = gaussians((200, 200), seed=4)
    space, rows = space_of(x), np.arange(312)
    heads: dict[str, LinearHead] = {
        "none": probes.logistic(space, rows, labels, 2),
        "weights": probes.logistic(space, rows, labels, 2, class_weights(labels, 2)),
        "logits": adjust(probes.logistic(space, rows, labels, 2), labels),
    }
    recall = {
        name: float((head(torch.from_numpy(fresh).float()).argmax(1).numpy()[200:] == 1).mean())
        for name, head in heads.items()
    }
    assert truth[200] == 1
    assert recall["none"] < 0.6
    assert min(recall["weights"], recall["logits"]) > recall["none"] + 0.15


def test_what_a_remedy_becomes_without_batches() -> None:
    assert head_remedy("features", "sampling") == "weights"
    assert head_remedy("logistic", "logits") == "logits"
    assert head_remedy("svm", "logits") == "none"
    assert head_remedy("centroid", "weights") == head_remedy("knn", "weights") == "none"
    assert head_remedy("logistic", "none") == "none"
