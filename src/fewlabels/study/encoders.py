"""The encoders of a comparison: each pre-trained once, kept in a folder, shared by its cells."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewlabels.core.errors import ModelError
from fewlabels.core.types import Backbone
from fewlabels.models.classifier import load_model
from fewlabels.pipeline.frozen import feature_space
from fewlabels.pipeline.pretraining import drop_checkpoints, pretrain_in
from fewlabels.pipeline.stages import PretrainPlan, new_backbone, new_method
from fewlabels.pipeline.task import Task, pick_backbone, refuse_weights
from fewlabels.results.lock import Lock
from fewlabels.results.seals import read_sealed, write_sealed
from fewlabels.study.arms import Arm
from fewlabels.study.given import cost_of
from fewlabels.study.known import Known, of_given, of_pretrained
from fewlabels.study.plan import Steps, Unit
from fewlabels.training.cost import Cost, Meter, restart_peak
from fewlabels.training.progress import Reporter
from fewlabels.transfer.features import Space
from fewlabels.transfer.live_probe import LiveProbe

RESULT = "result.json"
SILENCE = 300.0  # seconds without a sign of life, after which another machine's process is dead


@dataclass(slots=True, eq=False)
class Encoder:
    """An encoder with the features of the training set, and what they cost.

    Attributes
    ----------
    task : Task
        The data in the format that the encoder takes.
    backbone_name : str
    backbone : Backbone
    labelled : ndarray
        Rows that must be in the space of the features.
    cost : Cost
        Of the pre-training.
    image_adds : int or None
        Multiply-adds of the features of one image.
    space_cost : Cost
        Of extraction and graph, once `space` was asked for.
    warning : str
        Said aloud when it collapsed or did not learn, or has seen the test images.
    test_features : Tensor or None
        ``(n_test, F)``, extracted when first asked for.
    learn : callable or None
        Finds out what is known of it; None where nothing was pre-trained.
    """

    task: Task
    backbone_name: str
    backbone: Backbone
    labelled: np.ndarray
    cost: Cost
    image_adds: int | None
    space_cost: Cost = field(default_factory=Cost)
    warning: str = ""
    test_features: Tensor | None = None
    learn: Callable[[], Known] | None = None
    _space: Space | None = None
    _known: Known | None = None

    @property
    def known(self) -> Known | None:
        """Return what may explain its scores, measured when first asked for."""
        if self._known is None and self.learn is not None:
            self._known = self.learn()
        return self._known

    @property
    def space(self) -> Space:
        """Return the features of the training set, extracted when first asked for."""
        if self._space is None:
            meter = Meter(self.task.device)
            self._space = feature_space(self.task, self.backbone, self.labelled)
            each = self.image_adds
            adds = None if each is None else each * len(self._space.rows)
            self.space_cost = meter.read() + Cost(multiply_adds=adds)
        return self._space


def refuse_misfits(task: Task, arms: Sequence[Arm]) -> None:
    """Build every network and method once, so that what does not fit leaves no folder behind.

    Raises
    ------
    UsageError
        A backbone is unknown, cannot take these images, or does not suit its method.
    """
    free = [arm for arm in arms if arm.given is None]
    for name in [*(arm.backbone for arm in free), *(arm.into for arm in arms)]:
        refuse_weights(name)
    networks = {pick_backbone(arm.backbone, task) for arm in free if arm.method is None}
    for name in sorted({*networks, *(arm.into for arm in arms if arm.into)}):
        new_backbone(task, name, 0)
    pairs = {(arm.method, pick_backbone(arm.backbone, task)) for arm in free if arm.method}
    for method, name in sorted(pairs):
        new_method(task, method, name, 0)


def start_key(arm: Arm, task: Task) -> str:
    """Return a name of the arm's start; arms that share it share an encoder."""
    backbone = pick_backbone(arm.backbone, task)
    # Scratch draws its own weights cell by cell and only needs the untrained network's shape.
    start = "random" if arm.start == "scratch" else arm.method or arm.source or arm.start
    return f"{start}-{backbone}"


def task_of(arm: Arm, encoder: Encoder, own: Task) -> Task:
    """Return the data as an arm's classifier takes them.

    That is the encoder's format, but where its weights are carried into a network for the
    comparison's `own` images.
    """
    return own if arm.transfer == "structure" else encoder.task


def open_encoder(
    task: Task,
    arm: Arm,
    unit: Unit,
    steps: Steps,
    labelled: np.ndarray,
    folder: Path,
    reporter: Reporter,
) -> Encoder:
    """Return the encoder of an arm in a unit: loaded, or pre-trained, or left untrained.

    Waits for another process that pre-trains it.

    Parameters
    ----------
    labelled : ndarray
        Every row whose label any cell of the unit will use; they must be in the space.
    folder : Path
        The comparison's folder.
    """
    found = load_encoder(task, arm, unit, steps, labelled, folder)
    if found is None:
        with encoder_lock(folder, arm, task, unit, wait=math.inf):
            found = make_encoder(task, arm, unit, steps, labelled, folder, reporter)
    return found


