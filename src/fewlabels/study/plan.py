"""The plan of a comparison: which seeds meet which, and how many steps everything takes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from fewlabels import __version__
from fewlabels.core.errors import UsageError
from fewlabels.core.seeding import stream
from fewlabels.pipeline.stages import (
    finetune_steps,
    pretrain_batches,
    pretrain_steps,
    unlabelled_steps,
)
from fewlabels.pipeline.task import Task, pick_backbone
from fewlabels.study.arms import Arm, variants
from fewlabels.study.paces import Costs, backbone_of, pace_name, step_images
from fewlabels.training.durations import Duration
from fewlabels.transfer.parameters import PRETRAINED, SCRATCH

OWN_LABELS = 0  # the number of shots that stands for "the labels there are"
LEAST_LEFT = 0.2  # of a budget; with less for pre-training a comparison would be one of transfers


@dataclass(frozen=True, slots=True)
class Unit:
    """One split with one pre-training seed, and the label draws that meet it.

    Attributes
    ----------
    split, pretraining : int
        Seeds of the two streams.
    draws : tuple of int
        Seeds of the label draws.
    shared : bool
        Whether its encoders are those of other splits with this pre-training seed.
    """

    split: int
    pretraining: int
    draws: tuple[int, ...]
    shared: bool = field(default=False, repr=False)

    @property
    def encoder(self) -> str:
        """Return the seeds that name its encoders: of the split, where it has its own, and theirs.

        Examples
        --------
        >>> Unit(7, 1, (0,)).encoder, Unit(7, 1, (0,), shared=True).encoder
        ('7-1', 'all-1')
        """
        return f"{'all' if self.shared else self.split}-{self.pretraining}"


@dataclass(frozen=True, slots=True)
class Streams:
    """The four random streams of a cell."""

    split: int
    labels: int
    pretraining: int | None
    training: int


def make_units(
    *, given: bool, draws: int, pretraining_seeds: int, seed: int, own_labels: bool
) -> list[Unit]:
    """Return the units of a comparison.

    With a given split every pre-training seed meets every label draw. Otherwise each
    pre-training seed comes with a random split of its own, and the draws are dealt out.

    Examples
    --------
    >>> make_units(given=False, draws=4, pretraining_seeds=2, seed=0, own_labels=False)
    [Unit(split=0, pretraining=0, draws=(0, 1)), Unit(split=1, pretraining=1, draws=(2, 3))]
    """
    if draws < 1 or pretraining_seeds < 1:
        raise UsageError("usage.seeds", "seeds must be 1 or more")
    if own_labels:
        draws = 1 if given else pretraining_seeds
    first = 1_000 * seed
    if given:
        every = tuple(range(first, first + draws))
        return [Unit(0, first + p, every) for p in range(pretraining_seeds)]
    count = min(pretraining_seeds, draws)
    dealt = [tuple(int(d) + first for d in part) for part in np.array_split(range(draws), count)]
    return [Unit(first + p, first + p, part) for p, part in enumerate(dealt)]


@dataclass(frozen=True, slots=True)
class Steps:
    """How long everything trains: what a budget becomes, once.

    Attributes
    ----------
    pretrain : dict
        Steps by ``method:backbone``.
    finetune, scratch : dict
        Fixed steps by number of labels (as text, for JSON).
    seconds : dict
        What the calibration measured, by stage; for the plan's own estimate.
    multiply_adds : dict
        What `fewlabels.study.counting` counted; empty where it was not asked.
    unlabelled : dict
        Fixed steps of fine-tunes with unlabelled images, whatever the labels: by rate and loss, as
        in ``finetune+fixmatch``.
    most : dict
        Steps that the budget of a cell holds, by `fit_name`.
    recipes : dict
        What the arm ``auto`` stands for, by number of labels (as text): see `fewlabels.study.auto`.
    """

    pretrain: dict[str, int]
    finetune: dict[str, int]
    scratch: dict[str, int]
    seconds: dict[str, float]
    multiply_adds: dict[str, int] = field(default_factory=dict)
    unlabelled: dict[str, int] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)
    recipes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def of(self, arm: Arm, labels: int, task: Task) -> int:
        """Return the steps of an arm's fine-tune on so many labelled images.

        Those of the smallest number that is listed and not below, cut to what the budget holds.
        """
        if arm.long:
            return self.most[fit_name(arm, task)]
        if arm.unlabelled != "none":
            fixed = self.unlabelled[unlabelled_name(arm)]
        else:
            fixed = nearest(self.scratch if arm.at_full_rate else self.finetune, labels)
        return min(fixed, self.most.get(fit_name(arm, task), fixed))


def unlabelled_name(arm: Arm) -> str:
    """Return the name under which the fixed steps of an arm with unlabelled images are kept."""
    return f"{_rate(arm)}+{arm.unlabelled}"


def fit_name(arm: Arm, task: Task) -> str:
    """Return the name of a fit that is cut by a pace of its own: ``scratch:tiny+fixmatch``."""
    return f"{_rate(arm)}:{pace_name(arm, task)}"


def _rate(arm: Arm) -> str:
    return "scratch" if arm.at_full_rate else "finetune"


def nearest(table: Mapping[str, int], count: int) -> int:
    """Return the steps of the smallest listed number of labels that is not below `count`.

    Splits and folds hold a few labels more or less than the one that was planned with.

    Examples
    --------
    >>> nearest({"40": 5, "48": 6}, 47), nearest({"40": 5, "48": 6}, 51)
    (6, 6)
    """
    listed = sorted(int(n) for n in table)
    return table[str(next((n for n in listed if n >= count), listed[-1]))]


def settle_steps(task: Task, arms: Sequence[Arm], costs: Costs, budget: Duration) -> Steps:
    """Turn the budget of a cell into steps of each stage.

    In every unit the budget is that of pre-training and transfer together. The transfer takes
    its fixed number of steps; pre-training takes what the longest transfer on the same backbone
    leaves, so that every pre-trained cell costs as much at most. What has no pre-training stops by
    its own fixed rule, or at the budget if that comes first.

    Parameters
    ----------
    budget : Duration
        Of one cell. An epoch is a pass over the training images, whoever sees them: as many
        images.

    Raises
    ------
    UsageError
        The budget leaves too little for pre-training, or is less than one batch.
    """
    arms, asked = variants(arms), str(budget)
    if budget.unit == "epochs":
        budget = Duration(float(int(budget.value * len(task.dataset.rows("train")))), "images")
        asked = f"{asked} ({budget})"
    fine = {str(n): costs.cut(finetune_steps(task, n, pretrained=True)) for n in costs.labels}
    scratch = {str(n): costs.cut(finetune_steps(task, n, pretrained=False)) for n in costs.labels}
    others = {
        unlabelled_name(arm): costs.cut(unlabelled_steps(pretrained=not arm.at_full_rate))
        for arm in arms
        if arm.unlabelled != "none"
    }
    most = {fit_name(arm, task): _most(arm, task, costs, budget) for arm in arms if arm.trains}
    seconds = {f"finetune:{name}": pace for name, pace in costs.finetune.items()}
    seconds |= {f"extraction:{name}": taken for name, taken in costs.extraction.items()}
    pairs = sorted({(a.method, pick_backbone(a.backbone, task)) for a in arms if a.method})
    trains = any(arm.trains and arm.method for arm in arms)
    batch = max((pretrain_batches(task, method, 0).size for method, _ in pairs), default=0)
    pretrain: dict[str, int] = {}
    for method, backbone in pairs:
        left = _left(costs, backbone, budget, asked, trains=trains, batch=batch)
        steps, pace = pretrain_steps(task, method, backbone, left)
        pretrain[f"{method}:{backbone}"] = steps
        seconds[f"pretrain:{method}:{backbone}"] = pace
    return Steps(pretrain, fine, scratch, seconds, unlabelled=others, most=most)


def _most(arm: Arm, task: Task, costs: Costs, budget: Duration) -> int:
    """Return how many steps of an arm's fine-tune the budget holds, after the extraction."""
    pace = costs.fit(arm, task)
    if budget.unit == "seconds":
        before = 0.0 if arm.at_full_rate else costs.extraction[backbone_of(arm, task)]
        budget = Duration(max(budget.value - before, pace), "seconds")
    batch = step_images(arm.unlabelled)
    return budget.steps(images=0, batch_size=batch, seconds_per_step=pace)


