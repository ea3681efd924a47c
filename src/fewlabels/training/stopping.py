"""Early stopping: validation is watched while something trains, and the best weights are kept.

The loss on validation images is taken ten times in a run. Where three times in a row it stays
above the lowest one, training is over, and the weights of the lowest one are the best (rules of
this kind are compared by Prechelt 1998; patient ones cost time and lose little). The loss decides
and not the accuracy: with a hundred images accuracy moves in steps of a point by chance, and it
does not see that a network grows sure of its mistakes.

Best weights and all that was found so far are part of the state that the loop saves, so that a
run that was killed ends in the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fewlabels.core.types import Batch, Method, Step

CHECKS = 10  # in a run
PATIENCE = 3  # checks without a new best before training is over
ENOUGH = 100  # validation images: with fewer, chance moves their accuracy by 5 points and more
_BEST, _FOUND = "best/", "found"


@dataclass(frozen=True, slots=True)
class Check:
    """What was found after some step.

    Attributes
    ----------
    step : int
        Steps that were done.
    val_loss, val_accuracy : float
        On validation images.
    plain_train_accuracy : float
        On training images, not augmented.
    """

    step: int
    val_loss: float
    val_accuracy: float
    plain_train_accuracy: float


@dataclass(frozen=True, slots=True)
class NumberCheck:
    """What was found after some step where a number is predicted.

    Attributes
    ----------
    step : int
        Steps that were done.
    val_loss, val_r2 : float
        On validation images; R2 is nan where their numbers do not vary.
    plain_train_r2 : float
        On training images, not augmented.
    """

    step: int
    val_loss: float
    val_r2: float
    plain_train_r2: float


AnyCheck = TypeVar("AnyCheck", Check, NumberCheck)
Look = Callable[[int], Check] | Callable[[int], NumberCheck]


def best_of(found: Sequence[AnyCheck]) -> AnyCheck | None:
    """Return the first check with the lowest loss; None where no loss was finite."""
    finite = [check for check in found if math.isfinite(check.val_loss)]
    return min(finite, key=lambda check: check.val_loss) if finite else None


def over(found: Sequence[AnyCheck], patience: int = PATIENCE) -> bool:
    """Say whether the last `patience` checks are all above the best one.

    Examples
    --------
    >>> losses = [1.0, 0.8, 0.9, 0.85, 0.9]
    >>> found = [Check(step, loss, 0.5, 0.5) for step, loss in enumerate(losses)]
    >>> over(found), over(found[:-1])
    (True, False)
    """
    best = best_of(found)
    return best is not None and len(found) - 1 - found.index(best) >= patience


class EarlyStopping:
    """A method that is watched on validation images, under the contract of every method.

    Parameters
    ----------
    method : Method
        What is trained.
    network : nn.Module
        The part of it whose best weights are kept.
    look : callable
        Finds out how the network stands after a step.
    kind : type
        Of what it finds.
    steps, every : int
        Steps of the run, and steps between two checks; the last step is checked too.
    """

    def __init__(
        self,
        method: Method,
        network: nn.Module,
        look: Callable[[int], Any],
        *,
        steps: int,
        every: int,
        kind: type[Check] | type[NumberCheck] = Check,
    ) -> None:
        self.encoder = method.encoder
        self.network = network
        self.found: list[Any] = []
        self.best: dict[str, Tensor] = {}
        self._method = method
        self._look = look
        self._steps = steps
        self._every = every
        self._kind = kind

    def is_over(self) -> bool:
        """Say whether training should end here."""
        return over(self.found)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the method's optimizers."""
        return self._method.optimizers()

    def update(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Let the method learn from one batch; look at validation where that is due."""
        metrics = self._method.update(batch, step)
        done = step.index + 1
        if done % self._every and done != self._steps:
            return metrics
        check = self._look(done)
        self.found.append(check)
        if best_of(self.found) is check:
            self.best = copied(self.network)
        values = {f.name: torch.tensor(getattr(check, f.name)) for f in fields(check)[1:]}
        return {**metrics, **values}

    def state_dict(self) -> dict[str, Any]:
        """Return the method's state, the best weights and what was found so far."""
        state = {**self._method.state_dict(), **{_BEST + k: v for k, v in self.best.items()}}
        if self.found:
            rows = [[getattr(check, f.name) for f in fields(check)] for check in self.found]
            state[_FOUND] = torch.tensor(rows, dtype=torch.float64)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Take back what `state_dict` returned."""
        own = dict(state)
        rows = own.pop(_FOUND, torch.empty(0, len(fields(self._kind)), dtype=torch.float64))
        self.found = [self._kind(int(step), *values) for step, *values in rows.tolist()]
        best = [key for key in own if key.startswith(_BEST)]
        self.best = {key.removeprefix(_BEST): own.pop(key) for key in best}
        return self._method.load_state_dict(own)


def copied(network: nn.Module) -> dict[str, Tensor]:
    """Return a copy of all weights and buffers of a network."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
