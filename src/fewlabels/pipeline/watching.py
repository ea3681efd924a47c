"""A fine-tune that is watched on validation images: curves, an early end, the best weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fewlabels.core.seeding import stream
from fewlabels.core.types import Backbone
from fewlabels.models.classifier import Classifier
from fewlabels.pipeline.stages import (
    Tuning,
    finetune_batches,
    finetune_method,
    score,
    told_of,
)
from fewlabels.pipeline.task import Task
from fewlabels.training.loop import Plan, Trained, Watch, train
from fewlabels.training.stopping import (
    CHECKS,
    ENOUGH,
    AnyCheck,
    Check,
    EarlyStopping,
    Look,
    NumberCheck,
    best_of,
    over,
)
from fewlabels.transfer.imbalance import ClassLoss
from fewlabels.transfer.parameters import FineTuneConfig
from fewlabels.transfer.regressors import scale_of
from fewlabels.transfer.unlabelled import Propagated

KEEP = ("best", "last")
VAL_IMAGES, TRAIN_IMAGES = 500, 200  # scored at every check: ten of them stay far below training


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """A classifier whose training was watched.

    Attributes
    ----------
    classifier : Classifier
        With the weights that are kept.
    other : Classifier or None
        With those of the last step where the best are kept, and the other way round; None
        where they are the same.
    trained : Trained
    stopping : dict
        What ``results.json`` tells of it.
    unlabelled : mapping or None
        As `fewlabels.pipeline.stages.Tuned`.
    """

    classifier: Classifier
    other: Classifier | None
    trained: Trained
    stopping: dict[str, Any]
    unlabelled: Mapping[str, Any] | None = None


def held_rows(task: Task, used: np.ndarray, labels: int | None) -> np.ndarray | None:
    """Return the validation rows that training may be watched on, or None.

    With ``--labels`` the labels of validation lie beyond the budget, and nothing that training
    does may depend on them. Without it they are the user's own; `ENOUGH` are needed.
    """
    rows = task.dataset.rows("val")
    rows = rows[~np.isin(rows, used)]
    return None if labels is not None or len(rows) < ENOUGH else rows


def check_every(steps: int, line: int) -> int:
    """Return the steps between two checks: a multiple of those between two lines of the log.

    Examples
    --------
    >>> check_every(1500, 15), check_every(8, 1)
    (150, 1)
    """
    return line * max(1, round(steps / line / CHECKS))


def finetune_watched(  # noqa: PLR0913 - as `fewlabels.pipeline.stages.finetune`
    task: Task,
    backbone: Backbone,
    rows: np.ndarray,
    held: np.ndarray,
    *,
    head: nn.Module | None,
    steps: int,
    seed: int,
    config: FineTuneConfig,
    keep: str,
    every: int,
    guesses: Propagated | None = None,
    folder: Path | None = None,
    watch: Watch | None = None,
) -> Watched:
    """Train backbone and head on the labels of `rows`, and watch the images of `held`.

    Parameters
    ----------
    held : ndarray
        ``(m,)`` int64 validation rows, none of them among `rows`.
    keep : {"best", "last"}
        ``best`` ends early where validation has not got better for long, and returns the
        weights of its lowest loss; ``last`` trains to the end and returns what is there then.
    every : int
        Steps between two checks.

    Other parameters are those of `fewlabels.pipeline.stages.finetune`.
    """
    method = finetune_method(task, backbone, rows, head, seed, config, guesses)
    look, kind = _look(task, method, rows, held), Check if task.num_classes else NumberCheck
    stopping = EarlyStopping(method, method.classifier, look, steps=steps, every=every, kind=kind)
    trained = train(
        stopping,
        finetune_batches(task, rows, method, seed),
        Plan(steps, stream(seed, "finetune"), task.bf16),
        device=task.device,
        folder=folder,
        watch=watch,
        stop=stopping.is_over if keep == "best" else None,
    )
    found = record(stopping.found, keep=keep, images=len(held), planned=steps)
    classifier, other = _both(method.classifier.eval(), stopping, found)
    return Watched(classifier, other, trained, found, told_of(method))


def _both(
    classifier: Classifier, stopping: EarlyStopping, found: dict[str, Any]
) -> tuple[Classifier, Classifier | None]:
    """Return the classifier that is kept, and the other one where it differs."""
    if found["best_step"] in (None, found["steps"]):
        return classifier, None
    best = copy.deepcopy(classifier)
    best.load_state_dict(stopping.best)
    return (best, classifier) if found["kept"] == "best" else (classifier, best)


def _look(task: Task, method: Tuning, rows: np.ndarray, held: np.ndarray) -> Look:
    """Return the function that finds out how a classifier, or a regressor, stands."""
    if not task.num_classes:
        return _look_at_numbers(task, method, rows, held)
    labels, imbalance = task.dataset.labels, method.config.imbalance
    # What classes drawn equally often aim at is, on images as they come, a weighted loss.
    aim = "weights" if imbalance == "sampling" else imbalance
    loss = ClassLoss(labels[rows], task.num_classes, aim, method.config.smoothing)
    seen, unseen = _some(rows, TRAIN_IMAGES), _some(held, VAL_IMAGES)

    def look(step: int) -> Check:
        shares = score(task, method.classifier, unseen)
        plain = score(task, method.classifier, seen)
        # The loss does not change when a constant is added to all logits of an image.
        logits = torch.from_numpy(shares).clamp(min=1e-12).log()
        target = torch.from_numpy(labels[unseen])
        hits, known = (s.argmax(1) == labels[r] for s, r in ((shares, unseen), (plain, seen)))
        return Check(step, float(loss(logits, target)), float(hits.mean()), float(known.mean()))

    return look


def _look_at_numbers(task: Task, method: Tuning, rows: np.ndarray, held: np.ndarray) -> Look:
    seen, unseen = _some(rows, TRAIN_IMAGES), _some(held, VAL_IMAGES)
    _, spread = scale_of(task.truth[rows])

    def look(step: int) -> NumberCheck:
        far = task.goal.point(unseen, score(task, method.classifier, unseen))
        near = task.goal.point(seen, score(task, method.classifier, seen))
        loss = float(far["mse"] or 0.0) / spread**2  # in standard deviations, as in training
        r2 = [np.nan if found["r2"] is None else found["r2"] for found in (far, near)]
        return NumberCheck(step, loss, *r2)

    return look


def images_checked(rows: np.ndarray, held: np.ndarray) -> int:
    """Return how many images a check scores."""
    return len(_some(rows, TRAIN_IMAGES)) + len(_some(held, VAL_IMAGES))


def _some(rows: np.ndarray, most: int) -> np.ndarray:
    """Return at most so many rows, evenly spaced: class by class where files lie so."""
    places = np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(np.int64)
    some: np.ndarray = rows[places]
    return some


def record(found: Sequence[AnyCheck], *, keep: str, images: int, planned: int) -> dict[str, Any]:
    """Return what is told of a training that was watched.

    Parameters
    ----------
    found : sequence of Check or NumberCheck
        At least one.
    keep : {"best", "last"}
    images : int
        Validation images there are.
    planned : int
        Steps it was to take.
    """
    best, last = best_of(found), found[-1]
    early = keep == "best" and over(found) and last.step < planned
    return {
        "images": images,
        "checks": [asdict(check) for check in found],
        "steps": last.step,
        "planned": planned,
        "stopped_early": early,
        "best_step": best.step if best else None,
        "kept": keep if best else "last",
        "said": _said(best, last, keep=keep, early=early, planned=planned),
    }


def _said(best: AnyCheck | None, last: AnyCheck, *, keep: str, early: bool, planned: int) -> str:
    """Say in a sentence what became of the validation loss."""
    if best is None:
        return "the validation loss was never finite; the last weights are kept"
    if best.step == last.step:
        return f"the validation loss still fell at the last of {planned:,} steps"
    rose = (
        f"the validation loss was lowest at step {best.step:,} of {planned:,} "
        f"({best.val_loss:.3g}; {last.val_loss:.3g} at step {last.step:,})"
    )
    ended = "; training was stopped there" if early else ""
    which = f"the weights of step {best.step:,}" if keep == "best" else "the last weights"
    return f"{rose}{ended}; {which} are kept"
