"""The rules of ``auto``: which recipe suits which images, labels and budget.

`RULES` is read from the top; the first rule whose bounds hold decides. Each carries its reason and
the tables it rests on. ``python benchmarks/auto.py`` works the choices out anew from the committed
tables, scores the rules on them, and says where they differ. When new tables come, this file is
what changes; nothing else knows a recipe of ``auto`` by name.

A recipe is an arm (`fewlabels.study.arms`): pre-training, transfer and, in the place of the
transfer, an unlabelled loss. It is chosen from what is known before anything is trained. No label
is held out for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

Bounds = tuple[float | None, float | None]  # from and to, both included; None is open

# What the rules hope for, so what the budget is measured with, and what is left without it.
PRETRAINED = "simclr+features"
UNTRAINED = "scratch"

SMALL = 23  # pixels: digits; from 24 on images are treated as photos, as the networks do
SMALL_STEPS, PHOTO_STEPS = 160, 400
FEW_IMAGES = 511  # under two batches of SimCLR


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a recipe is chosen by.

    Attributes
    ----------
    size : int
        Pixels of a side, as images are trained on.
    channels : int
        1 for grey, 3 for colour.
    images : int
        To pre-train on: training images, labelled or not.
    labels : int
        Labelled images to learn from, in all.
    per_class : int
        The same by class, on average.
    device : str
        ``cpu``, ``cuda`` or ``mps``.
    pretrain_steps : int
        Steps of pre-training that the budget leaves; 0 where it leaves too little.
    scratch_steps : int
        Steps of training from scratch that the budget leaves.
    """

    size: int
    channels: int
    images: int
    labels: int
    per_class: int
    device: str
    pretrain_steps: int
    scratch_steps: int


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table.

    Attributes
    ----------
    recipe : str
        The arm.
    bounds : mapping
        Bounds by the name of a condition; what is not named may be anything.
    reason : str
        Why, to be printed.
    evidence : tuple of str
        Tables in ``benchmarks/``; empty where none covers it.
    """

    recipe: str
    bounds: Mapping[str, Bounds]
    reason: str
    evidence: tuple[str, ...]

    def holds(self, conditions: Conditions) -> bool:
        """Say whether all bounds hold."""
        return all(
            _within(getattr(conditions, name), bounds) for name, bounds in self.bounds.items()
        )


RULES: tuple[Rule, ...] = (
    Rule(
        "simclr+features",
        {
            "size": (None, SMALL),
            "images": (FEW_IMAGES + 1, None),
            "pretrain_steps": (SMALL_STEPS, None),
        },
        "on small images frozen features after a short pre-training on all images were best with 1 "
        "and 4 labels per class, and not told from the best with 25",
        # 245 steps of SimCLR helped. Encoders of 80 steps were mostly worse than untrained ones,
        # those of 160 were better, all six.
        ("digits_verdicts.csv", "short_budgets.csv"),
    ),
    Rule(
        "simclr+features",
        {
            "size": (SMALL + 1, None),
            "images": (FEW_IMAGES + 1, None),
            "pretrain_steps": (PHOTO_STEPS, None),
        },
        "on photos frozen features after pre-training on all images were best from 1 to 100 labels "
        "per class",
        # 1,646 and 2,104 steps helped on 32 pixels; so did the shorter ones of a ten-minute `run`.
        # On photos of 128 pixels 228 steps hurt. No table says more of what lies between.
        ("cifar10_verdicts.csv", "methods_verdicts.csv", "main_job.csv"),
    ),
    Rule(
        "pixels+spreading",
        {"size": (None, SMALL), "per_class": (None, 9)},
        "too little time or too few images for pre-training; with few labels on small images, "
        "labels spread over raw pixels were better than training from scratch",
        # 88.5 against 74.8 % at 1 label a class, 94.8 against 92.1 at 4, 96.4 against 98.8 at 25:
        # the bound lies between 4 and 25 on a log scale.
        ("digits_cells.csv",),
    ),
    Rule(
        "pixels+spreading",
        {"size": (None, SMALL), "scratch_steps": (None, 94)},
        "too little time to train any network; raw pixels need none, and on small images they go "
        "far",
        ("digits_cells.csv", "scratch_time_cifar10.csv"),
    ),
    Rule(
        "random+features",
        {"scratch_steps": (None, 94)},
        "too little time to train any network; the features of an untrained one were better than "
        "raw pixels",
        # Scratch was tried with 95 steps and more, and was still the better one there.
        ("cifar10_cells.csv", "scratch_time_cifar10.csv"),
    ),
    Rule(
        "scratch",
        {},
        "too little time or too few images for pre-training; of what needs none, training from "
        "scratch was best",
        ("cifar10_cells.csv", "digits_cells.csv", "main_job.csv"),
    ),
)

# From where to where the tables reach; outside, `uncovered` says so.
COVERED: Mapping[str, Bounds] = MappingProxyType(
    {"size": (8, 32), "images": (1_400, 50_000), "per_class": (1, 100)}
)
_WORDS = {
    "size": "images of {} pixels",
    "images": "{} training images",
    "per_class": "{} labels per class",
}


def choose(conditions: Conditions) -> Rule:
    """Return the first rule that holds.

    Examples
    --------
    >>> photos = Conditions(32, 3, 50_000, 40, 4, "cpu", pretrain_steps=2_000, scratch_steps=380)
    >>> choose(photos).recipe
    'simclr+features'
    """
    return next(rule for rule in RULES if rule.holds(conditions))


def uncovered(conditions: Conditions) -> str:
    """Say in words what no committed table covers; empty where they cover all of it.

    Examples
    --------
    >>> uncovered(Conditions(128, 3, 3_000, 40, 4, "cuda", 2_000, 380))
    'no committed table covers images of 128 pixels, cuda'
    >>> uncovered(Conditions(32, 3, 50_000, 40, 4, "cpu", 2_000, 380))
    ''
    """
    outside = [
        _WORDS[name].format(f"{getattr(conditions, name):,}")
        for name, bounds in COVERED.items()
        if not _within(getattr(conditions, name), bounds)
    ]
    outside += [conditions.device] if conditions.device != "cpu" else []
    return f"no committed table covers {', '.join(outside)}" if outside else ""


def _within(value: float, bounds: Bounds) -> bool:
    low, high = bounds
    return (low is None or value >= low) and (high is None or value <= high)