def _left(
    costs: Costs, backbone: str, budget: Duration, asked: str, *, trains: bool, batch: int
) -> Duration:
    """Return what the longest transfer after a backbone's pre-training leaves of the budget.

    Parameters
    ----------
    asked : str
        The budget in the user's words.
    trains : bool
        Whether a transfer trains weights.
    batch : int
        Images of the largest batch.

    Raises
    ------
    UsageError
        That is less than `LEAST_LEFT` of it, or less than a batch.
    """
    fits = {loss: costs.cut(steps) for loss, steps in costs.steps.items()} if trains else {}
    images = [steps * step_images(loss) for loss, steps in fits.items()]
    reserve, least = {
        "seconds": (costs.transfer(backbone, trains=trains), 0),
        "steps": (max(fits.values(), default=0), 1),
        "images": (max(images, default=0), batch),
    }[budget.unit]
    left = Duration(budget.value - reserve, budget.unit)
    if left.value < max(least, LEAST_LEFT * budget.value):
        unit = "s" if budget.unit == "seconds" else budget.unit
        raise UsageError(
            "usage.budget",
            f"a budget of {asked} leaves too little for pre-training: the transfer alone "
            f"takes about {reserve:.0f} {budget.unit}",
            f"--budget {max(int(reserve * 3) + 1, reserve + least):.0f}{unit}",
        )
    return left


def cell_id(
    task: Task,
    key: str,
    arm: Arm,
    shots: int,
    streams: Streams,
    steps: dict[str, int],
    *,
    weights: str = "",
) -> str:
    """Return the hash that names a cell: of everything that can change its result.

    Parameters
    ----------
    key : str
        From `data_key`.
    weights : str
        Hash of a given start's weights.
    """
    about: dict[str, Any] = {
        "data": key,
        "arm": [arm.start, arm.method, pick_backbone(arm.backbone, task), arm.transfer, arm.into],
        "shots": shots,
        "streams": asdict(streams),
        "steps": steps,
        "device": task.device.type,
    }
    if weights:
        about["weights"] = weights
    if arm.imbalance != "none":
        about["imbalance"] = arm.imbalance
    if arm.unlabelled != "none":
        about["unlabelled"] = arm.unlabelled
    if arm.trains:
        about["tuning"] = asdict(SCRATCH if arm.at_full_rate else PRETRAINED)
    return hashed(about)


def hashed(about: Mapping[str, Any]) -> str:
    """Return the name of a cell: the hash of what it depends on, and of our version."""
    whole = json.dumps({"version": __version__, **about}, sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:20]


def training_seed(arm: Arm, shots: int, unit: Unit, draw: int) -> int:
    """Return the seed of a cell's own training stream."""
    pretraining = unit.pretraining if arm.start in ("pretrained", "random") else "-"
    return stream(0, "training", arm.name, shots, unit.split, pretraining, draw) % 2**31
