"""The multiply-adds of a comparison, counted once with its plan: one network at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fewlabels.core.types import Backbone
from fewlabels.pipeline.counting import feature_adds, finetuning_adds, pretraining_adds
from fewlabels.pipeline.stages import PretrainPlan, new_backbone
from fewlabels.pipeline.task import Task, pick_backbone
from fewlabels.study.arms import Arm, variants
from fewlabels.study.plan import Steps
from fewlabels.transfer.parameters import SCRATCH
from fewlabels.transfer.unlabelled import with_unlabelled


def with_multiply_adds(task: Task, arms: Sequence[Arm], steps: Steps) -> Steps:
    """Return the plan with what its stages take.

    Counted are each pre-training as a whole (``pretrain:METHOD:BACKBONE``), one step of each
    arm's fine-tune (``step:ARM``) and the features of one image (``image:ARM``). Networks that
    are alike are counted once.
    """
    found = {}
    for pair, count in steps.pretrain.items():
        method, _, backbone = pair.partition(":")
        plan = PretrainPlan(method, backbone, count, seed=0)
        found[f"pretrain:{pair}"] = pretraining_adds(task, plan)
    images: dict[str, int] = {}
    fits: dict[str, int] = {}
    for arm in variants(arms):
        start = arm.source or pick_backbone(arm.backbone, task)
        if start not in images:
            images[start] = feature_adds(arm.given.task if arm.given else task, _start(task, arm))
        found[f"image:{arm.counted}"] = images[start]
        if arm.trains:
            network = f"{arm.into or start}+{arm.unlabelled}"
            if network not in fits:
                fits[network] = _step(task, arm)
            found[f"step:{arm.counted}"] = fits[network]
    return replace(steps, multiply_adds=found)


def _start(task: Task, arm: Arm) -> Backbone:
    """Return a network of the architecture that an arm starts from."""
    if arm.given is not None:
        return arm.given.backbone()[1]
    return new_backbone(task, pick_backbone(arm.backbone, task), 0)


def _step(task: Task, arm: Arm) -> int:
    """Return the multiply-adds of one step of an arm's fine-tune."""
    start = _start(task, arm)
    if arm.transfer == "structure":
        options = {} if arm.into else start.options
        start = new_backbone(task, arm.into or pick_backbone(arm.backbone, task), 0, options)
    elif arm.given is not None:
        task = arm.given.task
    rows = task.dataset.labelled_rows("train")[:2]
    config = with_unlabelled(SCRATCH, arm.unlabelled)
    return finetuning_adds(task, start, rows, head=None, steps=1, config=config)