def load_encoder(
    task: Task, arm: Arm, unit: Unit, steps: Steps, labelled: np.ndarray, folder: Path
) -> Encoder | None:
    """Return the encoder of an arm in a unit; None where it has to be pre-trained first."""
    name = pick_backbone(arm.backbone, task)
    cost, warning = Cost(), ""
    learn: Callable[[], Known] | None = None
    if arm.given is not None:
        task = arm.given.task_of(unit.split)
        name, backbone = arm.given.backbone()
        learn = functools.partial(of_given, task, Path(arm.given.start.name), backbone)
        cost, warning = arm.given.cost, arm.given.warning(unit.split)
    elif arm.start == "pretrained":
        kept = _kept(encoder_place(folder, arm, task, unit), pretraining_steps(arm, task, steps))
        if kept is None:
            return None
        backbone = kept[0].to(task.device)
        cost, warning = cost_of(kept[1]), str(kept[1]["warning"])
        rank, seen = kept[1].get("rank"), cost.images_seen
        learn = functools.partial(of_pretrained, task, backbone, rank, seen)
    else:
        backbone = new_backbone(task, name, unit.pretraining)
    adds = steps.multiply_adds.get(f"image:{arm.counted}")
    return Encoder(task, name, backbone, labelled, cost, adds, warning=warning, learn=learn)


def make_encoder(
    task: Task,
    arm: Arm,
    unit: Unit,
    steps: Steps,
    labelled: np.ndarray,
    folder: Path,
    reporter: Reporter,
) -> Encoder:
    """Pre-train the encoder of an arm in a unit and load it; whoever calls this holds its lock."""
    found = load_encoder(task, arm, unit, steps, labelled, folder)  # made while we waited
    if found is None:
        place = encoder_place(folder, arm, task, unit)
        if (place / RESULT).exists():
            reporter.say(f"{place.name}: pre-training again, what is kept of it cannot be used")
        _pretrain(task, arm, unit, steps, place, reporter)
        # Loaded back, so that a resumed comparison and an uninterrupted one score the same
        # weights in the same memory layout.
        found = load_encoder(task, arm, unit, steps, labelled, folder)
    if found is None:
        raise ModelError("model.damaged", f"cannot read back the encoder just written to {place}")
    return found


def pretraining_steps(arm: Arm, task: Task, steps: Steps) -> int:
    """Return the steps of an arm's pre-training."""
    return steps.pretrain[f"{arm.method}:{pick_backbone(arm.backbone, task)}"]


def encoder_place(folder: Path, arm: Arm, task: Task, unit: Unit) -> Path:
    """Return where the encoder that an arm pre-trains in a unit is kept."""
    name = pick_backbone(arm.backbone, task)
    return folder / "encoders" / f"{arm.method}-{name}-{unit.encoder}"


def warning_of(folder: Path, arm: Arm, task: Task, unit: Unit) -> str | None:
    """Return the warning about an arm's encoder, unopened; None where none is made yet."""
    if arm.given is not None:
        return arm.given.warning(unit.split)
    if arm.start != "pretrained":
        return ""
    try:
        return str(read_sealed(encoder_place(folder, arm, task, unit) / RESULT)["warning"])
    except (ModelError, KeyError):
        return None


def encoder_lock(folder: Path, arm: Arm, task: Task, unit: Unit, *, wait: float = 0.0) -> Lock:
    """Return the lock of an encoder, which is held while it is pre-trained."""
    place = encoder_place(folder, arm, task, unit)
    place.parent.mkdir(parents=True, exist_ok=True)
    return Lock(place.with_name(f"{place.name}.lock"), wait=wait, silence=SILENCE)


def _kept(place: Path, count: int) -> tuple[Backbone, dict[str, Any]] | None:
    """Return the sound encoder of so many steps that lies in a folder, and what it cost."""
    try:
        result = read_sealed(place / RESULT)
        return (load_model(place / "model").backbone, result) if result["steps"] == count else None
    except (ModelError, KeyError):
        return None


def _pretrain(
    task: Task, arm: Arm, unit: Unit, steps: Steps, place: Path, reporter: Reporter
) -> None:
    assert arm.method is not None
    name = pick_backbone(arm.backbone, task)
    count = pretraining_steps(arm, task, steps)
    restart_peak(task.device)
    trained = pretrain_in(
        place,
        task,
        PretrainPlan(arm.method, name, count, unit.pretraining),
        title=f"pretrain {arm.method} (split {unit.split}, seed {unit.pretraining})",
        probe=LiveProbe(task.dataset, task.pictures, task.device, bf16=task.bf16),
        reporter=reporter,
    )
    result = {
        "method": arm.method,
        "backbone": name,
        **asdict(trained.cost.cost(steps.multiply_adds.get(f"pretrain:{arm.method}:{name}"))),
        "final": trained.final,
        "rank": trained.rank,
        "warning": trained.warning,
    }
    write_sealed(place / RESULT, result)
    drop_checkpoints(place)


def release(encoder: Encoder) -> None:
    """Drop what a finished unit no longer needs."""
    encoder.test_features = None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
