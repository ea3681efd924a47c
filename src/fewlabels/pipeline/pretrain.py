"""The verb `pretrain`: all training images in, a run folder with an encoder out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewlabels.core import processes
from fewlabels.core.errors import UsageError, unknown
from fewlabels.core.types import Backbone
from fewlabels.data import likeness
from fewlabels.data.dataset import Dataset
from fewlabels.evaluation.intervals import wilson
from fewlabels.evaluation.regression import regression
from fewlabels.explain.pictures import pack
from fewlabels.methods import LABELLED, METHODS, OWN_BACKBONE
from fewlabels.pipeline.counting import pretraining_adds
from fewlabels.pipeline.folders import already, lent
from fewlabels.pipeline.frozen import features
from fewlabels.pipeline.pretraining import Pretrained, closed, pretrain_in
from fewlabels.pipeline.stages import (
    PretrainPlan,
    new_method,
    pretrain_batches,
    pretrain_encoder,
    pretrain_pace,
    pretrain_steps,
)
from fewlabels.pipeline.task import DataOptions, Task, open_task, pick_backbone, refuse_weights
from fewlabels.results.environment import describe
from fewlabels.results.files import write_atomic
from fewlabels.results.runfolder import RunFolder
from fewlabels.results.schema import validate
from fewlabels.training.cost import Cost, restart_peak
from fewlabels.training.durations import parse_duration
from fewlabels.training.optimizers import OPTIMIZERS, Reoptimized
from fewlabels.training.progress import Reporter
from fewlabels.transfer.live_probe import PROBES, LiveProbe

SAMPLE = "sample.npz"  # what the images look like from afar, for whoever starts from this
PROBED_LABELS = 2_000  # the probe compares each with each


def pretrain(  # noqa: PLR0913 - the flags of the command line
    options: DataOptions,
    *,
    method: str = "simclr",
    backbone: str = "auto",
    budget: str = "5m",
    policy: str = "auto",
    optimizer: str = "auto",
    labels: int | None = None,
    seed: int = 0,
    device: str = "auto",
    out: Path | None = None,
    resume: str = "auto",
    dry_run: bool = False,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Train an encoder on all training images, labelled or not; an interrupted run goes on.

    Parameters
    ----------
    options : DataOptions
        The data.
    method : str
        A key of `fewlabels.methods.METHODS`.
    backbone, policy, device : str
        Network, augmentation and device; ``auto`` chooses.
    budget : str
        Such as ``5m``, ``2000 steps``, ``20 epochs`` or ``2000000 images``. Seconds become
        steps once, by a short calibration.
    optimizer : str
        ``adamw``, ``adam`` or ``sgd`` instead of the method's own; see
        `fewlabels.training.optimizers`.
    labels : int, optional
        Labels per class (for numbers, in all) that the live probe may read; by default all but
        those of test.
        ``supervised`` learns from those of train, all other methods from none.
    seed : int
        Of weights, order, augmentation, and of the draw of the probe's labels.
    out : Path, optional
        The run folder.
    resume : {"auto", "never"}
        ``never`` refuses a folder that holds an unfinished run.
    dry_run : bool
        Return the plan and write nothing.
    reporter : Reporter, optional

    Returns
    -------
    dict
        ``results.json``, or the plan.

    Raises
    ------
    FewlabelsError
        For data or settings that cannot be used, a folder in use, a full disk, a diverged loss.
    """
    reporter = reporter or Reporter()
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if optimizer not in OPTIMIZERS:
        raise unknown("optimizer", optimizer, OPTIMIZERS)
    if backbone == "auto":
        backbone = OWN_BACKBONE.get(method, backbone)
    check_labels(labels)
    refuse_weights(backbone)
    if method in LABELLED and options.target is not None:
        raise UsageError(
            "usage.target",
            f"{method} pre-training learns classes, and {options.target!r} is a number",
            "another --method, or leave --target out",
        )
    parse_duration(budget)
    settings: dict[str, Any] = {
        "method": method,
        "backbone": backbone,
        "budget": budget,
        "policy": policy,
    }
    settings |= {"labels": labels, "seed": seed, "device": device, "optimizer": optimizer}
    config = {"verb": "pretrain", "data": asdict(options), "split_seed": 0, "settings": settings}
    with processes.joined(device):
        if not dry_run and (done := already(out, config, "results.json")):
            return done
        task = open_task(options, policy=policy, device=device, reporter=reporter)
        if dry_run:
            return _dry_plan(task, settings)
        # Refused, where they are, before a folder is made.
        name = pick_backbone(backbone, task)
        Reoptimized(new_method(task, method, name, seed, labels), optimizer)
        with lent(out, task, config, resume) as run:
            if not processes.by_main((run.path / "results.json").exists):
                _train(run, task, settings, reporter)
            return processes.by_main(lambda: closed(run))


def check_labels(labels: int | None) -> None:
    """Refuse a number of labels per class below 1.

    Raises
    ------
    UsageError
    """
    if labels is not None and labels < 1:
        raise UsageError("usage.labels", f"--labels {labels} is out of range", "1 or more")


