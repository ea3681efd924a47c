"""LogME against the evidence maximised directly, and against the iteration of its paper."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from fewlabels.evaluation.transferability import logme, logme_of_numbers


def one_hot(labels: np.ndarray) -> list[np.ndarray]:
    return [(labels == c).astype(float) for c in np.unique(labels)]


def direct(features: np.ndarray, targets: list[np.ndarray]) -> float:
    """Maximise the density of the targets over both precisions, with the covariance written out."""
    n, total = len(features), 0.0
    for y in targets:

        def negative(logs: np.ndarray, y: np.ndarray = y) -> float:
            alpha, beta = np.exp(np.clip(logs, -25, 25))
            covariance = np.eye(n) / beta + features @ features.T / alpha
            return -float(multivariate_normal(np.zeros(n), covariance).logpdf(y))

        starts = [(a, b) for a in (-2.0, 2.0, 6.0) for b in (0.0, 2.0)]
        total -= min(minimize(negative, start, method="Nelder-Mead").fun for start in starts)
    return total / len(targets) / n


def paper(features: np.ndarray, targets: list[np.ndarray]) -> float:
    """Iterate as algorithm 1 of You et al. 2021."""
    n, width = features.shape
    gram, scores = features.T @ features, []
    for y in targets:
        alpha = beta = 1.0
        for _ in range(2000):
            inverse = np.linalg.inv(alpha * np.eye(width) + beta * gram)
            m = beta * inverse @ features.T @ y
            gamma = beta * np.trace(inverse @ gram)
            alpha, beta = gamma / (m @ m), (n - gamma) / ((features @ m - y) ** 2).sum()
        _, log_det = np.linalg.slogdet(alpha * np.eye(width) + beta * gram)
        residual = ((features @ m - y) ** 2).sum()
        evidence = n / 2 * np.log(beta) + width / 2 * np.log(alpha) - n / 2 * np.log(2 * np.pi)
        evidence -= beta / 2 * residual + alpha / 2 * (m @ m) + log_det / 2
        scores.append(evidence / n)
    return float(np.mean(scores))


def made(seed: int, n: int, width: int, signal: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    features = rng.normal(size=(n, width)) * np.geomspace(3, 0.3, width)
    features[:, :3] += signal * np.eye(3)[labels]
    return features, labels


@pytest.mark.medium
@pytest.mark.parametrize(("n", "width"), [(60, 5), (30, 40)])
def test_the_largest_evidence(n: int, width: int) -> None:
    features, labels = made(0, n, width, 1.5)
    assert logme(features, labels) == pytest.approx(direct(features, one_hot(labels)), abs=1e-6)


def test_the_iteration_of_the_paper() -> None:
    features, labels = made(1, 90, 6, 1.0)
    assert logme(features, labels) == pytest.approx(paper(features, one_hot(labels)), abs=1e-6)


def made_numbers(seed: int, n: int, width: int, signal: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, width)) * np.geomspace(3, 0.3, width)
    targets = signal * features[:, 0] + rng.normal(size=n)
    return features - features.mean(0), targets


@pytest.mark.medium
def test_numbers_have_the_evidence_of_one_target() -> None:
    features, targets = made_numbers(0, 80, 6, 0.8)
    wanted = [(targets - targets.mean()) / targets.std()]
    found = logme_of_numbers(features, targets)
    assert found == pytest.approx(direct(features, wanted), abs=1e-6)
    assert found == pytest.approx(paper(features, wanted), abs=1e-6)


def test_the_score_of_numbers_does_not_depend_on_their_unit() -> None:
    features, targets = made_numbers(1, 60, 5, 1.0)
    found = logme_of_numbers(features, targets)
    assert logme_of_numbers(features, 2000 - 100 * targets) == pytest.approx(found, abs=1e-9)
    scores = [logme_of_numbers(*made_numbers(2, 100, 5, s)) for s in (0.0, 0.3, 1.0, 3.0)]
    assert scores == sorted(scores)
    nothing = logme_of_numbers(np.zeros((60, 5)), targets)
    assert nothing == pytest.approx(-0.5 * (np.log(2 * np.pi) + 1))
    assert np.isfinite(logme_of_numbers(features, np.full(60, 7.0)))


def test_more_signal_is_better_and_scale_does_not_matter() -> None:
    scores = [logme(*made(2, 120, 8, signal)) for signal in (0.0, 0.5, 1.0, 2.0)]
    assert scores == sorted(scores)
    features, labels = made(2, 120, 8, 1.0)
    assert logme(1e4 * features, labels) == pytest.approx(logme(features, labels), abs=1e-9)


def test_features_that_say_nothing() -> None:
    labels = np.arange(20) % 2
    nothing = logme(np.zeros((20, 4)), labels)
    assert np.isfinite(nothing)
    # Targets of mean square 1/2 under a normal density of that variance.
    assert nothing == pytest.approx(-0.5 * (np.log(2 * np.pi * 0.5) + 1))
    assert np.isfinite(logme(np.eye(20), labels))
