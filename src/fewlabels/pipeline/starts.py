"""Where a fine-tune starts from: a run folder, published weights, or nothing."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from fewlabels.core.errors import ModelError, UsageError
from fewlabels.core.types import Backbone
from fewlabels.data.manifest import Manifest
from fewlabels.models.classifier import Saved, load_model
from fewlabels.models.published import published_backbone, published_format, reshaped_tensors
from fewlabels.pipeline.stages import new_backbone, on_device
from fewlabels.pipeline.task import DataOptions, Task, open_task, pick_backbone
from fewlabels.results.runfolder import RunFolder
from fewlabels.training.progress import Reporter
from fewlabels.transfer.structure import Fate, carry_over

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
    """

    name: str
    kind: str
    backbone_name: str
    saved: Saved | None = None
    split_seed: int = 0
    changed: bool = False


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
    if run.is_finished() and (damaged := run.verify("model/")):
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
    return bool(text) and (path.exists() or len(path.parts) > 1 or timm.is_model(text))


def find_start(start: str, backbone: str, *, changed: bool = False) -> Start:
    """Find what a fine-tune starts from, before any data is opened.

    Parameters
    ----------
    changed : bool
        Whether the architecture may become another one.

    Raises
    ------
    UsageError, ModelError
        It is not there, or not of the backbone that was asked for.
    """
    if start in UNTRAINED:
        return Start(start, start, backbone)
    folder = Path(start)
    if folder.is_dir():
        saved = open_model(folder)
        name = str(saved.config["backbone"])
        if changed:
            name = name if backbone == "auto" else backbone
        else:
            _refuse_other(start, name, backbone)
        config = RunFolder(folder).config() if (folder / "config.yaml").exists() else {}
        return Start(start, "run", name, saved, split_seed(config), changed)
    if folder.is_file():
        raise UsageError(
            "usage.start", f"{start} is a file: weights are read from run folders", "--from RUN"
        )
    if len(folder.parts) > 1:
        raise ModelError("run.missing", f"there is no run folder {start}")
    if changed:
        raise UsageError(
            "usage.transfer",
            "the structure of a run can be changed, not that of a timm name",
            "--from RUN, or --transfer parameters",
        )
    published_format(start, image_size=None, channels=3)
    _refuse_other(start, start, backbone)
    return Start(start, "published", start)


def _refuse_other(start: str, name: str, backbone: str) -> None:
    if backbone not in ("auto", name):
        raise UsageError(
            "usage.backbone",
            f"{start} is a {name}, and cannot become a {backbone}",
            "leave --backbone out",
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
    elif start.kind == "published":
        native = published_format(start.name, image_size=options.image_size, channels=3)
        options = replace(options, image_size=native.size)
    task = open_task(options, policy=policy, device=device, reporter=reporter)
    task = task.with_split(start.split_seed)
    if start.saved is not None and not start.changed:
        return in_format(task, start.saved, start.name)
    if start.kind == "published":
        size, channels = task.pictures.size, task.pictures.channels
        return replace(
            task, pictures=published_format(start.name, image_size=size, channels=channels)
        )
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


def build_backbone(start: Start, task: Task, seed: int) -> tuple[str, Backbone, list[Fate]]:
    """Return the backbone to start from.

    Returns
    -------
    tuple of (str, Backbone, list of Fate)
        Its name, itself on the task's device, and what became of its tensors.
    """
    name = start.backbone_name
    if start.saved is not None:
        weights = start.saved.backbone.state_dict()
        if not start.changed:
            return name, on_device(task, start.saved.backbone), _fates(start.saved.backbone)
        changed = new_backbone(task, name, seed)
        fates = carry_over(changed, weights)
        return name, changed, fates
    if start.kind == "published":
        backbone = on_device(task, published_backbone(start.name, task.pictures))
        reshaped = reshaped_tensors(start.name, task.pictures)
        return start.name, backbone, _fates(backbone, reshaped)
    name = pick_backbone(name, task)
    backbone = new_backbone(task, name, seed)
    fates = [Fate(key, "new", tuple(v.shape), ()) for key, v in backbone.state_dict().items()]
    return name, backbone, fates


def _fates(backbone: Backbone, reshaped: int = 0) -> list[Fate]:
    """Return tensors as carried, but for the first `reshaped` of them."""
    return [
        Fate(name, "reshaped" if place < reshaped else "carried", tuple(v.shape), ())
        for place, (name, v) in enumerate(backbone.state_dict().items())
    ]


def seen_before(start: Start, task: Task) -> str:
    """Return a warning where the start was trained on images that are test images here."""
    if start.kind != "run":
        return ""
    manifest = Path(start.name) / "manifest.parquet"
    if not manifest.exists():
        return (
            f"{start.name} does not tell which images it was trained on: test images of this "
            "data may be among them"
        )
    stored = Manifest.load(manifest)
    rows = zip(stored.column("sha256"), stored.column("split"), strict=True)
    trained = {digest for digest, split in rows if split == "train"}
    content = task.dataset.content
    both = sum(content[int(row)] in trained for row in task.dataset.rows("test"))
    if not both:
        return ""
    return f"{both} test images are among those that {start.name} was pre-trained on"
