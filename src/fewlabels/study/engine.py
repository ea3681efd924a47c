"""A comparison from its plan to its cells: planned once, computed by one or many, collected."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fewlabels.core.errors import DataError, ModelError, UsageError
from fewlabels.pipeline.folders import as_begun, begin_folder
from fewlabels.pipeline.keys import data_key
from fewlabels.pipeline.task import DataOptions, Task, find_device
from fewlabels.results.runfolder import RunFolder
from fewlabels.study.arms import Arm, announced
from fewlabels.study.auto import with_recipes
from fewlabels.study.collect import gather
from fewlabels.study.grid import Comparison
from fewlabels.study.jobs import forget_failures
from fewlabels.study.plan import Steps, Unit
from fewlabels.study.settings import Settings, lay_out, prepare
from fewlabels.study.work import compute, free_abandoned
from fewlabels.training.progress import Reporter

PLAN = "plan.json"


def config_of(options: DataOptions, settings: Settings) -> dict[str, Any]:
    """Return what ``config.yaml`` of a comparison holds."""
    return {"verb": "compare", "data": asdict(options), "settings": asdict(settings)}


def begin(
    run: RunFolder,
    task: Task,
    arms: list[Arm],
    units: list[Unit],
    settings: Settings,
    settle: Callable[[], Steps],
    config: dict[str, Any],
    reporter: Reporter,
) -> Comparison:
    """Plan a comparison or go on with its plan, compute all cells here, and gather them.

    Parameters
    ----------
    settle : callable
        Makes the plan where an earlier start in this folder has left none.

    Raises
    ------
    UsageError, DataError
        The folder was begun with another configuration, or with other data.
    """
    comparison = plan(run, task, arms, units, settings, settle, config, reporter)
    compute_all(comparison)
    gather(comparison)
    return comparison


def plan(
    run: RunFolder,
    task: Task,
    arms: list[Arm],
    units: list[Unit],
    settings: Settings,
    settle: Callable[[], Steps],
    config: dict[str, Any],
    reporter: Reporter,
) -> Comparison:
    """Write the plan of a comparison into its folder, or read the one that is there.

    Parameters are those of `begin`.
    """
    task, arms = _as_begun(task, arms, run.path)
    _require_device(task, run.path)
    begin_folder(run, task, config)
    steps = kept_steps(run) if (run.path / PLAN).exists() else settle()
    run.write_sealed(PLAN, asdict(steps))
    arms = with_recipes(arms, steps.recipes, settings)
    comparison = Comparison(task, settings, arms, units, steps, run.path, reporter)
    declared = comparison.declared
    if declared["baseline"]:
        reporter.say(announced(declared, task.goal.said(declared["shots"])))
    return comparison


def kept_steps(run: RunFolder) -> Steps:
    """Return the steps that the plan of a folder has settled.

    Raises
    ------
    ModelError
        The plan is damaged.
    """
    found = run.read_json(PLAN)
    try:
        return Steps(**found)
    except TypeError as error:
        raise ModelError("run.damaged", f"{run.path / PLAN} is damaged: {error}") from error


def compute_all(comparison: Comparison) -> None:
    """Compute every cell that is not there yet in this process."""
    began = time.perf_counter()
    cells = comparison.grid.cells
    clear(comparison)
    compute(comparison, cells)
    comparison.reporter.say(f"all {len(cells)} cells done in {time.perf_counter() - began:.0f} s")


def clear(comparison: Comparison) -> None:
    """Remove what stands in the way of a new start: failures, and the locks of the dead."""
    forget_failures(comparison, comparison.grid.cells)
    free_abandoned(comparison.folder)


def reopen(
    folder: Path, options: DataOptions, settings: Settings, reporter: Reporter, *, computing: bool
) -> Comparison:
    """Return the comparison that a folder holds the plan of; nothing is written.

    The data may lie elsewhere than when it was planned, as on another machine.

    Parameters
    ----------
    computing : bool
        Whether its device must be there.

    Raises
    ------
    UsageError, DataError
        There is no plan, or one of other settings or other data.
    """
    if not (folder / PLAN).exists():
        raise UsageError(
            "run.no_plan",
            f"{folder} holds no plan of a comparison",
            f"fewlabels compare DATA ... --out {folder} --list-cells",
        )
    if not RunFolder(folder).same_config(config_of(options, settings), ignore=("data",)):
        raise UsageError(
            "run.config",
            f"{folder} holds a comparison with another configuration",
            "the same flags as when it was planned",
        )
    stored = RunFolder(folder).read_json("data.json")
    known = "device" in stored and not computing  # then it need not be here
    asked = replace(settings, device="auto") if known else settings
    task, arms = _as_begun(*prepare(options, asked, reporter), folder)
    if computing:
        _require_device(task, folder)
    if data_key(task) != stored["key"]:
        raise DataError(
            "data.changed",
            f"the images or labels are not those that {folder} was planned with",
            "the same files as there, at any path",
        )
    steps = kept_steps(RunFolder(folder))
    arms = with_recipes(arms, steps.recipes, settings)
    return Comparison(task, settings, arms, lay_out(task, settings), steps, folder, reporter)


def _as_begun(task: Task, arms: Sequence[Arm], folder: Path) -> tuple[Task, list[Arm]]:
    """Return the task and the given starts on the device that the folder was begun on."""
    given = [
        arm
        if arm.given is None
        else replace(arm, given=replace(arm.given, task=as_begun(arm.given.task, folder)))
        for arm in arms
    ]
    return as_begun(task, folder), given


def _require_device(task: Task, folder: Path) -> None:
    try:
        find_device(task.device.type)
    except UsageError as error:
        raise UsageError(
            "run.device",
            f"{folder} was begun on {task.device.type}, and {error.message}",
            "a machine that has one, or another --out",
        ) from error
