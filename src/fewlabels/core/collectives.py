"""Tensors over processes: sums with gradients, gathering, averages, one start for all.

Everything is made of one operation, the sum over processes. It is linear and its own transpose:
when each process walks its own loss back, every tensor gets the gradient of the sum of all the
losses, and so does the gradient of a gradient. In one process everything here does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabels.core import processes
from fewlabels.core.errors import UsageError


class _Sum(torch.autograd.Function):
    """The sum over processes, differentiable as often as wanted."""

    @staticmethod
    def forward(_context: Any, x: Tensor) -> Tensor:
        return summed(x)

    @staticmethod
    def backward(_context: Any, *gradients: Tensor) -> Tensor:
        result: Tensor = _Sum.apply(gradients[0])
        return result


def summed(x: Tensor) -> Tensor:
    """Return the sum of `x` over processes, without gradients."""
    if processes.count() == 1:
        return x
    with processes.talking():
        total = x.detach().clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
    return total


def total(x: Tensor) -> Tensor:
    """Return the sum of `x` over processes, with gradients."""
    if processes.count() == 1:
        return x
    result: Tensor = _Sum.apply(x)
    return result


def stacked(x: Tensor, before: int, after: int) -> Tensor:
    """Stack the rows of all processes, with gradients.

    A sum in which every process has rows of its own and zeros elsewhere: twice the traffic of a
    gather, for tensors that are small, and no demand that all processes have as many rows.

    Parameters
    ----------
    x : Tensor
        ``(n, ...)`` rows of this process.
    before, after : int
        Rows of the processes before and after this one.

    Returns
    -------
    Tensor
        ``(before + n + after, ...)``, the same everywhere.
    """
    if processes.count() == 1:
        return x
    exact = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    placed = F.pad(exact, (0, 0) * (x.ndim - 1) + (before, after))
    return total(placed).to(x.dtype)


def span(size: int) -> slice:
    """Return which of `size` rows are this process's: consecutive ones, as even as can be.

    Raises
    ------
    UsageError
        There are fewer rows than processes.
    """
    rank, count = processes.rank(), processes.count()
    if size < count:
        raise UsageError(
            "usage.processes",
            f"{count} processes cannot share batches of {size} images",
            f"at most {size} processes",
        )
    return slice(size * rank // count, size * (rank + 1) // count)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace the gradients of `parameters` by their average over processes."""
    if processes.count() == 1:
        return
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            kinds.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for gradients in kinds.values():
        # One message of all of them: many small ones cost more in waiting than in traffic.
        flat = summed(torch.cat([g.reshape(-1) for g in gradients])) / processes.count()
        parts = torch.split(flat, [g.numel() for g in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))


@torch.no_grad()
def copy_from_main(tensors: Iterable[Tensor]) -> None:
    """Give the tensors of every process the values they have in the first."""
    if processes.count() == 1:
        return
    for tensor in tensors:
        with processes.talking():
            value = tensor.detach().clone(memory_format=torch.contiguous_format)
            torch.distributed.broadcast(value, 0)
        tensor.copy_(value)
