"""The verbs that compare: `compare`, and the main job `run` with its `demo`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fewlabels.pipeline.folders import already, default_folder, refuse_unfinished
from fewlabels.pipeline.task import DataOptions, Task
from fewlabels.results.runfolder import RunFolder
from fewlabels.results.schema import validate
from fewlabels.study.arms import DEFAULT_ARMS, Arm
from fewlabels.study.budget import Shares, dry_plan, share_out
from fewlabels.study.champion import crown
from fewlabels.study.conclusion import conclude
from fewlabels.study.engine import (
    Settings,
    begin,
    cell_plan,
    label_counts,
    lay_out,
    prepare,
)
from fewlabels.study.plan import Steps, Unit, measure_costs, settle_steps
from fewlabels.training.durations import Duration, parse_duration
from fewlabels.training.progress import Reporter


def compare(  # noqa: PLR0913 - flat settings, as the command line gives them
    options: DataOptions,
    *,
    arms: Sequence[str] | None = None,
    baseline: str = "scratch",
    labels: Sequence[int] | None = None,
    seeds: int = 5,
    pretraining_seeds: int = 2,
    seed: int = 0,
    budget: str = "60s",
    metric: str = "accuracy",
    policy: str = "auto",
    backbone: str = "auto",
    device: str = "auto",
    select: str = "first",
    out: Path | None = None,
    resume: str = "auto",
    dry_run: bool = False,
    command: str = "",
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Compare arms over shots and seeds, and say which differences are real.

    Parameters
    ----------
    options : DataOptions
        The data.
    arms : sequence of str, optional
        ``scratch``, ``pixels``, ``random`` or ``method[:backbone]+transfer``.
    baseline : str
        The arm all others are judged against.
    labels : sequence of int, optional
        Labels per class that stay visible; by default the labels there are.
    seeds : int
        Draws of labels.
    pretraining_seeds : int
        Pre-trainings of each method; where the data came without a test split, each has a
        random split of its own, and the draws are dealt out among them.
    seed : int
        The first of all these seeds.
    budget : str
        Of one cell: pre-training, which is shared, and transfer.
    metric : str
        ``accuracy``, ``balanced_accuracy``, ``recall_macro``, ``f1_macro`` or ``nll``.
    policy, backbone, device : str
        Augmentation, network and device; ``auto`` chooses.
    select : {"first", "all", "none"}
        Choose the best arm on the first draw of labels, on every one, or not at all.
    out : Path, optional
        The folder; an interrupted comparison there goes on, a finished one is returned.
    resume : {"auto", "never"}
        ``never`` refuses a folder that holds an unfinished comparison.
    dry_run : bool
        Return the plan and write nothing.
    command : str
        The command to put into the report.
    reporter : Reporter, optional

    Returns
    -------
    dict
        ``comparison.json``, see ``docs/files.md``.

    Raises
    ------
    FewlabelsError
        For data or settings that cannot be compared, a folder in use, a full disk.
    """
    reporter = reporter or Reporter()
    settings = Settings(
        tuple(arms or DEFAULT_ARMS),
        baseline,
        tuple(sorted(set(labels))) if labels else None,
        seeds,
        pretraining_seeds,
        seed,
        budget,
        metric,
        policy,
        backbone,
        device,
        select,
    )
    parse_duration(budget)
    config = {"verb": "compare", "data": asdict(options), "settings": asdict(settings)}
    if not dry_run and (done := already(out, config, "comparison.json")):
        return done
    task, parsed = prepare(options, settings, reporter)
    units = lay_out(task, settings)
    if dry_run:
        return dry_plan(task, parsed, units, settings, cell_plan(task, parsed, settings))
    with RunFolder(out or default_folder("compare", task.dataset.name, config)) as run:
        refuse_unfinished(run, resume)
        comparison = begin(
            run,
            task,
            parsed,
            units,
            settings,
            lambda: cell_plan(task, parsed, settings),
            config,
            reporter,
        )
        result = conclude(run, comparison, command)
        crown(run, comparison, reporter)
        run.finish()
    return result


