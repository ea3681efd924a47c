"""What the transfers of a comparison take, by a short calibration on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from fewlabels.pipeline.frozen import FEATURE_IMAGES, features
from fewlabels.pipeline.stages import (
    finetune_pace,
    finetune_steps,
    new_backbone,
    unlabelled_steps,
)
from fewlabels.pipeline.task import Task, pick_backbone
from fewlabels.study.arms import Arm
from fewlabels.transfer.parameters import SCRATCH
from fewlabels.transfer.unlabelled import with_unlabelled


@dataclass(frozen=True, slots=True)
class Costs:
    """What a short calibration measured.

    Attributes
    ----------
    finetune : dict
        Seconds of one step of a fine-tune, by the backbone it starts from.
    extraction : dict
        Seconds to extract the features of the training set, by backbone.
    labels : tuple of int
        Numbers of labelled images that will occur.
    steps : int
        Of the longest fine-tune that follows a pre-training.
    share : float
        Share of its fixed number of steps that every fine-tune gets; below 1 where a short
        budget would not hold them all.
    unlabelled : dict
        Seconds of one step of a fine-tune with unlabelled images, by `pace_name`.
    unlabelled_steps : dict
        Of such a fine-tune that follows a pre-training, by the unlabelled loss.
    """

    finetune: dict[str, float]
    extraction: dict[str, float]
    labels: tuple[int, ...]
    steps: int
    share: float = 1.0
    unlabelled: dict[str, float] = field(default_factory=dict)
    unlabelled_steps: dict[str, int] = field(default_factory=dict)

    @property
    def slowest_step(self) -> float:
        """Return the seconds of a step of the slowest fine-tune; 0 where there is none."""
        return max(self.finetune.values(), default=0.0)

    @property
    def slowest_extraction(self) -> float:
        """Return the seconds of the slowest extraction; 0 where there is none."""
        return max(self.extraction.values(), default=0.0)

    def transfer(self, backbone: str, *, trains: bool) -> float:
        """Return the seconds of the longest transfer that follows a pre-training of a backbone."""
        fits = [self.steps * self.finetune.get(backbone, 0.0)]
        for loss, steps in self.unlabelled_steps.items():
            fits.append(steps * self.unlabelled.get(f"{backbone}+{loss}", 0.0))
        longest = self.share * max(fits)
        return self.extraction.get(backbone, 0.0) + (longest if trains else 0.0)

    def slowest_of(self, loss: str) -> float:
        """Return the seconds of a step of the slowest fine-tune by an unlabelled loss."""
        ending = f"+{loss}"
        return max(pace for name, pace in self.unlabelled.items() if name.endswith(ending))

    def fit(self, arm: Arm, task: Task) -> float:
        """Return the seconds of one step of an arm's fine-tune."""
        return (self.finetune | self.unlabelled)[pace_name(arm, task)]

    def cut(self, steps: int) -> int:
        """Return the steps that a fine-tune of so many fixed steps really gets."""
        return max(1, int(steps * self.share))


def measure_costs(task: Task, arms: Sequence[Arm], labels: Sequence[int]) -> Costs:
    """Time a few steps of each kind of transfer on every backbone that takes part."""
    trained = _paces(task, [a for a in arms if a.unlabelled == "none"], labels)
    losses = sorted({arm.unlabelled for arm in arms} - {"none"})
    others: dict[str, float] = {}
    for loss in losses:
        same = [arm for arm in arms if arm.unlabelled == loss]
        found = _paces(task, same, labels, loss)
        others |= {f"{start}+{loss}": pace for start, pace in found.items()}
    extracted: dict[str, float] = {}
    for start, seen, name in _networks(task, [arm for arm in arms if arm.start != "pixels"]):
        if start == name:
            seconds = _extraction_seconds(seen, name)
            extracted[name] = max(seconds, extracted.get(name, 0.0))
    carried = any(arm.at_full_rate for arm in arms if arm.method)
    return Costs(
        finetune=trained,
        extraction=extracted,
        labels=tuple(labels),
        steps=finetune_steps(task, max(labels), pretrained=not carried),
        unlabelled=others,
        unlabelled_steps={
            arm.unlabelled: unlabelled_steps(pretrained=True)
            for arm in arms
            if arm.method and arm.unlabelled != "none"
        },
    )


def _paces(
    task: Task, arms: Sequence[Arm], labels: Sequence[int], loss: str = "none"
) -> dict[str, float]:
    """Return the seconds of a step of those of some arms that train, by their backbone."""
    found: dict[str, float] = {}
    for start, seen, name in _networks(task, [arm for arm in arms if arm.trains]):
        pace = _finetune_pace(seen, name, max(labels), loss)
        found[start] = max(pace, found.get(start, 0.0))
    return found


def pace_name(arm: Arm, task: Task) -> str:
    """Return the name of what an arm's fine-tune takes a step: its backbone, and what it adds."""
    start = backbone_of(arm, task)
    return start if arm.unlabelled == "none" else f"{start}+{arm.unlabelled}"


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
