"""A data set made ready for training: picture format, augmentation, device, precision."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from fewlabels.core import processes
from fewlabels.core.errors import UsageError, unknown
from fewlabels.core.types import Pictures
from fewlabels.data.augment import POLICIES, Policies, auto_policy, plain
from fewlabels.data.dataset import Dataset, open_dataset
from fewlabels.data.loader import load
from fewlabels.data.policies import Policy
from fewlabels.data.resident import resident
from fewlabels.models.backbones import auto_backbone
from fewlabels.pipeline.goals import Goal, goal_of
from fewlabels.training.loop import default_bf16
from fewlabels.training.progress import Reporter

STATISTICS_IMAGES = 2_048  # enough for mean and std to two decimals


@dataclass(frozen=True, slots=True)
class DataOptions:
    """What a user says about the data; see `fewlabels.data.dataset.open_dataset`."""

    data: str
    image_size: int | None = None
    image_column: str | None = None
    label_column: str | None = None
    target: str | None = None
    group_by: str | None = None
    leaks: str = "drop"
    verify: bool = False


@dataclass(frozen=True, eq=False)
class Task:
    """A data set with everything that training needs to know about it.

    Attributes
    ----------
    dataset : Dataset
    pictures : Pictures
        Format of the network's input, with mean and std of the training images.
    policy : str
        Name of the augmentation policy.
    device : torch.device
    bf16 : bool
        Whether networks run under bfloat16 autocast.
    as_they_are : bool
        Images that are learned from with their numbers are not augmented, because nobody
        has said what a number bears: a flip changes an angle, a crop a size.
    """

    dataset: Dataset
    pictures: Pictures
    policy: str
    device: torch.device
    bf16: bool
    as_they_are: bool = False

    @property
    def goal(self) -> Goal:
        """Return what is predicted: classes, or a number."""
        return goal_of(self.dataset)

    @property
    def policies(self) -> Policies:
        """Return the augmentation policies."""
        return POLICIES[self.policy]

    @property
    def label_policy(self) -> Policy:
        """Return how images are changed that are learned from with their labels, in every arm."""
        return Policy() if self.as_they_are else self.policies.views

    @property
    def num_classes(self) -> int:
        """Return the number of classes; 0 where a number is predicted."""
        return len(self.dataset.classes)

    @property
    def outputs(self) -> int:
        """Return how many outputs a head has."""
        return self.num_classes or 1

    @property
    def truth(self) -> np.ndarray:
        """Return what is to be predicted of every row: classes, or numbers."""
        return self.dataset.truth

    def with_split(self, seed: int) -> Task:
        """Return the task under another random split, with its own mean and std."""
        dataset = self.dataset.with_split(seed)
        if dataset is self.dataset:
            return self
        return replace(self, dataset=dataset, pictures=measure_pictures(dataset))

    def with_folds(self, count: int) -> Task:
        """Return the task for a cross-validation; see `Dataset.with_folds`."""
        dataset = self.dataset.with_folds(count)
        return replace(self, dataset=dataset, pictures=measure_pictures(dataset))


def open_task(options: DataOptions, *, policy: str, device: str, reporter: Reporter) -> Task:
    """Open the data and settle picture format, policy, device and precision.

    Raises
    ------
    DataError, UsageError
        As `open_dataset`, and for an unknown policy or a device that is not there.
    """
    if policy != "auto" and policy not in POLICIES:
        raise unknown("policy", policy, ["auto", *POLICIES])
    where = own_device(find_device(device))
    dataset = open_data(options, reporter)
    dataset = replace(dataset, store=resident(dataset.store, where))
    pictures = measure_pictures(dataset)
    chosen = auto_policy(pictures.channels, pictures.size) if policy == "auto" else policy
    careful = policy == "auto" and dataset.targets is not None
    return Task(dataset, pictures, chosen, where, default_bf16(where, pictures.size), careful)


def open_data(options: DataOptions, reporter: Reporter) -> Dataset:
    """Open the data set, telling of the decoding where it takes long."""
    stages: dict[str, object] = {}

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "unpack" and total >= 50_000_000 and stage not in stages:
            stages[stage] = True
            reporter.say(f"unpack: {total / 1e6:,.0f} MB of archive, once")
        elif stage != "unpack" and total >= 5_000 and stage not in stages:
            stages[stage] = True
            reporter.say(f"{stage}: {total:,} images, once")

    return open_dataset(
        options.data,
        image_size=options.image_size,
        image_column=options.image_column,
        label_column=options.label_column,
        target=options.target,
        group_by=options.group_by,
        leaks=options.leaks,
        verify=options.verify,
        progress=progress,
    )


def find_device(name: str) -> torch.device:
    """Return the device of a name; ``auto`` prefers CUDA, then Apple's MPS, then the CPU.

    Raises
    ------
    UsageError
        For a device that is not on this machine.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if there["cuda"] else "mps" if there["mps"] else "cpu")
    if name not in there:
        raise unknown("device", name, ["auto", *there])
    if not there[name]:
        raise UsageError(
            "usage.device", f"there is no {name} device on this machine", "--device auto"
        )
    return torch.device(name)


def own_device(device: torch.device) -> torch.device:
    """Return the device of this process where several share the work: each has its own GPU.

    Raises
    ------
    UsageError
        For a device whose tensors cannot travel between processes.
    """
    if processes.count() == 1 or device.type == "cpu":
        return device
    if device.type != "cuda":
        raise UsageError(
            "usage.device", f"several processes cannot train on {device.type}", "--device cpu"
        )
    return torch.device("cuda", processes.local_rank())


def measure_pictures(dataset: Dataset) -> Pictures:
    """Return the picture format, with mean and std of an even sample of the training images."""
    size, channels = dataset.pictures_size, dataset.channels
    raw = Pictures(size, channels, (0.0,) * channels, (1.0,) * channels)
    rows = dataset.pretraining_rows()
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), STATISTICS_IMAGES)).astype(np.int64)]
    total, squares, count = np.zeros(channels), np.zeros(channels), 0
    for start in range(0, len(rows), 256):
        x = plain(load(dataset.store, rows[start : start + 256]), raw).double()
        total += x.sum((0, 2, 3)).numpy()
        squares += (x**2).sum((0, 2, 3)).numpy()
        count += x.shape[0] * size * size
    mean = total / max(count, 1)
    std = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 1e-4))
    # Rounded, so that another summation order does not make another network.
    return Pictures(
        size,
        channels,
        tuple(round(float(v), 4) for v in mean),
        tuple(round(float(v), 4) for v in std),
    )


def pick_backbone(name: str, task: Task) -> str:
    """Resolve ``auto`` to a backbone that suits the images and the device."""
    return auto_backbone(task.pictures.size, task.device) if name == "auto" else name


def refuse_weights(backbone: str) -> None:
    """Refuse the name of trained weights for a network that is to be built without any.

    Raises
    ------
    UsageError
    """
    plain, dot, tag = backbone.partition(".")
    if dot:
        raise UsageError(
            "usage.backbone",
            f"{backbone!r} names the weights {tag!r}, and --backbone builds a network without any",
            f"--backbone {plain}; or start from them: fewlabels finetune DATA --from {backbone}",
        )
