"""One cell: fit a model by one arm on one draw of labels, and score it on test."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fewlabels.core.errors import ModelError
from fewlabels.models.classifier import Classifier
from fewlabels.models.heads import answers
from fewlabels.pipeline.frozen import GRID, features, fit_head
from fewlabels.pipeline.guessing import propagate
from fewlabels.pipeline.stages import finetune, new_backbone, pixel_space, score
from fewlabels.pipeline.task import Task
from fewlabels.results.files import read_arrays, replacing
from fewlabels.results.seals import read_sealed, write_sealed
from fewlabels.study.arms import Arm
from fewlabels.study.encoders import Encoder
from fewlabels.study.plan import Steps, Streams
from fewlabels.training.cost import Cost, Meter
from fewlabels.training.loop import Trained
from fewlabels.transfer.features import Space
from fewlabels.transfer.parameters import PRETRAINED, PUBLISHED, scratch_of
from fewlabels.transfer.structure import carry_over
from fewlabels.transfer.unlabelled import PSEUDO, Propagated, with_unlabelled


@dataclass(frozen=True, slots=True)
class Fitted:
    """A classifier and what it took to get it from its encoder."""

    classifier: Classifier
    cost: Cost


def fit(
    task: Task, arm: Arm, encoder: Encoder, rows: np.ndarray, steps: Steps, seed: int
) -> Fitted:
    """Fit an arm on the labels of `rows`.

    Parameters
    ----------
    encoder : Encoder
        The arm's start; for scratch its weights are drawn anew from `seed`.
    steps : Steps
        Of the comparison; looked up by the number of labels.
    """
    meter = Meter(task.device)
    labels = task.truth[rows]
    if arm.at_full_rate:
        options = {} if arm.into else encoder.backbone.options
        fresh = new_backbone(task, arm.into or encoder.backbone_name, seed, options)
        if arm.transfer == "structure":
            carry_over(fresh, encoder.backbone.state_dict())
        tuned = finetune(
            task,
            fresh,
            rows,
            head=None,
            steps=steps.of(arm, len(rows), task),
            seed=seed,
            config=with_unlabelled(
                replace(scratch_of(fresh), imbalance=arm.imbalance), arm.unlabelled
            ),
            guesses=_guesses(arm, task, rows, None),
        )
        return Fitted(tuned.classifier, meter.read() + _counted(arm, steps, tuned.trained))
    space = encoder.space
    meter = Meter(task.device)  # the space is shared, and its cost is added below
    kind = task.goal.first_head if arm.trains else arm.transfer
    head = fit_head(space, rows, labels, task.num_classes, kind, arm.imbalance)
    if not arm.trains:
        classifier = Classifier(encoder.backbone, head, grid=GRID).eval()
        return Fitted(classifier, encoder.space_cost + meter.read())
    published = arm.given is not None and arm.given.start.kind == "published"
    tuned = finetune(
        task,
        encoder.backbone,
        rows,
        head=head,
        steps=steps.of(arm, len(rows), task),
        seed=seed,
        config=with_unlabelled(
            replace(PUBLISHED if published else PRETRAINED, imbalance=arm.imbalance),
            arm.unlabelled,
        ),
        guesses=_guesses(arm, task, rows, space),
    )
    cost = encoder.space_cost + meter.read() + _counted(arm, steps, tuned.trained)
    return Fitted(tuned.classifier, cost)


def _counted(arm: Arm, steps: Steps, trained: Trained) -> Cost:
    """Return what was counted of a fine-tune; its seconds are those of the fit around it."""
    each = steps.multiply_adds.get(f"step:{arm.counted}")
    adds = None if each is None else each * trained.steps
    return Cost(trained.steps, trained.images_seen, multiply_adds=adds)


def _guesses(arm: Arm, task: Task, rows: np.ndarray, space: Space | None) -> Propagated | None:
    """Return the guesses that an arm makes before it trains; from scratch on the pixels."""
    if arm.unlabelled != PSEUDO:
        return None
    return propagate(task, space or pixel_space(task, rows), rows)


def predict_test(
    task: Task, arm: Arm, encoder: Encoder, fitted: Fitted, rows: np.ndarray
) -> np.ndarray:
    """Return what is said of test images, as `score`; frozen features are extracted once."""
    if arm.trains:
        return score(task, fitted.classifier, rows)
    if encoder.test_features is None:
        encoder.test_features = features(task, encoder.backbone, rows)
    return head_predictions(fitted.classifier.head, encoder.test_features)


def head_predictions(head: nn.Module, x: Any) -> np.ndarray:
    """Return probabilities ``(n, num_classes)``, or numbers ``(n,)``, from features ``(n, F)``."""
    return answers(head, head(x))


def score_cell(
    task: Task,
    arm: Arm,
    shots: int,
    streams: Streams,
    encoder: Encoder,
    rows: np.ndarray,
    steps: Steps,
) -> tuple[dict[str, Any], np.ndarray]:
    """Fit and score one cell; return its row and what it says of the test images."""
    fitted = fit(task, arm, encoder, rows, steps, streams.training)
    test = task.dataset.rows("test")
    predictions = predict_test(task, arm, encoder, fitted, test)
    found = {
        "labels": len(rows),
        **task.goal.point(test, predictions),
        **paid(encoder.cost, fitted.cost),
        "encoder": None if encoder.known is None else asdict(encoder.known),
    }
    return cell_row(arm.name, shots, streams, found), predictions


def cell_row(
    arm: str, shots: int, streams: Streams, found: Mapping[str, Any], *, failed: str | None = None
) -> dict[str, Any]:
    """Return the row of a cell, but for its name: where it stands in the grid, and what came of it.

    Parameters
    ----------
    found : mapping
        Its scores, and what it took.
    failed : str, optional
        Why it could not be computed.
    """
    place = {"arm": arm, "shots": shots, "seed": streams.labels, "streams": asdict(streams)}
    return {**place, **found, "failed": failed}


def paid(before: Cost, own: Cost) -> dict[str, Any]:
    """Return what a cell took as fields of its row: its encoder before it, and the transfer."""
    seconds = {"pretrain_seconds": before.seconds, "transfer_seconds": own.seconds}
    return {**asdict(before + own), **seconds}


def save_cell(folder: Path, row: dict[str, Any], scores: np.ndarray, predicted: np.ndarray) -> None:
    """Write a cell: what it said of every test image first, the row last, each whole or not at all.

    Parameters
    ----------
    scores : ndarray
        ``(n_test,)`` from the goal's `image_scores`.
    predicted : ndarray
        ``(n_test,)`` classes, or numbers.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, scores=scores.astype(np.float32), predicted=predicted)
    with replacing(folder / f"{row['id']}.npz") as path:
        path.write_bytes(buffer.getvalue())
    write_sealed(folder / f"{row['id']}.json", row)


