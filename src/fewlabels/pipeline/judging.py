"""What is said of a fine-tuned classifier: validation scores, labels used, warnings in words."""

from __future__ import annotations

from typing import Any

import numpy as np

from fewlabels.data.dataset import Dataset
from fewlabels.data.labels import shortfall
from fewlabels.data.listing import escape
from fewlabels.evaluation.metrics import classification
from fewlabels.models.classifier import Classifier
from fewlabels.pipeline.stages import score
from fewlabels.pipeline.task import Task
from fewlabels.results.runfolder import RunFolder

OVERFIT = 0.1  # training accuracy above the upper end of the validation interval
CHECKED = 2_000  # labelled images that are scored again to see whether they were learned by heart


def validation(
    run: RunFolder, task: Task, classifier: Classifier, used: np.ndarray
) -> dict[str, Any] | None:
    """Score the validation images that were not learned from; None where there are none."""
    rows = task.dataset.rows("val")
    rows = rows[~np.isin(rows, used)]
    if not len(rows):
        return None
    names = list(task.dataset.classes)
    scores = classification(task.dataset.labels[rows], score(task, classifier, rows), names)
    return {"run": str(run.path), "split": "val", **scores, "looks_at_test": None}


def training_accuracy(task: Task, classifier: Classifier, rows: np.ndarray) -> float:
    """Return the accuracy on the images that were learned from, without augmentation."""
    even = np.linspace(0, len(rows) - 1, min(len(rows), CHECKED)).astype(np.int64)
    predicted = score(task, classifier, rows[even]).argmax(1)
    return float((predicted == task.dataset.labels[rows[even]]).mean())


def overfit(
    accuracy: float, val: dict[str, Any] | None, stopping: dict[str, Any] | None = None
) -> list[str]:
    """Say in words where the training images were learned by heart.

    Parameters
    ----------
    accuracy : float
        On the images that were learned from, in [0, 1].
    val : dict or None
        Scores of the classifier on validation images.
    stopping : dict or None
        What was found while it trained; see `fewlabels.pipeline.watching.record`.

    Examples
    --------
    >>> overfit(1.0, {"accuracy": {"value": 0.6, "low": 0.5, "high": 0.7}})[0][:54]
    'overfit: 100 % of the labelled training images are rig'
    >>> overfit(0.7, {"accuracy": {"value": 0.6, "low": 0.5, "high": 0.7}})
    []
    """
    if val is None or accuracy < val["accuracy"]["high"] + OVERFIT:
        return []
    held = val["accuracy"]["value"]
    curve = f"; {stopping['said']}" if stopping else ""
    return [
        f"overfit: {100 * accuracy:.0f} % of the labelled training images are right and "
        f"{100 * held:.0f} % of the validation images{curve}; more labels or a pre-trained start "
        "help"
    ]


def class_counts(dataset: Dataset, rows: np.ndarray) -> dict[str, int]:
    """Return how many of `rows` each class has."""
    counts = np.bincount(dataset.labels[rows], minlength=len(dataset.classes))
    return {escape(name): int(n) for name, n in zip(dataset.classes, counts, strict=True)}


def short_classes(dataset: Dataset, rows: np.ndarray, labels: int | None) -> list[str]:
    """Warn of classes with fewer labels among `rows` than were asked for, or with none."""
    few = shortfall(dataset.labels, rows, dataset.classes, labels or 1)
    if not few:
        return []
    named = ", ".join(f"{escape(name)}: {n}" for name, n in list(few.items())[:5])
    more = f" and {len(few) - 5} more" if len(few) > 5 else ""
    return [f"classes with fewer than {labels or 1} training labels: {named}{more}"]
