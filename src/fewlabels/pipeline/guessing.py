"""Guesses about unlabelled images that are made before a fine-tune, on frozen features."""

from __future__ import annotations

import numpy as np

from fewlabels.core.errors import UsageError, unknown
from fewlabels.pipeline.task import Task
from fewlabels.transfer.features import Space
from fewlabels.transfer.parameters import FineTuneConfig
from fewlabels.transfer.probes import spread_labels
from fewlabels.transfer.unlabelled import PSEUDO, UNLABELLED, Propagated, propagated


def propagate(task: Task, space: Space, rows: np.ndarray) -> Propagated:
    """Return guesses about the training images of a space, spread from the labels of `rows`."""
    labels = task.dataset.labels[rows]
    shares = spread_labels(space, rows, labels, task.num_classes)
    places = space.rows[: len(space.bank)]
    here = np.isin(places, task.dataset.rows("train"))
    return propagated(places[here], shares[here], rows, labels)


def no_guesses(task: Task, config: FineTuneConfig | None) -> Propagated | None:
    """Return guesses that only a step that is timed or counted may learn from."""
    if config is None or config.unlabelled != PSEUDO:
        return None
    rows = task.dataset.rows("train")
    return Propagated(rows, np.zeros(len(rows), np.int64), np.ones(len(rows), np.float32))


def refuse_unlabelled(target: str | None, loss: str, transfer: str) -> None:
    """Refuse an unlabelled loss that is not known, or that there is nothing to learn by.

    Raises
    ------
    UsageError
    """
    if loss not in UNLABELLED:
        raise unknown("unlabelled loss", loss, UNLABELLED)
    if loss == "none":
        return
    if target is not None:
        raise UsageError(
            "usage.unlabelled_loss",
            f"--unlabelled-loss {loss} guesses classes, and {target!r} is a number",
            "leave --unlabelled-loss out; pre-training learns from images without a number",
        )
    if transfer not in ("parameters", "structure"):
        raise UsageError(
            "usage.unlabelled_loss",
            f"--unlabelled-loss {loss} trains weights, and {transfer} leaves them frozen",
            "--transfer parameters; of frozen features, spreading and features use unlabelled "
            "images by themselves",
        )
