"""Which images are explained: those that were named, or the worst mistakes and some right ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fewlabels.core.errors import DataError, FewlabelsError
from fewlabels.data import splits
from fewlabels.data.dataset import Dataset
from fewlabels.data.listing import escape
from fewlabels.models.classifier import Saved
from fewlabels.pipeline.evaluate import held_out, in_order_of, refuse_trained
from fewlabels.pipeline.goals import goal_of
from fewlabels.pipeline.looking import stored_pixels
from fewlabels.pipeline.predict import find_files, read_picture
from fewlabels.pipeline.stages import score
from fewlabels.pipeline.task import Task


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """An image to be explained.

    Attributes
    ----------
    name : str
        Its path.
    pixels : ndarray
        ``(H, W, C)`` uint8, as the store keeps it.
    kind : str
        ``given``, ``mistake``, ``right`` (of a number ``near``) or, where nothing is predicted,
        ``sample``.
    row : int
        Of the data set; -1 for a file.
    label : str or None
        Its class, where that is known and may be read.
    value : float or None
        Its number, likewise.
    """

    name: str
    pixels: np.ndarray
    kind: str
    row: int = -1
    label: str | None = None
    value: float | None = None


@dataclass(slots=True)
class Chosen:
    """The images to be explained, and what was read to choose them."""

    subjects: list[Subject]
    split: str | None = None
    test_labels: bool = False
    mistakes: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def given_subjects(
    images: Sequence[str | Path], saved: Saved, task: Task | None, *, limit: int
) -> Chosen:
    """Return the images that were named: files, folders, or paths as the manifest has them.

    Raises
    ------
    DataError
        One of them is neither; none can be read; or they are more than `limit`.
    """
    chosen = Chosen([])
    rows = _rows_by_path(images, task)
    for image in images:
        if str(image) in rows and task is not None:
            row = rows[str(image)]
            chosen.subjects.append(_of_row(task, row, "given", label=True))
            chosen.test_labels |= bool(task.dataset.split[row] == splits.TEST)
            continue
        for file in find_files([image]):
            found = read_picture(file, saved.pictures.channels, saved.short_side)
            if isinstance(found, str):
                chosen.warnings.append(f"{escape(str(file))}: {found}")
            else:
                chosen.subjects.append(Subject(escape(file.as_posix()), found, "given"))
    if not chosen.subjects:
        raise DataError("data.unreadable", "; ".join(chosen.warnings[:3]), "other images")
    if len(chosen.subjects) > limit:
        raise DataError(
            "data.many",
            f"{len(chosen.subjects)} images are more than can be looked at; {limit} are",
            "name fewer",
        )
    return chosen


def _rows_by_path(images: Sequence[str | Path], task: Task | None) -> dict[str, int]:
    """Return the rows of the data set that were named and are no files from where we stand."""
    wanted = {str(image) for image in images if not Path(image).exists()}
    if task is None or not wanted:
        return {}
    ok = task.dataset.store.ok
    return {
        path: row
        for row, path in enumerate(task.dataset.source.paths)
        if path in wanted and ok[row]
    }


def _of_row(task: Task, row: int, kind: str, *, label: bool) -> Subject:
    return Subject(
        escape(str(task.dataset.source.paths[row])),
        stored_pixels(task.dataset, np.array([row]))[0],
        kind,
        row,
        **(task.goal.told(row) if label else {}),
    )


def default_split(dataset: Dataset, config: dict[str, Any], data: str | None) -> str:
    """Return ``val`` where it has labels that were not learned from, else ``test``."""
    try:
        refuse_trained(config, "val", data)
    except FewlabelsError:
        return "test"
    return "val" if len(dataset.rows("val")) else "test"


def held_out_subjects(task: Task, saved: Saved, split: str, count: int) -> Chosen:
    """Return the worst mistakes on held-out images and, to fill up, some that it gets right.

    Raises
    ------
    DataError, ModelError
        No image of the split has a label, or the data has classes that the model has not.
    """
    rows, _ = held_out(task.dataset, saved, split)
    predictions = score(task, saved.classifier, rows)
    goal = goal_of(in_order_of(task.dataset, saved))
    examples = goal.examples(rows, predictions, count)
    return Chosen(
        [_of_row(task, int(rows[place]), kind, label=True) for place, kind in examples],
        split,
        split == "test",
        goal.mistakes(rows, predictions),
    )


def sample_subjects(task: Task, count: int) -> Chosen:
    """Return an even sample of images for an encoder without a classifier; no label is read."""
    codes = (splits.VAL, splits.TEST, splits.TRAIN)
    code = next(code for code in codes if (task.dataset.split == code).any())
    rows = np.flatnonzero(task.dataset.split == code)
    even = np.linspace(0, len(rows) - 1, min(len(rows), count)).astype(np.int64)
    subjects = [_of_row(task, int(row), "sample", label=False) for row in rows[even]]
    return Chosen(subjects, splits.NAMES[code])
