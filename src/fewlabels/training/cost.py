"""What training takes from the machine."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fewlabels.core import collectives
from fewlabels.training.energy import EnergyMeter


@dataclass(frozen=True, slots=True)
class Cost:
    """What something took; None is unknown. Costs add up, and of their peaks the highest counts.

    Attributes
    ----------
    steps, images_seen : int
        Updates of weights, and images they learned from, each as often as it was seen.
    seconds : float
    multiply_adds : int or None
        Of the networks, forward and backward: see `fewlabels.core.arithmetic`.
    energy_joules : float or None
        Of the device: see `fewlabels.training.energy`.
    peak_memory_mb : float
        NaN where the system does not tell.

    Examples
    --------
    >>> (Cost(steps=3, peak_memory_mb=90) + Cost(steps=4, peak_memory_mb=80)).peak_memory_mb
    90.0
    >>> (Cost(multiply_adds=5) + Cost(multiply_adds=None)).multiply_adds is None
    True
    """

    steps: int = 0
    images_seen: int = 0
    seconds: float = 0.0
    multiply_adds: int | None = 0
    energy_joules: float | None = 0.0
    peak_memory_mb: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        mine, theirs = self.multiply_adds, other.multiply_adds
        drawn, more = self.energy_joules, other.energy_joules
        return Cost(
            self.steps + other.steps,
            self.images_seen + other.images_seen,
            self.seconds + other.seconds,
            None if mine is None or theirs is None else mine + theirs,
            None if drawn is None or more is None else drawn + more,
            float(np.maximum(self.peak_memory_mb, other.peak_memory_mb)),
        )


class Meter:
    """Measures from the moment it is made: seconds, energy, and the peak of memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        restart_peak(device)
        self._energy = EnergyMeter(device)
        self._began = time.perf_counter()

    def read(self) -> Cost:
        """Return what was taken so far; steps, images and multiply-adds are for others to count."""
        seconds = time.perf_counter() - self._began
        peak = peak_memory_mb(self._device)
        return Cost(seconds=seconds, energy_joules=self._energy.read(), peak_memory_mb=peak)


def restart_peak(device: torch.device) -> None:
    """Let `peak_memory_mb` forget what was before, where the system can: on Linux and on GPUs."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        # 5 sets the peak back to what is resident now (proc(5)); some sandboxes forbid it.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory in MB: of the device where it counts, else of this process.

    NaN where the system does not tell (Windows).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if sys.platform == "win32":
        return float("nan")
    if sys.platform == "linux" and (peak := _peak_of_status()):
        return peak
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 * (1 if sys.platform == "darwin" else 1024)  # bytes on macOS, else kibibytes


def _peak_of_status() -> float | None:
    """Return what Linux tells; getrusage never tells less than the process that began this one."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6  # it says kB and means kibibytes
    return None


def whole_memory_mb(device: torch.device) -> float:
    """Return the sum of `peak_memory_mb` over the processes that train together."""
    mine = torch.tensor(peak_memory_mb(device), dtype=torch.float64)
    return float(collectives.summed(mine))
