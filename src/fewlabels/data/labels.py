"""The label budget: which labels stay visible when only a few per class may be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fewlabels.data.splits import uniform


def draw(
    labels: np.ndarray, rows: np.ndarray, keys: Sequence[str], shots: int, seed: int
) -> np.ndarray:
    """Draw `shots` rows of each class, or all of a class that has fewer.

    The draws of one seed are nested: the rows for 4 shots are among those for 25.
    A row's rank is the hash of its content, so adding images changes a draw only
    where a new one ranks first. Copies of a picture come after all else, because a
    second copy teaches nothing.

    Parameters
    ----------
    labels : ndarray
        ``(N,)`` int64 of the data set, -1 unlabelled.
    rows : ndarray
        ``(n,)`` rows to draw from; unlabelled ones are passed over.
    keys : sequence of str
        Content of each row of the data set, such as its SHA-256.
    shots : int
        Labels per class, at least 1.
    seed : int
        Which draw.

    Returns
    -------
    ndarray
        Sorted int64 rows.
    """
    rows = np.sort(np.asarray(rows, np.int64))
    rows = rows[labels[rows] >= 0]
    u = uniform((keys[int(i)] for i in rows), seed, "labels")
    order = np.lexsort((u, _copies(u), labels[rows]))
    ranked = labels[rows[order]]
    place = np.arange(len(ranked)) - np.searchsorted(ranked, ranked)
    return np.sort(rows[order[place < shots]])


def _copies(u: np.ndarray) -> np.ndarray:
    """Return for each row how many equal ones come before it."""
    order = np.argsort(u, kind="stable")
    ranked = u[order]
    count = np.empty(len(u), np.int64)
    count[order] = np.arange(len(u)) - np.searchsorted(ranked, ranked)
    return count


def shortfall(
    labels: np.ndarray, rows: np.ndarray, classes: Sequence[str], shots: int
) -> dict[str, int]:
    """Return {class: count} of the classes with fewer than `shots` labels among `rows`."""
    found = labels[rows]
    counts = np.bincount(found[found >= 0], minlength=len(classes))
    return {name: int(n) for name, n in zip(classes, counts, strict=True) if n < shots}