def _settle(run: RunFolder, task: Task, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the plan of this folder: read, or made and written."""
    path = run.path / "plan.json"
    if not processes.by_main(path.exists):
        backbone = pick_backbone(settings["backbone"], task)
        duration = parse_duration(settings["budget"])
        steps, pace = pretrain_steps(
            task, settings["method"], backbone, duration, settings["labels"]
        )
        plan = {"steps": steps, "seconds_per_step": pace, "backbone": backbone}
        plan |= {"policy": task.policy, "device": str(task.device)}
        if processes.is_main():
            run.write_sealed("plan.json", plan)
    return processes.by_main(lambda: run.read_json("plan.json"))


def _train(run: RunFolder, task: Task, settings: dict[str, Any], reporter: Reporter) -> None:
    """Train, and write ``results.json``."""
    rows = probe_rows(task.dataset, settings["labels"], settings["seed"])
    if not len(rows):
        reporter.say("no labels are visible: the probe watches the rank of the embedding alone")
    settled = _settle(run, task, settings)
    restart_peak(task.device)
    plan = PretrainPlan(
        settings["method"],
        settled["backbone"],
        settled["steps"],
        settings["seed"],
        settings["labels"],
        settings["optimizer"],
    )
    if not processes.is_main():
        # The first process alone watches, probes and writes.
        pretrain_encoder(task, plan, folder=run.path / "checkpoints")
        pretraining_adds(task, plan)
        return
    probe = LiveProbe(task.dataset, task.pictures, task.device, rows=rows, bf16=task.bf16)
    trained = pretrain_in(
        run.path,
        task,
        plan,
        title=f"pretrain {plan.method}",
        probe=probe,
        reporter=reporter,
        probes=PROBES,
    )
    learned = pretrain_batches(task, plan.method, plan.seed, plan.labels).rows
    write_atomic(run.path / SAMPLE, pack({"swatches": likeness.swatches(task.dataset, learned)}))
    found = _knn if task.dataset.targets is None else _knn_r2
    cost = trained.cost.cost(pretraining_adds(task, plan))
    result = _result(run, task, plan, trained, cost) | found(probe, trained, rows)
    result["passes"] = cost.images_seen / len(learned)
    run.write_json("results.json", validate("pretrain", result))


def probe_rows(dataset: Dataset, labels: int | None, seed: int) -> np.ndarray:
    """Return the rows whose labels the live probe reads, at most `PROBED_LABELS`."""
    rows = dataset.visible(labels, seed)
    even = np.linspace(0, len(rows) - 1, min(len(rows), PROBED_LABELS))
    chosen: np.ndarray = rows[even.astype(np.int64)]
    return chosen


def _knn(probe: LiveProbe, trained: Pretrained, rows: np.ndarray) -> dict[str, Any]:
    """Return the accuracy of the neighbours, with its interval."""
    share = probe(trained.encoder).get("knn")
    if share is None:
        return {"probe": None}
    low, high = wilson(share * len(rows), len(rows))
    return {"probe": {"value": share, "low": low, "high": high}, "probe_score": "accuracy"}


def _knn_r2(probe: LiveProbe, trained: Pretrained, rows: np.ndarray) -> dict[str, Any]:
    """Return R2 of the neighbours, with its interval."""
    guessed = probe.guesses(trained.encoder) if len(rows) else None
    if guessed is None:
        return {"probe": None}
    found = regression(probe.dataset.truth[rows], guessed)["r2"]
    return {"probe": found, "probe_score": "r2"}


def encoder_likeness(task: Task, encoder: Backbone) -> dict[str, Any] | None:
    """Compare unlabelled and labelled images by the features of an encoder.

    None where a group is too small; see `fewlabels.data.likeness.compare`.
    """
    labelled, unlabelled = likeness.sample(task.dataset)
    if min(len(labelled), len(unlabelled)) < likeness.FEWEST:
        return None
    x, y = (features(task, encoder, rows).numpy() for rows in (labelled, unlabelled))
    return likeness.named(likeness.compare(x, y), task.dataset, unlabelled)


def _result(
    run: RunFolder, task: Task, plan: PretrainPlan, trained: Pretrained, cost: Cost
) -> dict[str, Any]:
    alike = encoder_likeness(task, trained.encoder)
    warnings = [trained.warning] if trained.warning else []
    warnings += likeness.warnings(alike, "in the encoder's features, ")
    return {
        "schema": 1,
        "kind": "pretrain",
        "run": str(run.path),
        "name": task.dataset.name,
        "method": plan.method,
        "backbone": plan.backbone,
        "parameters": sum(p.numel() for p in trained.encoder.parameters()),
        **asdict(cost),
        "images_per_second": cost.images_seen / cost.seconds if cost.seconds else None,
        "processes": processes.count(),
        "final": trained.final,
        "rank": trained.rank,
        "likeness": alike,
        "inspect": task.dataset.report,
        "environment": describe(str(task.device)),
        "warnings": [*task.dataset.report["warnings"], *warnings],
    }


def _dry_plan(task: Task, settings: dict[str, Any]) -> dict[str, Any]:
    name, method = pick_backbone(settings["backbone"], task), settings["method"]
    duration, labels = parse_duration(settings["budget"]), settings["labels"]
    steps, pace = pretrain_steps(task, method, name, duration, labels)
    if duration.unit != "seconds":
        pace = pretrain_pace(task, method, name, labels)
    seconds = steps * pace
    built = new_method(task, method, name, 0, labels)
    values = sum(t.numel() for t in built.state_dict().values() if isinstance(t, torch.Tensor))
    stage = {"stage": f"pretrain {method}", "steps": steps, "seconds": seconds}
    images = len(task.dataset.rows("train"))
    return {
        "schema": 1,
        "plan": [stage | {"note": f"{name}, {images:,} training images"}],
        "seconds": seconds,
        # Two checkpoints with two moments a weight while it runs, and the model.
        "disk_mb": round(7 * 4 * values / 1e6, 1),
    }
