"""The stages of the journey that train, and the score; `fewlabels.pipeline.frozen` has the rest.

Each is a plain function of a `Task`; none writes anything but its own checkpoints.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fewlabels.core.errors import DataError
from fewlabels.core.seeding import stream
from fewlabels.core.types import Backbone, Labels, Method
from fewlabels.data.loader import BalancedBatches, Batches, PairedBatches, load
from fewlabels.methods import BATCH_SIZES, LABELLED, create_method
from fewlabels.models.backbones import create_backbone
from fewlabels.models.classifier import Classifier
from fewlabels.models.heads import RegressionHead, is_linear
from fewlabels.pipeline.frozen import GRID, feature_space, features
from fewlabels.pipeline.guessing import no_guesses
from fewlabels.pipeline.task import Task
from fewlabels.training.durations import Duration
from fewlabels.training.loop import Plan, Trained, Watch, fresh_seed, train
from fewlabels.training.measuring import calibrate
from fewlabels.training.optimizers import Reoptimized
from fewlabels.transfer.features import Space
from fewlabels.transfer.parameters import (
    FREEZE_NORM_BELOW,
    PRETRAINED,
    FineTune,
    FineTuneConfig,
    fresh_classifier,
    scratch_of,
)
from fewlabels.transfer.regressors import scale_of
from fewlabels.transfer.unlabelled import FineTuneBoth, Propagated

Tuning = FineTune | FineTuneBoth
Observe = Callable[[Method, int, dict[str, float]], None]
UNLABELLED_STEPS = {False: 1_500, True: 500}  # from scratch, and from an encoder


@dataclass(frozen=True, slots=True)
class PretrainPlan:
    """What defines a pre-training.

    Attributes
    ----------
    method, backbone : str
    steps : int
    seed : int
        Of weights, order and augmentation, and of the draw of labels.
    labels : int or None
        Labels per class that a method of `fewlabels.methods.LABELLED` learns from.
    """

    method: str
    backbone: str
    steps: int
    seed: int
    labels: int | None = None
    optimizer: str = "auto"


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """What came of a fine-tune.

    Attributes
    ----------
    classifier : Classifier
    trained : Trained
    unlabelled : mapping or None
        What became of unlabelled images, as `fewlabels.transfer.unlabelled.FineTuneBoth.told`.
    """

    classifier: Classifier
    trained: Trained
    unlabelled: Mapping[str, Any] | None = None


def new_backbone(
    task: Task, name: str, seed: int, options: Mapping[str, Any] | None = None
) -> Backbone:
    """Build a backbone whose fresh weights depend on the seed alone."""
    fresh_seed(seed, "weights", name)
    shape = task.pictures
    backbone = create_backbone(
        name, in_chans=shape.channels, image_size=shape.size, options=options
    )
    return on_device(task, backbone)


def on_device(task: Task, backbone: Backbone) -> Backbone:
    """Move a backbone to the task's device, in the memory layout that suits convolutions."""
    moved: Backbone = backbone.to(task.device).to(memory_format=torch.channels_last)
    return moved


def new_method(
    task: Task, method: str, backbone: str, seed: int, labels: int | None = None
) -> Method:
    """Build a method around a new backbone."""
    encoder = new_backbone(task, backbone, seed)
    known = visible_labels(task, labels, seed) if method in LABELLED else None
    built = create_method(method, encoder, task.pictures, task.policies, known)
    if isinstance(built, nn.Module):
        built.to(task.device)
    return built


def learned_rows(task: Task, labels: int | None, seed: int) -> np.ndarray:
    """Return the labelled rows that may be learned from: of train alone.

    Parameters
    ----------
    labels : int or None
        How many a class, or in all where a number is predicted; None takes all.
    seed : int
        Of the draw.

    Raises
    ------
    DataError
        There are none, or one class only, or fewer than asked for.
    """
    dataset = task.dataset
    task.goal.require()
    if labels is not None:
        task.goal.refuse_shortage(labels)
        return dataset.visible(labels, seed)
    rows = dataset.labelled_rows("train")
    if not len(rows):
        raise DataError("data.labels", "no training image has a label", "label some, or --split")
    return rows


