"""Batch normalisation over all processes, on CPUs and GPUs alike.

Per-batch statistics are part of what many methods learn from, so several processes must measure
them over the whole batch. torch's own SyncBatchNorm refuses CPUs and cannot be differentiated
twice, which the penalty of the GAN asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from fewlabels.core import processes
from fewlabels.core.collectives import stacked


class OverProcesses(TorchFunctionMode):
    """Within it, batch norms in training mode measure the batches of all processes.

    It stands in for `torch.nn.functional.batch_norm`, which torch's layers, timm's and our own
    code call: no layer is replaced, so names and weights stay as they are.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call `func`, or what stands in for it."""
        called = batch_norm if func is F.batch_norm else func
        return called(*args, **(kwargs or {}))


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Do what `torch.nn.functional.batch_norm` does, over the batches of all processes.

    Parameters
    ----------
    input : Tensor
        ``(B, C, ...)`` of this process; `B` may differ between processes.
    running_mean, running_var, weight, bias : Tensor or None
        ``(C,)``; the first two are updated in training.
    training : bool
        Whether the batch is measured; otherwise torch's own function is called.
    momentum, eps : float

    Returns
    -------
    Tensor
        As `input`; differentiable twice.
    """
    if not training or processes.count() == 1:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
    mean, variance, count = moments(x)
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        if running_var is not None:
            unbiased = variance * (count / (count - 1).clamp(min=1))
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    shape = (1, -1) + (1,) * (x.ndim - 2)
    scale = (variance + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    result = (x - mean.view(shape)) * scale.view(shape)
    if bias is not None:
        result = result + bias.view(shape)
    return result.to(input.dtype)


def moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and variance ``(C,)`` of every channel of ``(B, C, ...)``, and the count.

    Means and sums of squares of the processes are joined as in Chan, Golub and LeVeque 1983:
    no small difference of large numbers.
    """
    kept = [axis for axis in range(x.ndim) if axis != 1]
    variance, mean = torch.var_mean(x, kept, correction=0)
    counted = mean.new_full((1,), x.numel() / x.shape[1])
    rank, count = processes.rank(), processes.count()
    mine = torch.cat([mean, variance, counted])[None]  # (1, 2C + 1)
    every = stacked(mine, rank, count - rank - 1)  # (W, 2C + 1)
    means, variances, counts = torch.split(every, [len(mean), len(mean), 1], dim=1)
    whole = counts.sum()
    share = counts / whole
    middle = (share * means).sum(0)
    spread = (share * (variances + (means - middle).square())).sum(0)
    return middle, spread, whole
