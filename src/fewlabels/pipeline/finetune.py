"""The verb `finetune`: a start and the visible labels in, a run folder with a classifier out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import nn

from fewlabels.core import processes
from fewlabels.core.errors import UsageError, unknown
from fewlabels.core.types import Backbone
from fewlabels.pipeline.carried import build_backbone, seen_before, tapped
from fewlabels.pipeline.fitting import (
    Job,
    dry_plan,
    fit_adds,
    fit_classifier,
    fit_start,
    follow,
    plan_steps,
    save_classifier,
)
from fewlabels.pipeline.folders import already, lent
from fewlabels.pipeline.frozen import HEADS
from fewlabels.pipeline.guessing import refuse_unlabelled
from fewlabels.pipeline.judging import learned_by_heart, training_scores, validation
from fewlabels.pipeline.parts import refuse_imbalance, with_parts
from fewlabels.pipeline.pretrain import check_labels
from fewlabels.pipeline.pretraining import closed
from fewlabels.pipeline.stages import learned_rows
from fewlabels.pipeline.starts import UNTRAINED, Start, find_start, open_start
from fewlabels.pipeline.task import DataOptions
from fewlabels.pipeline.watching import held_rows
from fewlabels.results.environment import describe
from fewlabels.results.runfolder import RunFolder
from fewlabels.results.schema import validate
from fewlabels.training.cost import Cost, Meter
from fewlabels.training.durations import parse_duration
from fewlabels.training.progress import Reporter
from fewlabels.transfer.parameters import (
    PRETRAINED,
    PUBLISHED,
    SCRATCH,
    TUNE,
    FineTuneConfig,
    at_rate,
    scratch_of,
)
from fewlabels.transfer.regressors import REGRESSORS
from fewlabels.transfer.structure import Fate, counts
from fewlabels.transfer.unlabelled import with_unlabelled

TRANSFERS = ("parameters", "structure", *HEADS)
OF_NUMBERS = ("parameters", "structure", *REGRESSORS)


def finetune(  # noqa: PLR0913 - the flags of the command line
    options: DataOptions,
    *,
    start: str,
    transfer: str = "parameters",
    labels: int | None = None,
    seed: int = 0,
    tune: str = "all",
    layer_decay: float = 1.0,
    layer_weight_decay: float = 1.0,
    l2_sp: float = 0.0,
    stages: Sequence[int] | None = None,
    imbalance: str = "none",
    optimizer: str = "auto",
    unlabelled_loss: str = "none",
    keep: str = "best",
    backbone: str = "auto",
    change: Mapping[str, Any] | None = None,
    budget: str = "2m",
    policy: str = "auto",
    device: str = "auto",
    out: Path | None = None,
    resume: str = "auto",
    dry_run: bool = False,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Turn a start and the visible labels into a classifier; an interrupted run goes on.

    Parameters
    ----------
    options : DataOptions
        The data.
    start : str
        A run folder, ``scratch``, ``random`` (an untrained encoder whose head is fitted
        first), a timm name or ``torchvision:NAME`` for published weights, a file of weights
        (``.safetensors``, ``.pth``), or a folder that timm saved.
    transfer : str
        ``parameters`` trains all weights. ``structure`` builds the backbone named for these
        images, carries over what fits of the start's weights, and trains it as from scratch.
        ``features`` freezes them and fits a small model,
        as do ``logistic``, ``ridge``, ``svm``, ``centroid``, ``knn`` and ``spreading``, which
        name it. For numbers (``options.target``) the models are ``ridge``, ``knn``, of which
        ``features`` is the average, and ``mean``.
    labels : int, optional
        Labels per class (for numbers, in all) that may be learned from; by default all of the
        training images. Validation images are never learned from.
    seed : int
        Of the draw of labels, and of training.
    tune, layer_decay, layer_weight_decay, l2_sp : str, float, float, float
        Which stages are trained, how much slower earlier ones are and how much less their
        weights decay, and how hard the weights are held near their start: see
        `fewlabels.transfer.parameters.FineTuneConfig`.
    stages : sequence of int, optional
        Of which stages the frozen features are, from 1, which sees the images; several are laid
        side by side. By default the backbone's own features. See `fewlabels.models.taps`.
    imbalance : str
        What is done about classes of unequal size: ``none``, class ``weights``, balanced
        ``sampling`` or adjusted ``logits``; see `fewlabels.transfer.imbalance`.
    optimizer : str
        ``adamw``, ``adam`` or ``sgd``; see `fewlabels.training.optimizers`.
    unlabelled_loss : str
        What the training images are learned by besides, labelled or not: ``none``, ``pseudo``
        (labels that were spread over frozen features), ``fixmatch``, ``freematch`` or
        ``softmatch``; see `fewlabels.transfer.unlabelled`.
    keep : {"best", "last"}
        Where validation may be watched (without `labels`, and with enough images): ``best``
        ends the training early and keeps the weights of the lowest validation loss, ``last``
        trains to the end; see `fewlabels.training.stopping`.
    backbone, policy, device : str
        Network of an untrained start or of a file of weights, augmentation and device; ``auto``
        chooses.
    change : mapping, optional
        How the architecture is to differ from the one named, where it is built anew
        (``structure``, ``scratch``, ``random``): settings of our small networks (see
        `fewlabels.models.changes.SmallChange`), or arguments of timm's or torchvision's
        constructor.
    budget : str
        The most that parameters are trained: they stop earlier by a rule of their own.
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
        For a start, data or settings that cannot be used, a folder in use, a full disk.
    """
    reporter = reporter or Reporter()
    _check(start, transfer, options)
    tuning = _tuning(start, transfer, tune, layer_decay, layer_weight_decay, l2_sp)
    refuse_imbalance(options.target, imbalance)
    refuse_unlabelled(options.target, unlabelled_loss, transfer)
    tuning = with_parts(tuning, transfer, imbalance, optimizer, keep)
    check_labels(labels)
    duration = parse_duration(budget)
    settings: dict[str, Any] = {
        "start": start,
        "transfer": transfer,
        "labels": labels,
        "seed": seed,
    }
    settings |= {"backbone": backbone, "budget": budget, "policy": policy, "device": device}
    settings |= {"tune": tune, "layer_decay": layer_decay, "l2_sp": l2_sp}
    settings |= {"imbalance": imbalance, "optimizer": optimizer, "keep": keep}
    if unlabelled_loss != "none":
        settings["unlabelled_loss"] = unlabelled_loss
    if layer_weight_decay != 1.0:
        settings["layer_weight_decay"] = layer_weight_decay
    if stages:
        _check_stages(transfer)
        settings["stages"] = sorted(set(stages))
    if change:
        _check_change(start, transfer)
        settings["change"] = dict(change)
    config: dict[str, Any] = {"verb": "finetune", "data": asdict(options), "settings": settings}
    found = find_start(start, backbone, changed=transfer == "structure", change=change)
    config["split_seed"] = found.split_seed
    tuning = with_unlabelled(tuning, unlabelled_loss)
    with processes.joined(device):
        if not dry_run and (done := already(out, config, "results.json")):
            return done
        task = open_start(found, options, policy=policy, device=device, reporter=reporter)
        rows = learned_rows(task, labels, seed)
        name, built, fates = build_backbone(found, task, seed)
        tuning = at_rate(tuning, _rate(found, transfer, built))
        if stages:
            built = tapped(built, stages, task)
        job = Job(task, found, name, built, transfer, rows, seed, duration, reporter, tuning)
        job = replace(job, held=held_rows(task, rows, labels), keep=keep)
        if dry_run:
            return dry_plan(job)
        with lent(out, task, config, resume) as run:
            if not processes.by_main((run.path / "results.json").exists):
                _train(run, job, labels, fates)
            return processes.by_main(lambda: closed(run))


