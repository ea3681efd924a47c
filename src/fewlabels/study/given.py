"""Starts that a comparison is given: run folders of other data, and published weights.

Their images may have another size, or other channels, than the comparison's own; so every
given start sees the same images, splits and labels in a format of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fewlabels.core.types import Backbone
from fewlabels.pipeline.carried import build_backbone, seen_before
from fewlabels.pipeline.starts import Start, find_start, open_start
from fewlabels.pipeline.task import DataOptions, Task
from fewlabels.results.runfolder import RunFolder
from fewlabels.training.cost import Cost
from fewlabels.training.progress import Reporter


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """A given start, opened.

    Attributes
    ----------
    start : Start
    task : Task
        The comparison's data in the format that the start takes.
    cost : Cost
        Of its training, where it comes from a run folder; published weights are taken as free.
    """

    start: Start
    task: Task
    cost: Cost

    def task_of(self, split: int) -> Task:
        """Return the data under a split, still in the format of the start."""
        return replace(self.task.with_split(split), pictures=self.task.pictures)

    def backbone(self) -> tuple[str, Backbone]:
        """Return the start's backbone, its name first, loaded anew."""
        name, built, _ = build_backbone(self.start, self.task, 0)
        return name, built

    def warning(self, split: int) -> str:
        """Return what makes the start's scores under a split less than honest, or nothing."""
        return seen_before(self.start, self.task_of(split))


def open_given(
    source: str,
    options: DataOptions,
    *,
    backbone: str = "auto",
    policy: str,
    device: str,
    reporter: Reporter,
) -> Given:
    """Open a start and the data in the format it takes.

    Parameters
    ----------
    backbone : str
        What a file of weights is of.

    Raises
    ------
    UsageError, ModelError
        It is not there, or cannot take these images.
    """
    start = find_start(source, backbone)
    task = open_start(start, options, policy=policy, device=device, reporter=reporter)
    told = (Path(source) / "results.json").exists()
    cost = cost_of(RunFolder(source).read_json("results.json")) if told else Cost()
    return Given(start, task, cost)


def cost_of(result: Mapping[str, Any]) -> Cost:
    """Return what the result of a training says it took; older ones tell less."""
    return Cost(
        int(result.get("steps") or 0),
        int(result.get("images_seen") or 0),
        float(result.get("seconds") or 0.0),
        result.get("multiply_adds"),
        result.get("energy_joules"),
        float(result.get("peak_memory_mb") or 0.0),
    )


def digest(backbone: Backbone) -> str:
    """Return a hash of the weights of a backbone: folders may keep their name and change."""
    found = hashlib.sha256()
    for name, value in backbone.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
