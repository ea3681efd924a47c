"""What is there and what is wrong with it: counts, damage, duplicates, leaks, imbalance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fewlabels.core.errors import DataError
from fewlabels.data import leaks, likeness, targets
from fewlabels.data.folds import FOLDS, can_fold, too_few
from fewlabels.data.listing import escape
from fewlabels.data.splits import NAMES, TEST, TRAIN
from fewlabels.results.files import to_csv

if TYPE_CHECKING:
    from fewlabels.data.dataset import Dataset

MANY_UNREADABLE = 0.01
TOO_MANY_UNREADABLE = 0.5
IMBALANCED = 5.0


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
    ids = leaks.content_ids(dataset.store.sha256, dataset.store.ok)
    groups = leaks.duplicates(ids)
    known = dataset.known & dataset.store.ok
    counts = np.bincount(dataset.labels[known & (dataset.labels >= 0)], minlength=0)
    counts = np.pad(counts, (0, len(dataset.classes) - len(counts)))
    names = [escape(name) for name in dataset.classes]
    splits = {name: len(dataset.rows(name)) for name in NAMES}
    alike = likeness.of_pixels(dataset)
    conflicts = leaks.label_conflicts(dataset, groups)
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
        "leaks": leaks.rows(dataset),
        "label_conflicts": conflicts,
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
    names = [escape(name) for name in dataset.classes]
    lost = {name for name in set(dataset.source.labels) if name} - set(dataset.classes)
    warnings = []
    if lost:
        said = _listed(sorted(map(escape, lost)))
        warnings.append(f"{said} without a readable image: left out")
    if not names:
        return [*warnings, "no image has a label: these images serve for pre-training only"]
    if len(names) == 1:
        only = f"all labels name one class, {names[0]!r}: there is nothing to tell apart"
        return [*warnings, only]
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
    few = _too_few_to_test(dataset)
    warnings = [few] if few else []
    # Folds are test sets of their own.
    read = ("train",) if dataset.folds or few else ("train", "test")
    for split in read if dataset.classes else ():
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
    warnings += leaks.warnings(dataset)
    if not (dataset.split == TRAIN).any():
        warnings.append("no image is left to train on")
    return warnings


def _too_few_to_test(dataset: Dataset) -> str:
    """Say that a comparison will cross-validate where a random split would show nothing."""
    truth = dataset.truth[dataset.known & dataset.store.ok]
    classes = len(dataset.classes)
    if dataset.splits_given or dataset.folds or not can_fold(truth, classes):
        return ""
    why = too_few(truth, classes)
    verbs = f"compare and run use {FOLDS}-fold cross-validation over the labelled images"
    return f"{why}: {verbs}" if why else ""


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
    return to_csv(("path", "reason"), report["quarantine"])