def run(  # noqa: PLR0913 - flat settings, as the command line gives them
    options: DataOptions,
    *,
    labels: int | Sequence[int] | None = None,
    budget: str = "10m",
    arms: Sequence[str] | None = None,
    baseline: str = "scratch",
    seeds: int = 3,
    pretraining_seeds: int | None = None,
    seed: int = 0,
    metric: str = "accuracy",
    policy: str = "auto",
    backbone: str = "auto",
    device: str = "auto",
    out: Path | None = None,
    resume: str = "auto",
    dry_run: bool = False,
    command: str = "",
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Do the main job: from a folder of images to a verdict, a classifier and a report.

    Parameters
    ----------
    labels : int or sequence of int, optional
        Labels per class that stay visible; by default the labels there are.
    budget : str
        Seconds or minutes of the whole command, files to report. What decoding, fine-tuning
        and choosing leave is shared out equally over the pre-trainings.
    pretraining_seeds : int, optional
        By default 3, each with a split of its own; where the data came with a test split 1,
        or 2 when all labels are used, since something must be repeated.

    Other parameters are those of `compare`.

    Returns
    -------
    dict
        ``results.json``: ``run``, ``report``, ``inspect``, ``compare``, ``best``, ``test``.

    Raises
    ------
    FewlabelsError
        As `compare`.
    """
    began = time.perf_counter()
    reporter = reporter or Reporter()
    whole = parse_duration(budget, units=("seconds",))
    shots = (labels,) if isinstance(labels, int) else labels
    settings = Settings(
        tuple(arms or DEFAULT_ARMS),
        baseline,
        tuple(sorted(set(shots))) if shots else None,
        seeds,
        pretraining_seeds or 0,
        seed,
        budget,
        metric,
        policy,
        backbone,
        device,
    )
    config = {"verb": "run", "data": asdict(options), "settings": asdict(settings)}
    if not dry_run and (done := already(out, config, "results.json")):
        return done
    task, parsed = prepare(options, settings, reporter)
    opened = replace(
        settings, pretraining_seeds=pretraining_seeds or default_pretrainings(task, shots)
    )
    units = lay_out(task, opened)

    def settle() -> Steps:
        return _run_plan(task, parsed, units, opened, whole, time.perf_counter() - began)

    if dry_run:
        return dry_plan(task, parsed, units, opened, settle())
    with RunFolder(out or default_folder("run", task.dataset.name, config)) as folder:
        refuse_unfinished(folder, resume)
        comparison = begin(folder, task, parsed, units, opened, settle, config, reporter)
        compared = conclude(folder, comparison, command)
        test = crown(folder, comparison, reporter)
        result = {
            "schema": 1,
            "kind": "run",
            "run": str(folder.path),
            "report": str(folder.path / "report.html"),
            "inspect": compared["inspect"],
            "compare": compared,
            "best": compared["best"]["name"] if compared["best"] else None,
            "test": {**test, "looks_at_test": compared["looks_at_test"]} if test else None,
            "seconds": time.perf_counter() - began,
        }
        checked = validate("run", result)
        folder.write_json("results.json", checked)
        folder.finish()
    return checked


def default_pretrainings(task: Task, shots: Sequence[int] | None) -> int:
    """Return how many pre-trainings of each method a run affords itself."""
    if not task.dataset.splits_given:
        return 3
    return 1 if shots else 2


def demo(
    *,
    labels: Sequence[int] = (1, 4, 25),
    seed: int = 0,
    out: Path | None = None,
    dry_run: bool = False,
    command: str = "fewlabels demo",
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Do the main job on the built-in handwritten digits; needs no files and no network.

    Returns
    -------
    dict
        As `run`.
    """
    return run(
        DataOptions("digits"),
        labels=labels,
        budget="4m",
        seeds=6,
        pretraining_seeds=6,
        seed=seed,
        out=out,
        dry_run=dry_run,
        command=command,
        reporter=reporter,
    )


def _run_plan(
    task: Task,
    arms: list[Arm],
    units: list[Unit],
    settings: Settings,
    whole: Duration,
    spent: float,
) -> Steps:
    """Share a whole command's seconds out over its stages."""
    costs = measure_costs(task, arms, label_counts(task, settings))
    shares: Shares = share_out(task, arms, units, settings, costs, whole.value - spent)
    return settle_steps(task, arms, costs, Duration(shares.cell, "seconds"))
