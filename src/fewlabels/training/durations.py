"""Durations with units: seconds, minutes, hours, steps, epochs."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from fewlabels.core.errors import UsageError

_SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0}
_SECONDS |= {"h": 3600.0, "hour": 3600.0}


@dataclass(frozen=True, slots=True)
class Duration:
    """How long to train: a number of seconds, steps or epochs.

    Examples
    --------
    >>> parse_duration("3m")
    Duration(value=180.0, unit='seconds')
    >>> parse_duration("20 epochs").steps(images=1000, batch_size=64)
    313
    """

    value: float
    unit: str  # "seconds", "steps" or "epochs"

    def steps(self, *, images: int, batch_size: int, seconds_per_step: float | None = None) -> int:
        """Turn the duration into optimizer steps, at least one.

        Raises
        ------
        ValueError
            For seconds without a measured time per step.
        """
        if self.unit == "steps":
            return int(self.value)
        if self.unit == "epochs":
            return max(1, math.ceil(self.value * images / batch_size))
        if seconds_per_step is None:
            raise ValueError("a duration in seconds needs a measured time per step")
        return max(1, int(self.value / seconds_per_step))

    def __str__(self) -> str:
        return f"{self.value:g} {self.unit}"


def parse_duration(
    text: str, *, units: tuple[str, ...] = ("seconds", "steps", "epochs")
) -> Duration:
    """Read ``3m``, ``90s``, ``1.5h``, ``2000 steps`` or ``20 epochs``.

    Raises
    ------
    UsageError
        For anything else, a number that is not positive, or a unit not in `units`.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-z]+)\s*", text.lower())
    allowed = {"seconds": "90s, 3m, 1h", "steps": "2000 steps", "epochs": "20 epochs"}
    hint = "write " + ", ".join(allowed[unit] for unit in units)
    if not match:
        raise UsageError("usage.budget", f"cannot read the duration {text!r}", hint)
    value, unit = float(match[1]), match[2]
    singular = unit.removesuffix("s") if len(unit) > 1 else unit
    if singular in _SECONDS:
        value, unit = value * _SECONDS[singular], "seconds"
    elif singular in ("step", "epoch"):
        unit = singular + "s"
    else:
        raise UsageError("usage.budget", f"unknown unit in the duration {text!r}", hint)
    if unit not in units:
        raise UsageError("usage.budget", f"the duration {text!r} cannot be used here", hint)
    if value <= 0 or (unit == "steps" and value != int(value)):
        raise UsageError("usage.budget", f"the duration {text!r} must be a positive number", hint)
    return Duration(value, unit)
