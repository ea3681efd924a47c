"""Near-copies between splits: re-encoded, resized, slightly cropped or brightened pictures.

Every held-out picture is looked up among the pictures of the splits before its own: its
`CANDIDATES` nearest by code (`fewlabels.data.codes`), then each of these laid over it
(`fewlabels.data.overlay`). Both steps judge a pair by the two pictures alone, so that adding
images changes no earlier finding (but for a picture with more than `CANDIDATES` look-alikes).

Only pairs between splits matter, and only they are compared: test with train and val, val with
train. What was found is kept beside the decoded images, so it is looked for once a split.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewlabels.core.errors import DiskError
from fewlabels.data import cache
from fewlabels.data.codes import SCALE
from fewlabels.data.overlay import Agreement, agreement
from fewlabels.data.planning import cores
from fewlabels.data.splits import TEST, VAL
from fewlabels.data.store import Store
from fewlabels.results.files import replacing

VERSION = 1  # raise it when other pairs are found in the same pictures
CANDIDATES = 16
ALIKE_FROM_AFAR = 0.80  # cosine of two codes
LIKENESS, UNLIKE, COLOUR = 0.95, 0.12, 0.30  # docs/decisions/0012-near-duplicates.md
PLAUSIBLE = 0.85  # likeness at 32 pixels below which more pixels cannot help
MOST_PAIRS = 2 * 10**11  # codes compared; more would take hours
_COARSE, _FINE = 32, 64
_QUERIES, _POOL, _PAIRS = 1024, 4096, 128

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Near:
    """Near-copies between splits.

    Attributes
    ----------
    pairs : ndarray
        ``(P, 2)`` int64 rows: one of an earlier split, and its like in a later one.
    likeness : ndarray
        ``(P,)`` float64, at most 1.
    searched : bool
        False where there were too many images to look.
    """

    pairs: NDArray[np.int64]
    likeness: NDArray[np.float64]
    searched: bool = True


NOTHING = Near(np.empty((0, 2), np.int64), np.empty(0))


def find_near(store: Store, split: np.ndarray, progress: Progress | None = None) -> Near:
    """Find pictures of which a near-copy lies in an earlier split.

    Parameters
    ----------
    store : Store
    split : ndarray
        ``(N,)`` int8: 0 train, 1 val, 2 test, -1 out.
    progress : callable, optional
        Told (stage, done, total) in held-out pictures.

    Returns
    -------
    Near
        Sorted by the rows; byte-for-byte copies are among them.
    """
    place = store.folder / f"{cache.NEAR}{_key(split)}.npy"
    kept = _load(place, len(split))
    if kept is not None:
        return kept
    found = _search(store, split, progress)
    with contextlib.suppress(DiskError), replacing(place) as temporary:
        np.save(temporary, np.column_stack([found.pairs, found.likeness]))
    return found


def _key(split: np.ndarray) -> str:
    return hashlib.blake2b(f"{VERSION}".encode() + split.tobytes(), digest_size=8).hexdigest()


def _load(place: Path, count: int) -> Near | None:
    try:
        table = np.load(place, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if table.ndim != 2 or table.shape[1] != 3 or (len(table) and table[:, :2].max() >= count):
        return None
    return Near(table[:, :2].astype(np.int64), table[:, 2])


def _search(store: Store, split: np.ndarray, progress: Progress | None) -> Near:
    known = np.any(np.asarray(store.codes), axis=1) & store.ok
    rounds = [
        (
            np.flatnonzero(known & (split == TEST)),
            np.flatnonzero(known & (split >= 0) & (split < TEST)),
        )
    ]
    rounds.append((np.flatnonzero(known & (split == VAL)), np.flatnonzero(known & (split == 0))))
    if sum(len(held) * len(pool) for held, pool in rounds) > MOST_PAIRS:
        return Near(NOTHING.pairs, NOTHING.likeness, searched=False)
    total, done = sum(len(held) for held, _ in rounds), 0
    found = [NOTHING]
    with ThreadPoolExecutor(cores(), "fewlabels-near") as workers:
        for held, pool in rounds:
            for start in range(0, len(held), _QUERIES):
                some = held[start : start + _QUERIES]
                pairs = candidates(store.codes, some, pool)
                parts = [pairs[at : at + _PAIRS] for at in range(0, len(pairs), _PAIRS)]
                found += workers.map(lambda part: _verified(store, part), parts)
                done += len(some)
                if progress is not None:
                    progress("near-duplicates", done, total)
    return _sorted(found)


def _sorted(found: list[Near]) -> Near:
    pairs = np.concatenate([one.pairs for one in found])
    likeness = np.concatenate([one.likeness for one in found])
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return Near(pairs[order], likeness[order])


def candidates(codes: np.ndarray, held: np.ndarray, pool: np.ndarray) -> NDArray[np.int64]:
    """Return the pairs of a pool and held-out rows whose codes are alike.

    Parameters
    ----------
    codes : ndarray
        ``(N, D)`` int8 of `fewlabels.data.codes.encode`.
    held, pool : ndarray
        Rows; of the pool the `CANDIDATES` nearest of each held-out row are taken.

    Returns
    -------
    ndarray
        ``(P, 2)`` int64: a row of the pool, a held-out row.
    """
    # Whole numbers below 2**24, so that float32 is exact in whatever order a machine adds.
    asked = codes[held].astype(np.float32)
    least = ALIKE_FROM_AFAR * SCALE**2
    best = np.empty((0, 3), np.int64)  # place in held, alikeness, row of the pool
    for start in range(0, len(pool), _POOL):
        rows = pool[start : start + _POOL]
        alike = asked @ codes[rows].astype(np.float32).T
        who, which = np.nonzero(alike >= least)
        if len(who):
            new = np.column_stack([who, alike[who, which].astype(np.int64), rows[which]])
            best = _nearest(np.concatenate([best, new]))
    return np.column_stack([best[:, 2], held[best[:, 0]]])


def _nearest(found: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows of each held-out place that are among its `CANDIDATES` most alike."""
    found = found[np.lexsort((found[:, 2], -found[:, 1], found[:, 0]))]
    first = np.searchsorted(found[:, 0], found[:, 0], "left")
    return found[np.arange(len(found)) - first < CANDIDATES]


