"""The weights of a backbone by depth: its stages, from the images to the features."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from fewlabels.core.types import Backbone
from fewlabels.models.backbones import TimmBackbone
from fewlabels.models.dense import DenseEncoder
from fewlabels.models.small import SmallCNN
from fewlabels.models.vision import VisionBackbone


def stages(backbone: Backbone) -> list[list[nn.Parameter]]:
    """Return the parameters of every stage, the one that sees the images first.

    A stage is a block of our small networks, a layer of the dense encoder, in a timm model
    what its coarse `group_matcher` says, and in a torchvision model what its numbered modules
    are (``features.0``, ``layer1``, ``encoder.layers.encoder_layer_0``). Stages without
    parameters are left out, and one that only normalises belongs to the stage before it; a
    backbone that cannot be taken apart is one stage.

    Examples
    --------
    >>> from fewlabels.models.small import tiny
    >>> len(stages(tiny()))
    4
    """
    if isinstance(backbone, SmallCNN):
        parts = [list(part.parameters()) for part in [*backbone.blocks, backbone.dense]]
    elif isinstance(backbone, DenseEncoder):
        parts = [list(part.parameters()) for part in backbone.layers]
    elif isinstance(backbone, TimmBackbone):
        parts = _of_timm(backbone.net)
    elif isinstance(backbone, VisionBackbone):
        parts = _of_vision(backbone.net)
    else:
        parts = [list(backbone.parameters())]
    return _joined([part for part in parts if part])


def _joined(parts: list[list[nn.Parameter]]) -> list[list[nn.Parameter]]:
    """Return the stages with those that hold gains and biases alone joined to the one before."""
    found = parts[:1]
    for part in parts[1:]:
        if all(values.ndim < 2 for values in part):
            found[-1] = found[-1] + part
        else:
            found.append(part)
    return found


def _of_timm(net: Any) -> list[list[nn.Parameter]]:
    from timm.models import group_parameters

    named = dict(net.named_parameters())
    if not hasattr(net, "group_matcher"):
        return [list(named.values())]
    groups: dict[Any, list[str]] = group_parameters(net, net.group_matcher(coarse=True))
    return [[named[name] for name in names] for _, names in sorted(groups.items())]


def _of_vision(net: nn.Module) -> list[list[nn.Parameter]]:
    parts: dict[str, list[nn.Parameter]] = {}
    for name, value in net.named_parameters():
        numbered = re.match(r"[^\d]*\d[^.]*", name)
        parts.setdefault(numbered[0] if numbered else name.partition(".")[0], []).append(value)
    return list(parts.values())
