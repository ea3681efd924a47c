"""Numbers to be predicted: what there is of them, and what is odd about them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fewlabels.core.errors import DataError
from fewlabels.data.listing import escape
from fewlabels.data.splits import NAMES

if TYPE_CHECKING:
    from fewlabels.data.dataset import Dataset

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BINS = 12  # of the histogram
FEW = 20  # known numbers; fewer cannot both teach and test
FEW_TEST = 10
FEW_VALUES = 5  # distinct ones over `FEW` images and more look like classes
FAR = 10.0  # quartile distances beyond the quartiles: codes such as -999 lie there


def unit(name: str) -> str:
    """Return what stands in brackets at the end of a column's name.

    Examples
    --------
    >>> unit("height (cm)"), unit("angle [deg]"), unit("age")
    ('cm', 'deg', '')
    """
    found = re.search(r"[(\[]([^()\[\]]+)[)\]]\s*$", name)
    return found[1].strip() if found else ""


def describe(name: str) -> dict[str, str]:
    """Return ``name`` and ``unit`` of a column of numbers, as results carry them."""
    return {"name": escape(name), "unit": escape(unit(name))}


def summarise(dataset: Dataset) -> dict[str, Any] | None:
    """Return what ``inspect`` says of the numbers; None where there are classes.

    Returns
    -------
    dict or None
        ``name``, ``unit``, ``count``, ``missing`` (of readable images), ``min``, ``max``,
        ``mean``, ``std``, ``quantiles`` {share: value} and ``histogram`` {edges, counts};
        null or empty where no number is known.
    """
    if dataset.targets is None:
        return None
    values = _known(dataset)
    about = {**describe(dataset.target or ""), "count": len(values)}
    about["missing"] = int(dataset.store.ok.sum()) - len(values)
    if not len(values):
        empty = dict.fromkeys(("min", "max", "mean", "std"))
        return {**about, **empty, "quantiles": {}, "histogram": {"edges": [], "counts": []}}
    counts, edges = np.histogram(values, BINS)
    places = np.quantile(values, QUANTILES).tolist()
    return {
        **about,
        "min": float(values.min()),
        "max": float(values.max()),
        "mean": float(values.mean()),
        "std": float(values.std()),
        "quantiles": {f"{q:g}": v for q, v in zip(QUANTILES, places, strict=True)},
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def _known(dataset: Dataset) -> np.ndarray:
    assert dataset.targets is not None
    return dataset.targets[dataset.known & dataset.store.ok]


def warnings(dataset: Dataset, duplicates: Sequence[np.ndarray]) -> list[str]:
    """Say in words what is odd about the numbers; nothing where there are classes.

    Parameters
    ----------
    duplicates : sequence of ndarray
        Rows of each picture that occurs more than once.
    """
    if dataset.targets is None:
        return []
    name = escape(dataset.target or "")
    values = _known(dataset)
    said = []
    infinite = int(np.isinf(dataset.targets).sum())
    if infinite:
        said.append(f"{infinite} values of {name!r} are infinite: taken as unknown")
    if not len(values):
        return [*said, f"no image has a number in {name!r}: these serve for pre-training only"]
    if np.ptp(values) == 0:
        return [*said, f"all {len(values)} values of {name!r} are {values[0]:g}: nothing to learn"]
    if len(values) < FEW:
        said.append(f"{len(values)} images have a number: too few to learn from and to test on")
    elif (distinct := len(np.unique(values))) <= FEW_VALUES:
        said.append(
            f"{name!r} takes {distinct} values only: if they name classes, use --label-column"
        )
    return [*said, *_far(dataset, name), *_splits(dataset), *_conflicts(dataset, duplicates)]


def _far(dataset: Dataset, name: str) -> list[str]:
    """Warn of numbers that lie so far out that they may stand for something else."""
    assert dataset.targets is not None
    rows = np.flatnonzero(dataset.known & dataset.store.ok)
    values = dataset.targets[rows]
    low, high = np.quantile(values, [0.25, 0.75])
    beyond = np.maximum(low - values, values - high)
    far = rows[beyond > FAR * (high - low)] if high > low else rows[:0]
    if not len(far):
        return []
    first = escape(dataset.source.paths[int(far[0])])
    return [
        f"{len(far)} values of {name!r} lie far outside the rest, first "
        f"{dataset.targets[far[0]]:g} ({first}): leave codes for 'unknown' blank"
    ]


def _splits(dataset: Dataset) -> list[str]:
    counts = {split: len(dataset.labelled_rows(split)) for split in NAMES}
    said = [f"no image in {name} has a number" for name in ("train", "test") if not counts[name]]
    if 0 < counts["test"] < FEW_TEST:
        said.append(f"{counts['test']} test images have a number: errors over so few say little")
    return said


def _conflicts(dataset: Dataset, duplicates: Sequence[np.ndarray]) -> list[str]:
    assert dataset.targets is not None
    conflicts = []
    for group in duplicates:
        found = dataset.targets[group]
        if len(np.unique(found[np.isfinite(found)])) > 1:
            conflicts.append(group)
    if not conflicts:
        return []
    said = " and ".join(
        f"{escape(dataset.source.paths[int(row)])} ({dataset.targets[row]:g})"
        for row in conflicts[0][:2]
    )
    return [f"{len(conflicts)} pictures carry different numbers in their copies, first {said}"]


def require_numbers(dataset: Dataset) -> None:
    """Refuse data that no regressor can be trained on.

    Raises
    ------
    DataError
        If no image has a number, or all have the same.
    """
    where = escape(str(dataset.source.root or dataset.name))
    name, values = escape(dataset.target or ""), _known(dataset)
    if not len(values):
        raise DataError(
            "data.labels",
            f"no image in {where} has a number in {name!r}: these serve for pre-training only",
            "fewlabels pretrain, or fill the column for some images",
        )
    if np.ptp(values) == 0:
        raise DataError(
            "data.target",
            f"all {len(values)} values of {name!r} in {where} are {values[0]:g}",
            "another --target",
        )
