"""Whether a comparison cross-validates, and which folds meet which encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fewlabels.core.errors import UsageError
from fewlabels.data.folds import FOLDS, can_fold, too_few
from fewlabels.pipeline.task import Task
from fewlabels.study.arms import Arm
from fewlabels.study.plan import Unit
from fewlabels.training.progress import Reporter


def fold(task: Task, asked: int | None, reporter: Reporter) -> Task:
    """Return the task with its labelled images in folds, where that was asked for or is due.

    Parameters
    ----------
    asked : int, optional
        Folds; 0 for none. By default there are `FOLDS` where the data came without a test split
        and a random one would be too small.

    Raises
    ------
    UsageError
        Folds were asked for that the data cannot have.
    """
    why = reason(task, asked)
    if not why:
        return task
    folded = task.with_folds(asked or FOLDS)
    images = len(folded.dataset.tested_rows())
    alone = "unlabelled images alone" if folded.dataset.pretrains_apart else "images of each fold"
    remedy = "" if asked else "; --folds 0 for random splits"
    reporter.say(
        f"{why}: {folded.dataset.folds}-fold cross-validation over all {images} labelled images, "
        f"pre-training on the {alone}{remedy}"
    )
    return folded


def reason(task: Task, asked: int | None) -> str:
    """Return why a comparison of this task cross-validates, or "" where it does not."""
    dataset = task.dataset
    truth = dataset.truth[dataset.known & dataset.store.ok]
    classes = len(dataset.classes)
    if asked is None:
        due = not dataset.splits_given and can_fold(truth, classes)
        return too_few(truth, classes) if due else ""
    if asked == 0:
        return ""
    remedy = "--folds 0, or leave --folds out"
    if dataset.splits_given:
        raise UsageError("usage.folds", f"--folds {asked}, but the data have a test split", remedy)
    if not 2 <= asked <= len(truth) or not can_fold(truth, classes):
        message = f"--folds {asked}: {len(truth)} labelled images cannot be dealt out so"
        raise UsageError("usage.folds", message, "2 or more, and two labels in two classes")
    return "as asked"


def folds_given(arm: Arm, task: Task) -> Arm:
    """Return an arm whose given start sees the data in the folds of the comparison."""
    folds = task.dataset.folds
    if arm.given is None or not folds:
        return arm
    own = arm.given.task
    seen = replace(own, dataset=own.dataset.with_folds(folds))
    return replace(arm, given=replace(arm.given, task=seen))


def fold_units(task: Task, *, repeats: int, pretraining_seeds: int, seed: int) -> list[Unit]:
    """Return the units of a cross-validation: every fold of every repeat.

    Encoders that learn from unlabelled images alone serve all folds of their repeats, among
    which they are dealt out; otherwise each fold has one of its own.

    Parameters
    ----------
    repeats : int
        Dealings of the labelled images into folds, each with a draw of labels of its own.
    pretraining_seeds : int
        Encoders of each method, where folds share them.
    seed : int
        The first of all seeds.
    """
    if repeats < 1 or pretraining_seeds < 1:
        raise UsageError("usage.seeds", "seeds must be 1 or more")
    folds, first = task.dataset.folds, 1_000 * seed
    shared = task.dataset.pretrains_apart
    encoders = min(pretraining_seeds, repeats)
    units = []
    for repeat in range(first, first + repeats):
        for split in range(folds * repeat, folds * (repeat + 1)):
            encoder = first + (repeat - first) * encoders // repeats if shared else split
            units.append(Unit(split, encoder, (repeat,), shared=shared))
    return units


def count_encoders(units: Sequence[Unit]) -> int:
    """Return how many encoders of each method are pre-trained."""
    return len({unit.encoder for unit in units})


def images_of(task: Task) -> tuple[int, int]:
    """Return how many images a classifier may learn from, and how many test images there are.

    In a cross-validation every labelled image is a test image once a repeat.
    """
    dataset = task.dataset
    train, test = len(dataset.rows("train")), len(dataset.tested_rows())
    return train - round(test / dataset.folds) if dataset.folds else train, test
