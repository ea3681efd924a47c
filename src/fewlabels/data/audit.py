"""What is there and what is wrong with it: counts, damage, duplicates, leaks, imbalance."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fewlabels.core.errors import DataError
from fewlabels.data import likeness, targets
from fewlabels.data.listing import escape
from fewlabels.data.splits import NAMES, OUT, TEST, TRAIN

if TYPE_CHECKING:
    from fewlabels.data.dataset import Dataset

LEAKS = ("drop", "keep", "stop")
MANY_UNREADABLE = 0.01
TOO_MANY_UNREADABLE = 0.5
IMBALANCED = 5.0


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


def settle_leaks(
    split: np.ndarray, leaks: np.ndarray, policy: str, paths: Sequence[str]
) -> np.ndarray:
    """Return the splits after `policy` (drop, keep or stop) was applied to the leaks.

    Raises
    ------
    DataError
        If the policy is stop and there are leaks.
    """
    if policy == "keep" or not len(leaks):
        return split
    if policy == "stop":
        copy, kept = (int(row) for row in leaks[0])
        raise DataError(
            "data.leak",
            f"{len(leaks)} images lie in two splits, first {escape(paths[copy])} "
            f"({NAMES[split[copy]]}) = {escape(paths[kept])} ({NAMES[split[kept]]})",
            "--leaks drop leaves the copies outside test unused",
        )
    settled = split.copy()
    settled[leaks[:, 0]] = OUT
    return settled


def refuse_unreadable(ok: np.ndarray, issues: dict[int, str], paths: Sequence[str]) -> None:
    """Refuse data of which more than half cannot be read.

    Raises
    ------
    DataError
        With the first reasons.
    """
    bad = np.flatnonzero(~ok)
    if len(bad) <= TOO_MANY_UNREADABLE * len(ok):
        return
    first = "; ".join(f"{escape(paths[int(i)])}: {issues.get(int(i), '?')}" for i in bad[:3])
    raise DataError(
        "data.unreadable",
        f"{len(bad)} of {len(ok)} images cannot be read ({first})",
        "check that the files are whole, and that the path is the right one",
    )


def inspect(dataset: Dataset) -> dict[str, Any]:
    """Return the ``inspect`` result of a data set, ready for JSON.

    ``classes``, ``labelled`` and ``unlabelled`` count readable images; ``splits``
    counts those that each split uses, and ``out`` the rest.
    """
    ids = content_ids(dataset.store.sha256, dataset.store.ok)
    groups = _duplicates(ids)
    known = dataset.known & dataset.store.ok
    counts = np.bincount(dataset.labels[known & (dataset.labels >= 0)], minlength=0)
    counts = np.pad(counts, (0, len(dataset.classes) - len(counts)))
    names = [escape(name) for name in dataset.classes]
    splits = {name: len(dataset.rows(name)) for name in NAMES}
    alike = likeness.of_pixels(dataset)
    return {
        "images": len(dataset),
        "labelled": int(known.sum()),
        "unlabelled": int((dataset.store.ok & ~known).sum()),
        "classes": {name: int(n) for name, n in zip(names, counts, strict=True)},
        "splits": {**splits, "out": len(dataset) - sum(splits.values())},
        "unreadable": int((~dataset.store.ok).sum()),
        "quarantine": [
            {"path": _path(dataset, row), "reason": reason}
            for row, reason in sorted(dataset.store.issues.items())
        ],
        "duplicates": [[_path(dataset, row) for row in group.tolist()] for group in groups],
        "leaks": [_leak(dataset, copy, kept) for copy, kept in dataset.leaks.tolist()],
        "imbalance": float(counts.max() / counts.min()) if len(counts) > 1 else None,
        "warnings": [*_warnings(dataset, counts, groups), *likeness.warnings(alike)],
        "likeness": alike,
        "sizes": _sizes(dataset),
        "channels": dataset.channels,
        "image_size": dataset.pictures_size,
        "odd_files": dict(dataset.store.notes),
        "target": targets.summarise(dataset),
    }


def _path(dataset: Dataset, row: int) -> str:
    return escape(dataset.source.paths[row])


def _leak(dataset: Dataset, copy: int, kept: int) -> dict[str, str]:
    return {
        "split_a": NAMES[dataset.assigned[copy]],
        "path_a": _path(dataset, copy),
        "split_b": NAMES[dataset.assigned[kept]],
        "path_b": _path(dataset, kept),
    }


def _duplicates(ids: np.ndarray) -> list[np.ndarray]:
    """Return the rows of each picture that occurs more than once."""
    rows = np.flatnonzero(ids >= 0)
    counts = np.bincount(ids[rows])
    rows = rows[counts[ids[rows]] > 1] if len(rows) else rows
    rows = rows[np.argsort(ids[rows], kind="stable")]
    edges = np.flatnonzero(np.diff(ids[rows])) + 1
    return list(np.split(rows, edges)) if len(rows) else []


def _sizes(dataset: Dataset) -> dict[str, Any]:
    """Summarise widths, heights and short sides in pixels."""
    ok = dataset.store.ok
    width = np.asarray(dataset.store.widths)[ok]
    height = np.asarray(dataset.store.heights)[ok]
    values = {"width": width, "height": height, "short_side": np.minimum(width, height)}
    return {name: _spread(value) for name, value in values.items()}


def _spread(values: np.ndarray) -> dict[str, float]:
    low, middle, high = np.quantile(values, [0, 0.5, 1]).tolist()
    return {"min": low, "median": middle, "max": high}


def _warnings(dataset: Dataset, counts: np.ndarray, groups: list[np.ndarray]) -> list[str]:
    return [
        *dataset.source.warnings,
        *_unreadable_warnings(dataset),
        *_label_warnings(dataset, counts),
        *targets.warnings(dataset, groups),
        *_split_warnings(dataset),
        *_duplicate_warnings(dataset, groups),
    ]


def _unreadable_warnings(dataset: Dataset) -> list[str]:
    bad, count = int((~dataset.store.ok).sum()), len(dataset)
    if bad <= MANY_UNREADABLE * count:
        return []
    return [f"{bad} of {count} images ({bad / count:.0%}) cannot be read: see the quarantine"]


def _label_warnings(dataset: Dataset, counts: np.ndarray) -> list[str]:
    if dataset.targets is not None:
        return []
    if not len(counts):
        return ["no image has a label: these images serve for pre-training only"]
    names = [escape(name) for name in dataset.classes]
    if len(counts) == 1:
        return [f"all labels name one class, {names[0]!r}: there is nothing to tell apart"]
    warnings = []
    single = [name for name, n in zip(names, counts, strict=True) if n == 1]
    if single:
        warnings.append(f"{_listed(single)} with a single image: it cannot be learned and tested")
    ratio = float(counts.max() / counts.min())
    if ratio >= IMBALANCED:
        most, least = names[int(counts.argmax())], names[int(counts.argmin())]
        warnings.append(
            f"imbalance: {most!r} has {counts.max()} images, {least!r} has {counts.min()} "
            f"({ratio:.1f} times fewer)"
        )
    return warnings


def _split_warnings(dataset: Dataset) -> list[str]:
    """Warn of classes missing from a split and of images that no split uses."""
    warnings = []
    for split in ("train", "test") if dataset.classes else ():
        seen = np.bincount(dataset.labels[dataset.labelled_rows(split)])
        seen = np.pad(seen, (0, len(dataset.classes) - len(seen)))
        absent = [escape(n) for n, c in zip(dataset.classes, seen, strict=True) if not c]
        if absent:
            warnings.append(f"{_listed(absent)} without a labelled image in {split}")
    held = int(((dataset.split == TEST) & ~dataset.known).sum())
    if held:
        why = "" if dataset.splits_given else ", so that labelling them later keeps test as it is"
        warnings.append(
            f"{held} unlabelled images belong to test and are kept out of training{why}"
        )
    if len(dataset.leaks):
        what = "left out" if dataset.leak_policy == "drop" else "kept, as you asked"
        warnings.append(f"{len(dataset.leaks)} images lie in two splits: the copies are {what}")
    if not (dataset.split == TRAIN).any():
        warnings.append("no image is left to train on")
    return warnings


def _duplicate_warnings(dataset: Dataset, groups: list[np.ndarray]) -> list[str]:
    conflicts = []
    for group in groups:
        found = dataset.labels[group]
        if len(np.unique(found[found >= 0])) > 1:
            conflicts.append(group)
    if not conflicts:
        return []
    said = " and ".join(
        f"{_path(dataset, int(i))} ({escape(dataset.source.labels[int(i)] or 'unlabelled')})"
        for i in conflicts[0][:2]
    )
    return [f"{len(conflicts)} pictures carry different labels in their copies, first {said}"]


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{len(names)} class{'es' if len(names) > 1 else ''} ({shown}{more})"


def quarantine_csv(report: dict[str, Any]) -> str:
    """Return the unreadable images of an ``inspect`` result as CSV: path, reason."""
    return _csv(["path", "reason"], report["quarantine"])


def leaks_csv(report: dict[str, Any]) -> str:
    """Return the leaks of an ``inspect`` result as CSV: split_a, path_a, split_b, path_b."""
    return _csv(["split_a", "path_a", "split_b", "path_b"], report["leaks"])


def _csv(columns: list[str], rows: list[dict[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
