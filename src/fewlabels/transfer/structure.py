"""Structure transfer: another architecture, with the weights that still fit carried over.

What fits is told by name and shape. A tensor of the same name and shape is carried; one of
the same name whose sizes differ is reshaped: what overlaps is copied (of kernels the middle) and
the rest stays as it was drawn, except that a first convolution between grey and colour is summed
or spread over the channels, so that it answers grey pictures as before; all others are new. What
the start has and the new architecture has no place for, its classifier before all, is skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fewlabels.core.types import Backbone

FATES = ("carried", "reshaped", "new", "skipped")


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one tensor of the new architecture.

    Attributes
    ----------
    name : str
    fate : {"carried", "reshaped", "new", "skipped"}
    shape, before : tuple of int
        Its shape now, and in the architecture it comes from; empty where it is not there.
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
        One for every tensor of the backbone, in its order, then the skipped ones.
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
    return fates + _skipped(state, weights)


def compare(now: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> list[Fate]:
    """Tell what became of weights that a library fitted to another architecture by itself.

    Parameters
    ----------
    now, before : mapping
        State dicts of the fitted network and of the one the weights come from.

    Returns
    -------
    list of Fate
        As `carry_over`. Carried is what has the same values; a tensor of the same shape and
        other values is new.
    """
    fates = []
    for name, value in now.items():
        old = before.get(name)
        if old is None:
            fates.append(Fate(name, "new", tuple(value.shape), ()))
            continue
        same = value.shape == old.shape
        fate = "reshaped" if not same else "carried" if torch.equal(value, old) else "new"
        fates.append(Fate(name, fate, tuple(value.shape), tuple(old.shape)))
    return fates + _skipped(now, before)


def _skipped(now: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> list[Fate]:
    return [Fate(k, "skipped", (), tuple(v.shape)) for k, v in before.items() if k not in now]


def _copy(value: Tensor, old: Tensor, *, channels: bool) -> str:
    """Copy `old` into `value` as far as it fits; return its fate."""
    if value.shape == old.shape:
        value.copy_(old)
        return "carried"
    if value.ndim != old.ndim or value.ndim == 0:
        return "new"
    if channels and value.shape[1] != old.shape[1]:
        old = _other_channels(old, value.shape[1])
    pairs = list(zip(value.shape, old.shape, strict=True))
    into = tuple(_overlap(a, b, middle=axis > 1) for axis, (a, b) in enumerate(pairs))
    out = tuple(_overlap(b, a, middle=axis > 1) for axis, (a, b) in enumerate(pairs))
    value[into] = old[out].to(value.dtype)
    return "reshaped"


def _overlap(side: int, other: int, *, middle: bool) -> slice:
    """Return which part of a side also lies in the other: its beginning, or its middle."""
    common = min(side, other)
    first = (side - common) // 2 if middle else 0
    return slice(first, first + common)


def _other_channels(kernel: Tensor, channels: int) -> Tensor:
    """Return a first kernel ``(O, I, k, k)`` for other channels.

    Grey is what all channels say together, so a grey picture gets the same answer.
    """
    if channels == 1:
        return kernel.sum(1, keepdim=True)
    spread = kernel.sum(1, keepdim=True) / channels
    return spread.expand(-1, channels, -1, -1)


def counts(fates: list[Fate]) -> dict[str, int]:
    """Return how many tensors were ``carried``, ``reshaped``, are ``new`` and were ``skipped``."""
    return {fate: sum(one.fate == fate for one in fates) for fate in FATES}
