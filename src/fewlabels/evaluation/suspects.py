"""Which labels are probably wrong: confident learning on held-out probabilities.

Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels".
A class counts as probable for an image where its probability reaches the mean probability that the
images labelled so get; so classes that a classifier is never sure of are not suspected wholesale,
and a classifier need not be calibrated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]

LEAST = 4  # labels of a class below which held-out probabilities say nothing of it


@dataclass(frozen=True, slots=True, eq=False)
class Doubts:
    """What is to be thought of labels.

    Attributes
    ----------
    suspect : ndarray
        ``(n,)`` bool: another class than the label is the most probable of those that count,
        and the label is not the most probable of all.
    suggested : ndarray
        ``(n,)`` int64: that class; where there is none, the most probable other one.
    score : ndarray
        ``(n,)`` float64 in [0, 1], the higher the more doubtful: half of one plus the
        probability of the suggested class less that of the label.
    """

    suspect: npt.NDArray[np.bool_]
    suggested: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]


def judge(labels: Ints, shares: Floats) -> Doubts:
    """Say which labels are doubtful, and what else the images may be.

    Parameters
    ----------
    labels : ndarray
        ``(n,)`` int64 as given.
    shares : ndarray
        ``(n, K)`` class probabilities from classifiers that have not seen the image's own label.

    Examples
    --------
    >>> labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1])
    >>> sure = np.array([0.9, 0.8, 0.9, 0.8, 0.2, 0.1, 0.2, 0.1, 0.95])
    >>> found = judge(labels, np.stack([sure, 1 - sure], 1))
    >>> np.flatnonzero(found.suspect).tolist(), found.suggested[8].item()
    ([8], 0)
    """
    own = shares[np.arange(len(labels)), labels]
    reached = np.where(shares >= thresholds(labels, shares), shares, -1.0)  # (n, K)
    best = reached.argmax(1)
    # A label that is the most probable class all the same is let pass, as cleanlab does.
    suspect = (reached.max(1) >= 0) & (best != labels) & (shares.argmax(1) != labels)
    others = shares.copy()
    others[np.arange(len(labels)), labels] = -1.0
    suggested = np.where(suspect, best, others.argmax(1)).astype(np.int64)
    away = shares[np.arange(len(labels)), suggested] - own
    return Doubts(suspect, suggested, (0.5 * (1.0 + away)).astype(np.float64))


def thresholds(labels: Ints, shares: Floats) -> npt.NDArray[np.float64]:
    """Return ``(K,)`` the mean probability of each class over the images labelled so.

    Infinite for classes with fewer than `LEAST` labels.
    """
    count = shares.shape[1]
    number = np.bincount(labels, minlength=count)
    total = np.bincount(labels, weights=shares[np.arange(len(labels)), labels], minlength=count)
    return np.where(number >= LEAST, total / np.maximum(number, 1), np.inf)


def precision_at(recall: float, wrong: npt.NDArray[np.bool_], score: Floats) -> float:
    """Return the precision of a ranking where it has found a share of what is wrong.

    Parameters
    ----------
    recall : float
        In (0, 1].
    wrong : ndarray
        ``(n,)`` bool, True somewhere.
    score : ndarray
        ``(n,)``, the highest first; of equal scores the wrong ones come last.

    Examples
    --------
    >>> precision_at(0.5, np.array([True, False, True]), np.array([0.2, 0.3, 0.9]))
    1.0
    >>> precision_at(1.0, np.array([True, False, True]), np.array([0.2, 0.3, 0.9]))
    0.6666666666666666
    """
    found = np.cumsum(wrong[np.lexsort((wrong, -score))])
    looked = int(np.searchsorted(found, np.ceil(recall * wrong.sum()))) + 1
    return float(found[looked - 1] / looked)


def stratified_folds(labels: Ints, folds: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return the fold ``(n,)`` of each label; every class is dealt out over all folds."""
    dealt, start = np.empty(len(labels), np.int64), 0
    for name in np.unique(labels):
        places = rng.permutation(np.flatnonzero(labels == name))
        dealt[places] = (start + np.arange(len(places))) % folds
        start += len(places)  # so that small classes do not all fall into the first folds
    return dealt