def visible_labels(task: Task, labels: int | None, seed: int) -> Labels:
    """Return the labels of `learned_rows`; all others are hidden."""
    rows = torch.from_numpy(learned_rows(task, labels, seed))
    table = torch.full((len(task.dataset.labels),), -1, dtype=torch.int64)
    table[rows] = torch.from_numpy(np.asarray(task.dataset.labels))[rows]
    return Labels(table, task.num_classes)


def pretrain_batches(task: Task, method: str, seed: int, labels: int | None = None) -> Batches:
    """Return the batches of a pre-training: all training images, labels unseen.

    Methods of `fewlabels.methods.LABELLED` get the images whose labels they may read.

    Raises
    ------
    DataError
        With fewer than two training images.
    """
    rows = task.dataset.pretraining_rows()
    if method in LABELLED:
        rows = learned_rows(task, labels, seed)
    if len(rows) < 2:
        raise DataError("data.few", f"{len(rows)} training images cannot train a network")
    size = min(BATCH_SIZES[method], len(rows))
    return Batches(task.dataset.store, rows, size, seed=stream(seed, "batches"), device=task.device)


def pretrain_steps(
    task: Task, method: str, backbone: str, budget: Duration, labels: int | None = None
) -> tuple[int, float]:
    """Turn a budget into steps, by a short calibration where it is in seconds.

    Returns
    -------
    tuple of (int, float)
        Steps, and the measured seconds a step (nan where none were measured).
    """
    batches = pretrain_batches(task, method, 0, labels)
    images = len(batches.rows)
    if budget.unit != "seconds":
        return budget.steps(images=images, batch_size=batches.size), float("nan")
    pace = pretrain_pace(task, method, backbone, labels)
    steps = budget.steps(images=images, batch_size=batches.size, seconds_per_step=pace)
    return steps, pace


def pretrain_pace(task: Task, method: str, backbone: str, labels: int | None = None) -> float:
    """Return the seconds one step of a pre-training takes, measured on a throw-away copy."""
    batches = pretrain_batches(task, method, 0, labels)
    plan = Plan(steps=1_000, seed=0, bf16=task.bf16)
    return calibrate(
        lambda: new_method(task, method, backbone, 0, labels), batches, plan, task.device
    )


def pretrain_encoder(
    task: Task, plan: PretrainPlan, *, folder: Path | None = None, observe: Observe | None = None
) -> tuple[Method, Trained]:
    """Pre-train, going on from a checkpoint in `folder` where there is one.

    Parameters
    ----------
    observe : callable, optional
        Called after every step with the method, the step and its metrics.

    Returns
    -------
    tuple of (Method, Trained)
        The method with its encoder, and what it cost.
    """
    method = new_method(task, plan.method, plan.backbone, plan.seed, plan.labels)
    batches = pretrain_batches(task, plan.method, plan.seed, plan.labels)
    trained = train(
        method if plan.optimizer == "auto" else Reoptimized(method, plan.optimizer),
        batches,
        Plan(plan.steps, stream(plan.seed, "pretrain"), task.bf16),
        device=task.device,
        folder=folder,
        watch=None if observe is None else functools.partial(observe, method),
    )
    return method, trained


