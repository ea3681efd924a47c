"""Backbones by name: our small networks, timm's and torchvision's, at any size and channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from fewlabels.core.errors import UsageError, unknown
from fewlabels.core.types import Backbone
from fewlabels.models import small
from fewlabels.models.changes import changed_small, library_options
from fewlabels.models.dense import DenseEncoder
from fewlabels.models.patches import PatchDictionary
from fewlabels.models.vision import PREFIX, VisionBackbone, architectures, is_vision

PLAIN: dict[str, Callable[..., small.SmallCNN]] = {
    "conv-32-64-128": small.conv_32_64_128,
    "conv-32-64-64": small.conv_32_64_64,
    "conv-32-64-64-dense-64": small.conv_32_64_64_dense_64,
    "conv-32-64-128-128-dense-512": small.conv_32_64_128_128_dense_512,
}
# The plain networks with another activation, average pooling or both: conv-32-64-64-tanh-avg.
# A part of the name, because a name is what model folders and arms already carry.
VARIANTS: dict[str, Callable[[int, int], small.SmallCNN]] = {
    f"{name}{kind}{pool}": partial(build, activation=kind[1:] or "relu", pooling=pool[1:] or "max")
    for (name, build), kind, pool in product(PLAIN.items(), ("", "-sigmoid", "-tanh"), ("", "-avg"))
}
SMALL: dict[str, Callable[[int, int], small.SmallCNN]] = {"tiny": small.tiny, **PLAIN}
LISTED = "tiny, resnet18, torchvision:alexnet; 'fewlabels models PART' lists the names with PART"


class Pixels(Backbone):
    """No network at all: the normalised pixels, averaged down to at most 32x32.

    The plainest baseline there is, in the shape of a backbone.
    """

    def __init__(self, in_chans: int, image_size: int) -> None:
        super().__init__()
        self.side = min(image_size, 32)
        self.num_channels = in_chans
        self.num_features = in_chans * self.side**2

    def forward_features(self, x: Tensor) -> Tensor:
        """Average images ``(B, C, H, W)`` down to ``(B, C, side, side)``."""
        return x if x.shape[-1] == self.side else nn.functional.adaptive_avg_pool2d(x, self.side)

    def forward_head(self, x: Tensor) -> Tensor:
        """Flatten to ``(B, num_features)``."""
        return x.flatten(1)


# All that need no library but this one.
OURS: dict[str, Callable[[int, int], Backbone]] = {
    **SMALL,
    **VARIANTS,
    "dense": DenseEncoder,
    "patches": PatchDictionary,
    "pixels": Pixels,
}


class TimmBackbone(Backbone):
    """A timm model without its classifier, behind the three names the library uses.

    Parameters
    ----------
    name : str
        As timm has it, with or without the tag of its weights.
    in_chans, image_size : int
    options : mapping, optional
        Further arguments of ``timm.create_model``.
    weights : mapping, optional
        The whole classifier to take weights from, as ``pretrained_cfg_overlay``: timm adapts
        them to channels and size.
    """

    def __init__(
        self,
        name: str,
        in_chans: int,
        image_size: int,
        *,
        options: Mapping[str, Any] | None = None,
        weights: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        import timm

        settings = {**library_options(options or {}), **size_argument(name, image_size)}
        source: dict[str, Any] = {}
        if weights is not None:
            source = {"pretrained": True, "pretrained_cfg_overlay": weights}
        # timm's models share methods, not a base class.
        net: Any = timm.create_model(name, num_classes=0, in_chans=in_chans, **settings, **source)
        net.pretrained_cfg.pop("state_dict", None)  # a copy of the weights
        self.net = net
        if image_size <= 64 and weights is None:
            small_stem(self.net, in_chans)
        self.num_features = int(getattr(net, "head_hidden_size", net.num_features))
        self.num_channels = channels_of(self.map_shape(in_chans, image_size), net.num_features)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images ``(B, C, H, W)`` to timm's own unpooled features."""
        net: Any = self.net
        features: Tensor = net.forward_features(x)
        return features

    def forward_head(self, x: Tensor) -> Tensor:
        """Pool to ``(B, num_features)``."""
        net: Any = self.net
        pooled: Tensor = net.forward_head(x, pre_logits=True)
        return pooled


def channels_of(shape: tuple[int, ...], width: int) -> int:
    """Return the channels of features of a shape: first in maps, last elsewhere.

    In timm's windowed transformers they come last in maps too; there `width`, which timm says
    they have, tells it.
    """
    last = len(shape) != 3 or shape[2] == width != shape[0]
    return shape[-1] if last else shape[0]