def _tuning(
    start: str,
    transfer: str,
    tune: str,
    layer_decay: float,
    layer_weight_decay: float,
    l2_sp: float,
) -> FineTuneConfig:
    """Return the settings of the fine-tune, or refuse them."""
    if tune not in TUNE:
        raise unknown("tune", tune, TUNE)
    for name, value in {"decay": layer_decay, "weight-decay": layer_weight_decay}.items():
        if not 0 < value <= 1:
            raise UsageError(
                f"usage.layer_{name.replace('-', '_')}",
                f"--layer-{name} is {value}; it must be above 0, at most 1",
            )
    if not 0 <= l2_sp < float("inf"):
        raise UsageError("usage.l2_sp", f"--l2-sp is {l2_sp}; it must be 0 or more")
    changed = replace(
        PRETRAINED,
        tune=tune,
        layer_decay=layer_decay,
        layer_weight_decay=layer_weight_decay,
        l2_sp=l2_sp,
    )
    if changed != PRETRAINED and (start == "scratch" or transfer != "parameters"):
        raise UsageError(
            "usage.tune",
            "--tune, --layer-decay, --layer-weight-decay and --l2-sp say how trained weights are "
            "trained further",
            "--transfer parameters, and --from something else than scratch",
        )
    return SCRATCH if start == "scratch" or transfer == "structure" else changed


