"""Local processes that share the cells of one comparison.

Each is ``python -m fewlabels.study.workers``: it reads from stdin what is compared and where,
and computes what nobody else is busy with (`fewlabels.study.work`). It ends when its stdin is
closed, so that no worker outlives the command that started it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import torch

from fewlabels.core.errors import FewlabelsError
from fewlabels.pipeline.task import DataOptions
from fewlabels.study.encoders import RESULT
from fewlabels.study.engine import clear, reopen
from fewlabels.study.grid import Comparison, PlannedCell
from fewlabels.study.jobs import is_done, jobs_of
from fewlabels.study.settings import Settings
from fewlabels.study.work import compute
from fewlabels.training.loop import Interrupted
from fewlabels.training.progress import Reporter

LOOK_SECONDS = 0.3
SAVING_SECONDS = 60.0  # a worker that is told to end saves first


@dataclass(slots=True, eq=False)
class _Worker:
    """A process, and where it says what went wrong."""

    number: int
    process: subprocess.Popen[str]
    said: IO[str]

    def last_words(self) -> str:
        """Return how it ended, and what it said then."""
        code = self.process.returncode
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        self.said.seek(0)
        lines = [line.strip() for line in self.said if line.strip()]
        return f"worker {self.number} {how}" + (f": {lines[0]}" if lines else "")


def compute_with_workers(comparison: Comparison, options: DataOptions, count: int) -> None:
    """Compute every cell that is not there yet in `count` processes.

    A worker that dies takes no other with it: what it was busy with stays missing, which
    `Comparison.warnings` say.

    Raises
    ------
    FewlabelsError
        All of them failed, with the exit code of the first.
    """
    began, cells = time.perf_counter(), comparison.grid.cells
    clear(comparison)
    todo = [job for job in jobs_of(comparison, cells) if not is_done(comparison, job)]
    count = min(count, len({job.cell for job in todo}))
    if not count:
        return
    comparison.reporter.say(f"{count} workers, {_threads(count)} threads each")
    with _started(comparison, options, count) as workers:
        _watch(comparison, workers)
        died = [worker for worker in workers if worker.process.returncode]
        comparison.warnings += [worker.last_words() for worker in died]
    for text in comparison.warnings:
        comparison.reporter.say(f"warning: {text}")
    if len(died) == len(workers):
        error = FewlabelsError("workers.failed", f"every worker failed: {comparison.warnings[0]}")
        error.exit_code = max(1, died[0].process.returncode)
        raise error
    comparison.reporter.say(f"workers done in {time.perf_counter() - began:.0f} s")


@contextlib.contextmanager
def _started(comparison: Comparison, options: DataOptions, count: int) -> Iterator[list[_Worker]]:
    """Start workers; on the way out none of them is left running."""
    workers: list[_Worker] = []
    with contextlib.ExitStack() as stack:
        try:
            for number in range(count):
                said = stack.enter_context(tempfile.TemporaryFile("w+", errors="replace"))
                process = _start(comparison, options, number, count, said)
                workers.append(_Worker(number + 1, process, said))
            yield workers
        finally:
            _end(workers, comparison.reporter)


def _start(
    comparison: Comparison, options: DataOptions, number: int, count: int, said: IO[str]
) -> subprocess.Popen[str]:
    # Files were checked when the data were opened here.
    about = {
        "options": asdict(replace(options, verify=False)),
        "settings": asdict(comparison.settings),
        "folder": str(comparison.folder),
        "number": number,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "fewlabels.study.workers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=said,
        text=True,
        env=os.environ | _environment(number, count),
        start_new_session=True,  # Ctrl-C comes to us alone, and we tell them once
    )
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # it has died already, which is seen soon
        process.stdin.write(json.dumps(about) + "\n")
        process.stdin.flush()
    return process


def _threads(count: int) -> int:
    return max(1, torch.get_num_threads() // count)


def _environment(number: int, count: int) -> dict[str, str]:
    """Return a worker's share of the processor and, where there are several, its GPU."""
    threads = str(_threads(count))
    found = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    gpus = gpus or [str(gpu) for gpu in range(torch.cuda.device_count())]
    if len(gpus) > 1:
        found["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    return found


def _watch(comparison: Comparison, workers: Sequence[_Worker]) -> None:
    """Show how many cells are done until every worker has ended."""
    cells = comparison.grid.cells
    told: set[int] = set()
    shown = (-1, -1)
    with comparison.reporter.stage("cells", len(cells), what="cells") as advance:
        while True:
            running = [worker for worker in workers if worker.process.poll() is None]
            seen = _count(comparison, cells), _encoders(comparison.folder)
            if seen != shown:  # where lines are printed, the same one again says nothing
                advance(seen[0], encoders=seen[1])
                shown = seen
            for worker in workers:
                if worker.process.returncode and worker.number not in told:
                    told.add(worker.number)
                    comparison.reporter.say(f"{worker.last_words()}; the others go on")
            if not running:
                return
            time.sleep(LOOK_SECONDS)


def _count(comparison: Comparison, cells: Sequence[PlannedCell]) -> int:
    place = comparison.folder / "cells"
    return sum((place / f"{cell.id}.json").exists() for cell in cells)


def _encoders(folder: Path) -> int:
    return len(list((folder / "encoders").glob(f"*/{RESULT}")))


def _end(workers: Sequence[_Worker], reporter: Reporter) -> None:
    """Tell the workers that still run to save and end, and wait for them."""
    running = [worker.process for worker in workers if worker.process.poll() is None]
    try:
        if running:
            reporter.say(f"stopping {len(running)} workers; what is finished is saved")
        for process in running:
            process.terminate()
        deadline = time.monotonic() + SAVING_SECONDS
        for process in running:
            process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:
        for process in (worker.process for worker in workers):
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()


# ---- in the worker -------------------------------------------------------------------------


def main() -> int:
    """Be a worker; return the exit code."""
    signal.signal(signal.SIGTERM, _ended)
    about: dict[str, Any] = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        _work(about)
    except (FewlabelsError, Interrupted) as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except Exception as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
        return 1
    return 0


def _work(about: dict[str, Any]) -> None:
    lists = {"arms": tuple(about["settings"]["arms"])}
    if about["settings"]["labels"]:
        lists["labels"] = tuple(about["settings"]["labels"])
    settings = Settings(**about["settings"] | lists)
    options = DataOptions(**about["options"])
    quiet = Reporter(quiet=True)
    comparison = reopen(Path(about["folder"]), options, settings, quiet, computing=True)
    compute(comparison, _from(comparison, about["number"]), leave_abandoned=True)


def _from(comparison: Comparison, number: int) -> list[PlannedCell]:
    """Return the cells, beginning with another unit in each worker, so that they rarely meet."""
    units = comparison.units
    first = number % len(units)
    order = {unit: place for place, unit in enumerate([*units[first:], *units[:first]])}
    return sorted(comparison.grid.cells, key=lambda cell: order[cell.unit])


def _ended(signum: int, _frame: object) -> None:
    raise SystemExit(128 + signum)


def _end_with_stdin() -> None:
    # Unbuffered: a thread that waits in sys.stdin would hold its lock when the interpreter ends.
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
