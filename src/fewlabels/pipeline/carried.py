"""The network that a start becomes, and what became of its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from fewlabels.core.errors import ModelError, UsageError
from fewlabels.core.types import Backbone
from fewlabels.data.manifest import Manifest
from fewlabels.models.classifier import Saved
from fewlabels.models.loading import Whole, adapt, whole
from fewlabels.models.published import find
from fewlabels.models.taps import Taps
from fewlabels.pipeline.stages import new_backbone, on_device
from fewlabels.pipeline.starts import Start, is_run, open_model, refuse_other
from fewlabels.pipeline.task import Task, pick_backbone
from fewlabels.results.runfolder import RunFolder
from fewlabels.transfer.structure import Fate, carry_over, compare, counts


def build_backbone(start: Start, task: Task, seed: int) -> tuple[str, Backbone, list[Fate]]:
    """Return the backbone to start from.

    Returns
    -------
    tuple of (str, Backbone, list of Fate)
        Its name, itself on the task's device, and what became of its tensors.

    Raises
    ------
    UsageError, ModelError
        The weights cannot be had or do not fit, or nothing of them fits a changed structure.
    """
    if start.changed:
        return _changed(start, task, seed)
    if start.saved is not None and start.saved.pictures.channels != task.pictures.channels:
        return _other_channels(start, start.saved, task, seed)
    if start.saved is not None:
        state = start.saved.backbone.state_dict()
        return start.backbone_name, on_device(task, start.saved.backbone), compare(state, state)
    if start.weights is not None:
        net = whole(start.weights)
        before = _named(net)
        backbone = adapt(start.weights, net, task.pictures)
        fates = compare(backbone.state_dict(), before)
        return start.backbone_name, on_device(task, backbone), fates
    name = pick_backbone(start.backbone_name, task)
    drawn = new_backbone(task, name, seed, start.options)
    return name, drawn, carry_over(drawn, {})


def tapped(backbone: Backbone, stages: Sequence[int], task: Task) -> Backbone:
    """Return a network whose features are those of some of its stages.

    Raises
    ------
    UsageError
        It has no such stage.
    """
    seen = task.pictures
    return on_device(task, Taps(backbone, stages, channels=seen.channels, size=seen.size))


def _other_channels(
    start: Start, saved: Saved, task: Task, seed: int
) -> tuple[str, Backbone, list[Fate]]:
    """Return a run's network for grey images instead of colour ones, or the other way round."""
    built, fates, found = _filled(start, task, seed, saved.backbone.state_dict())
    # The first convolution alone may differ: its kernels are summed or spread over the channels.
    if found["reshaped"] != 1 or found["new"]:
        raise ModelError(
            "model.channels",
            f"the {start.backbone_name} of {start.name} cannot take images with "
            f"{task.pictures.channels} channels: it was trained with {saved.pictures.channels}",
            "pre-train on images of the same kind",
        )
    return start.backbone_name, built, fates


def _changed(start: Start, task: Task, seed: int) -> tuple[str, Backbone, list[Fate]]:
    if start.weights is not None:
        before: Mapping[str, Tensor] = _named(whole(start.weights))
    else:
        assert start.saved is not None
        before = start.saved.backbone.state_dict()
    built, fates, found = _filled(start, task, seed, before)
    if not found["carried"] + found["reshaped"]:
        raise UsageError(
            "usage.transfer",
            f"nothing of {start.name} fits a {start.backbone_name}: no tensor has the same name",
            "a --backbone of the same family, or --from scratch",
        )
    return start.backbone_name, built, fates


def _filled(
    start: Start, task: Task, seed: int, before: Mapping[str, Tensor]
) -> tuple[Backbone, list[Fate], dict[str, int]]:
    """Return a new network that took over what fits, and how much that was."""
    built = new_backbone(task, start.backbone_name, seed, start.options)
    fates = carry_over(built, before)
    return built, fates, counts(fates)


def _named(net: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a library's network under the names they have in a backbone."""
    return {f"net.{name}": value for name, value in net.state_dict().items()}


def open_whole(start: str, backbone: str = "auto") -> Saved:
    """Open something that predicts as it is: a run's classifier, or one that was published.

    Parameters
    ----------
    start : str
        A run folder, a name of published weights, a file of weights or a folder of timm's.
    backbone : str
        What a file is of.

    Raises
    ------
    UsageError, ModelError
        It is not there, damaged, or has no classifier.
    """
    if is_run(start):
        saved = open_model(Path(start))
        refuse_other(start, str(saved.config["backbone"]), backbone)
        return saved
    try:
        weights = find(start, backbone)
    except UsageError as error:
        if not error.message.startswith("unknown start"):
            raise
        what = f"there is no run folder {start}, and nobody published weights of that name"
        raise ModelError("run.missing", what, error.hint) from error
    net, pictures = whole(weights).eval(), weights.pictures
    built = Whole(net, pictures)
    count = built.num_features
    if not getattr(net, "num_classes", count):
        raise ModelError(
            "model.no_head",
            f"{start} has no classifier of its own",
            f"fewlabels finetune DATA --from {start}",
        )
    classes = weights.classes if len(weights.classes) == count else tuple(map(str, range(count)))
    # Shrunk once, to the size from which the weights' own central square is cut.
    short_side = math.floor(pictures.size / pictures.crop + 1e-6)  # rounded as timm does
    about = {"grid": 1, "backbone": weights.backbone}
    return Saved(built, nn.Identity(), pictures, short_side, classes, about)


def seen_before(start: Start, task: Task) -> str:
    """Return a warning where the start was trained on images that are test images here."""
    if start.kind != "run" and (start.weights is None or start.weights.file is None):
        return ""
    manifest = Path(start.name) / "manifest.parquet"
    if not manifest.exists():
        return (
            f"{start.name} does not tell which images it was trained on: test images of this "
            "data may be among them"
        )
    RunFolder(start.name).require("manifest.parquet")
    stored = Manifest.load(manifest)
    rows = zip(stored.column("sha256"), stored.column("split"), strict=True)
    trained = {digest for digest, split in rows if split == "train"}
    content = task.dataset.content
    both = sum(content[int(row)] in trained for row in task.dataset.rows("test"))
    if not both:
        return ""
    return f"{both} test images are among those that {start.name} was pre-trained on"