def failed_cell(
    task: Task, arm: Arm, shots: int, streams: Streams, name: str, why: str
) -> dict[str, Any]:
    """Return the row of a cell that could not be computed."""
    empty = dict.fromkeys([*task.goal.metrics, *asdict(Cost())])
    return {"id": name, **cell_row(arm.name, shots, streams, empty, failed=why)}


def save_failed(folder: Path, row: dict[str, Any]) -> None:
    """Write the row of a cell that could not be computed."""
    write_sealed(folder / f"{row['id']}.json", row)


def load_cell(folder: Path, name: str) -> dict[str, Any] | None:
    """Return a completed cell, or None if it must be computed."""
    row = read_cell(folder, name)
    return None if row is None or row.get("failed") else row


def read_cell(folder: Path, name: str) -> dict[str, Any] | None:
    """Return the row of a cell, completed or failed; None where there is neither."""
    path = folder / f"{name}.json"
    try:
        row = read_sealed(path) if path.exists() else None
    except ModelError:
        return None
    if row is None or row.get("failed"):
        return row
    return None if load_scores(folder, name) is None else row


def load_scores(folder: Path, name: str) -> np.ndarray | None:
    """Return the stored score ``(n_test,)`` of each test image, or None where it is not sound."""
    return _load(folder, name, "scores")


def load_predicted(folder: Path, name: str) -> np.ndarray | None:
    """Return what was said of each test image ``(n_test,)``, or None where it is not sound."""
    return _load(folder, name, "predicted")


def _load(folder: Path, name: str, part: str) -> np.ndarray | None:
    try:
        found = read_arrays(folder / f"{name}.npz")[part]
        return found.astype(np.float64) if part == "scores" else found
    except (ModelError, KeyError, ValueError):
        return None
