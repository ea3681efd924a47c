"""What there is to do for a cell: fit and score it and, where its labels choose, the folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fewlabels.core.errors import DiskError, FewlabelsError, LockedError, OutOfMemoryError
from fewlabels.study.arms import Arm
from fewlabels.study.cells import failed_cell, read_cell, save_cell, save_failed, score_cell
from fewlabels.study.encoders import Encoder, warning_of
from fewlabels.study.grid import Comparison, PlannedCell, PlannedChoice
from fewlabels.study.selection import (
    counted,
    fold_scores,
    load_folds,
    save_folds,
    tried_in_order,
    until_behind,
)

# Of the folder, the machine or other processes, and not of one cell: these end the command.
NOT_OF_A_CELL = (OSError, DiskError, LockedError)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A cell to fit and score or, with a choice, its arm to cross-validate on its labels."""

    cell: PlannedCell
    choice: PlannedChoice | None = None


def jobs_of(comparison: Comparison, cells: Sequence[PlannedCell]) -> list[Job]:
    """Return the jobs of some cells: unit by unit, scores first, then the choice."""
    choices: dict[str, PlannedChoice] = {}
    for choice in reversed(comparison.grid.choices):
        if has_folds(comparison, choice) and not (comparison.folder / choice.path).exists():
            choices |= {cell.id: choice for cell in choice.cells}
    place = {arm.name: number for number, arm in enumerate(tried_in_order(comparison.arms))}
    jobs: list[Job] = []
    for unit in dict.fromkeys(cell.unit for cell in cells):
        inside = [cell for cell in cells if cell.unit == unit]
        jobs += [Job(cell) for cell in inside]
        inside.sort(key=lambda cell: (cell.streams.labels, cell.shots, place[cell.arm.name]))
        jobs += [Job(cell, choices[cell.id]) for cell in inside if cell.id in choices]
    return jobs


def has_folds(comparison: Comparison, choice: PlannedChoice) -> bool:
    """Say whether there is a choice, and enough labels to make it by folds."""
    if len(comparison.arms) < 2:
        return False
    task = comparison.own(choice.unit)
    rows = comparison.rows(task, choice.shots, choice.draw)
    return task.goal.folds(rows, choice.fold_seed) is not None


def folds_path(folder: Path, cell: PlannedCell) -> Path:
    """Return where it is kept how well a cell's arm did on the folds of its labels."""
    return folder / "choices" / f"{cell.id}.npz"


def is_done(comparison: Comparison, job: Job) -> bool:
    """Say whether nothing is left to do; a cell that was tried and failed is done with."""
    row = read_cell(comparison.folder / "cells", job.cell.id)
    if job.choice is None or (row and row.get("failed")):
        return row is not None
    return load_folds(folds_path(comparison.folder, job.cell)) is not None


def forget_failures(comparison: Comparison, cells: Sequence[PlannedCell]) -> None:
    """Remove the rows of failed cells, so that these are tried again."""
    for cell in cells:
        row = read_cell(comparison.folder / "cells", cell.id)
        if row and row.get("failed"):
            (comparison.folder / "cells" / f"{cell.id}.json").unlink(missing_ok=True)


def do(comparison: Comparison, job: Job, encoder: Encoder) -> None:
    """Do a job and keep what comes of it; what goes wrong with it is kept as well."""
    if job.choice is None:
        _score(comparison, job.cell, encoder)
    else:
        _cross_validate(comparison, job.cell, job.choice, encoder)


def _score(comparison: Comparison, cell: PlannedCell, encoder: Encoder) -> None:
    task = comparison.task_of(cell.arm, cell.unit)
    rows = comparison.rows(task, cell.shots, cell.streams.labels)
    try:
        row, predictions = score_cell(
            task, cell.arm, cell.shots, cell.streams, encoder, rows, comparison.steps
        )
    except NOT_OF_A_CELL:
        raise
    except Exception as error:
        _fail(comparison, cell, ours(error))
        return
    test = task.dataset.rows("test")
    scores = task.goal.image_scores(test, predictions, comparison.settings.metric)
    place = comparison.folder / "cells"
    save_cell(place, {"id": cell.id, **row}, scores, task.goal.predicted(predictions))


