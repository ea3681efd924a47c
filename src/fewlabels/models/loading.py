"""Loading weights of somebody else: whole and strictly, then fitted to other images.

`whole` reads them with their classifier; `adapt` fits them to other channels and sizes and
leaves the classifier out.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewlabels.core.errors import FewlabelsError, ModelError, UsageError
from fewlabels.core.types import Backbone, Pictures
from fewlabels.models import vision
from fewlabels.models.backbones import (
    TimmBackbone,
    channels_of,
    create_backbone,
    size_argument,
)
from fewlabels.models.changes import library_options
from fewlabels.models.hub import refuse_silence
from fewlabels.models.published import Published
from fewlabels.models.weights import not_finite, read_weights


def whole(weights: Published) -> nn.Module:
    """Return the network as it was trained, with its classifier; every tensor must fit.

    Raises
    ------
    ModelError
        The weights cannot be had, are damaged, or belong to another architecture.
    """
    net = _fetched(weights) if weights.file is None else _from_file(weights, weights.file)
    if odd := not_finite(net.state_dict()):
        raise ModelError(
            "model.damaged",
            f"{weights.name}: the tensor {odd} holds values that are no finite numbers",
            "weights of a training that did not diverge",
        )
    return net


def _fetched(weights: Published) -> nn.Module:
    """Load the weights that timm or torchvision fetch, or keep."""
    try:
        return _downloaded(weights)
    except FewlabelsError:
        raise
    except Exception as error:  # the clients that download raise almost anything
        first = str(error).strip().partition("\n")[0]
        reason = textwrap.shorten(first, 200, placeholder=" ...") or type(error).__name__
        raise ModelError(
            "model.download",
            f"the published weights of {weights.name} cannot be had: {reason}",
            "connect to the network once (they are kept), or fewlabels pretrain DATA",
        ) from error


def _downloaded(weights: Published) -> nn.Module:
    if not weights.backbone.startswith(vision.PREFIX):
        import timm

        refuse_silence(weights.backbone)
        net: nn.Module = timm.create_model(weights.backbone, pretrained=True)
        return net
    member = vision.weights_of(weights.name)
    tensors = member.get_state_dict(progress=False, check_hash=True, weights_only=True)
    return _vision_whole(weights, tensors)


def _from_file(weights: Published, file: Path) -> nn.Module:
    tensors = read_weights(file).tensors
    try:
        if _is_timm(weights.backbone):
            return _timm_whole(weights, tensors)
        return _vision_whole(weights, tensors)
    except FewlabelsError:
        raise
    except Exception as error:  # timm's converters raise almost anything on what they do not know
        raise _misfit(weights, tensors, error) from error


def _is_timm(name: str) -> bool:
    import timm

    return bool(timm.is_model(name))


def _vision_whole(weights: Published, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Build a torchvision classifier around its tensors; the auxiliary ones are left out."""
    kept = {k: v for k, v in tensors.items() if not k.startswith(("AuxLogits.", "aux1.", "aux2."))}
    last = [v for v in kept.values() if v.ndim >= 2][-1]
    plain = vision.build_vision(
        weights.backbone,
        in_chans=next(v for v in kept.values() if v.ndim == 4).shape[1],
        image_size=weights.pictures.size,
        num_classes=len(last),
    )
    plain.load_state_dict(kept, strict=True)
    return plain


def _timm_whole(weights: Published, tensors: Mapping[str, Tensor]) -> nn.Module:
    import timm

    about = timm.get_pretrained_cfg(weights.backbone) or timm.models.PretrainedCfg()
    count = weights.num_classes
    if count is None:
        count = _outputs(about.classifier, tensors)
    if count is not None:
        return _timm_built(weights, tensors, count, about.first_conv)
    try:  # as published under other names, which timm translates
        return _timm_built(weights, tensors, about.num_classes, about.first_conv)
    except RuntimeError:  # or saved without a classifier
        return _timm_built(weights, tensors, 0, about.first_conv)


def _timm_built(
    weights: Published, tensors: Mapping[str, Tensor], num_classes: int, first_conv: Any
) -> nn.Module:
    import timm

    channels = _channels(first_conv, tensors, weights.pictures.channels)
    net: Any = timm.create_model(
        weights.backbone,
        pretrained=True,
        num_classes=num_classes,
        in_chans=channels,
        pretrained_cfg_overlay=_overlay(tensors, num_classes, (channels, *_square(weights))),
        **library_options(weights.options),
        # A folder may tell another size than the name.
        **size_argument(weights.backbone, weights.pictures.size),
    )
    net.pretrained_cfg.pop("state_dict", None)  # a copy of the weights
    built: nn.Module = net
    return built


def _square(weights: Published) -> tuple[int, int]:
    return weights.pictures.size, weights.pictures.size


def _overlay(
    tensors: Mapping[str, Tensor], num_classes: int, input_size: tuple[int, ...]
) -> dict[str, Any]:
    """Return what makes timm read tensors in memory, as strictly as its own downloads."""
    return {
        "state_dict": dict(tensors),
        "num_classes": num_classes,
        "input_size": input_size,
        "label_offset": None,
        "custom_load": False,
        "url": None,
        "hf_hub_id": None,
    }


