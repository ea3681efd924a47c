"""Collecting: the cells that are there, here and in other folders, into one comparison."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fewlabels.core.errors import ModelError, UsageError
from fewlabels.results.files import replacing
from fewlabels.results.runfolder import RunFolder
from fewlabels.results.seals import read_sealed, write_sealed
from fewlabels.study.arms import Arm, variants
from fewlabels.study.cells import load_cell, read_cell
from fewlabels.study.encoders import RESULT, encoder_place, start_key, warning_of
from fewlabels.study.grid import Comparison, PlannedCell, PlannedChoice
from fewlabels.study.jobs import folds_path, has_folds, kept_folds, may_be_chosen
from fewlabels.study.selection import choose, load_folds


def gather(comparison: Comparison) -> None:
    """Fill in what is there: cells, what is missing, the choices, the warnings of encoders.

    Nothing is trained or applied for it.
    """
    rows = [read_cell(comparison.folder / "cells", cell.id) for cell in comparison.grid.cells]
    pairs = list(zip(comparison.grid.cells, rows, strict=True))
    comparison.cells = [row for _, row in pairs if row is not None]
    comparison.missing = [cell.describe() for cell, row in pairs if row is None]
    found = [_choice(comparison, choice) for choice in comparison.grid.choices]
    comparison.choices = [choice for choice in found if choice is not None]
    comparison.warnings += [*_encoder_warnings(comparison), *_left_out(comparison)]


def _encoder_warnings(comparison: Comparison) -> list[str]:
    """Return what is to be said of encoders: that they collapsed, or know the test images."""
    told: list[str] = []
    for unit in comparison.units:
        task = comparison.own(unit)
        by_start: dict[str, Arm] = {}
        for arm in variants(comparison.arms):
            by_start.setdefault(start_key(arm, task), arm)
        for arm in by_start.values():
            warning = warning_of(comparison.folder, arm, task, unit)
            if warning:
                told.append(f"{arm.name}: {warning}")
    return told


def _left_out(comparison: Comparison) -> list[str]:
    """Say in words which cells are missing, and which have failed."""
    every = len(comparison.grid.cells)
    failed = [row for row in comparison.cells if row.get("failed")]
    told = []
    for rows, what in ((comparison.missing, "are missing"), (failed, "failed")):
        if rows:
            counts = Counter((row["arm"], comparison.task.goal.said(row["shots"])) for row in rows)
            where = [f"{arm} at {said} ({count})" for (arm, said), count in counts.items()]
            told.append(f"{len(rows)} of {every} cells {what}: {', '.join(where)}")
    return told


def _choice(comparison: Comparison, choice: PlannedChoice) -> dict[str, Any] | None:
    """Return a choice of the best arm; None while cells or folds that it rests on are missing."""
    place = comparison.folder / choice.path
    with contextlib.suppress(ModelError):  # not there, or damaged: then it is made from the folds
        return read_sealed(place)
    arms = may_be_chosen(comparison, choice) or []
    parts: dict[str, list[np.ndarray]] = {}
    if has_folds(comparison, choice):
        found = kept_folds(comparison, choice)
        if any(found[arm.name] is None for arm in arms):
            return None
        parts = {name: kept for name, kept in found.items() if kept}
        arms = [arm for arm in arms if arm.name in parts]
    if not arms:
        return None
    task = comparison.own(choice.unit)
    rows = comparison.rows(task, choice.shots, choice.draw)
    chosen = choose(task.goal, arms, rows, parts, seed=choice.fold_seed)
    chosen |= {"shots": choice.shots, "split": choice.unit.split, "draw": choice.draw}
    if all(load_cell(comparison.folder / "cells", cell.id) for cell in choice.cells):
        write_sealed(place, chosen)  # an arm that failed may come back
    return chosen


def take_in(comparison: Comparison, other: Path) -> tuple[int, int]:
    """Copy the cells of another folder that belong to this plan and are missing here.

    With them come the encoders they were made with, without their checkpoints.

    Returns
    -------
    tuple of int
        How many cells were taken, and how many in that folder are of another plan.

    Raises
    ------
    UsageError
        There is no comparison.
    """
    if not (other / "cells").is_dir():
        raise UsageError("usage.also", f"{other} holds no cells of a comparison", "check the path")
    names = {path.stem for path in (other / "cells").glob("*.json")}
    mine = comparison.grid.cells if _same_scores(comparison, other) else []
    taken = sum(_take(comparison, cell, other) for cell in mine if cell.id in names)
    return taken, len(names - {cell.id for cell in mine})


def _same_scores(comparison: Comparison, other: Path) -> bool:
    """Say whether another folder keeps the same metric of each image, which no name tells."""
    try:
        settings = RunFolder(other).config()["settings"]
    except (ModelError, KeyError):
        return False
    return bool(settings.get("metric") == comparison.settings.metric)


def _take(comparison: Comparison, cell: PlannedCell, other: Path) -> bool:
    """Copy one cell, what its arm did on the folds, and its encoder; say whether it was missing."""
    folder = comparison.folder
    row, mine = read_cell(other / "cells", cell.id), read_cell(folder / "cells", cell.id)
    if row is None or (row.get("failed") and mine is not None):
        return False
    folds = [folds_path(place, cell) for place in (other, folder)]
    if load_folds(folds[0]) is not None and load_folds(folds[1]) is None:
        _copy(folds[0], folds[1])
    if cell.arm.start == "pretrained":
        task = comparison.own(cell.unit)
        _take_encoder(*(encoder_place(at, cell.arm, task, cell.unit) for at in (other, folder)))
    if mine is not None and not mine.get("failed"):
        return False
    # The row last: with it the cell counts as complete.
    for suffix in (".npz", ".json") if not row.get("failed") else (".json",):
        _copy(other / "cells" / f"{cell.id}{suffix}", folder / "cells" / f"{cell.id}{suffix}")
    return True


def _take_encoder(theirs: Path, mine: Path) -> None:
    """Copy an encoder that is not here yet: its result last, its checkpoints not at all."""
    being_made = mine.with_name(f"{mine.name}.lock").exists()
    if being_made or (mine / RESULT).exists() or not (theirs / RESULT).exists():
        return
    files = [path for path in sorted(theirs.rglob("*")) if path.is_file()]
    for path in files:
        name = path.relative_to(theirs)
        if name.parts[0] not in ("checkpoints", RESULT):
            _copy(path, mine / name)
    _copy(theirs / RESULT, mine / RESULT)


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as path:
        shutil.copyfile(source, path)


def strangers(comparison: Comparison) -> int:
    """Return how many cells in the folder are of another plan: other data, device or version."""
    known = {cell.id for cell in comparison.grid.cells}
    names = {path.stem for path in (comparison.folder / "cells").glob("*.json")}
    return len(names - known)


def collect(comparison: Comparison, others: Sequence[Path]) -> None:
    """Take in the cells of other folders, and gather all that is there.

    Raises
    ------
    UsageError
        One of them is no comparison.
    ModelError
        There is no cell at all.
    """
    say = comparison.reporter.say
    for other in others:
        taken, strange = take_in(comparison, other)
        say(f"{other}: {taken} cells taken in")
        if strange:
            comparison.warnings.append(f"{other}: {strange} cells are of another plan")
    strange = strangers(comparison)
    if strange:
        comparison.warnings.append(f"{comparison.folder}: {strange} cells are of another plan")
    gather(comparison)
    if not comparison.cells:
        raise ModelError(
            "run.empty",
            f"no cell of this comparison is in {comparison.folder}"
            + "".join(f", {warning}" for warning in comparison.warnings),
            f"fewlabels compare DATA ... --out {comparison.folder} --cell ID",
        )
