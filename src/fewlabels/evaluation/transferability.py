"""Transferability: how well features suit labels, told without training on them.

LogME (You et al. 2021, "LogME: Practical Assessment of Pre-trained Models for Transfer
Learning") is the evidence of a Bayesian linear model of the labels given the features: how
probable the labels are when the weights are integrated out, so that long features are not
preferred for their length. The paper iterates over the two precisions; here the noise is
eliminated in closed form, and what is left is one number to search for.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import minimize_scalar

_SEARCH = (-12.0, 12.0)  # decades around the largest squared singular value
_STEPS = 97  # four a decade


def logme(features: np.ndarray, labels: np.ndarray) -> float:
    """Return the logarithm of the maximum evidence, per label and averaged over the classes.

    Each class is a target that is 1 for its images and 0 for the others.

    Parameters
    ----------
    features : ndarray
        ``(n, F)``; centre them, where the model is to have an intercept.
    labels : ndarray
        ``(n,)`` integers: classes.

    Returns
    -------
    float
        Larger is better. Only scores on the same labels can be compared.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(60) % 2
    >>> noise = rng.normal(size=(60, 5))
    >>> logme(noise + labels[:, None], labels) > logme(noise, labels)
    True
    """
    classes = np.unique(labels)
    return _mean_evidence(features, (labels[:, None] == classes).astype(np.float64))


def logme_of_numbers(features: np.ndarray, targets: np.ndarray) -> float:
    """Return the logarithm of the maximum evidence of numbers, per number.

    The same with one target, as the paper has it for regression. The numbers are standardised
    first, so that the score does not depend on their unit: features that say nothing get
    -(log(2 pi) + 1) / 2, about -1.419.

    Parameters
    ----------
    features : ndarray
        ``(n, F)``; centre them.
    targets : ndarray
        ``(n,)`` float.

    Returns
    -------
    float
        Larger is better. Only scores on the same numbers can be compared.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(60, 3))
    >>> y = 2000 + 5 * x[:, 0] + rng.normal(size=60)
    >>> logme_of_numbers(x - x.mean(0), y) > logme_of_numbers(x[:, 1:] - x[:, 1:].mean(0), y)
    True
    """
    centred = targets.astype(np.float64) - targets.mean()
    spread = float(centred.std())
    return _mean_evidence(features, (centred / (spread or 1.0))[:, None])


def _mean_evidence(features: np.ndarray, targets: np.ndarray) -> float:
    """Return the log-evidence per row of targets ``(n, t)``, averaged over them."""
    left, values, _ = np.linalg.svd(features.astype(np.float64), full_matrices=False)
    squares = values**2  # (k,)
    parts = (left.T @ targets) ** 2  # (k, t)
    rest = np.maximum((targets**2).sum(0) - parts.sum(0), 0.0)  # what no weights can explain
    count = len(targets)
    best = [_evidence(squares, parts[:, c], rest[c], count) for c in range(targets.shape[1])]
    return float(np.mean(best)) / count


def _evidence(squares: np.ndarray, parts: np.ndarray, rest: float, count: int) -> float:
    """Return the largest log-evidence of one target over both precisions.

    With features ``F = U S V'``, noise of precision b and weights of precision b * t the target
    y is normal with covariance ``(I + F F' / t) / b``. Its logarithm is largest in b at
    ``b = n / r(t)``, where ``r(t) = rest + sum(t / (s^2 + t) * (U' y)^2)``.

    Parameters
    ----------
    squares, parts : ndarray
        ``(k,)`` squared singular values, and squares of ``U' y``.
    rest : float
        The square of what is left of y outside the span of U.
    """

    def negative(decade: float) -> float:
        t = scale * 10.0**decade
        residual = max(rest + float((t / (squares + t) * parts).sum()), 1e-12)
        log_det = float(np.log1p(squares / t).sum())
        return 0.5 * (count * (math.log(2 * math.pi * residual / count) + 1) + log_det)

    scale = float(squares.max(initial=0.0)) or 1.0
    grid = np.linspace(*_SEARCH, _STEPS)
    coarse = grid[int(np.argmin([negative(d) for d in grid]))]
    step = grid[1] - grid[0]
    found = minimize_scalar(negative, bounds=(coarse - step, coarse + step), method="bounded")
    return -min(float(found.fun), negative(coarse))
