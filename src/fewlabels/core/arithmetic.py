"""Multiply-adds, counted as they run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


def _distances(x: Tensor, y: Tensor, *_: Any, **__: Any) -> int:
    """Return the operations of the distances between all rows: a difference and a square each."""
    return 2 * math.prod(x.shape) * y.shape[-2]


# Two operations to a multiply-add. PyTorch has the formulas of matrix products, convolutions and
# attention, forward and backward.
_OPERATIONS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten._cdist_forward: _distances,
    torch.ops.aten._euclidean_dist: _distances,
}


class MultiplyAdds(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the multiply-adds of what runs inside: products, convolutions, attention, distances.

    All else (normalisation, activations, pooling, resampling of images, the optimizer) is small
    beside them and is left out, as by all who count. PyTorch's own `FlopCounterMode`, whose
    formulas these are, follows modules as well and breaks on `torch.autograd.grad`.

    Attributes
    ----------
    total : int
        Multiply-adds so far.

    Examples
    --------
    >>> with MultiplyAdds() as counted:
    ...     _ = torch.ones(2, 3) @ torch.ones(3, 4)
    >>> counted.total
    24
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._operations = 0

    @property
    def total(self) -> int:
        """Return the multiply-adds so far."""
        return self._operations // 2

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        formula = _OPERATIONS.get(func._overloadpacket)
        if formula is None:
            # In inference mode a linear map arrives whole; what it is made of is counted.
            with self:
                parts = func.decompose(*args, **(kwargs or {}))
            if parts is not NotImplemented:
                return parts
        result = func(*args, **(kwargs or {}))
        if formula is not None:
            self._operations += formula(*args, **(kwargs or {}), out_val=result)
        return result
