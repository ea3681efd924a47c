"""What training takes from the machine."""

from __future__ import annotations

import sys

import torch

from fewlabels.core import collectives


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory in MB: of the device where it counts, else of this process.

    NaN where the system does not tell (Windows).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if sys.platform == "win32":
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)  # bytes on macOS, else kilobytes


def whole_memory_mb(device: torch.device) -> float:
    """Return the sum of `peak_memory_mb` over the processes that train together."""
    mine = torch.tensor(peak_memory_mb(device), dtype=torch.float64)
    return float(collectives.summed(mine))