def size_argument(name: str, image_size: int) -> dict[str, Any]:
    """Return the argument for timm's models that must know the size when they are built."""
    import timm

    fixed = timm.get_pretrained_cfg_value(name, "fixed_input_size")
    return {"img_size": image_size} if fixed else {}


def small_stem(net: nn.Module, in_chans: int) -> None:
    """Give a ResNet the stem for small images: 3x3, stride 1, no pooling (He et al. 2016)."""
    conv = getattr(net, "conv1", None)
    if isinstance(conv, nn.Conv2d) and isinstance(getattr(net, "maxpool", None), nn.MaxPool2d):
        net.conv1 = nn.Conv2d(in_chans, conv.out_channels, 3, 1, 1, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
        net.maxpool = nn.Identity()


def create_backbone(
    name: str, *, in_chans: int, image_size: int, options: Mapping[str, Any] | None = None
) -> Backbone:
    """Build a backbone with freshly drawn weights.

    Parameters
    ----------
    name : str
        A key of `OURS`, such as ``tiny``, a timm name, or one of torchvision's classifiers, with
        the prefix ``torchvision:`` where timm has one of the same name.
    in_chans, image_size : int
        Channels and side of the images it will see.
    options : mapping, optional
        A declared change of the architecture: the settings of
        `fewlabels.models.changes.SmallChange`, or arguments of the library's constructor.

    Returns
    -------
    Backbone

    Raises
    ------
    UsageError
        For a name or an option that neither we nor the libraries know.

    Examples
    --------
    >>> create_backbone("tiny", in_chans=3, image_size=32).num_features
    256
    """
    options = dict(options or {})
    built = _build(name, in_chans, image_size, options)
    built.options = options
    return built


def _build(name: str, in_chans: int, image_size: int, options: dict[str, Any]) -> Backbone:
    if name in OURS:
        if not options:
            return OURS[name](in_chans, image_size)
        with torch.device("meta"):  # for its settings alone: nothing is drawn
            plain = OURS[name](in_chans, image_size)
        if isinstance(plain, small.SmallCNN):
            return changed_small(plain.settings, options, in_chans)
        raise UsageError("usage.change", f"the backbone {name!r} has no settings to change")
    import timm

    known = timm.is_model(name)
    if not known and not is_vision(name):
        known_names = [*OURS, *timm.list_models(), *_vision_names()]
        raise unknown("backbone", name, known_names, otherwise=LISTED)
    try:
        if known:
            return TimmBackbone(name, in_chans, image_size, options=options)
        return VisionBackbone(name, in_chans, image_size, options)
    except (RuntimeError, TypeError, ValueError, AssertionError, KeyError) as error:
        raise _unbuildable(name, image_size, options, error) from error


def _vision_names() -> list[str]:
    return [PREFIX + name for name in architectures()]


def _unbuildable(
    name: str, image_size: int, options: dict[str, Any], error: Exception
) -> UsageError:
    why = str(error).partition("\n")[0][:200]
    if options:
        # A KeyError says a word and no more, an assertion mostly nothing.
        plain = bool(why) and not isinstance(error, KeyError | AssertionError)
        asked = ", ".join(f"{key}: {value}" for key, value in options.items())
        return UsageError(
            "usage.change",
            f"backbone {name!r} cannot be changed to {{{asked}}}"
            + (f": {why}" if plain else ": it knows no such value"),
            "another value, or another --backbone",
        )
    why = why or type(error).__name__
    return UsageError(
        "usage.backbone",
        f"backbone {name!r} cannot take {image_size}x{image_size} images: {why}",
        "a larger --image-size, or another --backbone",
    )


def auto_backbone(image_size: int, device: torch.device) -> str:
    """Choose a backbone for the machine: small on a CPU, ResNet-18 on an accelerator."""
    return "tiny" if device.type == "cpu" or image_size < 16 else "resnet18"


def pooled_features(backbone: Backbone, x: Tensor, grid: int = 1) -> Tensor:
    """Return features ``(B, F)`` of images, pooled over a `grid` x `grid` raster.

    A raster keeps where things are; models whose features are no map are pooled their own way.
    """
    if grid == 1:
        whole: Tensor = backbone(x)
        return whole
    return pool(backbone, backbone.forward_features(x), grid)


def pool(backbone: Backbone, features: Tensor, grid: int) -> Tensor:
    """Return what `forward_features` gave as ``(B, F)``, as `pooled_features` does."""
    whole = features.ndim != 4 or features.shape[-1] < grid or isinstance(backbone, Pixels)
    if grid == 1 or whole:
        return backbone.forward_head(features)
    return small.pool_grid(features, grid)
