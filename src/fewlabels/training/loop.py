"""The one loop: it owns device, precision, schedule, checkpoints, budget and safety.

The method owns the order of its updates; the loop lends it a `Step`. Everything
random is keyed by the seed and the step, so a run that is stopped anywhere and
started again ends in the same weights.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewlabels.core.errors import DivergedError, OutOfMemoryError
from fewlabels.core.seeding import generator, stream
from fewlabels.core.types import Method
from fewlabels.data.loader import Batches
from fewlabels.training.checkpoint import latest_checkpoint, restore, save_checkpoint
from fewlabels.training.cost import peak_memory_mb

WARMUP = 0.05  # share of the steps with a rising rate; the rest follows half a cosine
CLIP = 10.0  # largest gradient norm; far above healthy ones, so only outbursts are cut
SAVE_SECONDS = 20.0

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
    """What a training run cost and how it ended."""

    steps: int
    images_seen: int
    seconds: float
    peak_memory_mb: float
    metrics: dict[str, float]


class Interrupted(BaseException):
    """Training was stopped by a signal, with everything saved."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}; everything is saved")
        self.exit_code = 128 + signum


class _Step:
    """The loop's side of `fewlabels.core.types.Step`."""

    def __init__(self, method: Method, plan: Plan, index: int, device: torch.device) -> None:
        self.index = index
        self.progress = index / plan.steps
        self.seed = plan.seed
        self.generator = generator(plan.seed, "step", index, device=device)
        self._optimizers = method.optimizers()
        self._precision = (device.type, plan.bf16)

    def autocast(self) -> AbstractContextManager[Any]:
        device, bf16 = self._precision
        return torch.autocast(device, torch.bfloat16) if bf16 else nullcontext()

    def backward(self, loss: Tensor, name: str) -> None:
        if not math.isfinite(loss.item()):
            raise DivergedError(
                "training.diverged",
                f"the loss of {name!r} is {loss.item()} at step {self.index}; not applied",
                "a lower learning rate, or look at the images of this step",
            )
        loss.backward()  # type: ignore[no-untyped-call]

    def apply(self, name: str) -> None:
        optimizer = self._optimizers[name]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        if not math.isfinite(norm.item()):
            raise DivergedError(
                "training.diverged",
                f"a gradient of {name!r} is not finite at step {self.index}; not applied",
                "a lower learning rate, or look at the images of this step",
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def gather(self, x: Tensor) -> Tensor:
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return x
        from torch.distributed.nn import functional as distributed

        parts: tuple[Tensor, ...] = distributed.all_gather(x)  # type: ignore[no-untyped-call]
        return torch.cat(parts)


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
        Asked before every step whether training is over early. Its answer must follow from
        what the method saves, so that a resumed run ends where an uninterrupted one does.

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
        SIGINT or SIGTERM arrived; the state is saved.
    """
    start, before = _resume(method, folder)
    done, ended = start, stop or (lambda: False)
    metrics: dict[str, float] = {}
    began = saved = time.perf_counter()
    with stop_signals() as stopped:
        for index in range(start, plan.steps):
            if ended():
                break
            step = _Step(method, plan, index, device)
            _schedule(method, 1.0 if plan.constant_rate else rate(step.progress))
            with _memory_errors(batches.size):
                values = method.update(batches[index], step)
            metrics = {name: float(value) for name, value in values.items()}
            done = index + 1
            if watch is not None:
                watch(done, metrics)
            now = time.perf_counter()
            last = done == plan.steps or ended()
            if folder is not None and (last or stopped or now - saved > SAVE_SECONDS):
                save_checkpoint(folder, method, done, before + now - began)
                saved = time.perf_counter()
            if stopped:
                raise Interrupted(stopped[0])
    seconds = before + time.perf_counter() - began
    return Trained(done, done * batches.size, seconds, peak_memory_mb(device), metrics)


def _resume(method: Method, folder: Path | None) -> tuple[int, float]:
    """Restore the newest sound checkpoint; return its step and the seconds spent so far."""
    found = latest_checkpoint(folder) if folder is not None else None
    if found is None:
        return 0, 0.0
    restore(method, found)
    return found.step, found.seconds


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


def calibrate(
    build: Callable[[], Method], batches: Batches, plan: Plan, device: torch.device
) -> float:
    """Return the seconds one step takes, from a throw-away copy of the method."""
    method = build()
    times: list[float] = []
    began = time.perf_counter()
    index = 0
    while index < 4 or (time.perf_counter() - began < 2.0 and index < 60):
        tick = time.perf_counter()
        step = _Step(method, plan, index, device)
        _schedule(method, 0.02)
        float(next(iter(method.update(batches[index], step).values())))
        times.append(time.perf_counter() - tick)
        index += 1
    return float(torch.tensor(times[2:]).mean())


def fresh_seed(seed: int, *names: str | int) -> None:
    """Seed torch's global generator, from which new layers draw their weights."""
    torch.manual_seed(stream(seed, *names))


def default_bf16(device: torch.device, image_size: int) -> bool:
    """Say whether bfloat16 autocast is worth it: where the hardware has it and images are not tiny.

    Below 24 pixels the casts cost more than the products save.
    """
    if image_size < 24:
        return False
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
