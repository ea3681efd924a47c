"""torchvision's classifiers as backbones: AlexNet and all the others.

A name is ``torchvision:alexnet``; weights of several trainings are told apart as timm does
it, ``torchvision:resnet50.imagenet1k_v1``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fewlabels.core.errors import UsageError, unknown
from fewlabels.core.types import Backbone, Pictures
from fewlabels.models.changes import library_options
from fewlabels.models.small import draw_for

PREFIX = "torchvision:"
# What follows the last map of a network, in the order of torchvision's own modules.
_TAIL = ("avgpool", "dropout", "fc", "classifier", "head", "heads")


def architectures() -> list[str]:
    """Return the names of torchvision's classifiers, without the prefix."""
    from torchvision import models

    names: list[str] = models.list_models(module=models)
    return names


def is_vision(name: str) -> bool:
    """Say whether a name is one of torchvision's, with or without the prefix."""
    return architecture(name) in architectures()


def architecture(name: str) -> str:
    """Return the architecture of a name: ``torchvision:alexnet.imagenet1k_v1`` -> ``alexnet``."""
    return name.removeprefix(PREFIX).partition(".")[0]


def weights_of(name: str) -> Any:
    """Return the member of torchvision's ``WeightsEnum`` that a name stands for.

    Raises
    ------
    UsageError
        torchvision has no such network, or no such weights of it.
    """
    from torchvision.models import get_model_weights

    plain, _, tag = name.removeprefix(PREFIX).partition(".")
    if plain not in architectures():
        raise unknown("start", plain, architectures(), prefix=PREFIX)
    found = {member.name.lower(): member for member in get_model_weights(plain)}
    if tag and tag.lower() not in found:
        raise unknown("start", name, [f"{PREFIX}{plain}.{one}" for one in found])
    return found[tag.lower()] if tag else get_model_weights(plain).DEFAULT


def vision_pictures(name: str) -> Pictures:
    """Return the picture format in which published weights were trained."""
    about = weights_of(name).transforms()
    size, resized = about.crop_size[0], about.resize_size[0]
    mean, std = tuple(map(float, about.mean)), tuple(map(float, about.std))
    if architecture(name) in ("googlenet", "inception_v3"):
        # Their `transform_input` turns ImageNet's statistics back into these.
        mean = std = (0.5, 0.5, 0.5)
    return Pictures(size, 3, mean, std, size / resized, about.interpolation.value)


