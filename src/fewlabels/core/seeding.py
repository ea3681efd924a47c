"""Named random streams from one seed, and random numbers keyed by (seed, epoch, index).

A number drawn here depends on its key alone: not on batch size, worker count or
how often training was interrupted.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def stream(seed: int, *names: str | int) -> int:
    """Return the seed of a named stream, such as ``stream(3, "labels", 0)``.

    Returns
    -------
    int
        A number in ``[0, 2**63)``, the same on every machine.

    Examples
    --------
    >>> stream(0, "split") == stream(0, "split")
    True
    >>> stream(0, "split") == stream(0, "labels")
    False
    """
    key = "/".join(str(part) for part in (seed, *names)).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a torch generator at the start of a named stream."""
    return torch.Generator(device=device).manual_seed(stream(seed, *names))


def _mix(x: Tensor) -> Tensor:
    """Scramble int64 values (the finaliser of SplitMix64, Steele et al. 2014)."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def uniform(seed: int, epochs: Tensor, indices: Tensor, columns: int, view: int = 0) -> Tensor:
    """Return uniform numbers that depend only on (seed, epoch, index, view, column).

    Parameters
    ----------
    seed : int
    epochs, indices : Tensor
        ``(B,)`` int64.
    columns : int
        Numbers per image.
    view : int
        Which view of the image they are for.

    Returns
    -------
    Tensor
        ``(B, columns)`` float32 in ``[0, 1)`` on the device of `indices`.
    """
    gamma = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64
    key = _mix(_mix(indices * gamma + stream(seed, view)) + epochs * gamma)
    column = torch.arange(1, columns + 1, device=indices.device, dtype=torch.int64)
    bits = _mix(key[:, None] + column[None, :] * gamma)
    return ((bits >> 40) & 0xFFFFFF).to(torch.float32) * (1.0 / (1 << 24))
