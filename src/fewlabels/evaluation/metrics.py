"""Scores of predicted classes on held-out images, with intervals over the images.

Classes without an image in the split have no recall, so every macro average
runs over the classes that are present; predicting an absent class is simply
wrong. They still appear in the confusion matrix and, with nulls, per class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fewlabels.evaluation import calibration
from fewlabels.evaluation.intervals import bootstrap, wilson

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]

LOWER_IS_BETTER = frozenset({"nll", "ece", "brier", "mse", "mae"})
"""Metrics whose smaller value is the better one."""

_SHARES = ("accuracy", "balanced_accuracy", "precision_macro", "recall_macro", "f1_macro", "ece")
RANGES = {
    **dict.fromkeys(_SHARES, (0.0, 1.0)),
    **dict.fromkeys(("nll", "brier", "mse", "mae"), (0.0, math.inf)),
    "r2": (-math.inf, 1.0),
}
"""What a metric cannot leave."""


def _check(labels: Ints, probabilities: Floats) -> None:
    if probabilities.ndim != 2 or len(labels) != len(probabilities) or not len(labels):
        raise ValueError(
            f"need n >= 1 labels (n,) and probabilities (n, K), got {labels.shape} "
            f"and {probabilities.shape}"
        )
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(
            f"labels must lie in [0, {probabilities.shape[1]}), "
            f"got {labels.min()} to {labels.max()}: leave unlabelled images out"
        )
    if not np.isfinite(probabilities).all() or probabilities.min() < 0:
        raise ValueError("probabilities must be finite and not negative")
    off = float(np.abs(probabilities.sum(axis=1, dtype=np.float64) - 1).max())
    if off > 1e-3:
        raise ValueError(f"rows of probabilities must sum to 1, one is off by {off:.3g}")


def _counts(labels: Ints, predicted: Ints, k: int) -> tuple[Ints, Ints, Ints]:
    """Return ``(K,)`` images, predictions and correct predictions of each class."""
    return (
        np.bincount(labels, minlength=k),
        np.bincount(predicted, minlength=k),
        np.bincount(labels[labels == predicted], minlength=k),
    )


def _macro(labels: Ints, predicted: Ints, k: int) -> dict[str, float]:
    """Return the macro averages over the classes present in `labels`."""
    n, claimed, hit = _counts(labels, predicted, k)
    here = n > 0
    n, claimed, hit = n[here], claimed[here], hit[here]
    recall = float((hit / n).mean())
    return {
        "balanced_accuracy": recall,
        "precision_macro": float((hit / np.maximum(claimed, 1)).mean()),
        "recall_macro": recall,
        "f1_macro": float((2 * hit / (n + claimed)).mean()),
    }


def point(labels: Ints, probabilities: Floats) -> dict[str, float]:
    """Return the scores of one cell, without intervals.

    Parameters
    ----------
    labels : ndarray
        ``(n,)`` integers in ``[0, K)``.
    probabilities : ndarray
        ``(n, K)`` in ``[0, 1]``; rows sum to 1.

    Returns
    -------
    dict
        ``accuracy``, ``balanced_accuracy``, ``recall_macro`` and ``f1_macro``
        in ``[0, 1]``, ``nll`` in nats.

    Raises
    ------
    ValueError
        If shapes, labels or probabilities are not as above.

    Examples
    --------
    >>> scores = point(np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]]))
    >>> scores["accuracy"], round(scores["f1_macro"], 3)
    (0.5, 0.333)
    """
    _check(labels, probabilities)
    predicted = probabilities.argmax(axis=1)
    macro = _macro(labels, predicted, probabilities.shape[1])
    return {
        "accuracy": float((predicted == labels).mean()),
        "balanced_accuracy": macro["balanced_accuracy"],
        "recall_macro": macro["recall_macro"],
        "f1_macro": macro["f1_macro"],
        "nll": calibration.nll(labels, probabilities),
    }


def _interval(value: float, ends: tuple[float, float]) -> dict[str, float]:
    return {"value": value, "low": min(ends[0], value), "high": max(ends[1], value)}


def _per_class(
    labels: Ints, predicted: Ints, classes: Sequence[str]
) -> list[dict[str, str | int | float | None]]:
    """Return precision, recall and F1 of each class; None where they are undefined."""
    n, claimed, hit = _counts(labels, predicted, len(classes))
    return [
        {
            "name": name,
            "n": int(n[c]),
            "precision": float(hit[c] / claimed[c]) if claimed[c] else (0.0 if n[c] else None),
            "recall": float(hit[c] / n[c]) if n[c] else None,
            "f1": float(2 * hit[c] / (n[c] + claimed[c])) if n[c] else None,
        }
        for c, name in enumerate(classes)
    ]


def _macro_intervals(labels: Ints, predicted: Ints, k: int, seed: int) -> dict[str, Any]:
    """Return the macro averages with stratified bootstrap intervals."""
    value = _macro(labels, predicted, k)
    ends = bootstrap(lambda rows: _macro(labels[rows], predicted[rows], k), labels, seed=seed)
    for name, (low, high) in ends.items():
        if low == high:
            # All right or all wrong: resampling cannot vary, which is not certainty.
            ends[name] = wilson(value[name] * len(labels), len(labels))
    return {name: _interval(v, ends[name]) for name, v in value.items()}


def classification(
    labels: Ints, probabilities: Floats, classes: Sequence[str], *, seed: int = 0
) -> dict[str, Any]:
    """Return the scores that `evaluate` prints, with 95 % intervals over the images.

    Accuracy carries Wilson's score interval; the macro averages carry
    percentile intervals of a bootstrap within classes (1,000 resamples), and
    Wilson's at `n` where the resamples do not vary. The intervals cover the
    choice of test images only, not the training.

    Parameters
    ----------
    labels : ndarray
        ``(n,)`` integers in ``[0, K)``.
    probabilities : ndarray
        ``(n, K)`` in ``[0, 1]``; rows sum to 1.
    classes : sequence of str
        The `K` names.
    seed : int
        Of the bootstrap.

    Returns
    -------
    dict
        ``n``; ``accuracy``, ``balanced_accuracy``, ``precision_macro``,
        ``recall_macro``, ``f1_macro`` as ``{"value", "low", "high"}``; ``nll``,
        ``ece``, ``brier``; ``per_class``; ``confusion`` (rows are true classes).

    Raises
    ------
    ValueError
        If shapes, labels, probabilities or the number of names do not fit.
    """
    _check(labels, probabilities)
    k = probabilities.shape[1]
    if len(classes) != k:
        raise ValueError(f"classes must name {k} columns of probabilities, got {len(classes)}")
    predicted = probabilities.argmax(axis=1)
    right = int((predicted == labels).sum())
    n = len(labels)
    return {
        "n": n,
        "accuracy": _interval(right / n, wilson(right, n)),
        **_macro_intervals(labels, predicted, k, seed),
        "nll": calibration.nll(labels, probabilities),
        "ece": calibration.ece(labels, probabilities),
        "brier": calibration.brier(labels, probabilities),
        "per_class": _per_class(labels, predicted, classes),
        "confusion": np.bincount(labels * k + predicted, minlength=k * k).reshape(k, k).tolist(),
    }


def image_scores(
    labels: Ints, probabilities: Floats, metric: str = "accuracy"
) -> npt.NDArray[np.float64]:
    """Return one number a test image whose mean is the metric.

    The spread of these numbers says how much the metric owes to the choice of
    test images. The macro averages are ratios of sums: theirs are linearised.

    Parameters
    ----------
    labels, probabilities : ndarray
        As in `point`.
    metric : str
        ``accuracy``, ``balanced_accuracy``, ``recall_macro``, ``f1_macro`` or ``nll``.

    Returns
    -------
    ndarray
        ``(n,)`` float64.
    """
    _check(labels, probabilities)
    if metric == "nll":
        return calibration.nll_per_image(labels, probabilities)
    predicted = probabilities.argmax(axis=1)
    right: npt.NDArray[np.float64] = (predicted == labels).astype(np.float64)
    if metric == "accuracy":
        return right
    n, claimed, hit = _counts(labels, predicted, probabilities.shape[1])
    if metric in ("balanced_accuracy", "recall_macro"):
        recall = hit / np.maximum(n, 1)
        present = int((n > 0).sum())
        off = len(labels) * (right - recall[labels]) / (present * n[labels])
        return np.asarray(recall.sum() / present + off, dtype=np.float64)
    if metric == "f1_macro":
        return _f1_scores(labels, predicted, n, claimed)
    raise ValueError(f"no score an image for metric {metric!r}")


def _f1_scores(labels: Ints, predicted: Ints, n: Ints, claimed: Ints) -> npt.NDArray[np.float64]:
    """Return the linearised F1: ``F + n sum_c (2 hit_ic - F_c total_ic) / total_c / K``."""
    total = np.maximum(n + claimed, 1)
    hit = np.bincount(labels[labels == predicted], minlength=len(n))
    f1 = np.where(n > 0, 2 * hit / total, 0.0)
    present = int((n > 0).sum())
    slope = np.where(n > 0, f1 / total, 0.0)
    gain = np.where(labels == predicted, 2.0 / total[labels], 0.0)
    pull = gain - slope[labels] - slope[predicted]
    return np.asarray(f1.sum() / present + len(labels) * pull / present, dtype=np.float64)
