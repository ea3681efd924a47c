"""Where a fine-tune starts from: a run folder, somebody else's weights, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from fewlabels.core.errors import ModelError, UsageError
from fewlabels.models.classifier import Saved, load_model
from fewlabels.models.published import Published, find, format_for, is_timm_folder
from fewlabels.models.taps import untapped
from fewlabels.models.vision import is_vision
from fewlabels.pipeline.task import DataOptions, Task, open_task, refuse_weights
from fewlabels.results.runfolder import CHECKSUMS, RunFolder
from fewlabels.training.progress import Reporter

UNTRAINED = ("scratch", "random")


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """What a fine-tune starts from.

    Attributes
    ----------
    name : str
        As it was given.
    kind : str
        ``scratch``, ``random``, ``run`` or ``published``.
    backbone_name : str
        ``auto`` where it depends on the images.
    saved : Saved or None
        The model of a run.
    split_seed : int
        Which random split the run has left its test images out of.
    changed : bool
        The architecture may be another one, for images of any size and channels.
    weights : Published or None
        Somebody else's weights, not read yet.
    options : mapping
        How the architecture differs from the one its name stands for.
    """

    name: str
    kind: str
    backbone_name: str
    saved: Saved | None = None
    split_seed: int = 0
    changed: bool = False
    weights: Published | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def open_model(folder: Path) -> Saved:
    """Read the model of a run folder, or a folder that is itself a model.

    Raises
    ------
    ModelError
        There is none, or it is damaged.
    """
    if not folder.is_dir():
        raise ModelError("run.missing", f"there is no run folder {folder}")
    run = RunFolder(folder)
    if (folder / CHECKSUMS).exists() and (damaged := run.verify("model/")):
        raise ModelError("model.damaged", f"{folder}: {'; '.join(damaged)}")
    for place in (folder / "model", folder):
        if (place / "model.safetensors").exists():
            return load_model(place)
    begun = (folder / "config.yaml").exists() and not run.is_finished()
    raise ModelError(
        "model.missing",
        f"there is no model in {folder}" + (": its training has not ended" if begun else ""),
        "the same command again; it goes on where it stopped" if begun else "",
    )


def split_seed(config: dict[str, Any]) -> int:
    """Return which random split a run used, from its configuration."""
    settings = config.get("settings") or {}
    if config.get("verb") in ("run", "compare"):
        return 1_000 * int(settings.get("seed", 0))  # as `fewlabels.study.plan.make_units`
    return int(config.get("split_seed", 0))


def stored_folds(folder: Path) -> int:
    """Return into how many folds a comparison dealt its labelled images; 0 where into none."""
    told = (folder / "data.json").exists()
    return int(RunFolder(folder).read_json("data.json").get("folds", 0)) if told else 0


def stored_options(config: dict[str, Any], folder: Path) -> DataOptions:
    """Return what a run was told about its data.

    Raises
    ------
    ModelError
        The configuration does not say.
    """
    known = {field.name for field in fields(DataOptions)}
    stored = config.get("data")
    if not isinstance(stored, dict) or "data" not in stored or not stored.keys() <= known:
        raise ModelError("run.damaged", f"the configuration of {folder} does not name its data")
    return DataOptions(**stored)


def names_start(text: str) -> bool:
    """Say whether a text can mean a start: a path, or a model with published weights."""
    import timm

    path = Path(text)
    named = timm.is_model(text) or is_vision(text)
    return bool(text) and (path.exists() or len(path.parts) > 1 or named)


def find_start(
    start: str,
    backbone: str,
    *,
    changed: bool = False,
    change: Mapping[str, Any] | None = None,
) -> Start:
    """Find what a fine-tune starts from, before any data is opened.

    Parameters
    ----------
    start : str
        ``scratch``, ``random``, a run folder, a name of published weights, a file of weights or
        a folder of timm's.
    backbone : str
        What a file is of, or what an untrained or changed start becomes.
    changed : bool
        Whether the architecture may become another one.
    change : mapping, optional
        Settings in which it becomes another one: see `fewlabels.models.backbones`.

    Raises
    ------
    UsageError, ModelError
        It is not there, or not of the backbone that was asked for; or a network that is to be
        built anew is named as trained weights are.
    """
    change = dict(change or {})
    if start in UNTRAINED:
        refuse_weights(backbone)
        return Start(start, start, backbone, options=change)
    folder = Path(start)
    if not is_run(start):
        named = changed and not folder.is_file()
        weights = find(start, "auto" if named else backbone)
        name = backbone if named and backbone != "auto" else weights.backbone
        if name != weights.backbone:
            refuse_weights(name)
        options = {**weights.options, **change} if name == weights.backbone else change
        return Start(start, "published", name, changed=changed, weights=weights, options=options)
    saved = open_model(folder)
    saved = replace(saved, backbone=untapped(saved.backbone))  # its last run may have read parts
    old = str(saved.config["backbone"])
    if not changed:
        refuse_other(start, old, backbone)
    name = old if backbone == "auto" else backbone
    if name != old:
        refuse_weights(name)
    options = {**saved.backbone.options, **change} if name == old else change
    config = RunFolder(folder).config() if (folder / "config.yaml").exists() else {}
    return Start(start, "run", name, saved, split_seed(config), changed, options=options)


def is_run(start: str) -> bool:
    """Say whether a start is a folder of ours: a run, or a model taken out of one."""
    return Path(start).is_dir() and not is_timm_folder(Path(start))


def refuse_other(start: str, name: str, backbone: str) -> None:
    """Refuse a backbone that a start is not.

    Raises
    ------
    UsageError
    """
    if backbone not in ("auto", name):
        raise UsageError(
            "usage.backbone",
            f"{start} is a {name}, and cannot become a {backbone}",
            "leave --backbone out, or --transfer structure",
        )


def open_start(
    start: Start, options: DataOptions, *, policy: str, device: str, reporter: Reporter
) -> Task:
    """Open the data in the format that the start takes.

    Raises
    ------
    UsageError, ModelError
        The start takes images of another size, or of other channels.
    """
    if start.saved is not None and not start.changed:
        options = sized(options, start.saved, start.name)
    elif start.weights is not None and not start.changed:
        known = start.weights.pictures.channels
        native = format_for(start.weights, image_size=options.image_size, channels=known)
        options = replace(options, image_size=native.size)
    task = open_task(options, policy=policy, device=device, reporter=reporter)
    task = task.with_split(start.split_seed)
    if start.saved is not None and not start.changed:
        return replace(task, pictures=start.saved.pictures.for_channels(task.pictures.channels))
    if start.weights is not None and not start.changed:
        size, channels = task.pictures.size, task.pictures.channels
        pictures = format_for(start.weights, image_size=size, channels=channels)
        return replace(task, pictures=pictures)
    return task


def sized(options: DataOptions, saved: Saved, name: str) -> DataOptions:
    """Return the options at the image size of a model.

    Raises
    ------
    UsageError
        Another size was asked for.
    """
    size = saved.pictures.size
    if options.image_size not in (None, size):
        raise UsageError(
            "usage.image_size",
            f"--image-size {options.image_size}, but the model in {name} takes {size}",
            "leave --image-size out",
        )
    return replace(options, image_size=size)


def in_format(task: Task, saved: Saved, name: str) -> Task:
    """Return the task with the preprocessing that belongs to a model.

    Raises
    ------
    ModelError
        The model takes other channels than the images have.
    """
    kinds = {1: "grey", 3: "colour"}
    here, there = task.pictures.channels, saved.pictures.channels
    if here != there:
        raise ModelError(
            "model.channels",
            f"the model in {name} takes {kinds.get(there, there)} images, and those of "
            f"{task.dataset.name} are {kinds.get(here, here)}",
            "pre-train on images of the same kind",
        )
    return replace(task, pictures=saved.pictures)
