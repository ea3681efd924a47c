"""What a comparison is asked: its settings, and the data and arms made ready for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fewlabels.core.errors import DataError, UsageError, unknown
from fewlabels.models.published import needs_backbone
from fewlabels.pipeline.goals import Classes, Numbers
from fewlabels.pipeline.parts import refuse_imbalance
from fewlabels.pipeline.task import DataOptions, Task, open_task
from fewlabels.study.arms import DEFAULT_ARMS, Arm
from fewlabels.study.counting import with_multiply_adds
from fewlabels.study.encoders import refuse_misfits
from fewlabels.study.folding import fold, fold_units, folds_given
from fewlabels.study.given import open_given
from fewlabels.study.paces import measure_costs
from fewlabels.study.parsing import parse_arms
from fewlabels.study.plan import OWN_LABELS, Steps, Unit, make_units, settle_steps
from fewlabels.training.durations import parse_duration
from fewlabels.training.progress import Reporter
from fewlabels.transfer.imbalance import IMBALANCE, head_remedy


@dataclass(frozen=True, slots=True)
class Settings:
    """What is compared, as the user said it."""

    arms: tuple[str, ...] = DEFAULT_ARMS
    baseline: str = "scratch"
    labels: tuple[int, ...] | None = None
    seeds: int = 5
    pretraining_seeds: int = 2
    seed: int = 0
    budget: str = "60s"
    metric: str = "accuracy"
    policy: str = "auto"
    backbone: str = "auto"
    device: str = "auto"
    select: str = "first"  # choose the best arm on the "first" draw, on "all", or on "none"
    imbalance: str = "none"
    folds: int | None = None  # of a cross-validation; 0 for none, None where it is due


def metric_of(metric: str | None, target: str | None) -> str:
    """Return the metric of the verdicts: as asked for, else accuracy, or the squared error."""
    return metric or ("accuracy" if target is None else "mse")


def prepare(
    options: DataOptions, settings: Settings, reporter: Reporter, *, alone: bool = False
) -> tuple[Task, list[Arm]]:
    """Open the data and read the arms; refuse what cannot be compared.

    Parameters
    ----------
    alone : bool
        One arm is enough: it is scored and compared with nothing.

    Raises
    ------
    DataError, UsageError
        For data without labels or test images, and settings out of range.
    """
    arms = parse_arms(list(settings.arms), target=options.target, alone=alone)
    if settings.baseline not in settings.arms:
        raise UsageError(
            "usage.baseline",
            f"the baseline {settings.baseline!r} is not among the arms",
            f"--arms {settings.baseline},{','.join(settings.arms)}",
        )
    known = (Classes if options.target is None else Numbers).metrics
    if settings.metric not in known:
        raise unknown("metric", settings.metric, known)
    if settings.imbalance not in IMBALANCE:
        raise unknown("imbalance", settings.imbalance, IMBALANCE)
    refuse_imbalance(options.target, settings.imbalance)
    arms = [with_imbalance(arm, settings.imbalance) for arm in arms]
    if settings.backbone != "auto":
        arms = [with_backbone(arm, settings.backbone) for arm in arms]
    task = open_task(options, policy=settings.policy, device=settings.device, reporter=reporter)
    task.goal.require()
    task = fold(task, settings.folds, reporter)
    if not task.dataset.folds and not len(task.dataset.rows("test")):
        raise DataError(
            "data.test",
            "no labelled image fell into the test split, so nothing could be proved",
            "label more images, or give a test/ folder; fewlabels pretrain and finetune make a "
            "classifier without the proof",
        )
    if settings.labels:
        task.goal.refuse_shortage(max(settings.labels))
    opened = [folds_given(open_arm(arm, options, settings, reporter), task) for arm in arms]
    refuse_misfits(task, opened)
    return task, opened


def open_arm(arm: Arm, options: DataOptions, settings: Settings, reporter: Reporter) -> Arm:
    """Return the arm with its given start opened; any other arm as it is."""
    if arm.source is None:
        return arm
    # --backbone is for arms that leave theirs open; here, for files that do not say.
    asked = arm.backbone != "auto" or not needs_backbone(arm.source)
    given = open_given(
        arm.source,
        options,
        backbone=arm.backbone if asked else settings.backbone,
        policy=settings.policy,
        device=settings.device,
        reporter=reporter,
    )
    return replace(arm, given=given, backbone=given.start.backbone_name)


def lay_out(task: Task, settings: Settings) -> list[Unit]:
    """Return the units: which pre-training seed meets which split and which label draws."""
    if task.dataset.folds:
        return fold_units(
            task,
            repeats=settings.seeds,
            pretraining_seeds=settings.pretraining_seeds,
            seed=settings.seed,
        )
    return make_units(
        given=task.dataset.splits_given,
        draws=settings.seeds,
        pretraining_seeds=settings.pretraining_seeds,
        seed=settings.seed,
        own_labels=settings.labels is None,
    )


def with_backbone(arm: Arm, backbone: str) -> Arm:
    """Return the arm on the backbone named for all, unless it names its own."""
    keep = arm.start in ("pixels", "given") or arm.backbone != "auto"
    return arm if keep else replace(arm, backbone=backbone)


def with_imbalance(arm: Arm, imbalance: str) -> Arm:
    """Return the arm with what it can do about classes of unequal size."""
    known = imbalance if arm.trains else head_remedy(arm.transfer, imbalance)
    return replace(arm, imbalance=known)


def label_counts(task: Task, settings: Settings) -> list[int]:
    """Return the numbers of labelled images that will occur."""
    return sorted({label_count(task, shots) for shots in settings.labels or (OWN_LABELS,)})


def label_count(task: Task, shots: int) -> int:
    """Return how many labelled images a number of shots comes to."""
    if shots == OWN_LABELS:
        return len(task.dataset.visible(None, 0))
    return task.goal.label_count(shots)


def cell_plan(task: Task, arms: Sequence[Arm], settings: Settings) -> Steps:
    """Settle the steps of a comparison whose budget is that of one cell."""
    counts = label_counts(task, settings)
    budget = parse_duration(settings.budget)
    steps = settle_steps(task, arms, measure_costs(task, arms, counts), budget)
    return with_multiply_adds(task, arms, steps)
