"""What the transfers of a comparison take, by a short calibration on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from fewlabels.pipeline.frozen import FEATURE_IMAGES, features
from fewlabels.pipeline.stages import (
    finetune_pace,
    finetune_steps,
    new_backbone,
    unlabelled_steps,
)
from fewlabels.pipeline.task import Task, pick_backbone
from fewlabels.study.arms import Arm, variants
from fewlabels.transfer.parameters import PRETRAINED, SCRATCH
from fewlabels.transfer.unlabelled import with_unlabelled


@dataclass(frozen=True, slots=True)
class Costs:
    """What a short calibration measured.

    Attributes
    ----------
    finetune : dict
        Seconds of one step of a fine-tune, by `pace_name`.
    extraction : dict
        Seconds to extract the features of the training set, by backbone.
    labels : tuple of int
        Numbers of labelled images that will occur.
    steps : dict
        Of the longest fine-tune that follows a pre-training, by what it learns unlabelled images
        by: ``none``, and the losses that are asked for.
    share : float
        Share of its fixed number of steps that every fine-tune gets; below 1 where a short
        budget would not hold them all.
    """

    finetune: dict[str, float]
    extraction: dict[str, float]
    labels: tuple[int, ...]
    steps: dict[str, int]
    share: float = 1.0

    def transfer(self, backbone: str, *, trains: bool) -> float:
        """Return the seconds of the longest transfer that follows a pre-training of a backbone."""
        longest = self.share * max(
            steps * self.finetune.get(_named(backbone, loss), 0.0)
            for loss, steps in self.steps.items()
        )
        return self.extraction.get(backbone, 0.0) + (longest if trains else 0.0)

    def fit(self, arm: Arm, task: Task) -> float:
        """Return the seconds of one step of an arm's fine-tune."""
        return self.finetune[pace_name(arm, task)]

    def cut(self, steps: int) -> int:
        """Return the steps that a fine-tune of so many fixed steps really gets."""
        return max(1, int(steps * self.share))


def measure_costs(task: Task, arms: Sequence[Arm], labels: Sequence[int]) -> Costs:
    """Time a few steps of each kind of transfer on every backbone that takes part."""
    arms = variants(arms)
    extracted: dict[str, float] = {}
    for start, seen, name in _networks(task, [arm for arm in arms if arm.start != "pixels"]):
        if start == name:
            seconds = _extraction_seconds(seen, name)
            extracted[name] = max(seconds, extracted.get(name, 0.0))
    carried = any(arm.at_full_rate for arm in arms if arm.method)
    after = {arm.unlabelled for arm in arms if arm.method} - {"none"}
    steps = {"none": finetune_steps(task, max(labels), pretrained=not carried)}
    steps |= {loss: unlabelled_steps(pretrained=True) for loss in sorted(after)}
    return Costs(_paces(task, arms, labels), extracted, tuple(labels), steps)


def _paces(task: Task, arms: Sequence[Arm], labels: Sequence[int]) -> dict[str, float]:
    """Return the seconds of a step of those of some arms that train, by `pace_name`."""
    found: dict[str, float] = {}
    for loss in sorted({arm.unlabelled for arm in arms if arm.trains}):
        same = [arm for arm in arms if arm.trains and arm.unlabelled == loss]
        for start, seen, network in _networks(task, same):
            name, pace = _named(start, loss), _finetune_pace(seen, network, max(labels), loss)
            found[name] = max(pace, found.get(name, 0.0))
    return found


def pace_name(arm: Arm, task: Task) -> str:
    """Return the name of what an arm's fine-tune takes a step: its backbone, and what it adds."""
    return _named(backbone_of(arm, task), arm.unlabelled)


def _named(backbone: str, loss: str) -> str:
    return backbone if loss == "none" else f"{backbone}+{loss}"


def step_images(loss: str) -> int:
    """Return how many images a step of a fine-tune takes, by what it adds."""
    return with_unlabelled(PRETRAINED, loss).images


def backbone_of(arm: Arm, task: Task) -> str:
    """Return the name of the network that an arm starts from."""
    return pick_backbone(arm.backbone, arm.given.task if arm.given else task)


def _networks(task: Task, arms: Sequence[Arm]) -> list[tuple[str, Task, str]]:
    """Return the networks of some arms, each once: the start's, the data in its format, its own."""
    found = {}
    for arm in arms:
        seen = arm.given.task if arm.given else task
        start = backbone_of(arm, task)
        found[start, start, seen.pictures] = seen
        if arm.into:
            found[start, arm.into, task.pictures] = task
    return [(start, seen, name) for (start, name, _), seen in found.items()]


def _finetune_pace(task: Task, backbone: str, count: int, loss: str) -> float:
    rows = task.dataset.labelled_rows("train")[: max(count, 2)]
    config = with_unlabelled(SCRATCH, loss)
    return finetune_pace(task, new_backbone(task, backbone, 0), rows, None, config)


def _extraction_seconds(task: Task, backbone: str) -> float:
    encoder = new_backbone(task, backbone, 0)
    rows = task.dataset.rows("train")
    sample = rows[:1_024]
    features(task, encoder, sample[:64])  # the first call warms up
    began = time.perf_counter()
    features(task, encoder, sample)
    each = (time.perf_counter() - began) / len(sample)
    return each * min(FEATURE_IMAGES, len(rows))
