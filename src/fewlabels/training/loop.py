"""The one loop: it owns device, precision, schedule, checkpoints, budget and safety.

The method owns the order of its updates; the loop lends it a `Step`. Everything
random is keyed by the seed and the step, so a run that is stopped anywhere and
started again ends in the same weights.

Several processes share every batch and take the step that one would take with the whole of it
(`fewlabels.core.processes`); the first of them writes the checkpoints.
"""

from __future__ import annotations

import functools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from fewlabels.core import collectives, processes
from fewlabels.core.errors import OutOfMemoryError
from fewlabels.core.seeding import stream
from fewlabels.core.types import Method
from fewlabels.data.loader import Batches
from fewlabels.models.norm import OverProcesses
from fewlabels.training.checkpoint import Checkpoint, latest_checkpoint, restore, save_checkpoint
from fewlabels.training.cost import Cost, whole_memory_mb
from fewlabels.training.energy import EnergyMeter
from fewlabels.training.step import LoopStep, numbers

WARMUP = 0.05  # share of the steps with a rising rate; the rest follows half a cosine
SAVE_SECONDS = 20.0
BF16_PIXELS = 24  # in smaller images the casts cost more than the products save

Watch = Callable[[int, dict[str, float]], None]
Stop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Plan:
    """What defines a training run once its budget is turned into steps."""

    steps: int
    seed: int
    bf16: bool = False
    constant_rate: bool = False


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training run cost and how it ended; memory is that of all processes together.

    Its energy is not known where it was interrupted, or where several processes shared it.
    """

    steps: int
    images_seen: int
    seconds: float
    peak_memory_mb: float
    metrics: dict[str, float]
    energy_joules: float | None = None

    def cost(self, multiply_adds: int | None) -> Cost:
        """Return what it cost, with what was counted beside."""
        return Cost(
            self.steps,
            self.images_seen,
            self.seconds,
            multiply_adds,
            self.energy_joules,
            self.peak_memory_mb,
        )


class Interrupted(BaseException):
    """Training was stopped by a signal, with everything saved."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}; everything is saved")
        self.exit_code = 128 + signum


def rate(progress: float) -> float:
    """Return the share of the full learning rate at a progress in [0, 1].

    Examples
    --------
    >>> rate(0.05), round(rate(1.0), 6)
    (1.0, 0.0)
    """
    if progress < WARMUP:
        return max(progress / WARMUP, 0.02)
    return 0.5 * (1 + math.cos(math.pi * (progress - WARMUP) / (1 - WARMUP)))


def train(
    method: Method,
    batches: Batches,
    plan: Plan,
    *,
    device: torch.device,
    folder: Path | None = None,
    watch: Watch | None = None,
    stop: Stop | None = None,
) -> Trained:
    """Train `method` for `plan.steps` steps, going on from a checkpoint where there is one.

    Parameters
    ----------
    method : Method
        Freshly built, on `device`.
    batches : Batches
        Where the images come from.
    plan : Plan
        Steps, seed and precision.
    device : torch.device
    folder : Path, optional
        Where checkpoints go; without it nothing is saved.
    watch : callable, optional
        Called with the step and its metrics after every step.
    stop : callable, optional
        Asked before the first step and after every one whether training is over early. Its
        answer must follow from what the method saves, so that a resumed run ends where an
        uninterrupted one does.

    Returns
    -------
    Trained

    Raises
    ------
    DivergedError
        A loss or gradient was not finite; the last good checkpoint is kept.
    OutOfMemoryError
        The batch does not fit the device.
    Interrupted
        SIGINT or SIGTERM arrived in one of the processes; the state is saved.
    UsageError
        There are more processes than images in a batch.
    """
    start, before = _resume(method, folder)
    # Each process has seen the same, but for the last bit: the first one's word counts.
    ended: Stop = functools.partial(processes.by_main, stop) if stop else lambda: False
    done, over = start, ended()
    metrics: dict[str, float] = {}
    began = saved = time.perf_counter()
    meter = EnergyMeter(device)
    with stop_signals() as stopped:
        for index in range(start, plan.steps):
            if over:
                break
            done = index + 1
            share = 1.0 if plan.constant_rate else rate(index / plan.steps)
            metrics = take_step(
                method, batches, plan, index, device, share=share, last=done == plan.steps
            )
            if watch is not None:
                watch(done, metrics)
            now = time.perf_counter()
            meter.tick()
            over = ended()
            last = done == plan.steps or over
            signum = _agreed(stopped)
            if folder is not None and (last or signum or now - saved > SAVE_SECONDS):
                if processes.is_main():
                    save_checkpoint(folder, method, done, before + now - began)
                saved = time.perf_counter()
            if signum:
                processes.by_main(lambda: None)  # nobody leaves before everything is saved
                raise Interrupted(signum)
    seconds = before + time.perf_counter() - began
    energy = meter.read() if start == 0 and processes.count() == 1 else None
    peak = whole_memory_mb(device)
    return Trained(done, done * batches.images, seconds, peak, metrics, energy)


