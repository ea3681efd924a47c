"""The verb `study label`: labelling simulated, strategy by strategy, on data that has labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fewlabels.core.errors import DataError, UsageError, unknown
from fewlabels.pipeline.folders import already, begin_folder, default_folder, refuse_unfinished
from fewlabels.pipeline.goals import Classes
from fewlabels.pipeline.task import DataOptions, Task, open_task
from fewlabels.results.runfolder import RunFolder
from fewlabels.study.arms import Arm, announced
from fewlabels.study.encoders import refuse_misfits
from fewlabels.study.engine import kept_steps
from fewlabels.study.given import open_given
from fewlabels.study.label_cells import ARMS, LabelStudy, compute_unit
from fewlabels.study.label_findings import (
    RESULT,
    LabelSettings,
    conclude,
    declared,
    table_csv,
)
from fewlabels.study.paces import measure_costs
from fewlabels.study.parsing import parse_arm
from fewlabels.study.plan import Unit, make_units, settle_steps
from fewlabels.study.settings import with_backbone
from fewlabels.training.durations import parse_duration
from fewlabels.training.progress import Reporter

PLAN = "plan.json"
DEFAULT_ARMS = tuple(name for name in ARMS if name != "auto")
HEAD = "features"  # logistic regression averaged with label spreading


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
    settings = LabelSettings(
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
        about = declared(settings)
        reporter.say(announced(about, f"{about['shots']} labels in all"))
        cells = [row for unit in study.units for row in compute_unit(study, unit)]
        result = conclude(run, study, settings, cells, command)
        run.write_bytes("table.csv", table_csv(result))
        run.finish()
    return result


def _check(options: DataOptions, settings: LabelSettings) -> None:
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


def _prepare(options: DataOptions, settings: LabelSettings, reporter: Reporter) -> tuple[Task, Arm]:
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
    run: RunFolder, task: Task, arm: Arm, settings: LabelSettings, reporter: Reporter
) -> LabelStudy:
    """Settle the steps of the pre-training, or read the plan that is there."""
    path = run.path / PLAN
    if path.exists():
        steps = kept_steps(run)
    else:
        costs = measure_costs(task, [arm], settings.labels)
        steps = settle_steps(task, [arm], costs, parse_duration(settings.budget))
        run.write_sealed(PLAN, asdict(steps))
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


def _units(task: Task, arm: Arm, settings: LabelSettings) -> list[Unit]:
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
