"""What a training will take, measured on a copy that is thrown away: time, and arithmetic."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import torch

from fewlabels.core import collectives, processes
from fewlabels.core.arithmetic import MultiplyAdds
from fewlabels.core.types import Method, Uneven
from fewlabels.data.loader import Batches
from fewlabels.training.loop import Plan, take_step

BURSTS = 3
SHARE = 0.02  # of the learning rate: a copy that is stepped on must not diverge


def calibrate(
    build: Callable[[], Method], batches: Batches, plan: Plan, device: torch.device
) -> float:
    """Return the seconds one step takes, from a throw-away copy of the method.

    The steps are timed in `BURSTS` bursts of about a second, and the quickest burst counts: what
    else the machine did for a moment is not taken for its pace.
    """
    method = build()
    index = 0

    def pace(most: int, seconds: float) -> float:
        nonlocal index
        began, first = time.perf_counter(), index

        def goes_on() -> bool:
            taken = index - first
            return taken < 1 or (taken < most and time.perf_counter() - began < seconds)

        while processes.by_main(goes_on):
            take_step(method, batches, plan, index, device, share=SHARE)
            index += 1
        return (time.perf_counter() - began) / (index - first)

    pace(2, 60.0)  # the first steps warm up
    paces = [pace(20, 1.0) for _ in range(BURSTS)]
    return processes.by_main(lambda: min(paces))


def count_multiply_adds(
    build: Callable[[], Method],
    batches: Batches,
    plan: Plan,
    device: torch.device,
    *,
    done: int | None = None,
) -> int:
    """Return the multiply-adds of a training, all processes together.

    One step of each kind is taken by a throw-away copy of the method and counted, forward and
    backward; no random stream is any the further for it.

    Parameters
    ----------
    done : int, optional
        How many of the plan's steps were really taken; by default all.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        method = build()
        kind = method.kind_of_step if isinstance(method, Uneven) else _alike
        kinds = [kind(index, plan.steps) for index in range(plan.steps if done is None else done)]
        mine = sum(
            times * _counted(method, batches, plan, kinds.index(one), device)
            for one, times in Counter(kinds).items()
        )
    return int(collectives.summed(torch.tensor(mine)))


def _alike(_index: int, _steps: int) -> int:
    return 0


def _counted(method: Method, batches: Batches, plan: Plan, index: int, device: torch.device) -> int:
    counted = MultiplyAdds()
    with counted:
        take_step(method, batches, plan, index, device, share=SHARE)
    return counted.total