def take_step(
    method: Method,
    batches: Batches,
    plan: Plan,
    index: int,
    device: torch.device,
    *,
    share: float,
    last: bool = False,
) -> dict[str, float]:
    """Take one step at a `share` of the full learning rate; return its metrics.

    Parameters
    ----------
    index : int
        Which of the steps of the plan.
    last : bool
        Whether no batch will be asked for after this one.
    """
    step = LoopStep(
        method,
        index,
        plan.steps,
        images=batches.size,
        seed=plan.seed,
        device=device,
        bf16=plan.bf16,
    )
    _schedule(method, share)
    return _update(method, batches, step, last=last)


def _update(method: Method, batches: Batches, step: LoopStep, *, last: bool) -> dict[str, float]:
    """Take one step with this process's share of a batch; return the metrics of the whole."""
    several = processes.count() > 1
    with _memory_errors(batches.images), OverProcesses() if several else nullcontext():
        batch = batches.part(step.index, step.span)
        if not last:
            batches.ahead(step.index + 1, step.span)
        values = method.update(batch, step)
    means = step.averaged(numbers([*values.values()]))
    return dict(zip(values, means, strict=True))


def _agreed(stopped: list[int]) -> int:
    """Return the signal that came to any of the processes, 0 if none."""
    if processes.count() == 1:
        return stopped[0] if stopped else 0
    signals = (signal.SIGTERM, signal.SIGINT)
    came = collectives.summed(torch.tensor([int(one in stopped) for one in signals]))
    return next((int(one) for one, times in zip(signals, came.tolist(), strict=True) if times), 0)


def _resume(method: Method, folder: Path | None) -> tuple[int, float]:
    """Restore the newest sound checkpoint; return its step and the seconds spent so far."""
    found = latest_checkpoint(folder) if folder is not None and processes.is_main() else None
    found = _shared(found)
    if found is None:
        # Fresh weights are the same everywhere by their seed, unless the machines differ.
        state = method.state_dict().values()
        collectives.copy_from_main([value for value in state if isinstance(value, Tensor)])
        return 0, 0.0
    restore(method, found)
    return found.step, found.seconds


def _shared(found: Checkpoint | None) -> Checkpoint | None:
    """Return the checkpoint that the first process has found."""
    if processes.count() == 1:
        return found
    about: list[Any] = processes.by_main(
        lambda: [found.step, found.seconds, found.numbers] if found else []
    )
    if not about:
        return None
    raw = processes.share(save(found.tensors) if found else b"")
    step, seconds, numbers = about
    return Checkpoint(step, seconds, load(raw), numbers)


def _schedule(method: Method, share: float) -> None:
    for optimizer in method.optimizers().values():
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * share


@contextmanager
def _memory_errors(batch_size: int) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemoryError(
            "memory.training",
            f"a batch of {batch_size} images does not fit the memory",
            "a smaller --image-size or --backbone",
        ) from error


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying; a second one of either kills as usual."""
    stopped: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def note(signum: int, _frame: object) -> None:
        stopped.append(signum)
        signal.signal(signum, before[signal.Signals(signum)] or signal.SIG_DFL)

    for signum in before:
        signal.signal(signum, note)
    try:
        yield stopped
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def fresh_seed(seed: int, *names: str | int) -> None:
    """Seed torch's global generator, from which new layers draw their weights."""
    torch.manual_seed(stream(seed, *names))


def default_bf16(device: torch.device, image_size: int) -> bool:
    """Say whether bfloat16 autocast is worth it: the hardware has it, images are not tiny."""
    return image_size >= BF16_PIXELS and has_bf16(device)


def has_bf16(device: torch.device) -> bool:
    """Say whether the hardware of a device computes in bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
