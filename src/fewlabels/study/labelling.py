"""The verb `study label`: labelling simulated, strategy by strategy, on data that has labels."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fewlabels.core.errors import DataError, UsageError, unknown
from fewlabels.pipeline.folders import already, begin_folder, default_folder, refuse_unfinished
from fewlabels.pipeline.goals import Classes
from fewlabels.pipeline.keys import test_key
from fewlabels.pipeline.task import DataOptions, Task, open_task
from fewlabels.results.environment import describe
from fewlabels.results.files import read_json
from fewlabels.results.ledger import look
from fewlabels.results.runfolder import RunFolder
from fewlabels.results.schema import validate
from fewlabels.study.arms import Arm, parse_arm
from fewlabels.study.encoders import refuse_misfits
from fewlabels.study.given import open_given
from fewlabels.study.label_cells import ARMS, LabelStudy, compute_unit, encoder_warnings
from fewlabels.study.paces import measure_costs
from fewlabels.study.plan import Steps, Unit, make_units, settle_steps
from fewlabels.study.settings import with_backbone
from fewlabels.study.summary import sentence, summarise
from fewlabels.training.durations import parse_duration
from fewlabels.training.progress import Reporter

RESULT = "comparison.json"
PLAN = "plan.json"
DEFAULT_ARMS = tuple(name for name in ARMS if name != "auto")
HEAD = "features"  # logistic regression averaged with label spreading


@dataclass(frozen=True, slots=True)
class _Settings:
    """What a study is asked, as the user said it; part of its configuration."""

    start: str
    arms: tuple[str, ...]
    baseline: str
    labels: tuple[int, ...]
    seeds: int
    pretraining_seeds: int
    seed: int
    budget: str
    metric: str
    policy: str
    backbone: str
    device: str


def label_study(  # noqa: PLR0913 - flat settings, as the command line gives them
    options: DataOptions,
    *,
    start: str = "simclr",
    arms: Sequence[str] | None = None,
    baseline: str = "uniform",
    labels: Sequence[int] = (10, 40),
    seeds: int = 5,
    pretraining_seeds: int = 2,
    seed: int = 0,
    budget: str = "60s",
    metric: str = "accuracy",
    policy: str = "auto",
    backbone: str = "auto",
    device: str = "auto",
    out: Path | None = None,
    resume: str = "auto",
    command: str = "",
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Simulate labelling: strategies pick images, see their labels, and are scored on test.

    Every strategy picks from the same training images (at most 20,000, drawn at random) by the
    same frozen features; the labels of its picks are revealed, a small model is fitted on them and
    scored on all test images, those of classes that were never picked included.

    Parameters
    ----------
    options : DataOptions
        The data; classes, with labels.
    start : str
        Whose features: a method to pre-train by (``method[:backbone]``), ``pixels``, ``random``,
        or a run folder or published weights.
    arms : sequence of str, optional
        Strategies: keys of `fewlabels.transfer.picks.STRATEGIES`, ``class_balanced`` (which knows
        the labels), or ``auto`` (as `suggest` chooses). By default all but ``auto``. Strategies
        that go by doubt begin at random.
    baseline : str
        The strategy that all others are judged against.
    labels : sequence of int
        Budgets: labels in all. The picks for one are kept for the next.
    seeds : int
        Draws of all that strategies draw at random.
    pretraining_seeds : int
        Pre-trainings, each on a split of its own where the data came without a test split. A
        given start has one.
    seed : int
        The first of all these seeds.
    budget : str
        Of one pre-training, and the extraction of its features.
    metric : str
        Of the verdicts, see `compare`.
    policy, backbone, device : str
        Augmentation, network and device; ``auto`` chooses.
    out : Path, optional
        The folder; an interrupted study there goes on, a finished one is returned.
    resume : {"auto", "never"}
        ``never`` refuses a folder that holds an unfinished study.
    command : str
        The command to put into the report.
    reporter : Reporter, optional

    Returns
    -------
    dict
        ``comparison.json`` as of `compare`, with ``labels_counted`` ``in all``.

    Raises
    ------
    FewlabelsError
        For data or settings that cannot be used, a folder in use, a full disk.
    """
    reporter = reporter or Reporter()
    settings = _Settings(
        start,
        tuple(arms or DEFAULT_ARMS),
        baseline,
        tuple(sorted(set(labels))),
        seeds,
        pretraining_seeds,
        seed,
        budget,
        metric,
        policy,
        backbone,
        device,
    )
    _check(options, settings)
    config = {"verb": "study label", "data": asdict(options), "settings": asdict(settings)}
    if done := already(out, config, RESULT):
        return done
    task, arm = _prepare(options, settings, reporter)
    place = out or default_folder("study-label", task.dataset.name, config)
    with RunFolder(place) as run:
        refuse_unfinished(run, resume)
        begin_folder(run, task, config)
        study = _plan(run, task, arm, settings, reporter)
        reporter.say(_said(_declared(settings)))
        cells = [row for unit in study.units for row in compute_unit(study, unit)]
        result = _conclude(run, study, settings, cells, command)
        run.write_bytes("table.csv", table_csv(result))
        run.finish()
    return result


