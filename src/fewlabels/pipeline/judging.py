"""What is said of a fine-tuned model: scores on validation and training images, warnings."""

from __future__ import annotations

from typing import Any

import numpy as np

from fewlabels.models.classifier import Classifier
from fewlabels.pipeline.copies import scored
from fewlabels.pipeline.stages import score
from fewlabels.pipeline.task import Task
from fewlabels.results.runfolder import RunFolder

OVERFIT = 0.1  # training accuracy, or R2, above the upper end of the validation interval
CHECKED = 2_000  # labelled images that are scored again to see whether they were learned by heart


def validation(
    run: RunFolder, task: Task, classifier: Classifier, used: np.ndarray
) -> dict[str, Any] | None:
    """Score the validation images that were not learned from; None where there are none."""
    rows = task.dataset.rows("val")
    rows = rows[~np.isin(rows, used)]
    if not len(rows):
        return None
    scores = scored(task.dataset, rows, score(task, classifier, rows))
    return {"run": str(run.path), "split": "val", **scores, "looks_at_test": None}


def training_scores(
    task: Task, classifier: Classifier, rows: np.ndarray
) -> dict[str, float | None]:
    """Return the scores on the images that were learned from, without augmentation."""
    even = rows[np.linspace(0, len(rows) - 1, min(len(rows), CHECKED)).astype(np.int64)]
    return task.goal.training(even, score(task, classifier, even))


def learned_by_heart(
    training: dict[str, float | None],
    val: dict[str, Any] | None,
    stopping: dict[str, Any] | None = None,
) -> list[str]:
    """Say in words where the training images were learned by heart.

    Parameters
    ----------
    training : dict
        Of `training_scores`.
    val : dict or None
        Of `validation`.
    stopping : dict or None
        What was found while it trained; see `fewlabels.pipeline.watching.record`.
    """
    accuracy = training.get("train_accuracy")
    if accuracy is not None:
        return overfit(accuracy, val, stopping)
    return overfit_numbers(training.get("train_r2"), val, stopping)


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


def overfit_numbers(
    r2: float | None, val: dict[str, Any] | None, stopping: dict[str, Any] | None = None
) -> list[str]:
    """Say in words where the numbers of the training images were learned by heart.

    Examples
    --------
    >>> overfit_numbers(0.99, {"r2": {"value": 0.2, "low": 0.1, "high": 0.3}})[0][:58]
    'overfit: R2 is 0.99 on the labelled training images and 0.'
    """
    held = (val or {}).get("r2")
    if r2 is None or not held or held["high"] is None or r2 < held["high"] + OVERFIT:
        return []
    curve = f"; {stopping['said']}" if stopping else ""
    return [
        f"overfit: R2 is {r2:.2f} on the labelled training images and {held['value']:.2f} on the "
        f"validation images{curve}; more labels or a pre-trained start help"
    ]
