"""The verb `compare`: arms over shots and seeds, and which differences are real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fewlabels.pipeline.folders import already, default_folder, refuse_unfinished
from fewlabels.pipeline.task import DataOptions
from fewlabels.results.runfolder import RunFolder
from fewlabels.study.arms import default_arms
from fewlabels.study.budget import dry_plan
from fewlabels.study.champion import crown
from fewlabels.study.conclusion import conclude
from fewlabels.study.engine import (
    Settings,
    begin,
    cell_plan,
    lay_out,
    metric_of,
    prepare,
)
from fewlabels.training.durations import parse_duration
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
    metric: str | None = None,
    imbalance: str = "none",
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
        ``scratch``, ``pixels``, ``random``, ``method[:backbone]+transfer``, or a run folder or
        published weights with a transfer, as in ``runs/source+features``; ``mean`` where a
        number is predicted.
    baseline : str
        The arm all others are judged against.
    labels : sequence of int, optional
        Labels per class (for numbers, in all) that stay visible; by default the labels there are.
    seeds : int
        Draws of labels.
    pretraining_seeds : int
        Pre-trainings of each method; where the data came without a test split, each has a
        random split of its own, and the draws are dealt out among them.
    seed : int
        The first of all these seeds.
    budget : str
        Of one cell: pre-training, which is shared, and transfer.
    metric : str, optional
        ``accuracy`` (the default), ``balanced_accuracy``, ``recall_macro``, ``f1_macro`` or
        ``nll``; for numbers ``mse`` (the default), ``mae`` or ``r2``.
    imbalance : str
        What every arm does about classes of unequal size, where it knows how: see
        `fewlabels.transfer.imbalance`.
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
        tuple(arms or default_arms(options.target)),
        baseline,
        tuple(sorted(set(labels))) if labels else None,
        seeds,
        pretraining_seeds,
        seed,
        budget,
        metric_of(metric, options.target),
        policy,
        backbone,
        device,
        select,
        imbalance,
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