def _check(options: DataOptions, settings: _Settings) -> None:
    for name in settings.arms:
        if name not in ARMS:
            raise unknown("strategy", name, ARMS)
    if len(set(settings.arms)) < max(2, len(settings.arms)):
        raise UsageError("usage.arms", "a study needs two strategies or more, each named once")
    if settings.baseline not in settings.arms:
        raise UsageError(
            "usage.baseline",
            f"the baseline {settings.baseline!r} is not among the strategies",
            f"--arms {settings.baseline},{','.join(settings.arms)}",
        )
    if not settings.labels or min(settings.labels) < 1:
        raise UsageError("usage.labels", "--labels are labels in all, 1 or more", "--labels 10,40")
    if options.target is not None:
        raise UsageError("usage.target", "a labelling study tells classes apart", "leave it out")
    if settings.metric not in Classes.metrics:
        raise unknown("metric", settings.metric, Classes.metrics)
    parse_duration(settings.budget)


def _prepare(options: DataOptions, settings: _Settings, reporter: Reporter) -> tuple[Task, Arm]:
    """Open the data and the encoder's recipe; refuse what cannot be studied."""
    arm = with_backbone(parse_arm(f"{settings.start}+{HEAD}"), settings.backbone)
    policy, device = settings.policy, settings.device
    task = open_task(options, policy=policy, device=device, reporter=reporter)
    task.goal.require()
    if not len(task.dataset.rows("test")):
        raise DataError(
            "data.test", "no labelled image fell into the test split", "label more images"
        )
    count = len(task.dataset.labelled_rows("train"))
    if count < max(settings.labels):
        raise DataError(
            "data.few_labels",
            f"--labels {max(settings.labels)}, but {count} training images have a label",
            f"--labels {count} or fewer",
        )
    if arm.source is not None:
        given = open_given(arm.source, options, policy=policy, device=device, reporter=reporter)
        arm = replace(arm, given=given, backbone=given.start.backbone_name)
    refuse_misfits(task, [arm])
    return task, arm


def _plan(
    run: RunFolder, task: Task, arm: Arm, settings: _Settings, reporter: Reporter
) -> LabelStudy:
    """Settle the steps of the pre-training, or read the plan that is there."""
    path = run.path / PLAN
    if path.exists():
        steps = Steps(**read_json(path))
    else:
        costs = measure_costs(task, [arm], settings.labels)
        steps = settle_steps(task, [arm], costs, parse_duration(settings.budget))
        run.write_json(PLAN, asdict(steps))
    units = _units(task, arm, settings)
    return LabelStudy(
        task,
        arm,
        settings.arms,
        settings.labels,
        units,
        steps,
        run.path,
        reporter,
        settings.metric,
    )


def _units(task: Task, arm: Arm, settings: _Settings) -> list[Unit]:
    """Return which encoder meets which split; a given one has left out the test of its own."""
    first = 1_000 * settings.seed
    if arm.given is not None:
        draws = tuple(range(first, first + settings.seeds))
        return [Unit(arm.given.start.split_seed, first, draws)]
    trained = arm.start in ("pretrained", "random") or not task.dataset.splits_given
    return make_units(
        given=task.dataset.splits_given,
        draws=settings.seeds,
        pretraining_seeds=settings.pretraining_seeds if trained else 1,
        seed=settings.seed,
        own_labels=False,
    )


