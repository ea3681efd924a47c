"""One pre-training in a folder: its checkpoints, its log, its live probe, its encoder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewlabels.core.types import Backbone, Method
from fewlabels.data.loader import load
from fewlabels.explain.paintings import IMAGES, paintings
from fewlabels.explain.pictures import pack, painted_sheet, png
from fewlabels.models.classifier import save_model
from fewlabels.pipeline.stages import PretrainPlan, pretrain_batches, pretrain_encoder
from fewlabels.pipeline.task import Task
from fewlabels.results.files import (
    append_line,
    checked_line,
    drop_torn_line,
    read_lines,
    write_atomic,
)
from fewlabels.results.runfolder import RunFolder
from fewlabels.training.checkpoint import latest_checkpoint
from fewlabels.training.loop import Trained
from fewlabels.training.progress import Advance, Reporter
from fewlabels.transfer.live_probe import LiveProbe

LINES = 100  # of the log of a training
_ABOUT = (
    "step",
    "seconds",
    "rank",
    "probe",
    "probe_r2",
)  # what a line of the log tells beside the metrics


class TrainingLog:
    """Writes ``metrics.jsonl`` while something trains, and moves the progress bar.

    Parameters
    ----------
    place : Path
        The folder that holds the log, and ``checkpoints/``.
    steps : int
    advance : callable
        Of `fewlabels.training.progress.Reporter.stage`.
    """

    def __init__(self, place: Path, steps: int, advance: Advance) -> None:
        self.steps = steps
        self.every = line_every(steps)
        self._path = place / "metrics.jsonl"
        self._advance = advance
        self._before = trim_log(place)
        self._began = time.perf_counter()

    def __call__(self, step: int, metrics: dict[str, float]) -> None:
        """Note the metrics of a step."""
        self.note(step, metrics, {})

    def due(self, step: int) -> bool:
        """Say whether a step gets a line."""
        return step % self.every == 0 or step == self.steps

    def note(self, step: int, metrics: dict[str, float], found: dict[str, float]) -> None:
        """Note the metrics of a step, and what a probe found there."""
        self._advance(step, **metrics)
        if self.due(step):
            seconds = self._before + time.perf_counter() - self._began
            append_line(self._path, {"step": step, "seconds": seconds, **metrics, **found})


def line_every(steps: int) -> int:
    """Return the steps between two lines of the log of a training."""
    return max(1, steps // LINES)


@contextmanager
def training_log(
    place: Path, title: str, steps: int, batch_size: int, reporter: Reporter
) -> Iterator[TrainingLog]:
    """Lend the log of a training in `place`, going on where an interrupted one stopped."""
    place.mkdir(parents=True, exist_ok=True)
    with reporter.stage(title, steps, unit=batch_size) as advance:
        yield TrainingLog(place, steps, advance)


def trim_log(place: Path) -> float:
    """Drop the rows of ``metrics.jsonl`` that a resumed run will write again.

    Returns
    -------
    float
        Seconds of training that the remaining rows tell of.
    """
    log = place / "metrics.jsonl"
    if not log.exists():
        return 0.0
    drop_torn_line(log)
    saved = latest_checkpoint(place / "checkpoints")
    rows = [row for row in read_lines(log) if saved is not None and row["step"] <= saved.step]
    write_atomic(log, "".join(map(checked_line, rows)))
    return float(rows[-1]["seconds"]) if rows else 0.0


def last_metrics(trained: Trained, place: Path) -> dict[str, float]:
    """Return the metrics of the last step, from the log where an earlier process took it."""
    if trained.metrics:
        return trained.metrics
    rows = read_lines(place / "metrics.jsonl")
    return {k: v for k, v in rows[-1].items() if k not in _ABOUT} if rows else {}


def closed(run: RunFolder) -> dict[str, Any]:
    """Close the folder of a training whose ``results.json`` stands, and return that."""
    # Only now: had the process died before the result was there, they would have been needed.
    drop_checkpoints(run.path)
    run.finish()
    return run.read_json("results.json")


def drop_checkpoints(place: Path) -> None:
    """Remove the checkpoints of a training whose result is saved."""
    for checkpoint in (place / "checkpoints").glob("step-*"):
        checkpoint.unlink()


@dataclass(frozen=True, slots=True, eq=False)
class Pretrained:
    """An encoder that has just been pre-trained.

    Attributes
    ----------
    encoder : Backbone
    cost : Trained
    final : dict
        Metrics of the last step.
    rank : float
        Effective rank of its features.
    warning : str
        Said aloud when it collapsed.
    """

    encoder: Backbone
    cost: Trained
    final: dict[str, float]
    rank: float
    warning: str


def pretrain_in(
    place: Path,
    task: Task,
    plan: PretrainPlan,
    *,
    title: str,
    probe: LiveProbe,
    reporter: Reporter,
    probes: int = 0,
) -> Pretrained:
    """Pre-train in a folder, going on where an earlier process stopped.

    Writes ``metrics.jsonl``, ``checkpoints/``, ``model/`` and, where the method paints,
    ``figures/paintings``.

    Parameters
    ----------
    probes : int
        How often the probe is taken on the way.
    """
    batch = pretrain_batches(task, plan.method, plan.seed, plan.labels).size
    with training_log(place, title, plan.steps, batch, reporter) as log:
        watcher = _Watcher(log, probe, probes, plan.method, reporter)
        method, trained = pretrain_encoder(
            task, plan, folder=place / "checkpoints", observe=watcher
        )
    rank, warning = probe.verdict(method.encoder)
    if warning:
        reporter.say(f"warning: {plan.method}: {warning}")
    save_model(
        place / "model",
        method.encoder,
        plan.backbone,
        task.pictures,
        short_side=task.dataset.store.short_side,
    )
    keep_paintings(place, task, method)
    return Pretrained(method.encoder, trained, last_metrics(trained, place), rank, warning)


def keep_paintings(place: Path, task: Task, method: Method) -> None:
    """Write ``figures/paintings.npz`` and ``.png``: what a method makes of training images."""
    rows = task.dataset.pretraining_rows()
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), IMAGES)).astype(np.int64)]
    found = paintings(method, load(task.dataset.store, rows, task.device))
    if found:
        write_atomic(place / "figures" / "paintings.npz", pack(found))
        write_atomic(place / "figures" / "paintings.png", png(painted_sheet(found)))


class _Watcher:
    """Logs a pre-training and probes its encoder now and then."""

    def __init__(
        self, log: TrainingLog, probe: LiveProbe, probes: int, name: str, reporter: Reporter
    ) -> None:
        self.log = log
        self.probe = probe
        self.reporter = reporter
        self.name = name
        # A multiple of the log's own interval, so that each probe has a line.
        self.every = log.every * max(1, round(log.steps / log.every / probes)) if probes else 0
        self.warned = False

    def __call__(self, method: Method, step: int, metrics: dict[str, float]) -> None:
        probing = self.every and (step % self.every == 0 or step == self.log.steps)
        self.log.note(step, metrics, self._probe(method, step) if probing else {})

    def _probe(self, method: Method, step: int) -> dict[str, float]:
        found = self.probe(method.encoder)
        warning = self.probe.warning(found["rank"], method.encoder.num_features)
        if warning and not self.warned and step < self.log.steps:
            self.warned = True
            self.reporter.say(f"warning: {self.name}, step {step}: {warning}")
        rows = {"rank": found["rank"]}
        names = {"knn": "probe", "knn_r2": "probe_r2"}
        return rows | {names[key]: found[key] for key in names if key in found}
