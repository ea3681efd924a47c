"""How many multiply-adds the stages take: counted on copies that are thrown away."""

from __future__ import annotations

import numpy as np
from torch import nn

from fewlabels.core.arithmetic import MultiplyAdds
from fewlabels.core.types import Backbone
from fewlabels.pipeline.frozen import features
from fewlabels.pipeline.guessing import no_guesses
from fewlabels.pipeline.stages import (
    PretrainPlan,
    Tuning,
    finetune_batches,
    finetune_method,
    new_method,
    pretrain_batches,
)
from fewlabels.pipeline.task import Task
from fewlabels.training.loop import Plan
from fewlabels.training.measuring import count_multiply_adds
from fewlabels.transfer.parameters import FineTuneConfig


def pretraining_adds(task: Task, plan: PretrainPlan) -> int:
    """Return the multiply-adds of a whole pre-training."""
    return count_multiply_adds(
        lambda: new_method(task, plan.method, plan.backbone, plan.seed, plan.labels),
        pretrain_batches(task, plan.method, plan.seed, plan.labels),
        Plan(plan.steps, plan.seed, task.bf16),
        task.device,
    )


def finetuning_adds(
    task: Task,
    backbone: Backbone,
    rows: np.ndarray,
    *,
    head: nn.Module | None,
    steps: int,
    config: FineTuneConfig | None = None,
    done: int | None = None,
) -> int:
    """Return the multiply-adds of a fine-tune.

    Parameters
    ----------
    done : int, optional
        How many of the `steps` were really taken; by default all.

    Other parameters are those of `fewlabels.pipeline.stages.finetune`.
    """

    def build() -> Tuning:
        return finetune_method(task, backbone, rows, head, 0, config, no_guesses(task, config))

    return count_multiply_adds(
        build,
        finetune_batches(task, rows, build(), 0),
        Plan(steps, 0, task.bf16),
        task.device,
        done=done,
    )


def feature_adds(task: Task, backbone: Backbone) -> int:
    """Return the multiply-adds of the features of one image."""
    counted = MultiplyAdds()
    with counted:
        features(task, backbone, task.dataset.rows("train")[:1])
    return counted.total
