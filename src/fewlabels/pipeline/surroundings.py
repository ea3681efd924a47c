"""Where images lie among the others: their nearest training images, and a map of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewlabels.data import splits
from fewlabels.data.listing import escape
from fewlabels.explain.embedding import TEST, UNLABELLED, embedding_map
from fewlabels.explain.neighbours import nearest
from fewlabels.models.backbones import pooled_features
from fewlabels.models.classifier import Saved
from fewlabels.pipeline.frozen import GRID, feature_rows, features
from fewlabels.pipeline.looking import as_seen, as_views, stored_pixels
from fewlabels.pipeline.predict import AT_ONCE
from fewlabels.pipeline.stages import on_device
from fewlabels.pipeline.subjects import Subject
from fewlabels.pipeline.task import Task

BANK = 5_000  # training images that are searched, those with a label first
NEAR = 5


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Training images near to others, and a map of images.

    Attributes
    ----------
    near : list of list of dict
        ``path``, ``label`` (None where it is hidden or unknown), of a number also ``value``
        (likewise), and ``similarity``, for each image.
    pictures : ndarray
        ``(n, k, S, S, C)`` uint8, the same as the network sees them.
    xy, label, kind : ndarray
        As `fewlabels.explain.embedding.pack` takes them.
    classes : tuple of str
        Names of the labels.
    ordered : bool
        Whether they are ranges of a number.
    layout : str
        What the places are, see `fewlabels.explain.embedding.embedding_map`.
    """

    near: list[list[dict[str, Any]]]
    pictures: np.ndarray
    xy: np.ndarray
    label: np.ndarray
    kind: np.ndarray
    classes: tuple[str, ...]
    ordered: bool
    layout: str


def visible_rows(task: Task, config: dict[str, Any]) -> np.ndarray:
    """Return the rows whose labels a run could read, from its configuration."""
    settings = config.get("settings") or {}
    verb, seed = config.get("verb"), int(settings.get("seed") or 0)
    labels = settings.get("labels")
    if verb in ("run", "compare"):
        shots = max(labels) if labels else None
        return task.dataset.visible(shots, 1_000 * seed)  # the first draw of the first unit
    if verb == "finetune" and labels is None:  # which never learns from validation images
        return task.dataset.labelled_rows("train")
    return task.dataset.visible(labels, seed)


def surroundings(
    task: Task,
    saved: Saved,
    subjects: Sequence[Subject],
    visible: np.ndarray,
    *,
    test_labels: bool,
) -> Surroundings:
    """Find the nearest training images of each image, and lay out a map of all kinds of images.

    Parameters
    ----------
    subjects : sequence of Subject
    visible : ndarray
        Rows whose labels may be shown beside the images.
    test_labels : bool
        Whether the classes of test images may be shown on the map.
    """
    dataset = task.dataset
    backbone = on_device(task, saved.backbone)
    train = feature_rows(task)
    labelled = train[np.isin(train, visible)]
    others = train[~np.isin(train, visible)]
    bank = np.concatenate([labelled[:BANK], others[: max(0, BANK - len(labelled))]])
    known = features(task, backbone, bank)
    test = np.flatnonzero(dataset.split == splits.TEST)
    test = test[np.linspace(0, len(test) - 1, min(len(test), TEST)).astype(np.int64)]
    queries = _features(task, saved, [subject.pixels for subject in subjects])
    own = np.array([_place(bank, subject.row) for subject in subjects])
    places, similarity = nearest(queries, known, NEAR, own=own)
    shown = set(visible.tolist())
    near = [
        [_neighbour(task, int(bank[p]), float(s), shown) for p, s in zip(row, like, strict=True)]
        for row, like in zip(places, similarity, strict=True)
    ]
    seen = [as_seen(saved, stored_pixels(dataset, bank[row]), task.device) for row in places]

    first = min(len(labelled), UNLABELLED, len(bank))
    rest = np.arange(len(bank))[len(labelled[:BANK]) :][:UNLABELLED]
    held = features(task, backbone, test) if len(test) else known[:0]
    xy, layout = embedding_map(torch.cat([known[:first], known[rest], held]))
    # Hidden from the user's eyes as from the model's, but where a look at test was counted.
    read = np.concatenate([bank[:first], test if test_labels else test[:0]])
    codes, classes = task.goal.colours(read)
    label = np.full(len(xy), -1)
    label[:first] = codes[:first]
    label[len(xy) - (len(read) - first) :] = codes[first:]
    kind = np.repeat(["labelled", "unlabelled", "test"], [first, len(rest), len(test)])
    ordered = dataset.targets is not None
    return Surroundings(near, np.stack(seen), xy, label, kind, classes, ordered, layout)


def _place(bank: np.ndarray, row: int) -> int:
    found = np.flatnonzero(bank == row)
    return int(found[0]) if row >= 0 and len(found) else -1


def _neighbour(task: Task, row: int, similarity: float, visible: set[int]) -> dict[str, Any]:
    told = task.goal.told(row) if row in visible else {"label": None}
    path = escape(str(task.dataset.source.paths[row]))
    return {"path": path, **told, "similarity": similarity}


def _features(task: Task, saved: Saved, pixels: Sequence[np.ndarray]) -> Tensor:
    """Return features ``(n, F)`` of pictures, computed as those of the data set are."""
    backbone, device = saved.backbone.eval(), task.device
    found = []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=task.bf16):
        for start in range(0, len(pixels), AT_ONCE):
            x = as_views(saved, pixels[start : start + AT_ONCE], device)
            found.append(pooled_features(backbone, x, GRID).float().cpu())
    return torch.cat(found).clone()
