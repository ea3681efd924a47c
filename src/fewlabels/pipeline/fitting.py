"""How a fine-tune is done: its head, its steps, its classifier."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fewlabels.core import processes
from fewlabels.core.types import Backbone
from fewlabels.data.listing import escape
from fewlabels.models.classifier import Classifier, save_model
from fewlabels.pipeline.counting import feature_adds, finetuning_adds
from fewlabels.pipeline.frozen import GRID, feature_space, fit_head, space_rows
from fewlabels.pipeline.guessing import propagate
from fewlabels.pipeline.pretraining import TrainingLog, last_metrics, line_every, training_log
from fewlabels.pipeline.stages import (
    Tuned,
    finetune,
    finetune_pace,
    finetune_steps,
    pixel_space,
    unlabelled_steps,
)
from fewlabels.pipeline.starts import Start
from fewlabels.pipeline.task import Task
from fewlabels.pipeline.watching import check_every, finetune_watched, images_checked
from fewlabels.results.runfolder import RunFolder
from fewlabels.training.cost import Cost
from fewlabels.training.durations import Duration
from fewlabels.training.loop import Trained
from fewlabels.training.progress import Reporter
from fewlabels.training.stopping import CHECKS
from fewlabels.transfer.parameters import PRETRAINED, FineTuneConfig
from fewlabels.transfer.unlabelled import PSEUDO, Propagated


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A fine-tune that is about to be done.

    Attributes
    ----------
    task : Task
    start : Start
    backbone_name : str
    backbone : Backbone
        What is started from, on the task's device.
    transfer : str
    rows : ndarray
        ``(n,)`` int64 rows to learn from.
    seed : int
    budget : Duration
    reporter : Reporter
    config : FineTuneConfig
        How parameters are trained.
    held : ndarray or None
        Validation rows that training is watched on; None where there are none to be used.
    keep : {"best", "last"}
        Which weights of a training that is watched.
    """

    task: Task
    start: Start
    backbone_name: str
    backbone: Backbone
    transfer: str
    rows: np.ndarray
    seed: int
    budget: Duration
    reporter: Reporter
    config: FineTuneConfig = PRETRAINED
    held: np.ndarray | None = None
    keep: str = "best"

    @property
    def labels(self) -> np.ndarray:
        """Return the classes, or the numbers, of the rows."""
        labels: np.ndarray = self.task.truth[self.rows]
        return labels

    @property
    def rule(self) -> int:
        """Return the steps that parameters are trained where the budget allows."""
        if not self.trains:
            return 0
        if self.config.unlabelled != "none":
            return unlabelled_steps(pretrained=not self.anew)
        return finetune_steps(self.task, len(self.rows), pretrained=not self.anew)

    @property
    def trains(self) -> bool:
        """Say whether the weights of the backbone are trained."""
        return self.transfer in ("parameters", "structure")

    @property
    def anew(self) -> bool:
        """Say whether they are trained as from scratch, because some of them are new."""
        return self.start.kind == "scratch" or self.transfer == "structure"


@dataclass(frozen=True, slots=True, eq=False)
class Beginning:
    """What is made of frozen features before anything is trained.

    Attributes
    ----------
    head : nn.Module or None
        On the features of the start; None where it is trained anew.
    guesses : Propagated or None
        About unlabelled images, where training learns from such.
    """

    head: nn.Module | None
    guesses: Propagated | None = None


def fit_start(job: Job) -> Beginning:
    """Fit what a fine-tune begins with."""
    guessed = job.config.unlabelled == PSEUDO
    if job.anew and not guessed:
        return Beginning(None)
    # From scratch there are no features that labels could be spread over, but there are pixels.
    scratch = job.start.kind == "scratch"
    space = (
        pixel_space(job.task, job.rows)
        if scratch
        else feature_space(job.task, job.backbone, job.rows)
    )
    guesses = propagate(job.task, space, job.rows) if guessed else None
    if job.anew:
        return Beginning(None, guesses)
    kind = job.task.goal.first_head if job.trains else job.transfer
    classes, imbalance = job.task.num_classes, job.config.imbalance
    return Beginning(fit_head(space, job.rows, job.labels, classes, kind, imbalance), guesses)


def fit_adds(job: Job) -> int:
    """Return the multiply-adds of the features that `fit_start` extracts."""
    if job.anew and (job.config.unlabelled != PSEUDO or job.start.kind == "scratch"):
        return 0  # pixels are no arithmetic
    return feature_adds(job.task, job.backbone) * len(space_rows(job.task, job.rows))


def plan_steps(job: Job, head: nn.Module | None) -> dict[str, Any]:
    """Return the steps of the fine-tune, and what one takes where that was measured."""
    if not job.rule:
        return {"steps": 0, "seconds_per_step": None}
    timed = job.budget.unit == "seconds"
    pace = finetune_pace(job.task, job.backbone, job.rows, head, job.config) if timed else None
    most = _most_steps(job, pace)
    if most < job.rule:
        job.reporter.say(f"the budget ends the training early: {most} of {job.rule} steps")
    return {"steps": min(most, job.rule), "seconds_per_step": pace}


