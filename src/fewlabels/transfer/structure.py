"""Structure transfer: another architecture, with the weights that still fit carried over.

What fits is told by name and shape. A tensor of the same name and shape is carried; one of
the same name whose sizes differ is reshaped: what overlaps is copied and the rest stays as it
was drawn, except that a first convolution between grey and colour is summed or spread over the
channels, so that it answers grey pictures as before; all others are new.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fewlabels.core.types import Backbone


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one tensor of the new architecture.

    Attributes
    ----------
    name : str
    fate : {"carried", "reshaped", "new"}
    shape, before : tuple of int
        Its shape now, and in the architecture it comes from; empty where it was not there.
    """

    name: str
    fate: str
    shape: tuple[int, ...]
    before: tuple[int, ...]


def carry_over(backbone: Backbone, weights: Mapping[str, Tensor]) -> list[Fate]:
    """Copy what fits of `weights` into a freshly drawn backbone.

    Parameters
    ----------
    backbone : Backbone
        Changed in place.
    weights : mapping
        The state dict of the architecture it comes from.

    Returns
    -------
    list of Fate
        One for every tensor of the backbone, in its order.
    """
    fates = []
    state = backbone.state_dict()
    first = next((name for name, value in state.items() if value.ndim == 4), "")
    with torch.no_grad():
        for name, value in state.items():
            old = weights.get(name)
            before = () if old is None else tuple(old.shape)
            fate = "new" if old is None else _copy(value, old, channels=name == first)
            fates.append(Fate(name, fate, tuple(value.shape), before))
    return fates


def _copy(value: Tensor, old: Tensor, *, channels: bool) -> str:
    """Copy `old` into `value` as far as it fits; return its fate."""
    if value.shape == old.shape:
        value.copy_(old)
        return "carried"
    if value.ndim != old.ndim or value.ndim == 0:
        return "new"
    if channels and value.shape[1] != old.shape[1]:
        old = _other_channels(old, value.shape[1])
    common = tuple(slice(0, min(a, b)) for a, b in zip(value.shape, old.shape, strict=True))
    value[common] = old[common].to(value.dtype)
    return "reshaped"


def _other_channels(kernel: Tensor, channels: int) -> Tensor:
    """Return a first kernel ``(O, I, k, k)`` for other channels.

    Grey is what all channels say together, so a grey picture gets the same answer.
    """
    if channels == 1:
        return kernel.sum(1, keepdim=True)
    spread = kernel.sum(1, keepdim=True) / channels
    return spread.expand(-1, channels, -1, -1)


def counts(fates: list[Fate]) -> dict[str, int]:
    """Return how many tensors were ``carried``, ``reshaped`` and are ``new``."""
    return {fate: sum(one.fate == fate for one in fates) for fate in ("carried", "reshaped", "new")}
