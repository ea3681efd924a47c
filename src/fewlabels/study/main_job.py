"""The main job, `run`, and the same on built-in digits, `demo`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fewlabels.core.errors import DataError, UsageError
from fewlabels.pipeline.folders import already, default_folder, refuse_unfinished
from fewlabels.pipeline.task import DataOptions, Task
from fewlabels.pipeline.verbs import pretrain
from fewlabels.results.runfolder import RunFolder
from fewlabels.results.schema import validate
from fewlabels.study.arms import RECOMMENDED, Arm, default_arms, variants
from fewlabels.study.auto import settle_auto, with_recipes
from fewlabels.study.budget import Shares, dry_plan, share_out
from fewlabels.study.champion import crown
from fewlabels.study.conclusion import conclude
from fewlabels.study.counting import with_multiply_adds
from fewlabels.study.engine import begin
from fewlabels.study.paces import measure_costs
from fewlabels.study.plan import Steps, Unit, settle_steps
from fewlabels.study.settings import Settings, label_counts, lay_out, metric_of, prepare
from fewlabels.training.durations import Duration, parse_duration
from fewlabels.training.progress import Reporter


def run(  # noqa: PLR0913 - flat settings, as the command line gives them
    options: DataOptions,
    *,
    labels: int | Sequence[int] | None = None,
    budget: str = "10m",
    arms: Sequence[str] | None = None,
    baseline: str | None = None,
    recipe: str | None = None,
    seeds: int | None = None,
    pretraining_seeds: int | None = None,
    seed: int = 0,
    metric: str | None = None,
    imbalance: str = "none",
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
        Labels per class (for numbers, in all) that stay visible; by default the labels there are.
    budget : str
        Seconds or minutes of the whole command, files to report. What decoding, fine-tuning
        and choosing leave is shared out equally over the pre-trainings.
    recipe : str, optional
        ``auto``, or the name of an arm: make this one classifier with the whole budget, score it
        and compare it with nothing. ``auto`` chooses by rules before anything is trained and
        says why: see `fewlabels.study.recipes`.
    baseline : str, optional
        By default ``scratch``.
    seeds : int, optional
        Draws of labels; by default 3, with a `recipe` 1.
    pretraining_seeds : int, optional
        With a `recipe` 1. By default 3, each with a split of its own; where the data came with a
        test split 1, or 2 when all labels are used, since something must be repeated.

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
    if recipe:
        _refuse_beside(recipe, arms, baseline)
        arms, baseline = (recipe,), recipe
        seeds, pretraining_seeds = seeds or 1, pretraining_seeds or 1
    shots = (labels,) if isinstance(labels, int) else labels
    settings = Settings(
        tuple(arms or default_arms(options.target)),
        baseline or "scratch",
        tuple(sorted(set(shots))) if shots else None,
        seeds or 3,
        pretraining_seeds or 0,
        seed,
        budget,
        metric_of(metric, options.target),
        policy,
        backbone,
        device,
        imbalance=imbalance,
    )
    config = {"verb": "run", "data": asdict(options), "settings": asdict(settings)}
    if not dry_run and (done := already(out, config, "results.json")):
        return done
    try:
        task, parsed = prepare(options, settings, reporter, alone=recipe is not None)
    except DataError as error:
        if error.code != "data.labels":
            raise
        reporter.say(f"{error.message}; so this run pre-trains, and stops there")
        return _pretrain_only(options, settings, out, resume, dry_run, reporter)
    if any(arm.long for arm in parsed):
        raise UsageError(
            "usage.arm",
            "scratch+long trains for the budget of a cell, which run settles by itself",
            "fewlabels compare, with --budget for one cell",
        )
    opened = replace(
        settings, pretraining_seeds=pretraining_seeds or default_pretrainings(task, shots)
    )
    units = lay_out(task, opened)

    def settle() -> Steps:
        steps = settle_auto(task, parsed, opened, settle_arms, reporter)
        kinds = variants(with_recipes(parsed, steps.recipes, opened))
        if shares[-1] < 1 and any(arm.trains for arm in kinds):
            reporter.say(
                f"the budget is short: fine-tunes take {shares[-1]:.0%} of their usual steps"
            )
        return steps

    shares: list[float] = []

    def settle_arms(kinds: Sequence[Arm]) -> Steps:
        left = whole.value - (time.perf_counter() - began)
        steps, share = _run_plan(task, kinds, units, opened, left)
        shares.append(share)
        return steps

    if dry_run:
        steps = settle()
        parsed = with_recipes(parsed, steps.recipes, opened)
        return dry_plan(task, parsed, units, opened, steps)
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
            "recipe": compared["auto"][-1] if recipe and compared["auto"] else None,
            "best": compared["best"]["name"] if compared["best"] else None,
            "test": {**test, "looks_at_test": compared["looks_at_test"]} if test else None,
            "seconds": time.perf_counter() - began,
        }
        checked = validate("run", result)
        folder.write_json("results.json", checked)
        folder.finish()
    return checked


def _refuse_beside(recipe: str, arms: Sequence[str] | None, baseline: str | None) -> None:
    """Refuse what names arms to compare beside a recipe, which is compared with nothing."""
    if arms or baseline:
        raise UsageError(
            "usage.recipe",
            "a recipe makes one classifier, and arms and a baseline are compared",
            f"either --recipe {recipe}, or --arms {recipe},scratch",
        )


def _pretrain_only(
    options: DataOptions,
    settings: Settings,
    out: Path | None,
    resume: str,
    dry_run: bool,
    reporter: Reporter,
) -> dict[str, Any]:
    """Do what can be done without a label: pre-train by the recommended method."""
    return pretrain(
        options,
        method=RECOMMENDED.partition("+")[0],
        backbone=settings.backbone,
        budget=settings.budget,
        policy=settings.policy,
        seed=settings.seed,
        device=settings.device,
        out=out,
        resume=resume,
        dry_run=dry_run,
        reporter=reporter,
    )


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
    arms: Sequence[Arm],
    units: list[Unit],
    settings: Settings,
    seconds: float,
) -> tuple[Steps, float]:
    """Share a whole command's seconds out over its stages; with the share that fine-tunes get."""
    costs = measure_costs(task, arms, label_counts(task, settings))
    shares: Shares = share_out(task, arms, units, settings, costs, seconds)
    steps = settle_steps(task, arms, shares.costs, Duration(shares.cell, "seconds"))
    return with_multiply_adds(task, arms, steps), shares.costs.share