def _rate(start: Start, transfer: str, built: Backbone) -> float:
    """Return the rate at which a start is trained."""
    if start.kind == "scratch" or transfer == "structure":
        return scratch_of(built).lr
    return (PUBLISHED if start.kind == "published" else PRETRAINED).lr


def _check_stages(transfer: str) -> None:
    if transfer in ("parameters", "structure"):
        raise UsageError(
            "usage.stages",
            "--stages says which frozen features are read",
            "--transfer features, logistic, ridge, svm, centroid, knn or spreading",
        )


def _check(start: str, transfer: str, options: DataOptions) -> None:
    known = TRANSFERS if options.target is None else OF_NUMBERS
    if transfer not in known:
        raise unknown("transfer", transfer, known)
    if transfer == "structure" and start in UNTRAINED:
        raise UsageError(
            "usage.transfer",
            f"{start} has no weights to carry over",
            "--from a run folder or published weights",
        )
    if start == "scratch" and transfer != "parameters":
        raise UsageError(
            "usage.transfer",
            "scratch has no features to freeze",
            "--transfer parameters, or --from random",
        )


def _check_change(start: str, transfer: str) -> None:
    if transfer != "structure" and start not in UNTRAINED:
        raise UsageError(
            "usage.change",
            f"--change makes another architecture, and --transfer {transfer} keeps that of {start}",
            "--transfer structure",
        )


def _train(run: RunFolder, job: Job, labels: int | None, fates: list[Fate]) -> None:
    """Train, and write ``results.json``."""
    task, meter = job.task, Meter(job.task.device)
    start = fit_start(job)
    fitting = meter.read() + Cost(multiply_adds=fit_adds(job))
    steps = _settle(run, job, start.head)
    if not processes.is_main():
        # The first process alone watches, scores and writes.
        follow(run, job, start, steps)
        return
    classifier, cost, ended = fit_classifier(run, job, start, steps)
    save_classifier(run.path / "model", job, classifier)
    val = validation(run, task, classifier, job.rows)
    training = training_scores(task, classifier, job.rows)
    seen = seen_before(job.start, task)
    short = task.goal.shortfall(job.rows, labels)
    learned = learned_by_heart(training, val, ended["stopping"])
    warnings = [*([seen] if seen else []), *short, *learned]
    for text in warnings:
        job.reporter.say(f"warning: {text}")
    if ended["stopping"]:
        job.reporter.say(ended["stopping"]["said"])
    if val and labels is not None:
        job.reporter.say("validation is scored with labels beyond --labels, for you to read only")
    tensors = counts(fates)
    tensors["new"] += len(classifier.head.state_dict())
    result = {
        "schema": 1,
        "kind": "finetune",
        "run": str(run.path),
        "name": task.dataset.name,
        "method": _method(job.start),
        "backbone": job.backbone_name,
        "parameters": sum(p.numel() for p in classifier.parameters()),
        **asdict(fitting + cost),
        "processes": processes.count(),
        "images_per_second": cost.images_seen / cost.seconds if cost.images_seen else None,
        "final": {**ended["final"], **training},
        "stopping": ended["stopping"],
        "unlabelled": ended.get("unlabelled"),
        "probe": None,
        "transfer": job.transfer,
        "start": job.start.name,
        "carried": tensors,
        "tensors": [asdict(one) for one in fates] if _told(job, fates) else [],
        "labels": task.goal.counts(job.rows),
        "val": val,
        "inspect": task.dataset.report,
        "environment": describe(str(task.device)),
        "warnings": [*task.dataset.report["warnings"], *warnings],
    }
    run.write_json("results.json", validate("finetune", result))


def _settle(run: RunFolder, job: Job, head: nn.Module | None) -> int:
    """Return the steps of this folder: read, or planned and written."""
    path = run.path / "plan.json"
    if not processes.by_main(path.exists):
        plan = plan_steps(job, head)
        if processes.is_main():
            run.write_sealed("plan.json", plan)
    return processes.by_main(lambda: int(run.read_json("plan.json")["steps"]))


def _told(job: Job, fates: list[Fate]) -> bool:
    """Say whether the fate of every tensor is of interest: where not all simply stay."""
    if job.start.kind == "run" and job.transfer != "structure":
        return any(one.fate != "carried" for one in fates)
    return job.transfer == "structure" or job.start.kind == "published"


def _method(start: Start) -> str | None:
    """Return the method that a run was pre-trained by, where it tells."""
    place = Path(start.name) / "results.json"
    if start.kind != "run" or not place.exists():
        return None
    method = RunFolder(start.name).read_json("results.json").get("method")
    return str(method) if method else None
