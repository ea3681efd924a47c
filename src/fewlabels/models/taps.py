"""Features from inside a network: of any stage, or of several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from fewlabels.core.errors import UsageError
from fewlabels.core.types import Backbone
from fewlabels.models.backbones import TimmBackbone
from fewlabels.models.dense import DenseEncoder
from fewlabels.models.small import SmallCNN
from fewlabels.models.vision import VisionBackbone, body


class Taps(Backbone):
    """A backbone whose features are those of some of its stages, averaged over places.

    Early stages are more general and late ones closer to what was learned (Yosinski et al.
    2014); several side by side leave the choice to the model on top. The last stage stands for
    the backbone's own features.

    Parameters
    ----------
    backbone : Backbone
    stages : sequence of int
        From 1, which sees the images, to what `tap_names` holds.
    channels, size : int
        Of the images.

    Raises
    ------
    UsageError
        The backbone has no such stage.
    """

    def __init__(
        self, backbone: Backbone, stages: Sequence[int], *, channels: int, size: int
    ) -> None:
        super().__init__()
        names = tap_names(backbone, channels, size)
        if not stages or not set(stages) <= set(range(1, len(names) + 1)):
            raise UsageError(
                "usage.stages",
                f"--stages {','.join(map(str, stages))}: this network has {len(names)} stages",
                "1"
                if len(names) == 1
                else f"numbers from 1 to {len(names)}, as in "
                f"--stages {len(names) - 1},{len(names)}",
            )
        self.inner: Backbone = backbone
        self.stages = tuple(sorted(set(stages)))
        self.options = backbone.options
        self._names = [names[stage - 1] for stage in self.stages]
        self.num_features = self.num_channels = self.map_shape(channels, size)[0]

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images ``(B, C, H, W)`` to the features ``(B, num_features)`` of the stages."""
        found: dict[str, Tensor] = {}
        hooks = [
            self.inner.get_submodule(name).register_forward_hook(partial(_keep, found, name))
            for name in self._names
            if name
        ]
        try:
            found[""] = self.inner(x)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.cat([_averaged(found[name]) for name in self._names], 1)

    def forward_head(self, x: Tensor) -> Tensor:
        """Return the features as they are."""
        return x


def untapped(backbone: Backbone) -> Backbone:
    """Return the whole network of `Taps`, and any other backbone as it is."""
    return backbone.inner if isinstance(backbone, Taps) else backbone


def _keep(found: dict[str, Tensor], name: str, module: nn.Module, inputs: Any, out: Tensor) -> None:
    found[name] = out


def _averaged(x: Tensor) -> Tensor:
    """Average a map ``(B, C, h, w)`` or ``(B, h, w, C)``, or tokens ``(B, n, C)``, over places."""
    if x.ndim == 4:
        # Images are square, and so are their maps: two equal sides are the places.
        last = x.shape[1] == x.shape[2] != x.shape[3]
        return x.float().mean((1, 2) if last else (2, 3))
    return x.float().mean(1) if x.ndim == 3 else x.float()


def tap_names(backbone: Backbone, channels: int, size: int) -> list[str]:
    """Return the module at the end of every stage, the one nearest to the images first.

    A stage is a block of our small networks, a layer of the dense encoder, what timm lists in
    ``feature_info``, and in a torchvision model all layers whose maps are of one size, or a block
    of a transformer. The last one has no name: its features are the backbone's own.

    Examples
    --------
    >>> from fewlabels.models.backbones import create_backbone
    >>> tap_names(create_backbone("tiny", in_chans=3, image_size=32), 3, 32)
    ['blocks.0', 'blocks.1', 'blocks.2', '']
    """
    names: list[str] = []
    if isinstance(backbone, SmallCNN):
        names = [f"blocks.{place}" for place in range(len(backbone.blocks))]
    elif isinstance(backbone, DenseEncoder):
        names = [f"layers.{place}" for place in range(1, len(backbone.layers), 2)] + [""]
    elif isinstance(backbone, TimmBackbone):
        net: Any = backbone.net
        names = [f"net.{stage['module']}" for stage in getattr(net, "feature_info", ())]
    elif isinstance(backbone, VisionBackbone):
        names = _by_size(backbone, channels, size)
    return [*names[:-1], ""]


def _by_size(backbone: VisionBackbone, channels: int, size: int) -> list[str]:
    """Return the last module before each change of the map's size."""
    sides: dict[str, int] = {}

    def note(name: str, module: nn.Module, inputs: Any, out: Tensor) -> None:
        sides[name] = -len(sides) if out.ndim == 3 else out.shape[2]  # a block of tokens is a stage

    hooks = [
        module.register_forward_hook(partial(note, name)) for name, module in body(backbone.net)
    ]
    backbone.map_shape(channels, size)
    for hook in hooks:
        hook.remove()
    names = list(sides)
    ends = [name for name, after in pairwise(names) if sides[name] != sides[after]]
    return [f"net.{name}" for name in [*ends, names[-1]]]