def _declared(settings: _Settings) -> dict[str, Any]:
    """Return the verdict declared before the run: of what `suggest` does at a cold start."""
    others = [name for name in settings.arms if name != settings.baseline]
    first = next((name for name in ("auto", "coverage", "typicality") if name in others), others[0])
    return {
        "arm": first,
        "baseline": settings.baseline,
        "shots": min(settings.labels),
        "metric": settings.metric,
    }


def _said(declared: dict[str, Any]) -> str:
    rivals = f"{declared['arm']} against {declared['baseline']}"
    where = f"{declared['shots']} labels in all"
    return f"declared before the run: {rivals} at {where}, by {declared['metric']}"


def _conclude(
    run: RunFolder,
    study: LabelStudy,
    settings: _Settings,
    cells: list[dict[str, Any]],
    command: str,
) -> dict[str, Any]:
    """Sum the cells up, write ``comparison.json`` and return it."""
    dataset = study.task.dataset
    test, train = len(dataset.rows("test")), len(dataset.rows("train"))
    declared = _declared(settings)
    found = summarise(
        cells,
        [replace(study.arm, name=name) for name in settings.arms],
        declared,
        baseline=settings.baseline,
        overlap=test / max(train, 1),
        cell_folder=run.path / "cells",
    )
    if found["primary"]:
        found["primary"]["sentence"] = sentence(found["primary"], whole=True)
    result = {
        "schema": 1,
        "kind": "comparison",
        "labels_counted": "in all",
        "run": str(run.path),
        "name": dataset.name,
        "command": command,
        "declared": declared,
        "encoder": study.arm.describe(),
        "arms": [_described(study.arm, name) for name in settings.arms],
        "cells": cells,
        **found,
        "best": None,
        "design": _design(study, settings, train, test),
        "inspect": dataset.report,
        "environment": describe(str(study.task.device)),
        "config": {**asdict(settings), "plan": asdict(study.steps)},
        "looks_at_test": look(test_key(study.task), f"study label {dataset.name}"),
        "warnings": [*dataset.report["warnings"], *encoder_warnings(study)],
    }
    checked = validate("compare", result)
    run.write_json(RESULT, checked)
    return checked


def _design(study: LabelStudy, settings: _Settings, train: int, test: int) -> dict[str, Any]:
    return {
        "splits": len({unit.split for unit in study.units}),
        "draws": len({(u.split, d) for u in study.units for d in u.draws}),
        "pretraining_seeds": len(study.units),
        "budget": settings.budget,
        "images_train": train,
        "images_test": test,
        "splits_given": study.task.dataset.splits_given,
    }


_WORDS = {
    "auto": "as 'fewlabels suggest' chooses by the labels there are",
    "coverage": "one by one, the image that raises most how well labelled images stand for all",
    "typicality": "the densest image of each of the largest clusters without a label",
    "spread_margin": "doubtful images of different looks; begins at random",
    "margin": "the most doubtful images; begins at random",
    "badge": "k-means++ over the gradients of guessed labels; begins at random",
    "coreset": "one by one, the image farthest from all labelled ones",
    "uniform": "at random",
    "class_balanced": "at random, as many of each class: it knows the labels",
}


def _described(arm: Arm, name: str) -> dict[str, Any]:
    about = {"name": name, "start": "labelling", "method": None, "backbone": arm.backbone}
    return {**about, "transfer": arm.transfer, "description": _WORDS[name]}


def table_csv(result: dict[str, Any]) -> str:
    """Return a line for each strategy and budget: its mean score, and its verdict."""
    metric = result["declared"]["metric"]
    verdicts = {(row["arm"], row["shots"]): row for row in result["verdicts"]}
    head = ["strategy", "labels", "classes_found", "repeats", metric, "low", "high"]
    against = ["difference", "difference_low", "difference_high", "verdict"]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*head, *against])
    for row in result["curves"]:
        key = (row["arm"], row["shots"])
        own = [c["classes_found"] for c in result["cells"] if (c["arm"], c["shots"]) == key]
        judged = verdicts.get(key, {})
        told = [judged.get(name) for name in ("difference", "low", "high", "verdict")]
        scores = [row["seeds"], row["mean"], row["low"], row["high"]]
        table.writerow([*key, round(float(np.mean(own)), 2), *scores, *told])
    return text.getvalue()
