"""What is known of an encoder that may explain why it loses: kept with every cell it made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewlabels.core.errors import ModelError
from fewlabels.core.types import Backbone
from fewlabels.data import likeness
from fewlabels.pipeline.pretrain import SAMPLE
from fewlabels.pipeline.task import Task
from fewlabels.results.files import read_arrays
from fewlabels.results.runfolder import RunFolder
from fewlabels.transfer.live_probe import LiveProbe


@dataclass(frozen=True, slots=True)
class Known:
    """Measurements of one encoder; None is not known.

    Attributes
    ----------
    rank, least_rank : float or None
        Effective rank of its features of the comparison's training images, and the rank below
        which features so long have collapsed (`fewlabels.transfer.live_probe`).
    passes : float or None
        How often pre-training saw its images.
    auc, p : float or None
        How well the images it learned from can be told from the labelled ones, and how often
        chance does as well: `fewlabels.data.likeness.compare`.
    """

    rank: float | None = None
    least_rank: float | None = None
    passes: float | None = None
    auc: float | None = None
    p: float | None = None


def of_pretrained(task: Task, backbone: Backbone, rank: float | None, images_seen: int) -> Known:
    """Return what is known of an encoder that the comparison has pre-trained.

    Its images are all training images, so how they look beside the labelled ones was found
    when the data were opened; that counts where most of them carry no label.
    """
    train = task.dataset.rows("train")
    unlabelled = len(train) - int(task.dataset.known[train].sum())
    found = task.dataset.report.get("likeness") if 2 * unlabelled >= len(train) else None
    probe = _probe(task)
    return Known(
        rank,
        probe.least_rank(backbone.num_features),
        images_seen / len(train),
        **_told_apart(found),
    )


def of_given(task: Task, folder: Path, backbone: Backbone) -> Known:
    """Return what is known of a given start: a run folder, or published weights.

    Parameters
    ----------
    task : Task
        The comparison's data in the format that the start takes.
    folder : Path
        It need not be one, and older ones tell less.
    """
    probe = _probe(task)
    return Known(
        probe.verdict(backbone)[0],
        probe.least_rank(backbone.num_features),
        _passes(folder),
        **_told_apart(_likeness(task, folder)),
    )


def _probe(task: Task) -> LiveProbe:
    return LiveProbe(task.dataset, task.pictures, task.device, bf16=task.bf16)


def _passes(folder: Path) -> float | None:
    """Return how often a folder's pre-training saw its images; older ones do not tell."""
    try:
        passes: float | None = RunFolder(folder).read_json("results.json").get("passes")
    except ModelError:
        return None
    return passes


def _likeness(task: Task, folder: Path) -> dict[str, Any] | None:
    """Compare the images that a folder's encoder learned from with those labelled here."""
    RunFolder(folder).require(SAMPLE)
    theirs = _swatches(folder / SAMPLE)
    rows = task.dataset.labelled_rows("train")
    if theirs is None or not len(rows):
        return None
    return likeness.between(likeness.swatches(task.dataset, rows), theirs)


def _swatches(path: Path) -> np.ndarray | None:
    try:
        return read_arrays(path)["swatches"]
    except (ModelError, KeyError):
        return None


def _told_apart(found: dict[str, Any] | None) -> dict[str, float]:
    return {} if found is None else {name: found[name] for name in ("auc", "p")}
