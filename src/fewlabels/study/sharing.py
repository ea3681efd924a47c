"""A comparison as a whole, or its parts: the plan, single cells, and what they come to.

The whole is planned, computed and collected. Each of the three can be had by itself, so that
any number of processes and machines share one comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewlabels.core.errors import FewlabelsError, UsageError
from fewlabels.pipeline.folders import already, default_folder, refuse_unfinished
from fewlabels.pipeline.task import DataOptions, Task
from fewlabels.results.runfolder import RunFolder
from fewlabels.results.schema import validate
from fewlabels.study.arms import Arm
from fewlabels.study.auto import settle_auto, with_recipes
from fewlabels.study.budget import dry_plan
from fewlabels.study.cells import read_cell
from fewlabels.study.champion import crown
from fewlabels.study.collect import collect, gather
from fewlabels.study.conclusion import conclude
from fewlabels.study.engine import PLAN, compute_all, config_of, plan, reopen
from fewlabels.study.grid import Comparison, PlannedCell
from fewlabels.study.jobs import forget_failures, is_done, jobs_of
from fewlabels.study.plan import Steps
from fewlabels.study.settings import Settings, cell_plan, lay_out, prepare
from fewlabels.study.work import compute
from fewlabels.study.workers import compute_with_workers
from fewlabels.training.progress import Reporter

RESULT = "comparison.json"
PATIENCE = 60.0  # seconds to wait for another process that plans or collects in the folder


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """What is compared and where; see `compare`."""

    options: DataOptions
    settings: Settings
    out: Path | None
    resume: str
    command: str
    reporter: Reporter

    @property
    def config(self) -> dict[str, Any]:
        """Return what ``config.yaml`` holds."""
        return config_of(self.options, self.settings)

    @property
    def folder(self) -> Path:
        """Return the folder that was named.

        Raises
        ------
        UsageError
            None was.
        """
        if self.out is None:
            message = "cells are computed and collected in the folder that holds their plan"
            raise UsageError("usage.out", message, "--out DIR, as given to --list-cells")
        return self.out

    def reopened(self, *, computing: bool) -> Comparison:
        """Return the comparison whose plan the folder holds."""
        return reopen(self.folder, self.options, self.settings, self.reporter, computing=computing)

    def place(self, task: Task) -> Path:
        """Return the folder that was named, or else one for these data."""
        return self.out or default_folder("compare", task.dataset.name, self.config)

    def settled(self, task: Task, arms: Sequence[Arm]) -> Steps:
        """Return the steps of the comparison, and what ``auto`` stands for."""
        settings = self.settings
        return settle_auto(
            task, arms, settings, lambda kinds: cell_plan(task, kinds, settings), self.reporter
        )

    def planned(self, run: RunFolder, task: Task, arms: list[Arm]) -> Comparison:
        """Return the comparison, its plan settled or read in an open folder."""
        refuse_unfinished(run, self.resume)
        settings = self.settings
        units = lay_out(task, settings)
        return plan(
            run,
            task,
            arms,
            units,
            settings,
            lambda: self.settled(task, arms),
            self.config,
            self.reporter,
        )


def do_all(request: Request, *, dry_run: bool, workers: int) -> dict[str, Any]:
    """Plan a comparison, compute all of it, and collect it."""
    settings, reporter = request.settings, request.reporter
    if not dry_run and (done := already(request.out, request.config, RESULT)):
        return done
    task, arms = prepare(request.options, settings, reporter)
    if dry_run:
        units = lay_out(task, settings)
        steps = request.settled(task, arms)
        arms = with_recipes(arms, steps.recipes, settings)
        return dry_plan(task, arms, units, settings, steps)
    with RunFolder(request.place(task)) as run:
        comparison = request.planned(run, task, arms)
        if workers > 1:
            compute_with_workers(comparison, request.options, workers)
        else:
            compute_all(comparison)
        gather(comparison)
        result = conclude(run, comparison, request.command)
        if not comparison.missing:
            crown(run, comparison, reporter)
            run.finish()
    return result


def list_plan(request: Request) -> dict[str, Any]:
    """Settle the plan where there is none, and return the cells by name; compute nothing.

    Returns
    -------
    dict
        ``run`` and ``cells`` [{id, arm, shots, streams, done, failed}].
    """
    if request.out is not None and (request.out / PLAN).exists():
        refuse_unfinished(RunFolder(request.out), request.resume)
        comparison = request.reopened(computing=False)
    else:
        task, arms = prepare(request.options, request.settings, request.reporter)
        with RunFolder(request.place(task), wait=PATIENCE) as run:
            comparison = request.planned(run, task, arms)
    found = _listed(comparison, comparison.grid.cells)
    done = sum(cell["done"] for cell in found["cells"])
    request.reporter.say(f"{len(found['cells'])} cells in {found['run']}, of which {done} are done")
    return found


def compute_cells(request: Request, names: Sequence[str]) -> dict[str, Any]:
    """Compute some cells, and the encoders they need, beside any other process that does.

    Cells that another process computes at the moment are waited for.

    Returns
    -------
    dict
        As `list_plan`, of these cells alone; ``already_done`` says that there was nothing to do.

    Raises
    ------
    UsageError
        There is no plan, or no cell of such a name in it.
    FewlabelsError
        A cell failed, as the first one that did. All others are computed, and all is kept.
    """
    comparison = request.reopened(computing=True)
    cells = comparison.grid.named(names, request.folder)
    if RunFolder(request.folder).is_finished():
        return {**_listed(comparison, cells), "already_done": True}
    forget_failures(comparison, cells)
    there = all(is_done(comparison, job) for job in jobs_of(comparison, cells))
    compute(comparison, cells)
    result = _listed(comparison, cells)
    failed = [row["failed"] for row in result["cells"] if row["failed"]]
    if failed:
        error = next(iter(comparison.errors), FewlabelsError("cell.failed", failed[0]))
        error.message = f"{len(failed)} of {len(cells)} cells failed: {error.message}"
        raise error
    return {**result, "already_done": there}


def collect_cells(request: Request, others: Sequence[Path]) -> dict[str, Any]:
    """Sum up the cells that are there, after those of other folders were taken in.

    Returns
    -------
    dict
        ``comparison.json``; what is not there is listed as ``missing``.

    Raises
    ------
    UsageError
        There is no plan, or one of the others is no comparison.
    ModelError
        There is no cell at all.
    """
    comparison = request.reopened(computing=False)
    with RunFolder(request.folder, wait=PATIENCE) as run:
        if run.is_finished():
            return {**run.read_json(RESULT), "already_done": True}
        collect(comparison, others)
        return conclude(run, comparison, request.command)


def _listed(comparison: Comparison, cells: Sequence[PlannedCell]) -> dict[str, Any]:
    jobs = jobs_of(comparison, cells)
    left = {job.cell.id for job in jobs if not is_done(comparison, job)}
    rows = []
    for cell in cells:
        row = read_cell(comparison.folder / "cells", cell.id)
        failed = row["failed"] if row else None
        done = failed is None and cell.id not in left
        rows.append({**cell.describe(), "done": done, "failed": failed})
    result = {"schema": 1, "kind": "cells", "run": str(comparison.folder), "cells": rows}
    return validate("cells", result)
