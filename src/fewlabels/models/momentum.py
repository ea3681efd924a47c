"""A copy of a network that follows it slowly: BYOL's target, DINO's teacher."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def follow(copy: nn.Module, parts: Iterable[nn.Module], start: float, progress: float) -> None:
    """Move the parameters of a copy towards those of the parts it was made from.

    Parameters
    ----------
    start : float
        Momentum at the start, in [0, 1]; it rises to 1 along a cosine (Grill et al. 2020, 3.2).
    progress : float
        Share of the training that is done, in [0, 1].

    Examples
    --------
    >>> here, there = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.zeros_(here.weight), nn.init.ones_(there.weight)
    >>> follow(here, [there], start=0.75, progress=0.0)
    >>> here.weight.item()
    0.25
    """
    momentum = 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2
    online: list[Tensor] = [parameter for part in parts for parameter in part.parameters()]
    torch._foreach_lerp_(list(copy.parameters()), online, 1 - momentum)
