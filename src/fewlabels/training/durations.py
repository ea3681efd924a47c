"""Durations with units: seconds, minutes, hours, steps, epochs, images."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from fewlabels.core.errors import UsageError

_SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0}
_SECONDS |= {"h": 3600.0, "hour": 3600.0}


@dataclass(frozen=True, slots=True)
class Duration:
    """How long to train: a number of seconds, of steps, of epochs, or of images seen.

    Examples
    --------
    >>> parse_duration("3m")
    Duration(value=180.0, unit='seconds')
    >>> parse_duration("20 epochs").steps(images=1000, batch_size=64)
    313
    >>> parse_duration("2000000images").steps(images=1000, batch_size=64)
    31250
    """

    value: float
    unit: str  # "seconds", "steps", "epochs" or "images"

    def steps(self, *, images: int, batch_size: int, seconds_per_step: float | None = None) -> int:
        """Turn the duration into optimizer steps, at least one.

        Raises
        ------
        UsageError
            For fewer images than one batch.
        ValueError
            For seconds without a measured time per step.
        """
        if self.unit == "steps":
            return int(self.value)
        if self.unit == "epochs":
            return max(1, math.ceil(self.value * images / batch_size))
        if self.unit == "images":
            if self.value < batch_size:
                raise UsageError(
                    "usage.budget",
                    f"a budget of {self} is less than one batch of {batch_size}",
                    f"--budget {batch_size}images or more",
                )
            return int(self.value // batch_size)
        if seconds_per_step is None:
            raise ValueError("a duration in seconds needs a measured time per step")
        return max(1, int(self.value / seconds_per_step))

    def __str__(self) -> str:
        return f"{self.value:.12g} {self.unit}"


def parse_duration(
    text: str, *, units: tuple[str, ...] = ("seconds", "steps", "epochs", "images")
) -> Duration:
    """Read ``3m``, ``90s``, ``1.5h``, ``2000 steps``, ``20 epochs`` or ``2000000 images``.

    Raises
    ------
    UsageError
        For anything else, a number that is not positive, or a unit not in `units`.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-z]+)\s*", text.lower())
    allowed = {"seconds": "90s, 3m, 1h", "steps": "2000 steps", "epochs": "20 epochs"}
    allowed["images"] = "2000000 images"
    hint = "write " + ", ".join(allowed[unit] for unit in units)
    if not match:
        raise UsageError("usage.budget", f"cannot read the duration {text!r}", hint)
    value, unit = float(match[1]), match[2]
    singular = unit.removesuffix("s") if len(unit) > 1 else unit
    if singular in _SECONDS:
        value, unit = value * _SECONDS[singular], "seconds"
    elif singular in ("step", "epoch", "image"):
        unit = singular + "s"
    else:
        raise UsageError("usage.budget", f"unknown unit in the duration {text!r}", hint)
    if unit not in units:
        raise UsageError("usage.budget", f"the duration {text!r} cannot be used here", hint)
    if value <= 0 or (unit in ("steps", "images") and value != int(value)):
        raise UsageError("usage.budget", f"the duration {text!r} must be a positive number", hint)
    return Duration(value, unit)
