"""The same picture in two splits: byte for byte, or near enough; and what is done about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fewlabels.core.errors import DataError
from fewlabels.data.listing import escape
from fewlabels.data.near import NOTHING, Near, find_near
from fewlabels.data.splits import NAMES, OUT, TEST, VAL
from fewlabels.results.files import to_csv

if TYPE_CHECKING:
    from fewlabels.data.dataset import Dataset
    from fewlabels.data.store import Store

POLICIES = ("drop", "keep", "stop")
COLUMNS = ("split_a", "path_a", "split_b", "path_b", "kind", "likeness")
IN_SERIES = 0.2  # share of held-out images with a near-copy; single copies come to a few in 100


@dataclass(frozen=True, slots=True, eq=False)
class Leaks:
    """Pictures that lie in two splits.

    Attributes
    ----------
    pairs : ndarray
        ``(L, 2)`` int64 rows: a copy in train or val, each once, and its like in a later split.
    likeness : ndarray
        ``(L,)`` float64: 1 byte for byte, else as `fewlabels.data.near` has it.
    exact : ndarray
        ``(L,)`` bool.
    near : Near
        All pairs of near-copies between splits, from which those of `pairs` are taken.
    """

    pairs: NDArray[np.int64]
    likeness: NDArray[np.float64]
    exact: NDArray[np.bool_]
    near: Near

    def __len__(self) -> int:
        return len(self.pairs)


NONE = Leaks(NOTHING.pairs, NOTHING.likeness, np.empty(0, bool), NOTHING)


def find(
    store: Store, split: np.ndarray, progress: Callable[[str, int, int], None] | None = None
) -> Leaks:
    """Find exact and near-copies between splits.

    Parameters
    ----------
    store : Store
    split : ndarray
        ``(N,)`` int8 as assigned.
    progress : callable, optional
        As `find_near` takes it.
    """
    ids = content_ids(store.sha256, store.ok)
    exact, found = find_leaks(ids, split), find_near(store, split, progress)
    other = ids[found.pairs[:, 0]] != ids[found.pairs[:, 1]]
    near = Near(found.pairs[other], found.likeness[other], found.searched)
    more = near_leaks(near, split, exact[:, 0])
    return Leaks(
        np.concatenate([exact, near.pairs[more]]),
        np.concatenate([np.ones(len(exact)), near.likeness[more]]),
        np.arange(len(exact) + len(more)) < len(exact),
        near,
    )


def content_ids(sha256: np.ndarray, ok: np.ndarray) -> np.ndarray:
    """Give equal pictures equal numbers.

    Parameters
    ----------
    sha256 : ndarray
        ``(N, 32)`` uint8.
    ok : ndarray
        ``(N,)`` bool; unreadable rows match nothing.

    Returns
    -------
    ndarray
        ``(N,)`` int64: the first row of equal content; -1 for unreadable rows.
    """
    ids = np.where(ok, np.arange(len(ok)), -1)
    rows = np.flatnonzero(ok)
    prefix = np.ascontiguousarray(sha256[rows, :8]).view(np.uint64).ravel()
    order = np.argsort(prefix, kind="stable")
    equal = prefix[order[1:]] == prefix[order[:-1]]
    alike = np.zeros(len(rows), bool)
    alike[1:] |= equal
    alike[:-1] |= equal
    # Whole digests are compared only where 64 bits agree, which saves a table of them all.
    first: dict[bytes, int] = {}
    for row in np.sort(rows[order[alike]]).tolist():
        ids[row] = first.setdefault(sha256[row].tobytes(), row)
    return ids


def find_leaks(ids: np.ndarray, split: np.ndarray) -> np.ndarray:
    """Find pictures that lie in two splits.

    Parameters
    ----------
    ids : ndarray
        ``(N,)`` as `content_ids` gives them.
    split : ndarray
        ``(N,)`` int8.

    Returns
    -------
    ndarray
        ``(L, 2)`` int64 pairs of rows: a copy in train or val, and the first copy in
        the split that keeps the picture (test before val before train).
    """
    rows = np.flatnonzero((ids >= 0) & (split != OUT))
    if not len(rows):
        return np.empty((0, 2), np.int64)
    keeps = np.full(int(ids.max()) + 1, OUT, np.int8)
    np.maximum.at(keeps, ids[rows], split[rows])
    kept = rows[split[rows] == keeps[ids[rows]]][::-1]
    first = np.zeros(len(keeps), np.int64)
    first[ids[kept]] = kept  # the last assignment stands: the lowest row, as `kept` descends
    copies = rows[split[rows] < keeps[ids[rows]]]
    return np.stack([copies, first[ids[copies]]], 1)


def near_leaks(near: Near, split: np.ndarray, gone: np.ndarray) -> NDArray[np.int64]:
    """Choose the pair by which each near-copy is known.

    Parameters
    ----------
    near : Near
    split : ndarray
        ``(N,)`` int8.
    gone : ndarray
        Rows that are exact copies of others and need no second reason.

    Returns
    -------
    ndarray
        ``(L,)`` places in `near`: for each copy its likest picture in test, else in val. Copies
        of a val image that is a copy itself stay.
    """
    out = np.zeros(len(split), bool)
    out[gone] = True
    order = np.lexsort((near.pairs[:, 1], -near.likeness, near.pairs[:, 0]))
    chosen = []
    for later in (TEST, VAL):
        copy, kept = near.pairs[order].T
        here = order[(split[kept] == later) & ~out[copy] & ~out[kept]]
        rows, first = np.unique(near.pairs[here, 0], return_index=True)
        chosen.append(here[first])
        out[rows] = True
    return np.concatenate(chosen)


def settle(split: np.ndarray, leaks: Leaks, policy: str, paths: Sequence[str]) -> np.ndarray:
    """Return the splits after `policy` (drop, keep or stop) was applied to the leaks.

    Raises
    ------
    DataError
        If the policy is stop and there are leaks.
    """
    if policy == "keep" or not len(leaks):
        return split
    if policy == "stop":
        copy, kept = leaks.pairs[0].tolist()
        near = int((~leaks.exact).sum())
        raise DataError(
            "data.leak",
            f"{len(leaks)} images lie in two splits ({near} of them as near-copies), first "
            f"{escape(paths[copy])} ({NAMES[split[copy]]}) = {escape(paths[kept])} "
            f"({NAMES[split[kept]]}), likeness {leaks.likeness[0]:.3f}",
            "--leaks drop leaves the copies outside test unused",
        )
    settled = split.copy()
    settled[leaks.pairs[:, 0]] = OUT
    return settled


def copied(dataset: Dataset, rows: np.ndarray) -> NDArray[np.bool_]:
    """Say of which rows a copy, exact or near, lies in an earlier split and is in use.

    Parameters
    ----------
    dataset : Dataset
    rows : ndarray
        Rows of one split.

    Returns
    -------
    ndarray
        ``(len(rows),)`` bool; none of test after the copies were dropped.
    """
    leaks, used = dataset.leaks, dataset.split != OUT
    found = np.zeros(len(dataset), bool)
    found[leaks.near.pairs[used[leaks.near.pairs[:, 0]], 1]] = True
    if used[leaks.pairs[leaks.exact, 0]].any():
        ids = content_ids(dataset.store.sha256, dataset.store.ok)
        first = np.full(int(ids.max()) + 1, TEST, np.int8)
        np.minimum.at(first, ids[used], dataset.split[used])
        found[rows] |= first[ids[rows]] < dataset.split[rows]
    mask: NDArray[np.bool_] = found[rows]
    return mask


def rows(dataset: Dataset) -> list[dict[str, Any]]:
    """Return the leaks as `inspect` lists them."""
    found = dataset.leaks
    columns = (found.pairs.tolist(), found.exact.tolist(), found.likeness.tolist())
    return [
        {
            "split_a": NAMES[dataset.assigned[copy]],
            "path_a": escape(dataset.source.paths[copy]),
            "split_b": NAMES[dataset.assigned[kept]],
            "path_b": escape(dataset.source.paths[kept]),
            "kind": "exact" if exact else "near",
            "likeness": likeness,
        }
        for (copy, kept), exact, likeness in zip(*columns, strict=True)
    ]


def leaks_csv(report: dict[str, Any]) -> str:
    """Return the leaks of an ``inspect`` result as CSV, columns `COLUMNS`."""
    return to_csv(COLUMNS, report["leaks"])


def duplicates(ids: np.ndarray) -> list[np.ndarray]:
    """Return the rows of each picture that occurs more than once."""
    rows = np.flatnonzero(ids >= 0)
    counts = np.bincount(ids[rows])
    rows = rows[counts[ids[rows]] > 1] if len(rows) else rows
    rows = rows[np.argsort(ids[rows], kind="stable")]
    edges = np.flatnonzero(np.diff(ids[rows])) + 1
    return list(np.split(rows, edges)) if len(rows) else []


def label_conflicts(dataset: Dataset, groups: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """List copies whose labels, or numbers, differ.

    Parameters
    ----------
    dataset : Dataset
    groups : sequence of ndarray
        Of `duplicates`; near-copies are those between splits.

    Returns
    -------
    list of dict
        ``path_a``, ``label_a``, ``path_b``, ``label_b``, ``kind`` and ``likeness``. Of one
        group, the first copy with each further label against the first.
    """
    truth, known = dataset.truth, dataset.known
    pairs = []
    for group in groups:
        told = group[known[group]]
        if len(told):
            _, first = np.unique(truth[told], return_index=True)
            a, *others = told[np.sort(first)].tolist()
            pairs += [(a, b, "exact", 1.0) for b in others]
    a, b = dataset.leaks.near.pairs.T
    differ = known[a] & known[b] & (truth[a] != truth[b])
    likeness = dataset.leaks.near.likeness[differ].tolist()
    near = zip(a[differ].tolist(), b[differ].tolist(), likeness, strict=True)
    return [
        _conflict(dataset, *pair) for pair in [*pairs, *((a, b, "near", x) for a, b, x in near)]
    ]


def _conflict(dataset: Dataset, a: int, b: int, kind: str, likeness: float) -> dict[str, Any]:
    return {
        "path_a": escape(dataset.source.paths[a]),
        "label_a": _label(dataset, a),
        "path_b": escape(dataset.source.paths[b]),
        "label_b": _label(dataset, b),
        "kind": kind,
        "likeness": likeness,
    }


def _label(dataset: Dataset, row: int) -> str | float:
    if dataset.targets is not None:
        return float(dataset.targets[row])
    return escape(dataset.classes[dataset.labels[row]])


def warnings(dataset: Dataset) -> list[str]:
    """Say in words how many images lie in two splits, and what was done about them."""
    found = dataset.leaks
    what = "left out" if dataset.leak_policy == "drop" else "kept, as you asked"
    exact, near = int(found.exact.sum()), int((~found.exact).sum())
    said = [f"{exact} images lie in two splits: the copies are {what}"] if exact else []
    if near:
        said.append(f"{near} near-copies of held-out images lie in an earlier split: {what}")
    if not found.near.searched:
        said.append(
            "too many images to look for near-copies between the splits: none was looked for"
        )
    return [*said, *_series(dataset), *_conflicting(dataset)]


def _series(dataset: Dataset) -> list[str]:
    held = dataset.assigned > 0
    share = len(np.unique(dataset.leaks.near.pairs[:, 1])) / max(int(held.sum()), 1)
    if share < IN_SERIES:
        return []
    return [
        f"{share:.0%} of the held-out images have a near-copy in an earlier split, as pictures of "
        "a series have: --group-by keeps the pictures of a series in one split"
    ]


def _conflicting(dataset: Dataset) -> list[str]:
    near = label_conflicts(dataset, [])
    if not near:
        return []
    first = near[0]
    return [
        f"{len(near)} pairs of near-copies carry different labels, first {first['path_a']} "
        f"({first['label_a']}) and {first['path_b']} ({first['label_b']})"
    ]
