"""One step of the loop, as it is lent to a method: safe gradients, and all processes in step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from fewlabels.core import collectives, processes
from fewlabels.core.errors import DivergedError
from fewlabels.core.seeding import generator
from fewlabels.core.types import Method

CLIP = 10.0  # largest gradient norm; far above healthy ones, so only outbursts are cut


class LoopStep:
    """The loop's side of `fewlabels.core.types.Step`.

    Parameters
    ----------
    method : Method
    index, steps : int
        Which of how many.
    images : int
        In the batch, over all processes.
    seed : int
    device : torch.device
    bf16 : bool
        Whether `autocast` computes in bfloat16.
    """

    def __init__(
        self,
        method: Method,
        index: int,
        steps: int,
        *,
        images: int,
        seed: int,
        device: torch.device,
        bf16: bool,
    ) -> None:
        self.index = index
        self.images = images
        self.span = collectives.span(images)
        # Of this process's means in the average over processes, 1 where all have as many images.
        self._weight = (self.span.stop - self.span.start) * processes.count() / images
        self.progress = index / steps
        self.seed = seed
        self.generator = generator(seed, "step", index, device=device)
        self._optimizers = method.optimizers()
        self._losses: dict[str, list[Tensor]] = {}  # not looked at yet
        self._precision = (device.type, bf16)

    def autocast(self) -> AbstractContextManager[Any]:
        """Open the mixed-precision context of this run."""
        device, bf16 = self._precision
        return torch.autocast(device, torch.bfloat16) if bf16 else nullcontext()

    def backward(self, loss: Tensor, name: str) -> None:
        """Backpropagate `loss` for the optimizer `name`; `apply` refuses one that is not finite.

        To look at the loss here would let an accelerator run dry before the way back.
        """
        self._losses.setdefault(name, []).append(loss.detach())
        # A mean over this process's images gets its share of the mean over all. A loss that was
        # computed from what was gathered is the same everywhere; its gradients are summed over
        # the processes on their way back, and the weights of all sum to their number.
        weighted = loss if self._weight == 1 else loss * self._weight
        weighted.backward()

    def apply(self, name: str) -> None:
        """Average the gradients over processes, clip them, step the optimizer `name`.

        Raises
        ------
        DivergedError
            A loss or a gradient is not finite; nothing is applied.
        """
        optimizer = self._optimizers[name]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        collectives.average_gradients(parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        *losses, length = numbers([*self._losses.pop(name, []), norm])
        for value in self.averaged(losses):
            self._refuse(value, f"the loss of {name!r} is {value}")
        self._refuse(length, f"a gradient of {name!r} is not finite")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _refuse(self, value: float, said: str) -> None:
        if not math.isfinite(value):
            raise DivergedError(
                "training.diverged",
                f"{said} at step {self.index}; not applied",
                "a lower learning rate, or look at the images of this step",
            )

    def gather(self, x: Tensor) -> Tensor:
        """Concatenate `x` over processes, with gradients; its rows are one or more an image."""
        each = len(x) // (self.span.stop - self.span.start)  # rows an image
        before, after = each * self.span.start, each * (self.images - self.span.stop)
        return collectives.stacked(x, before, after)

    def averaged(self, values: list[float]) -> list[float]:
        """Return means over the whole batch from those over this process's images."""
        if processes.count() == 1 or not values:
            return values
        mine = torch.tensor(values, dtype=torch.float64) * self._weight / processes.count()
        whole: list[float] = collectives.summed(mine).tolist()
        return whole


def numbers(values: Sequence[Tensor]) -> list[float]:
    """Return scalars as numbers; from an accelerator all at once, as it waits for each copy.

    Examples
    --------
    >>> numbers([torch.tensor(0.5), torch.tensor(2)])
    [0.5, 2.0]
    """
    if len({value.device for value in values}) != 1 or values[0].device.type == "cpu":
        return [float(value) for value in values]
    together: list[float] = torch.stack([value.float() for value in values]).tolist()
    return together
