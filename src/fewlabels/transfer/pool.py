"""Images to pick from, and the picking that all strategies share: never two of one picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Places = NDArray[np.int64]

NEAR_COPY = 0.99  # cosine from which two images count as one; different digits stay below
_BLOCK = 2_048


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Images to pick from, and what is known of them.

    Attributes
    ----------
    vectors : ndarray
        ``(n, K)`` float32 unit vectors.
    labelled : ndarray
        ``(n,)`` bool.
    shares : ndarray or None
        ``(n, C)`` float32 class probabilities; None where no classifier can be had yet.
    classes : tuple of str
        Names of the `C` classes.
    barred : ndarray or None
        ``(n,)`` bool: must not be picked, and need no label of their own.
    """

    vectors: Floats
    labelled: NDArray[np.bool_]
    shares: Floats | None = None
    classes: tuple[str, ...] = ()
    barred: NDArray[np.bool_] | None = None

    @property
    def free(self) -> Places:
        """Return the places that may be picked, in order."""
        taken = self.labelled if self.barred is None else self.labelled | self.barred
        return np.flatnonzero(~taken)


@dataclass(frozen=True, slots=True)
class Pick:
    """One picked image.

    Attributes
    ----------
    place : int
        In the pool.
    score : float
        What it was picked by; each strategy has its own.
    reason : str
        The same in words.
    """

    place: int
    score: float
    reason: str


Strategy = Callable[[Pool, int, np.random.Generator], list[Pick]]


def choose(pool: Pool, count: int, strategy: Strategy, rng: np.random.Generator) -> list[Pick]:
    """Pick images by a strategy, none of them a near-copy of a labelled or an earlier one.

    Parameters
    ----------
    pool : Pool
    count : int
        How many; fewer come back where no more are left.
    strategy : Strategy
    rng : numpy.random.Generator
        All that is drawn is drawn from it.

    Examples
    --------
    >>> x = np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]
    >>> pool = Pool(x, np.array([True, False, False, False]))
    >>> def first(pool, count, rng):
    ...     return [Pick(int(place), 0.0, "the first") for place in pool.free[:count]]
    >>> [one.place for one in choose(pool, 3, first, np.random.default_rng(0))]
    [2, 3]
    """
    chosen: list[Pick] = []
    while len(chosen) < count and len(pool.free):
        found = strategy(pool, count - len(chosen), rng)
        fresh = _fresh(pool, found)
        chosen += fresh
        pool = _after(pool, found, fresh)
    return chosen


def _fresh(pool: Pool, found: list[Pick]) -> list[Pick]:
    """Return the picks that are no near-copies of labelled images or of earlier picks."""
    places = np.array([one.place for one in found])
    x = pool.vectors[places]  # (m, K)
    seen = likest(x, pool.vectors[pool.labelled]) >= NEAR_COPY
    alike = x @ x.T >= NEAR_COPY
    kept: list[int] = []
    for number in range(len(found)):
        if not seen[number] and not alike[number, kept].any():
            kept.append(number)
    return [found[number] for number in kept]


def _after(pool: Pool, found: list[Pick], fresh: list[Pick]) -> Pool:
    """Return the pool with picks labelled, and all that was found barred with its near-copies."""
    places = np.array([one.place for one in found])
    barred = np.zeros(len(pool.vectors), bool) if pool.barred is None else pool.barred.copy()
    barred |= likest(pool.vectors, pool.vectors[places]) >= NEAR_COPY
    barred[places] = True  # also where a vector is no unit vector
    labelled = pool.labelled.copy()
    labelled[[one.place for one in fresh]] = True
    return replace(pool, labelled=labelled, barred=barred)


def likest(x: Floats, others: Floats) -> Floats:
    """Return for each row of `x` its largest cosine with any of `others`; -1 without any."""
    found = np.full(len(x), -1.0, np.float32)
    for start in range(0, len(x), _BLOCK):
        for first in range(0, len(others), _BLOCK):
            product = x[start : start + _BLOCK] @ others[first : first + _BLOCK].T
            part = found[start : start + _BLOCK]
            np.maximum(part, product.max(1), out=part)
    return found
