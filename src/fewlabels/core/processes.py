"""Several processes that work as one: who is who, what the first tells, how all end together.

A launcher (``torchrun``) starts the same command several times and tells each process its place
by RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. All of them open the data and train; only the
first writes, reports progress and prints. In one process everything here does nothing.

torch is loaded by `joined` alone, so that the command line may ask who it is.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from fewlabels.core.errors import FewlabelsError, UsageError

T = TypeVar("T")

# How long one process waits for another: on several machines the first may wait while the last
# still decodes its images. A process that has died is noticed at once, whatever this is.
PATIENCE = timedelta(hours=12)
_PLACE = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_FAILED = "fewlabels/failed"


@dataclass(frozen=True, slots=True)
class _World:
    rank: int
    count: int
    store: Any  # torch.distributed.Store


_world: _World | None = None  # while they work together
_connected: _World | None = None  # until this process ends
_spoke_first = False


class LostError(FewlabelsError):
    """Another process has ended, or can no longer be reached."""


class ElsewhereError(FewlabelsError):
    """Another process failed first and says why; this one ends with the same exit code."""


def launched() -> tuple[int, int]:
    """Return the number of this process and how many were started, from the environment.

    Raises
    ------
    UsageError
        What the launcher set cannot be read.
    """
    if not all(os.environ.get(name) for name in _PLACE):
        return 0, 1
    try:
        rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except ValueError as error:
        raise UsageError("usage.processes", f"RANK or WORLD_SIZE is no number: {error}") from error
    return rank, count


def rank() -> int:
    """Return the number of this process among those that work together."""
    return _world.rank if _world else 0


def count() -> int:
    """Return how many processes work together."""
    return _world.count if _world else 1


def is_main() -> bool:
    """Say whether this process is the one that writes."""
    return rank() == 0


def prints() -> bool:
    """Say whether this process is the one that reports progress and results."""
    return launched()[0] == 0


def speaks(error: BaseException) -> bool:
    """Say whether this process is the one that tells of an error."""
    return _spoke_first or (prints() and not isinstance(error, ElsewhereError))


def refuse_several() -> None:
    """Refuse to do something several times over that one process does.

    Raises
    ------
    UsageError
    """
    if launched()[1] > 1:
        raise UsageError(
            "usage.processes",
            f"{launched()[1]} processes were started for a command that one process does",
            "torchrun for pretrain and finetune only",
        )


@contextlib.contextmanager
def joined(device: str) -> Iterator[None]:
    """Work with the other processes, where several were started; all fail together.

    Parameters
    ----------
    device : str
        Where training computes, or ``auto``: with CUDA, tensors on GPUs travel by NCCL, all
        others by gloo.

    Raises
    ------
    ElsewhereError
        Another process failed first.
    """
    global _world, _connected
    place, started = launched()
    if started == 1:
        yield
        return
    if _connected is None:
        _connected = _join(device, place, started)
    _world = _connected
    try:
        yield
    except BaseException as error:
        first = _first_failure(error)
        _leave()
        if first is error:
            raise
        raise first from error
    finally:
        _world = None


def _join(device: str, place: int, started: int) -> _World:
    import torch
    import torch._dynamo  # as every optimizer does; see below
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    if not distributed.is_available():
        raise UsageError("usage.processes", "this build of torch knows no several processes")
    cuda = device in ("auto", "cuda") and torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(_own_gpu(torch.cuda.device_count()))
    if distributed.is_initialized():
        raise UsageError(
            "usage.processes",
            "a process group of your own stands already",
            "torch.distributed.destroy_process_group() before this",
        )
    # torch 2.15 never lets go of a process group that stood before torch._dynamo was imported. Its
    # threads would outlive the connections, and a thread of C++ that asks for Python while Python
    # ends aborts the process.
    store, _, _ = next(iter(rendezvous("env://")))
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        store=store,
        rank=place,
        world_size=started,
        timeout=PATIENCE,
    )
    atexit.register(_leave)
    return _World(place, started, store)


def _own_gpu(gpus: int) -> int:
    place = local_rank()
    if place >= gpus:
        raise UsageError(
            "usage.processes",
            f"{place + 1} or more processes on a machine with {gpus} GPUs",
            f"--nproc-per-node {gpus}, or --device cpu",
        )
    return place


def local_rank() -> int:
    """Return the number of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) if launched()[1] > 1 else 0


def _leave() -> None:
    """Close the connections, by which the others notice that this process has ended."""
    global _connected
    from torch import distributed

    _connected = None
    if distributed.is_initialized():
        with contextlib.suppress(RuntimeError):
            distributed.destroy_process_group()


def _first_failure(error: BaseException) -> BaseException:
    """Tell the others of an error; return the one that was told first."""
    global _spoke_first
    by_default = 130 if isinstance(error, KeyboardInterrupt) else 1
    mine = {
        "rank": rank(),
        "code": getattr(error, "code", type(error).__name__),
        "message": str(getattr(error, "message", error)),
        "exit_code": getattr(error, "exit_code", by_default),
    }
    told = mine
    if _world is not None:
        # Where the store has gone, it went with the process that kept it: nobody else speaks.
        with contextlib.suppress(RuntimeError):
            told = json.loads(_world.store.compare_set(_FAILED, "", json.dumps(mine)))
    _spoke_first = told == mine
    if _spoke_first:
        return error
    message = f"process {told['rank']} failed: {told['message']}"
    elsewhere = ElsewhereError(str(told["code"]), message)
    elsewhere.exit_code = int(told["exit_code"])
    return elsewhere


@contextlib.contextmanager
def talking() -> Iterator[None]:
    """Turn the failure of a connection into an error in words.

    Raises
    ------
    LostError
    """
    try:
        yield
    except RuntimeError as error:
        raise LostError(
            "processes.lost",
            "another process has ended or cannot be reached",
            "look at what it said; the same command goes on from the last checkpoint",
        ) from error


def by_main(make: Callable[[], T]) -> T:
    """Return what the first process makes; the others wait for it and make nothing.

    Parameters
    ----------
    make : callable
        Its result must be plain JSON where there are several processes.
    """
    if count() == 1:
        return make()
    if rank() == 0:
        made = make()
        share(json.dumps(made).encode())
        return made
    received: T = json.loads(share(b""))
    return received


def share(data: bytes) -> bytes:
    """Return the bytes that the first process gives."""
    if count() == 1:
        return data
    import torch
    from torch import distributed

    with talking():
        length = torch.tensor([len(data)])
        distributed.broadcast(length, 0)
        sent = torch.empty(int(length), dtype=torch.uint8)
        if rank() == 0 and data:
            sent = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        distributed.broadcast(sent, 0)
    return data if rank() == 0 else sent.numpy().tobytes()
