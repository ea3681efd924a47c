"""Folds of the labelled images, by which arms are chosen within the label budget."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ENOUGH = 4  # labels in the smallest class
ENOUGH_NUMBERS = 8  # labelled images, for numbers: two a fold
FOLDS = 4

Ints = npt.NDArray[np.int64]


def folds_of(labels: npt.NDArray[np.integer], seed: int) -> Ints | None:
    """Return the fold of each labelled image, or None where there are too few to hold out.

    Parameters
    ----------
    labels : ndarray
        ``(n,)`` int64.

    Returns
    -------
    ndarray or None
        ``(n,)`` int64 in ``[0, FOLDS)``.
    """
    counts = np.bincount(labels)
    smallest = int(counts[counts > 0].min())
    if smallest < ENOUGH:
        return None
    folds = np.empty(len(labels), np.int64)
    rng = np.random.default_rng(seed)
    for name in np.unique(labels):
        place = rng.permutation(np.flatnonzero(labels == name))
        folds[place] = np.arange(len(place)) % min(FOLDS, smallest)
    return folds


def number_folds(targets: npt.NDArray[np.floating], seed: int) -> Ints | None:
    """Return the fold of each image with a number; each fold spans their range.

    In order of the number, every four neighbours go to the four folds at random.

    Parameters
    ----------
    targets : ndarray
        ``(n,)`` finite floats.

    Returns
    -------
    ndarray or None
        ``(n,)`` int64 in ``[0, FOLDS)``; None with fewer than `ENOUGH_NUMBERS`.
    """
    if len(targets) < ENOUGH_NUMBERS:
        return None
    rng = np.random.default_rng(seed)
    blocks = -(-len(targets) // FOLDS)
    dealt = np.concatenate([rng.permutation(FOLDS) for _ in range(blocks)])[: len(targets)]
    folds = np.empty(len(targets), np.int64)
    folds[np.argsort(targets, kind="stable")] = dealt
    return folds
