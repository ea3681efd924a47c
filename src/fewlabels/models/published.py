"""Backbones with the weights their authors published, through timm."""

from __future__ import annotations

from typing import Any

from fewlabels.core.errors import FewlabelsError, ModelError, UsageError, unknown
from fewlabels.core.types import Backbone, Pictures
from fewlabels.models.backbones import OURS, create_backbone

SMALLEST = 65  # pixels; below, our ResNets have another stem, which published weights do not fit


def published_format(name: str, *, image_size: int | None, channels: int) -> Pictures:
    """Return the picture format that belongs to published weights.

    Parameters
    ----------
    name : str
        A timm name, such as ``resnet18`` or ``resnet18.a1_in1k``.
    image_size : int, optional
        By default the size the weights were trained at.
    channels : int
        1 takes the mean of the colours' statistics.

    Raises
    ------
    UsageError
        timm has no such model, or no weights for it; or the size is too small.
    """
    about = _about(name)
    size = image_size or int(about.input_size[-1])
    if size < SMALLEST:
        raise UsageError(
            "usage.image_size",
            f"published weights cannot take {size}x{size} images",
            f"--image-size {about.input_size[-1]}; small images are enlarged",
        )
    mean, std = tuple(map(float, about.mean)), tuple(map(float, about.std))
    if channels != len(mean):
        mean, std = (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels
    return Pictures(size, channels, mean, std)


def published_backbone(name: str, pictures: Pictures) -> Backbone:
    """Build a backbone with its published weights, from timm's cache or the network.

    Raises
    ------
    ModelError
        They cannot be had.
    """
    try:
        return create_backbone(
            name, in_chans=pictures.channels, image_size=pictures.size, pretrained=True
        )
    except FewlabelsError:
        raise
    except Exception as error:  # the clients that timm downloads with raise almost anything
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise ModelError(
            "model.download",
            f"the published weights of {name} cannot be had: {reason}",
            "connect to the network once (they are kept), or fewlabels pretrain DATA",
        ) from error


def reshaped_tensors(name: str, pictures: Pictures) -> int:
    """Return how many published tensors were adapted to the picture format."""
    about = _about(name)
    first = about.first_conv or ()
    adapted = 1 if isinstance(first, str) else len(first)
    resized = about.fixed_input_size and pictures.size != int(about.input_size[-1])
    return (adapted if pictures.channels != int(about.input_size[0]) else 0) + bool(resized)


def _about(name: str) -> Any:
    import timm

    if name in OURS:
        raise UsageError(
            "usage.start",
            f"there are no published weights of the backbone {name!r}",
            f"--from random --backbone {name}, or --from RUN",
        )
    if not timm.is_model(name):
        raise unknown("start", name, ["scratch", "random", *timm.list_models()])
    about = timm.get_pretrained_cfg(name)
    if about is None or not about.has_weights:
        raise UsageError("usage.start", f"nobody has published weights of {name!r}")
    return about