def _most_steps(job: Job, pace: float | None) -> int:
    """Return the steps that the budget allows, checks on validation images included."""
    # An epoch is a pass over the labelled images.
    size = job.config.batch_size if job.budget.unit == "epochs" else job.config.images
    most = job.budget.steps(images=len(job.rows), batch_size=size, seconds_per_step=pace)
    if job.budget.unit != "seconds" or job.held is None:
        return most
    # A step goes forward and back, which takes about three times as long as forward alone.
    checks = CHECKS * images_checked(job.rows, job.held) / (3 * size)
    return max(1, most - round(checks))


def fit_classifier(
    run: RunFolder, job: Job, start: Beginning, steps: int
) -> tuple[Classifier, Cost, dict[str, Any]]:
    """Return the classifier, what its training cost beside the fit of the head, and how it went."""
    if not job.trains:
        assert start.head is not None
        ended: dict[str, Any] = {"final": {}, "stopping": None}
        return Classifier(job.backbone, start.head, grid=GRID).eval(), Cost(), ended
    with training_log(run.path, "finetune", steps, job.config.images, job.reporter) as log:
        tuned, stopping = _train(run, job, start, steps, log)
    ended = {"final": last_metrics(tuned.trained, run.path), "stopping": stopping}
    if tuned.unlabelled:
        ended["unlabelled"] = named_shares(job.task, tuned.unlabelled)
    return tuned.classifier, tuned.trained.cost(_count(job, start, steps, tuned.trained)), ended


def named_shares(task: Task, unlabelled: Mapping[str, Any]) -> dict[str, Any]:
    """Return what became of unlabelled images, also in words, with classes by their names."""
    names = (escape(name) for name in task.dataset.classes)
    shares = dict(zip(names, unlabelled["shares"], strict=True))
    most, least = max(shares, key=shares.__getitem__), min(shares, key=shares.__getitem__)
    said = (
        f"{unlabelled['images']:,} training images were also learned from without a label "
        f"({unlabelled['loss']}); a guess counted {unlabelled['used']:.0%} on average; "
        f"{most} was guessed most ({shares[most]:.0%}), {least} least ({shares[least]:.0%})"
    )
    return {**unlabelled, "shares": shares, "said": said}


def follow(run: RunFolder, job: Job, start: Beginning, steps: int) -> None:
    """Take part in the training that the first process does in `fit_classifier`."""
    if job.trains:
        tuned, _ = _train(run, job, start, steps, None)
        _count(job, start, steps, tuned.trained)


def _count(job: Job, start: Beginning, steps: int, trained: Trained) -> int:
    return finetuning_adds(
        job.task,
        job.backbone,
        job.rows,
        head=start.head,
        steps=steps,
        config=job.config,
        done=trained.steps,
    )


def _train(
    run: RunFolder, job: Job, start: Beginning, steps: int, log: TrainingLog | None
) -> tuple[Tuned, dict[str, Any] | None]:
    """Train, watched where there is something to watch; keep the weights not chosen as well."""
    place = run.path / "checkpoints"
    if job.held is None:
        tuned = finetune(
            job.task,
            job.backbone,
            job.rows,
            head=start.head,
            steps=steps,
            seed=job.seed,
            config=job.config,
            guesses=start.guesses,
            folder=place,
            watch=log,
        )
        return tuned, None
    watched = finetune_watched(
        job.task,
        job.backbone,
        job.rows,
        job.held,
        head=start.head,
        steps=steps,
        seed=job.seed,
        config=job.config,
        keep=job.keep,
        every=check_every(steps, line_every(steps)),
        guesses=start.guesses,
        folder=place,
        watch=log,
    )
    if watched.other is not None and processes.is_main():
        other = "last" if watched.stopping["kept"] == "best" else "best"
        save_classifier(place / other, job, watched.other)
    return Tuned(watched.classifier, watched.trained, watched.unlabelled), watched.stopping


def save_classifier(folder: Path, job: Job, classifier: Classifier) -> None:
    """Write a classifier of this fine-tune as a model folder."""
    save_model(
        folder,
        classifier.backbone,
        job.backbone_name,
        job.task.pictures,
        short_side=job.task.dataset.store.short_side,
        head=classifier.head,
        **job.task.goal.model,
        grid=classifier.grid,
    )


def dry_plan(job: Job) -> dict[str, Any]:
    """Return what would be done: stages, steps, seconds, disk."""
    began = time.perf_counter()
    head = fit_start(job).head
    rows: list[dict[str, Any]] = [
        {"stage": "head", "steps": 0, "seconds": time.perf_counter() - began}
    ]
    rows[0]["note"] = f"{len(job.rows)} labels, features of {job.backbone_name}"
    if job.trains:
        pace = finetune_pace(job.task, job.backbone, job.rows, head, job.config)
        steps = min(_most_steps(job, pace), job.rule)
        rows.append({"stage": "finetune", "steps": steps, "seconds": steps * pace})
        rows[-1]["note"] = "by the rule" if steps == job.rule else "cut short by the budget"
    values = sum(p.numel() for p in job.backbone.parameters())
    return {
        "schema": 1,
        "plan": rows[1:] if job.anew else rows,
        "seconds": sum(row["seconds"] for row in rows),
        "disk_mb": round((7 if job.trains else 1) * 4 * values / 1e6, 1),
    }
