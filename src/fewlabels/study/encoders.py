"""The encoders of a comparison: each pre-trained once, kept in a folder, shared by its cells."""

from __future__ import annotations

import time
from dataclasses import dataclass
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
from fewlabels.pipeline.stages import PretrainPlan, new_backbone
from fewlabels.pipeline.task import Task, pick_backbone
from fewlabels.results.files import read_json, to_json, write_atomic
from fewlabels.study.arms import Arm
from fewlabels.study.given import digest
from fewlabels.study.plan import Steps, Unit
from fewlabels.training.progress import Reporter
from fewlabels.transfer.features import Space
from fewlabels.transfer.live_probe import LiveProbe


@dataclass(slots=True, eq=False)
class Encoder:
    """An encoder with the features of the training set, and what they cost.

    Attributes
    ----------
    task : Task
        The data in the format that the encoder takes.
    backbone_name : str
    backbone : Backbone
    space : Space
    space_seconds : float
        Extraction and graph.
    steps, images_seen, seconds
        Of the pre-training.
    warning : str
        Said aloud when it collapsed or did not learn, or has seen the test images.
    test_features : Tensor or None
        ``(n_test, F)``, extracted when first asked for.
    digest : str
        Hash of the weights, where they were given.
    """

    task: Task
    backbone_name: str
    backbone: Backbone
    space: Space
    space_seconds: float
    steps: int = 0
    images_seen: int = 0
    seconds: float = 0.0
    warning: str = ""
    test_features: Tensor | None = None
    digest: str = ""


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

    Parameters
    ----------
    labelled : ndarray
        Every row whose label any cell of the unit will use; they must be in the space.
    folder : Path
        The comparison's folder.
    """
    name = pick_backbone(arm.backbone, task)
    cost: dict[str, Any] = {"steps": 0, "images_seen": 0, "seconds": 0.0, "warning": ""}
    weights = ""
    if arm.given is not None:
        task = arm.given.task_of(unit.split)
        name, backbone = arm.given.backbone()
        weights = digest(backbone)
        cost |= {"steps": arm.given.steps, "images_seen": arm.given.images_seen}
        cost |= {"seconds": arm.given.seconds, "warning": arm.given.warning(unit.split)}
    elif arm.start == "pretrained":
        place = folder / "encoders" / f"{arm.method}-{name}-{unit.split}-{unit.pretraining}"
        backbone, cost = _pretrained(task, arm, unit, steps, name, place, reporter)
    else:
        backbone = new_backbone(task, name, unit.pretraining)
    began = time.perf_counter()
    space = feature_space(task, backbone, labelled)
    took = time.perf_counter() - began
    return Encoder(
        task,
        name,
        backbone,
        space,
        took,
        steps=int(cost["steps"]),
        images_seen=int(cost["images_seen"]),
        seconds=float(cost["seconds"]),
        warning=str(cost["warning"]),
        digest=weights,
    )


def _pretrained(
    task: Task, arm: Arm, unit: Unit, steps: Steps, name: str, place: Path, reporter: Reporter
) -> tuple[Backbone, dict[str, Any]]:
    assert arm.method is not None
    count = steps.pretrain[f"{arm.method}:{name}"]
    done = place / "result.json"
    if done.exists():
        try:
            result = read_json(done)
            if result["steps"] == count:
                backbone = load_model(place / "model").backbone.to(task.device)
                return backbone, result
        except (ModelError, KeyError) as error:
            reporter.say(f"{place.name}: pre-training again, because {error}")
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
        "steps": trained.cost.steps,
        "images_seen": trained.cost.images_seen,
        "seconds": trained.cost.seconds,
        "peak_memory_mb": trained.cost.peak_memory_mb,
        "final": trained.final,
        "rank": trained.rank,
        "warning": trained.warning,
    }
    write_atomic(done, to_json(result) + "\n")
    drop_checkpoints(place)
    # Loaded back, so that a resumed comparison and an uninterrupted one score the same weights
    # in the same memory layout.
    backbone = load_model(place / "model").backbone.to(task.device)
    return backbone, result


def release(encoder: Encoder) -> None:
    """Drop what a finished unit no longer needs."""
    encoder.test_features = None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