def _verified(store: Store, pairs: NDArray[np.int64]) -> Near:
    """Return those of the pairs that are near-copies."""
    pictures = dict(_pictures(store, np.unique(pairs)))
    rough = _agreement(pictures, pairs, _COARSE)
    likely = rough.likeness >= PLAUSIBLE
    small = np.array(
        [min(*pictures[a].shape[:2], *pictures[b].shape[:2]) for a, b in pairs.tolist()]
    )
    fine = likely & (small >= _FINE)
    likeness, same = rough.likeness.copy(), _is_copy(rough) & likely
    if fine.any():
        finer = _agreement(pictures, pairs[fine], _FINE)
        likeness[fine], same[fine] = finer.likeness, _is_copy(finer)
    told: NDArray[np.float64] = np.minimum(likeness[same].astype(np.float64), 1).round(3)
    return Near(pairs[same], told)


def _is_copy(found: Agreement) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = (
        (found.likeness >= LIKENESS) & (found.unlike <= UNLIKE) & (found.colour <= COLOUR)
    )
    return same


def _pictures(store: Store, rows: np.ndarray) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield rows with their pixels, shrunk to `_FINE` where both sides are longer."""
    for start in range(0, len(rows), 64):
        some = rows[start : start + 64]
        canvas, sizes = store.read(some)
        whole = [canvas.shape[1:3]] * len(canvas) if sizes is None else sizes.tolist()
        for row, one, (height, width) in zip(some.tolist(), canvas, whole, strict=True):
            picture = one[:height, :width]
            yield row, _square(picture, _FINE) if min(height, width) >= _FINE else picture


def _agreement(
    pictures: dict[int, NDArray[np.uint8]], pairs: NDArray[np.int64], side: int
) -> Agreement:
    squares = {row: _square(pictures[row], side) for row in np.unique(pairs).tolist()}
    # The held-out picture is the first, which the other is laid onto.
    first, second = (np.stack([squares[row] for row in pairs[:, c].tolist()]) for c in (1, 0))
    return agreement(first.astype(np.float32), second.astype(np.float32))


def _square(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Bring a picture to ``(side, side, C)``; the whole of it, aspect given up."""
    image = Image.fromarray(picture if picture.shape[2] == 3 else picture[:, :, 0])
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)).reshape(side, side, -1)