def finetune_steps(task: Task, labels: int, *, pretrained: bool) -> int:
    """Return the steps a fine-tune takes: more for more labels and for larger images."""
    each = 1 if task.pictures.size < 24 else 2
    full = min(1_500, 300 + each * labels)
    return max(50, full // 2) if pretrained else full


def unlabelled_steps(*, pretrained: bool) -> int:
    """Return the steps a fine-tune on unlabelled images takes, however few labels there are."""
    return UNLABELLED_STEPS[pretrained]


def finetune(  # noqa: PLR0913 - a training, and where it is kept
    task: Task,
    backbone: Backbone,
    rows: np.ndarray,
    *,
    head: nn.Module | None,
    steps: int,
    seed: int,
    config: FineTuneConfig | None = None,
    guesses: Propagated | None = None,
    folder: Path | None = None,
    watch: Watch | None = None,
) -> Tuned:
    """Train backbone and head on the labels of `rows`; the backbone given is not changed.

    Parameters
    ----------
    head : nn.Module or None
        A fitted linear head to start from; None trains everything from scratch.
    config : FineTuneConfig, optional
        By default `PRETRAINED` where there is a head to start from, else `scratch_of` the backbone.
    guesses : Propagated, optional
        About unlabelled images, where the settings ask for ``pseudo``.
    """
    method = finetune_method(task, backbone, rows, head, seed, config, guesses)
    trained = train(
        method,
        finetune_batches(task, rows, method, seed),
        Plan(steps, stream(seed, "finetune"), task.bf16),
        device=task.device,
        folder=folder,
        watch=watch,
    )
    return Tuned(method.classifier.eval(), trained, told_of(method))


def told_of(method: Tuning) -> Mapping[str, Any] | None:
    """Return what became of unlabelled images; None where there were none to learn from."""
    return None if isinstance(method, FineTune) else method.told()


def finetune_pace(
    task: Task,
    backbone: Backbone,
    rows: np.ndarray,
    head: nn.Module | None,
    config: FineTuneConfig | None = None,
) -> float:
    """Return the seconds one step of a fine-tune takes, measured on a throw-away copy."""

    def build() -> Tuning:
        return finetune_method(task, backbone, rows, head, 0, config, no_guesses(task, config))

    batches = finetune_batches(task, rows, build(), 0)
    return calibrate(build, batches, Plan(1_000, 0, task.bf16), task.device)


def finetune_method(
    task: Task,
    backbone: Backbone,
    rows: np.ndarray,
    head: nn.Module | None,
    seed: int,
    config: FineTuneConfig | None = None,
    guesses: Propagated | None = None,
) -> Tuning:
    """Return what `finetune` trains, on a copy of the backbone."""
    pretrained = head is not None
    encoder = copy.deepcopy(backbone)
    if head is not None and is_linear(head):
        classifier = Classifier(encoder, copy.deepcopy(head), grid=GRID)
    else:
        fresh_seed(seed, "head")
        width = _feature_width(task, encoder)
        classifier = fresh_classifier(encoder, task.outputs, width, grid=GRID)
        if not task.num_classes:
            classifier.head = RegressionHead(classifier.head, *scale_of(task.truth[rows]))
    classifier.to(task.device)
    config = config or (PRETRAINED if pretrained else scratch_of(backbone))
    few = len(rows) < FREEZE_NORM_BELOW and config.unlabelled == "none"
    tuned = FineTune(
        classifier,
        rows,
        task.truth[rows],
        task.pictures,
        task.label_policy,
        config,
        freeze_norm=pretrained and few,
    )
    if config.unlabelled == "none":
        return tuned.to(task.device)
    pool = task.dataset.rows("train") if guesses is None else guesses.rows
    return FineTuneBoth(tuned, pool, task.policies, guesses).to(task.device)


def finetune_batches(task: Task, rows: np.ndarray, method: Tuning, seed: int) -> Batches:
    """Return the batches that `finetune` learns from."""
    labelled = _labelled_batches(task, rows, method.config, stream(seed, "batches"))
    if isinstance(method, FineTune):
        return labelled
    key = stream(seed, "unlabelled")
    return PairedBatches(labelled, method.pool, method.config.ratio, seed=key)


def _labelled_batches(task: Task, rows: np.ndarray, config: FineTuneConfig, key: int) -> Batches:
    store, size = task.dataset.store, config.batch_size
    if config.imbalance == "sampling":
        labels = task.dataset.labels[rows]
        return BalancedBatches(store, rows, labels, size, seed=key, device=task.device)
    return Batches(store, rows, size, seed=key, device=task.device)


def pixel_space(task: Task, labelled: np.ndarray) -> Space:
    """Return the training images as they are, as a space: what scratch may spread labels over."""
    return feature_space(task, new_backbone(task, "pixels", 0), labelled)


def _feature_width(task: Task, backbone: Backbone) -> int:
    rows = task.dataset.rows("train")[:1]
    return int(features(task, backbone, rows).shape[1])


def score(task: Task, classifier: Classifier, rows: np.ndarray) -> np.ndarray:
    """Return what a classifier says of rows of the data set.

    Returns
    -------
    ndarray
        Class probabilities ``(n, num_classes)`` float32, or numbers ``(n,)`` float64.
    """
    classifier.to(task.device)  # heads are fitted on the CPU
    parts = [
        classifier.probabilities(
            load(task.dataset.store, rows[start : start + 512], task.device),
            task.pictures,
            bf16=task.bf16,
        )
        for start in range(0, len(rows), 512)
    ]
    return np.concatenate(parts)