def _outputs(classifier: Any, tensors: Mapping[str, Tensor]) -> int | None:
    names = [classifier] if isinstance(classifier, str) else list(classifier or ())
    found = [tensors[f"{n}.weight"] for n in names if f"{n}.weight" in tensors]
    return len(found[0]) if found else None


def _channels(first_conv: Any, tensors: Mapping[str, Tensor], expected: int) -> int:
    names = [first_conv] if isinstance(first_conv, str) else list(first_conv or ())
    found = [tensors[f"{n}.weight"] for n in names if f"{n}.weight" in tensors]
    if found and found[0].ndim == 4 and found[0].shape[1] in (1, 3):
        return int(found[0].shape[1])
    return expected


def _misfit(weights: Published, tensors: Mapping[str, Tensor], error: Exception) -> ModelError:
    """Say how far the tensors of a file are from what its architecture needs."""
    shape = {"in_chans": weights.pictures.channels, "image_size": weights.pictures.size}
    try:
        with torch.device("meta"):
            built = create_backbone(weights.backbone, options=weights.options, **shape)
    except UsageError as reason:
        return ModelError("model.architecture", f"{weights.file}: {reason.message}")
    needed = {k.removeprefix("net."): v.shape for k, v in built.state_dict().items()}
    there = [name for name in needed if name in tensors]
    fit = sum(tensors[name].shape == needed[name] for name in there)
    told = str(error).strip().splitlines()[-1:]  # of its classifier, where all else fits
    why = f" ({told[0].strip()[:160]})" if told and fit == len(needed) else ""
    return ModelError(
        "model.architecture",
        f"{weights.file} does not hold the weights of a {weights.backbone}: of its "
        f"{len(needed)} tensors {fit} fit, {len(there) - fit} have another shape and "
        f"{len(needed) - len(there)} are missing{why}",
        "--backbone NAME, what the file was saved from",
    )


def adapt(weights: Published, net: nn.Module, pictures: Pictures) -> Backbone:
    """Return the backbone of a whole network, for other channels and sizes, without classifier.

    Parameters
    ----------
    weights : Published
    net : nn.Module
        Of `whole`.
    pictures : Pictures
        Of `format_for`.

    Raises
    ------
    UsageError
        The network cannot take images of this size.
    """
    tensors = net.state_dict()
    if _is_timm(weights.backbone):
        given: Any = net
        shape = (int(getattr(given, "in_chans", weights.pictures.channels)), *_square(weights))
        overlay = _overlay(tensors, int(given.num_classes), shape)
        try:
            backbone: Backbone = TimmBackbone(
                weights.backbone,
                pictures.channels,
                pictures.size,
                options=weights.options,
                weights=overlay,
            )
        except (RuntimeError, AssertionError, ValueError) as error:
            raise UsageError(
                "usage.image_size",
                f"{weights.name} cannot take {pictures.size}x{pictures.size} images: "
                f"{str(error).strip().splitlines()[-1].strip()[:200]}",
                f"--image-size {weights.pictures.size}",
            ) from error
    else:
        backbone = vision.VisionBackbone(weights.backbone, pictures.channels, pictures.size)
        vision.load_vision(backbone, tensors)
    backbone.options = dict(weights.options)
    return backbone


class Whole(Backbone):
    """A published network as it is: what it pools its features to are its own logits.

    Features are its last map or its tokens; where its parts, one after the other, do not say
    what the whole says, they are the logits themselves.

    Parameters
    ----------
    net : nn.Module
        Of `whole`, in evaluation mode.
    pictures : Pictures
        What it takes.
    """

    def __init__(self, net: nn.Module, pictures: Pictures) -> None:
        super().__init__()
        self.net = net
        self.in_parts = True
        shape = (1, pictures.channels, pictures.size, pictures.size)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            logits = net(x)
            self.in_parts = self._says(x, logits)
            features = self.forward_features(x)
        self.num_features = int(logits.shape[-1])
        width = int(getattr(net, "num_features", 0))
        self.num_channels = channels_of(tuple(features.shape[1:]), width)

    def _says(self, x: Tensor, logits: Tensor) -> bool:
        try:
            return torch.allclose(self(x), logits, atol=1e-5)
        except Exception:  # other people's networks, called in a way that not all of them know
            return False

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images ``(B, C, H, W)`` to unpooled features, mostly ``(B, num_channels, h, w)``."""
        net: Any = self.net
        if not self.in_parts:
            logits: Tensor = net(x)
            return logits
        if hasattr(net, "forward_features"):
            features: Tensor = net.forward_features(x)
            return features
        return vision.unpooled(net, x)

    def forward_head(self, x: Tensor) -> Tensor:
        """Map features to logits ``(B, num_classes)``."""
        net: Any = self.net
        if not self.in_parts:
            return x
        if hasattr(net, "forward_head"):
            logits: Tensor = net.forward_head(x)
            return logits
        return vision.after_map(net, x)
