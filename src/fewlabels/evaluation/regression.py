"""Scores of predicted numbers on held-out images, with intervals over the images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from fewlabels.evaluation.intervals import bootstrap
from fewlabels.evaluation.variances import ALPHA

Floats = npt.NDArray[np.floating]

METRICS = ("mse", "mae", "r2")
"""Metrics that a comparison of regressors can be judged by."""


def _check(targets: Floats, predictions: Floats) -> None:
    if targets.ndim != 1 or targets.shape != predictions.shape or not len(targets):
        raise ValueError(
            f"need targets and predictions (n,), got {targets.shape} and {predictions.shape}"
        )
    if not (np.isfinite(targets).all() and np.isfinite(predictions).all()):
        raise ValueError("targets and predictions must be finite: leave unlabelled images out")


def point(targets: Floats, predictions: Floats) -> dict[str, float | None]:
    """Return the scores of one cell, without intervals.

    Parameters
    ----------
    targets, predictions : ndarray
        ``(n,)`` finite floats.

    Returns
    -------
    dict
        ``mse`` and ``mae``, 0 or more, in the square of the unit and in the unit; ``r2``, at
        most 1, None where the targets do not vary.

    Raises
    ------
    ValueError
        If the arrays are not as above.

    Examples
    --------
    >>> point(np.array([0.0, 2.0]), np.array([0.0, 1.0]))
    {'mse': 0.5, 'mae': 0.5, 'r2': 0.5}
    """
    _check(targets, predictions)
    error = targets.astype(np.float64) - predictions.astype(np.float64)
    mse, spread = float((error**2).mean()), float(targets.astype(np.float64).var())
    r2 = 1 - mse / spread if spread > 0 else None
    return {"mse": mse, "mae": float(np.abs(error).mean()), "r2": r2}


def spearman(targets: Floats, predictions: Floats) -> float | None:
    """Return the correlation of the ranks, in [-1, 1]; None where either does not vary."""
    if not (np.ptp(targets) > 0 and np.ptp(predictions) > 0):
        return None
    first, second = stats.rankdata(targets), stats.rankdata(predictions)
    return float(np.corrcoef(first, second)[0, 1].clip(-1, 1))


def _all(targets: Floats, predictions: Floats) -> dict[str, float | None]:
    return {**point(targets, predictions), "spearman": spearman(targets, predictions)}


def expanded(n: int, alpha: float = ALPHA) -> float:
    """Return the error rate at which a percentile interval of `n` images has the length it should.

    Percentiles of resamples are too short by a factor of ``sqrt((n - 1) / n)``, and by that of
    a normal to a t quantile (the expanded percentile interval of Hesterberg 2015, "What
    teachers should know about the bootstrap").

    Examples
    --------
    >>> round(expanded(10), 3), round(expanded(1000), 3)
    (0.017, 0.05)
    """
    quantile = math.sqrt(n / (n - 1)) * float(stats.t.ppf(1 - alpha / 2, n - 1))
    return float(2 * stats.norm.cdf(-quantile))


def regression(targets: Floats, predictions: Floats, *, seed: int = 0) -> dict[str, Any]:
    """Return the scores that `evaluate` prints for a regressor, with 95 % intervals.

    The intervals are expanded percentiles of a bootstrap over images (1,000 resamples). They
    cover the choice of test images only, not the training.

    Parameters
    ----------
    targets, predictions : ndarray
        ``(n,)`` finite floats.
    seed : int
        Of the bootstrap.

    Returns
    -------
    dict
        ``n``, and ``mse``, ``mae``, ``r2``, ``spearman`` as ``{"value", "low", "high"}``, the
        last two None where they are not defined. Ends are None with fewer than two images,
        where all errors are equal (resampling cannot vary, which is not certainty), and where
        a score has no bound.
    """
    drawn = _resampled(targets, predictions, seed)
    out: dict[str, Any] = {"n": len(targets)}
    for name, value in _all(targets, predictions).items():
        ends = drawn.get(name, (-math.inf, math.inf))
        out[name] = None if value is None else _interval(value, ends)
    return out


def _resampled(targets: Floats, predictions: Floats, seed: int) -> dict[str, tuple[float, float]]:
    """Return the ends of the intervals; empty where resampling says nothing."""
    n = len(targets)
    if n < 2 or np.ptp(np.abs(targets - predictions)) == 0:
        return {}

    def scores(rows: npt.NDArray[np.int64]) -> dict[str, float]:
        found = _all(targets[rows], predictions[rows])
        # A resample of one repeated number says nothing against a low score.
        return {name: -math.inf if v is None else v for name, v in found.items()}

    return bootstrap(scores, np.zeros(n, np.int64), seed=seed, alpha=expanded(n))


def _interval(value: float, ends: tuple[float, float]) -> dict[str, float | None]:
    low, high = min(ends[0], value), max(ends[1], value)
    if low == high:
        return {"value": value, "low": None, "high": None}
    return {
        "value": value,
        "low": low if math.isfinite(low) else None,
        "high": high if math.isfinite(high) else None,
    }


def image_scores(
    targets: Floats, predictions: Floats, metric: str = "mse"
) -> npt.NDArray[np.float64]:
    """Return one number a test image whose mean is the metric.

    R2 is a ratio of means: its numbers are linearised. They are nan where the targets do not
    vary.

    Parameters
    ----------
    targets, predictions : ndarray
        As in `point`.
    metric : str
        One of `METRICS`.

    Returns
    -------
    ndarray
        ``(n,)`` float64.
    """
    _check(targets, predictions)
    truth = targets.astype(np.float64)
    error = truth - predictions.astype(np.float64)
    if metric == "mse":
        return np.asarray(error**2)
    if metric == "mae":
        return np.abs(error)
    if metric != "r2":
        raise ValueError(f"no score an image for metric {metric!r}")
    squared, off = error**2, (truth - truth.mean()) ** 2
    mse, spread = squared.mean(), off.mean()
    if spread == 0:
        return np.full(len(truth), np.nan)
    pull = (squared - mse) / spread - mse / spread**2 * (off - spread)
    return np.asarray(1 - mse / spread - pull, dtype=np.float64)
