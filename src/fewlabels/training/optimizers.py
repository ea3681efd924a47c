"""Another optimizer than the one a method comes with, at rates that are carried over.

AdamW divides a gradient by its own size, so its rates do not fit an optimizer that follows the
gradient as it is:

- ``adam`` keeps rate and betas. Decay of weights is left out: added to the gradient it would be
  divided like it, which is not the decay that was set (Loshchilov and Hutter 2019).
- ``sgd`` has Nesterov momentum 0.9 and 30 times the rate: 0.09 where AdamW has 0.003, as plain
  SGD is mostly run near 0.1. Decay is divided by 300, so that weights shrink as fast as before:
  by 30 for the rate, and by 10 because momentum lets every pull act ten times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fewlabels.core.errors import UsageError
from fewlabels.core.types import Batch, Method, Step

OPTIMIZERS = ("auto", "adamw", "adam", "sgd")
SGD_RATE = 30.0
MOMENTUM = 0.9
DECAY = 0.01  # torch's own for AdamW, for methods that come with Adam and so without a decay


def exchanged(optimizer: torch.optim.Optimizer, name: str) -> torch.optim.Optimizer:
    """Return an optimizer of the same parameters by another name, before its first step.

    Parameters
    ----------
    optimizer : Optimizer
        Adam or AdamW, with its groups and rates.
    name : str
        One of `OPTIMIZERS`; ``auto`` leaves it as it is.
    """
    if name == "auto" or type(optimizer).__name__.lower() == name:
        return optimizer
    build: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "adamw": lambda group: {"weight_decay": group["weight_decay"] or DECAY},
        "adam": lambda _group: {"weight_decay": 0.0},
        "sgd": lambda group: {
            "lr": group["lr"] * SGD_RATE,
            "weight_decay": group["weight_decay"] * (1 - MOMENTUM) / SGD_RATE,
        },
    }
    groups = [
        {"params": group["params"], "lr": group["lr"], **build[name](group)}
        for group in optimizer.param_groups
    ]
    if name == "sgd":
        return torch.optim.SGD(groups, momentum=MOMENTUM, nesterov=True)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind(groups, betas=optimizer.param_groups[0]["betas"], fused=True)


class Reoptimized:
    """A method that learns by another optimizer, under the contract of every method.

    Parameters
    ----------
    method : Method
        Before its first step.
    name : str
        One of `OPTIMIZERS`.

    Raises
    ------
    UsageError
        The method has no optimizer.
    """

    def __init__(self, method: Method, name: str) -> None:
        self.encoder = method.encoder
        self._method = method
        self._optimizers = {k: exchanged(v, name) for k, v in method.optimizers().items()}
        if not self._optimizers and name != "auto":
            raise UsageError(
                "usage.optimizer",
                f"{type(method).__name__} follows no gradient and has no optimizer",
                "leave --optimizer out",
            )

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimizers that stand in for the method's own."""
        return self._optimizers

    def update(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Let the method learn from one batch; the step lends it the new optimizers."""
        return self._method.update(batch, step)

    def state_dict(self) -> dict[str, Any]:
        """Return the method's state."""
        return self._method.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Give the method its state back."""
        return self._method.load_state_dict(state)