def build_vision(
    name: str,
    *,
    in_chans: int,
    image_size: int,
    num_classes: int = 1000,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a classifier of torchvision's with freshly drawn weights.

    Auxiliary classifiers, which only the training of Inception and GoogLeNet needs, are left out.
    """
    from torchvision.models import get_model

    plain = architecture(name)
    settings = library_options(options or {})
    if plain in ("googlenet", "inception_v3"):
        settings |= {"aux_logits": False, "init_weights": True}
    if plain.startswith("vit_"):
        settings["image_size"] = image_size
    if plain.startswith("maxvit"):
        settings["input_size"] = (image_size, image_size)
    net: nn.Module = get_model(plain, weights=None, num_classes=num_classes, **settings)
    if in_chans != 3:
        _other_channels(net, in_chans)
    return net


def first_conv(net: nn.Module) -> str:
    """Return the name of the convolution that sees the images."""
    convs = [name for name, part in net.named_modules() if isinstance(part, nn.Conv2d)]
    return str(convs[0])


def classifier_of(net: nn.Module) -> str:
    """Return the name of the layer that gives the logits: linear, but in SqueezeNet."""
    linear = [name for name, part in net.named_modules() if isinstance(part, nn.Linear)]
    convs = [name for name, part in net.named_modules() if isinstance(part, nn.Conv2d)]
    return str((linear or convs)[-1])


def _other_channels(net: nn.Module, in_chans: int) -> None:
    place = first_conv(net)
    old: Any = net.get_submodule(place)
    new = nn.Conv2d(
        in_chans,
        old.out_channels,
        old.kernel_size,
        old.stride,
        old.padding,
        bias=old.bias is not None,
    )
    net.set_submodule(place, new)


def body(net: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return what lies before the pooling, in the order it is passed; sequences taken apart."""
    if hasattr(net, "encoder"):  # ViT
        layers = net.get_submodule("encoder.layers")
        return [(f"encoder.layers.{name}", part) for name, part in layers.named_children()]
    found: list[tuple[str, nn.Module]] = []
    for name, part in net.named_children():
        if name in _TAIL or name == "flatten":
            break
        parts = part.named_children() if isinstance(part, nn.Sequential | nn.ModuleList) else ()
        found += [(f"{name}.{inner}", module) for inner, module in parts] or [(name, part)]
    return found


class VisionBackbone(Backbone):
    """A torchvision classifier without its last layer, behind the names the library uses."""

    def __init__(
        self,
        name: str,
        in_chans: int,
        image_size: int,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        net: Any = build_vision(name, in_chans=in_chans, image_size=image_size, options=options)
        self.net = net
        place = classifier_of(net)
        last = net.get_submodule(place)
        self.num_features = int(getattr(last, "in_features", 0) or last.in_channels)
        net.set_submodule(place, nn.Identity())
        if not any("Norm" in type(part).__name__ for part in net.modules()):
            draw_for(net, "relu")  # AlexNet's signals would fade on the way
        shape = self.map_shape(in_chans, image_size)
        self.num_channels = shape[0] if len(shape) == 3 else shape[-1]

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images ``(B, C, H, W)`` to the last map, or to the tokens of a ViT."""
        return unpooled(self.net, x)

    def forward_head(self, x: Tensor) -> Tensor:
        """Pool to ``(B, num_features)``."""
        return after_map(self.net, x)


def unpooled(net: Any, x: Tensor) -> Tensor:
    """Return what a torchvision classifier makes of images before it pools: map or tokens."""
    if hasattr(net, "encoder"):  # ViT
        tokens = net._process_input(x)
        start = net.class_token.expand(len(tokens), -1, -1)
        encoded: Tensor = net.encoder(torch.cat([start, tokens], 1))
        return encoded
    for name, part in net.named_children():
        if name in _TAIL or name == "flatten":
            break
        for module in part if isinstance(part, nn.ModuleList) else [part]:
            x = module(x)
    return torch.relu(x) if type(net).__name__ == "DenseNet" else x


def after_map(net: Any, x: Tensor) -> Tensor:
    """Return what a torchvision classifier makes of `unpooled`: pooled, and all that follows."""
    if x.ndim == 3:
        tokens: Tensor = net.heads(x[:, 0])
        return tokens
    tail = {name: getattr(net, name) for name in _TAIL if hasattr(net, name)}
    # SqueezeNet and MaxVit pool inside their classifier; ConvNeXt's takes a map.
    if type(net).__name__ not in ("SqueezeNet", "MaxVit", "ConvNeXt"):
        pool = tail.pop("avgpool", nn.AdaptiveAvgPool2d(1))
        x = pool(x).flatten(1)
    for module in tail.values():
        x = module(x)
    return x.flatten(1)


def load_vision(backbone: VisionBackbone, weights: Mapping[str, Tensor]) -> None:
    """Fill a backbone from the tensors of a whole classifier of the same architecture.

    Raises
    ------
    UsageError
        A tensor does not fit; a ViT takes images of one size only.
    """
    from timm.models import adapt_input_conv

    own = backbone.net.state_dict()
    given = {name: value for name, value in weights.items() if name in own}
    first = first_conv(backbone.net) + ".weight"
    given[first] = adapt_input_conv(own[first].shape[1], given[first])
    try:
        backbone.net.load_state_dict(given, strict=True)
    except RuntimeError as error:
        raise UsageError(
            "usage.image_size",
            f"the published weights do not fit: {str(error).splitlines()[-1].strip()[:200]}",
            "leave --image-size out: these weights know one size",
        ) from error
