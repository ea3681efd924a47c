"""How far the probabilities of a classifier can be believed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]

BINS = 15
"""Equal-width bins of confidence, as in Guo et al. 2017."""

SMALLEST = 1e-7
"""Probabilities are raised to this before the logarithm: below it float32 softmax has no digits."""


def nll(labels: Ints, probabilities: Floats) -> float:
    """Return the mean negative log probability of the true class, in nats.

    Parameters
    ----------
    labels : ndarray
        ``(n,)`` integers in ``[0, K)``.
    probabilities : ndarray
        ``(n, K)`` in ``[0, 1]``; rows sum to 1.

    Returns
    -------
    float
        In ``[0, 16.2]``: the upper end is the clipping at `SMALLEST`.
    """
    return float(nll_per_image(labels, probabilities).mean())


def nll_per_image(labels: Ints, probabilities: Floats) -> npt.NDArray[np.float64]:
    """Return ``(n,)`` negative log probabilities of the true class, clipped as in `nll`."""
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.clip(true, SMALLEST, 1.0))


def brier(labels: Ints, probabilities: Floats) -> float:
    """Return the multi-class Brier score: squared error summed over classes, mean over images.

    Returns
    -------
    float
        In ``[0, 2]`` (Brier 1950); scikit-learn's with ``scale_by_half=False``.
    """
    p = probabilities.astype(np.float64)
    true = p[np.arange(len(labels)), labels]
    # |p - onehot|^2 = |p|^2 - 2 p_true + 1: needs no (n, K) copy of the one-hot labels.
    return float(((p * p).sum(axis=1) - 2 * true + 1).mean())


def _bin_of(confidence: Floats, bins: int) -> npt.NDArray[np.int64]:
    """Return the bin of each confidence; a bin holds its upper edge, not its lower one."""
    upper = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    return np.searchsorted(upper, confidence.astype(np.float64), side="left").astype(np.int64)


def reliability(
    labels: Ints, probabilities: Floats, bins: int = BINS
) -> list[dict[str, float | int | None]]:
    """Return the reliability table: accuracy against confidence of the predicted class.

    Returns
    -------
    list of dict
        One a bin: ``low``, ``high`` (edges), ``n``, ``confidence`` and
        ``accuracy`` (means; None in an empty bin).
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    where = _bin_of(confidence, bins)
    count = np.bincount(where, minlength=bins)
    sums = [np.bincount(where, weights=v, minlength=bins) for v in (confidence, correct)]
    edges = np.linspace(0.0, 1.0, bins + 1)
    return [
        {
            "low": float(edges[b]),
            "high": float(edges[b + 1]),
            "n": int(count[b]),
            "confidence": float(sums[0][b] / count[b]) if count[b] else None,
            "accuracy": float(sums[1][b] / count[b]) if count[b] else None,
        }
        for b in range(bins)
    ]


def ece(labels: Ints, probabilities: Floats, bins: int = BINS) -> float:
    """Return the expected calibration error of the predicted class.

    Mean over images of ``|accuracy - confidence|`` of the image's bin
    (Guo et al. 2017), with equal-width bins.

    Returns
    -------
    float
        In ``[0, 1]``.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    gap = (probabilities.argmax(axis=1) == labels) - confidence
    per_bin = np.bincount(_bin_of(confidence, bins), weights=gap, minlength=bins)
    return float(np.abs(per_bin).sum() / len(labels))
