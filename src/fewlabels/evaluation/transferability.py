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
    left, values, _ = np.linalg.svd(features.astype(np.float64), full_matrices=False)
    squares = values**2  # (k,)
    classes = np.unique(labels)
    targets = (labels[:, None] == classes).astype(np.float64)  # (n, classes)
    parts = (left.T @ targets) ** 2  # (k, classes)
    rest = np.maximum((targets**2).sum(0) - parts.sum(0), 0.0)  # what no weights can explain
    count = len(labels)
    best = [_evidence(squares, parts[:, c], rest[c], count) for c in range(len(classes))]
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
