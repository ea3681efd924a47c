"""Which guesses count: the published formulas, one image and one class at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy, norm

from fewlabels.transfer import confidence
from fewlabels.transfer.confidence import (
    RULES,
    Running,
    aligned,
    certainty,
    fairness,
    memory,
    truncated_gaussian,
)

CLASSES = 4


def guesses(seed: int = 0, count: int = 12, sharpness: float = 3.0) -> torch.Tensor:
    """Return probabilities ``(count, 4)`` that favour the first class."""
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(count, CLASSES)) + np.array([2.0, 0.0, 0.0, -1.0])
    return torch.from_numpy(logits).softmax(1)


def running(*batches: torch.Tensor, level: bool = False) -> Running:
    found = Running(CLASSES, level=level).double()
    for index, q in enumerate(batches):
        found.observe(q, index)
    return found


def looped_means(batches: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Return FreeMatch's running means (equations 5 and 6), and the variance of confidence."""
    shares, called = np.full(CLASSES, 1 / CLASSES), np.full(CLASSES, 1 / CLASSES)
    level, variance = 1 / CLASSES, 1.0
    for index, q in enumerate(batches):
        kept = min(0.999, (1 + index) / (10 + index))
        named, top = np.zeros(CLASSES), []
        for row in q:
            named[int(np.argmax(row))] += 1 / len(q)
            top.append(max(row))
        shares = kept * shares + (1 - kept) * sum(q) / len(q)
        called = kept * called + (1 - kept) * named
        level = kept * level + (1 - kept) * float(np.mean(top))
        variance = kept * variance + (1 - kept) * float(np.var(top, ddof=1))
    return shares, called, level, variance


def test_running_means_are_what_loops_give() -> None:
    batches = [guesses(seed) for seed in range(5)]
    found = running(*batches)
    shares, called, level, variance = looped_means([q.numpy() for q in batches])
    for name, wanted in {"shares": shares, "called": called}.items():
        np.testing.assert_allclose(getattr(found, name).numpy(), wanted, rtol=1e-6)
    assert float(found.confidence) == pytest.approx(level, rel=1e-6)
    assert float(found.variance) == pytest.approx(variance, rel=1e-6)


def test_memory_spans_the_last_tenth_and_then_a_thousand_steps() -> None:
    for steps in (100, 1_000):
        weights = np.ones(steps)
        for index in range(steps):
            weights[:index] *= memory(index)
            weights[index] = 1 - memory(index)
        age = (weights / weights.sum() * (steps - np.arange(steps))).sum()
        assert 0.08 < age / steps < 0.12
    assert memory(10**6) == 0.999


def test_fixmatch_counts_guesses_above_its_threshold() -> None:
    q = torch.tensor([[0.96, 0.02, 0.01, 0.01], [0.94, 0.03, 0.02, 0.01]])
    assert RULES["fixmatch"](q, running()).tolist() == [1.0, 0.0]


def test_freematch_counts_guesses_above_the_threshold_of_their_class() -> None:
    q, found = guesses(9), running(guesses(1), guesses(2))
    weights = RULES["freematch"](q, found)
    shares = found.shares.numpy()
    for row, weight in zip(q.numpy(), weights.tolist(), strict=True):
        named = int(np.argmax(row))
        threshold = float(found.confidence) * shares[named] / shares.max()
        assert weight == float(row[named] >= threshold)
    assert 0 < weights.mean() < 1
    assert confidence.thresholds(found.confidence, found.shares).argmin() == shares.argmin()


def test_softmatch_weighs_aligned_guesses_by_a_gaussian_below_the_mean() -> None:
    q, found = guesses(9), running(guesses(1), guesses(2), guesses(3), level=True)
    weights = RULES["softmatch"](q, found)
    mean, spread = float(found.confidence), math.sqrt(float(found.variance)) / 2
    for row, weight in zip(q.numpy(), weights.tolist(), strict=True):
        moved = row * (1 / CLASSES) / found.shares.numpy()
        top = max(moved / sum(moved))
        bell = norm.pdf(top, mean, spread) / norm.pdf(mean, mean, spread)
        assert weight == pytest.approx(1.0 if top >= mean else bell, rel=1e-5)
    assert weights.max() == 1.0 > weights.min()


def test_softmatch_measures_confidence_after_alignment() -> None:
    q = guesses(1)
    found = running(q, level=True)
    top = aligned(q, found.shares).amax(1)
    assert float(found.confidence) == pytest.approx(0.1 / CLASSES + 0.9 * float(top.mean()), 1e-6)
    assert float(found.confidence) != pytest.approx(float(running(q).confidence), 1e-3)


def test_alignment_moves_the_mean_to_what_is_wanted() -> None:
    q = guesses(3, count=2_000, sharpness=0.01)
    wanted = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    moved = aligned(q, q.mean(0), wanted)
    torch.testing.assert_close(moved.sum(1), torch.ones(2_000, dtype=torch.float64))
    torch.testing.assert_close(moved.mean(0), wanted, atol=1e-3, rtol=0)
    torch.testing.assert_close(
        aligned(q, q.mean(0)).mean(0), torch.full((CLASSES,), 0.25).double(), atol=1e-3, rtol=0
    )


def test_one_confidence_for_all_gives_no_nan() -> None:
    weights = truncated_gaussian(torch.tensor([0.5, 0.5]), torch.tensor(0.5), torch.tensor(0.0))
    assert weights.tolist() == [1.0, 1.0]


def looped_fairness(logits: np.ndarray, weights: np.ndarray, found: Running) -> float:
    """Return FreeMatch's equations 9 to 11 by loops; a class not named gives nothing."""
    kept = [np.exp(z) / np.exp(z).sum() for z, w in zip(logits, weights, strict=True) if w]
    mean, named = np.zeros(CLASSES), np.zeros(CLASSES)
    for p in kept:
        mean += p / len(kept)
        named[int(np.argmax(p))] += 1 / len(kept)
    a = [found.shares[c].item() / found.called[c].item() for c in range(CLASSES)]
    b = [mean[c] / named[c] if named[c] else 0.0 for c in range(CLASSES)]
    return sum(a[c] / sum(a) * math.log(b[c] / sum(b)) for c in range(CLASSES) if b[c])


@pytest.mark.parametrize("count", [24, 3])
def test_fairness_is_what_loops_give(count: int) -> None:
    found = running(guesses(1), guesses(2))
    logits = 2 * np.random.default_rng(5).normal(size=(count, CLASSES))
    weights = (np.arange(count) % 3 > 0).astype(float)
    loss = fairness(torch.from_numpy(logits), torch.from_numpy(weights), found)
    assert float(loss) == pytest.approx(looped_fairness(logits, weights, found), rel=1e-6)


def test_fairness_without_a_guess_that_counts_is_zero_with_a_gradient() -> None:
    logits = torch.zeros(3, CLASSES, requires_grad=True)
    loss = fairness(logits, torch.zeros(3), running().float())
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_certainty_is_one_minus_the_relative_entropy() -> None:
    shares = guesses(4)
    wanted = 1 - entropy(shares.numpy(), axis=1) / np.log(CLASSES)
    np.testing.assert_allclose(certainty(shares).numpy(), wanted, rtol=1e-6)