def give_up(comparison: Comparison, job: Job, error: FewlabelsError) -> None:
    """Note that a job cannot be done; the rest goes on."""
    if job.choice is None:
        _fail(comparison, job.cell, error)
    else:
        save_folds(folds_path(comparison.folder, job.cell), [])


def _fail(comparison: Comparison, cell: PlannedCell, error: FewlabelsError) -> None:
    where = f"{cell.arm.name} at {cell.shots or 'all'} labels"
    comparison.reporter.say(f"cell failed: {where}: {error.message}")
    comparison.errors.append(error)
    row = failed_cell(
        comparison.own(cell.unit), cell.arm, cell.shots, cell.streams, cell.id, error.message
    )
    save_failed(comparison.folder / "cells", row)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def ours(error: Exception) -> FewlabelsError:
    """Return an error of ours that says in words why a cell could not be computed."""
    if isinstance(error, FewlabelsError):
        return error
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return OutOfMemoryError("memory.cell", f"out of memory: {error}".rstrip(": "))
    return FewlabelsError("cell.failed", f"{type(error).__name__}: {error}")


def _cross_validate(
    comparison: Comparison, cell: PlannedCell, choice: PlannedChoice, encoder: Encoder
) -> None:
    task = comparison.own(choice.unit)
    rows = comparison.rows(task, choice.shots, choice.draw)
    folds = task.goal.folds(rows, choice.fold_seed)
    assert folds is not None
    eligible = may_be_chosen(comparison, choice)
    found: list[np.ndarray] = []
    if eligible is None or cell.arm in eligible:
        leader = _leader(comparison, choice, eligible or [], cell.arm)
        scores = (
            fold_scores(task, cell.arm, encoder, rows, folds == fold, comparison.steps)
            for fold in np.unique(folds)
        )
        try:
            found = until_behind(task.goal, cell.arm, scores, leader)
        except NOT_OF_A_CELL:
            raise
        except Exception as error:
            comparison.reporter.say(f"{cell.arm.name} cannot be chosen: {ours(error).message}")
    save_folds(folds_path(comparison.folder, cell), found)


def may_be_chosen(comparison: Comparison, choice: PlannedChoice) -> list[Arm] | None:
    """Return the arms that may be chosen: none that failed and, if possible, none warned of.

    None where cells or encoders are still missing.
    """
    task = comparison.own(choice.unit)
    warnings: dict[Arm, str] = {}
    for cell in choice.cells:
        row = read_cell(comparison.folder / "cells", cell.id)
        if row is None:
            return None
        if not row.get("failed") and not cell.arm.long:  # it is there to be compared with
            warning = warning_of(comparison.folder, cell.arm, task, choice.unit)
            if warning is None:
                return None
            warnings[cell.arm] = warning
    return [arm for arm, warning in warnings.items() if not warning] or list(warnings)


def _leader(
    comparison: Comparison, choice: PlannedChoice, eligible: Sequence[Arm], arm: Arm
) -> list[float]:
    """Return the leader's goodness fold by fold among the arms that are tried before one.

    Empty where it is not known yet, because others compute these arms at the same time: then
    all folds are tried, and `counted` leaves out what is too many.
    """
    ordered = tried_in_order(eligible)
    before = ordered[: ordered.index(arm)] if arm in ordered else []
    found = kept_folds(comparison, choice)
    if any(found[other.name] is None for other in before):
        return []
    task = comparison.own(choice.unit)
    folds = task.goal.folds(comparison.rows(task, choice.shots, choice.draw), choice.fold_seed)
    assert folds is not None
    parts = {name: kept or [] for name, kept in found.items()}
    return counted(task.goal, before, parts, len(np.unique(folds)))[1]


def kept_folds(comparison: Comparison, choice: PlannedChoice) -> dict[str, list[np.ndarray] | None]:
    """Return the stored fold scores of each arm, by its name; None where there are none yet."""
    return {cell.arm.name: load_folds(folds_path(comparison.folder, cell)) for cell in choice.cells}
