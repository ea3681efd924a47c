"""Transfer of features: extract them, frozen, and fit a small model on top."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from fewlabels.core.seeding import generator
from fewlabels.core.types import Backbone
from fewlabels.models.heads import LinearHead, MixtureHead, answers
from fewlabels.pipeline.task import Task
from fewlabels.transfer import probes
from fewlabels.transfer.features import Space, build_space, extract
from fewlabels.transfer.imbalance import adjust, class_weights, head_remedy
from fewlabels.transfer.regressors import REGRESSORS

FEATURE_IMAGES = 20_000  # unlabelled images whose features are kept for scaling and spreading
BLOCK = 1_024  # images whose neighbours are looked up at once
GRID = 1  # the average of the last map; a 2x2 raster measured worse on small images

# The small models of frozen features by name; `features` averages two of them.
PROBES: dict[str, Callable[..., nn.Module]] = {
    "logistic": probes.logistic,
    "ridge": probes.ridge,
    "svm": probes.svm,
    "centroid": probes.centroid,
    "knn": probes.neighbours,
    "spreading": probes.spreading,
}
HEADS = ("features", *PROBES)


def feature_rows(task: Task) -> np.ndarray:
    """Return the training rows in a random order that is keyed by their number."""
    rows = task.dataset.rows("train")
    order = torch.randperm(len(rows), generator=generator(0, "features")).numpy()
    shuffled: np.ndarray = rows[order]
    return shuffled


def feature_space(task: Task, backbone: Backbone, labelled: np.ndarray) -> Space:
    """Extract the training features of `space_rows`."""
    chosen = space_rows(task, labelled)
    return build_space(chosen, features(task, backbone, chosen))


def space_rows(task: Task, labelled: np.ndarray) -> np.ndarray:
    """Return all `labelled` rows, and other training rows up to the limit."""
    rows = feature_rows(task)
    others = rows[~np.isin(rows, labelled)]
    return np.concatenate([labelled, others[: max(0, FEATURE_IMAGES - len(labelled))]])


def features(task: Task, backbone: Backbone, rows: np.ndarray) -> torch.Tensor:
    """Return the features ``(n, F)`` of rows of the data set."""
    return extract(
        backbone,
        task.dataset.store,
        rows,
        task.pictures,
        device=task.device,
        grid=GRID,
        bf16=task.bf16,
    )


def fit_head(
    space: Space,
    rows: np.ndarray,
    labels: np.ndarray,
    classes: int,
    kind: str,
    imbalance: str = "none",
) -> nn.Module:
    """Fit a small model on frozen features.

    Parameters
    ----------
    labels : ndarray
        ``(n,)`` int64 classes, or float64 numbers.
    classes : int
        How many there are; 0 for numbers.
    kind : str
        A key of `PROBES`, or ``features``, the average opinion of logistic regression and
        label spreading. For numbers a key of `REGRESSORS`.
    imbalance : str
        What is done about classes of unequal size, where this model knows it.
    """
    if not classes:
        return REGRESSORS[kind](space, rows, labels)
    remedy = head_remedy(kind, imbalance)
    weights = [class_weights(labels, classes)] if remedy == "weights" else []
    if kind == "features":
        head = probes.logistic(space, rows, labels, classes, *weights, whitened=True)
        head = adjust(head, labels) if remedy == "logits" else head
        return MixtureHead(head, probes.spreading(space, rows, labels, classes))
    fitted = PROBES[kind](space, rows, labels, classes, *weights)
    if remedy == "logits" and isinstance(fitted, LinearHead):
        return adjust(fitted, labels)
    return fitted


@torch.inference_mode()
def shares_of(head: nn.Module, x: torch.Tensor) -> np.ndarray:
    """Return class probabilities ``(n, K)`` of features ``(n, F)``, in bounded memory."""
    parts = (x[start : start + BLOCK] for start in range(0, len(x), BLOCK))
    return np.concatenate([answers(head, head(part)) for part in parts])
