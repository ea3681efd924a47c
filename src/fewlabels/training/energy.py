"""The energy that the training device has taken, where the machine reveals it."""

from __future__ import annotations

import functools
import importlib
import time
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")
READ_SECONDS = 60.0  # counters of packages begin again at zero after some minutes under load


class EnergyMeter:
    """Measures the energy a device takes from the moment it is made; None where it is not told."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._first = joules(device)
        self._latest = time.monotonic()

    def tick(self) -> None:
        """Take a reading if the last one is long ago; to be called while something long runs."""
        if self._first is not None and time.monotonic() - self._latest > READ_SECONDS:
            joules(self._device)
            self._latest = time.monotonic()

    def read(self) -> float | None:
        """Return the joules so far."""
        last = joules(self._device)
        return None if self._first is None or last is None else last - self._first


def joules(device: torch.device) -> float | None:
    """Return the joules a device has taken since some moment; two readings make a difference.

    Of a CPU that is what all its packages took, for whatever programs, by the counters that
    Linux shows under ``/sys/class/powercap`` (Intel and AMD; on most systems to root alone). Of an
    NVIDIA GPU it is the board's own counter, through `pynvml` where that is installed.

    Returns
    -------
    float or None
        None where nothing is revealed.
    """
    if device.type == "cpu":
        return _packages().joules()
    return _board_joules(device) if device.type == "cuda" else None


class Packages:
    """The energy counters of the processor packages, put together to one that never goes back.

    Parameters
    ----------
    folder : Path
        With a folder ``intel-rapl:N`` for each package, and others for its parts.
    """

    def __init__(self, folder: Path = POWERCAP) -> None:
        found = [place for place in sorted(folder.glob("intel-rapl:*")) if _is_package(place)]
        self._files = [place / "energy_uj" for place in found]
        self._ranges = _numbers([place / "max_energy_range_uj" for place in found])
        self._last = _numbers(self._files)
        self._total = 0

    def joules(self) -> float | None:
        """Return the joules since the first reading, or None where they cannot be read."""
        now = _numbers(self._files)
        if not now or not self._last or not self._ranges:
            return None
        for before, after, most in zip(self._last, now, self._ranges, strict=True):
            self._total += after - before + (most if after < before else 0)
        self._last = now
        return self._total / 1e6


def _is_package(place: Path) -> bool:
    """Say whether a zone is a whole package, and no part of one nor the whole machine."""
    try:
        return (place / "name").read_text().startswith("package")
    except OSError:
        return False


def _numbers(files: list[Path]) -> list[int]:
    """Read one number a file; none at all where one of them cannot be read."""
    try:
        return [int(file.read_text()) for file in files]
    except (OSError, ValueError):
        return []


@functools.cache
def _packages() -> Packages:
    return Packages()


def _board_joules(device: torch.device) -> float | None:
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        name = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        board = nvml.nvmlDeviceGetHandleByUUID(name)
        return float(nvml.nvmlDeviceGetTotalEnergyConsumption(board)) / 1e3
    except nvml.NVMLError:  # older boards and slices of one have no counter
        return None
