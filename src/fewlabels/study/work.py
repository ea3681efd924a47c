"""Computing the cells of a comparison, alone or beside other processes in the same folder.

A cell is computed by whoever holds the lock beside its files, and an encoder is pre-trained by
whoever holds its lock. What another process is busy with is left for later; when nothing else
is to do, it is waited for. Nothing else is shared, so that the processes may be anywhere.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from fewlabels.core.errors import LockedError
from fewlabels.results.lock import Lock
from fewlabels.study.arms import Arm
from fewlabels.study.encoders import (
    SILENCE,
    Encoder,
    encoder_lock,
    load_encoder,
    make_encoder,
    release,
    start_key,
)
from fewlabels.study.grid import Comparison, PlannedCell
from fewlabels.study.jobs import NOT_OF_A_CELL, Job, do, give_up, is_done, jobs_of, ours
from fewlabels.study.plan import Unit

POLL_SECONDS = 0.5


def compute(
    comparison: Comparison, cells: Sequence[PlannedCell], *, leave_abandoned: bool = False
) -> None:
    """Compute the cells that are not there, with whoever else computes in the folder.

    Returns when all of them are there, failed ones included.

    Parameters
    ----------
    leave_abandoned : bool
        Leave alone what a process was busy with that died: what has killed one worker must not
        kill the next. Otherwise it is taken over.
    """
    (comparison.folder / "cells").mkdir(parents=True, exist_ok=True)
    bench = _Bench(comparison, leave_abandoned=leave_abandoned)
    jobs = jobs_of(comparison, cells)
    told = ""
    while jobs:
        before, jobs = len(jobs), list(_once_through(bench, jobs))
        if len(jobs) == before:
            if bench.in_the_way != told:
                comparison.reporter.say(f"waiting: {bench.in_the_way}")
                told = bench.in_the_way
            time.sleep(POLL_SECONDS)
    bench.clear()


def free_abandoned(folder: Path) -> None:
    """Remove the locks that processes of this machine have left which are gone."""
    for path in [*folder.glob("cells/*.lock"), *folder.glob("encoders/*.lock")]:
        lock = Lock(path)
        if lock.abandoned():
            with contextlib.suppress(LockedError), lock:
                pass


def _once_through(bench: _Bench, jobs: Sequence[Job]) -> Iterator[Job]:
    """Do what can be done, unit by unit; yield what others were busy with."""
    for unit in dict.fromkeys(job.cell.unit for job in jobs):
        yield from bench.work(unit, [job for job in jobs if job.cell.unit == unit])


class _Bench:
    """Where one process works: the encoders of one unit, and the locks it has met."""

    def __init__(self, comparison: Comparison, *, leave_abandoned: bool) -> None:
        self.comparison = comparison
        self.leave_abandoned = leave_abandoned
        self.in_the_way = ""  # who held a lock last that was wanted
        self._unit: Unit | None = None
        self._encoders: dict[str, Encoder] = {}
        # Kept, because a lock learns over time whether its holder on another machine lives.
        self._locks: dict[Path, Lock] = {}

    def clear(self) -> None:
        """Let go of the encoders."""
        for encoder in self._encoders.values():
            release(encoder)
        self._encoders = {}

    def work(self, unit: Unit, jobs: Sequence[Job]) -> list[Job]:
        """Do the jobs of a unit; return those that other processes are busy with."""
        todo = [job for job in jobs if not is_done(self.comparison, job)]
        free = [job for job in todo if self._is_free(self._cell_lock(job.cell))]
        if free and unit != self._unit:
            self.clear()
            self._unit = unit
        by_start: dict[str, list[Job]] = {}
        for job in free:
            by_start.setdefault(self._start(job.cell.arm), []).append(job)
        for sharing in by_start.values():
            self._open(unit, sharing)
        where = f"(split {unit.split}, seed {unit.pretraining})"
        self._do_all(f"cells {where}", [job for job in free if job.choice is None])
        self._do_all(f"choosing the best arm {where}", [job for job in free if job.choice])
        left = [job for job in todo if not is_done(self.comparison, job)]
        return [job for job in left if not self._is_given_up(job)]

    def _do_all(self, title: str, jobs: Sequence[Job]) -> None:
        ready = [job for job in jobs if self._start(job.cell.arm) in self._encoders]
        if not ready:
            return
        with self.comparison.reporter.stage(title, len(ready), what="cells") as advance:
            for number, job in enumerate(ready, 1):
                self._do(job)
                advance(number)

    def _do(self, job: Job) -> None:
        """Do a job under its lock, unless another process has it or has done it."""
        lock = self._cell_lock(job.cell)
        if not self._hold(lock):
            return
        try:
            if not is_done(self.comparison, job):
                do(self.comparison, job, self._encoders[self._start(job.cell.arm)])
        finally:
            lock.release()

    # ---- encoders ------------------------------------------------------------------------

    def _start(self, arm: Arm) -> str:
        return start_key(arm, self.comparison.task)

    def _open(self, unit: Unit, jobs: Sequence[Job]) -> None:
        """Open the encoder that jobs share, unless another process is pre-training it."""
        comparison, arm = self.comparison, jobs[0].cell.arm
        key = self._start(arm)
        if key in self._encoders:
            return
        about = (comparison.own(unit), arm, unit, comparison.steps, comparison.labelled(unit))
        lock = None
        try:
            found = load_encoder(*about, comparison.folder)
            if found is None:
                lock = self._encoder_lock(unit, arm)
                if not self._hold(lock):
                    return
                found = make_encoder(*about, comparison.folder, comparison.reporter)
            self._encoders[key] = found
        except NOT_OF_A_CELL:
            raise
        except Exception as error:
            # While the lock is held, so that no other process tries the same in vain.
            for job in jobs:
                give_up(comparison, job, ours(error))
        finally:
            if lock is not None:
                lock.release()

    # ---- locks ---------------------------------------------------------------------------

    def _cell_lock(self, cell: PlannedCell) -> Lock:
        path = self.comparison.folder / "cells" / f"{cell.id}.lock"
        return self._locks.setdefault(path, Lock(path, silence=SILENCE))

    def _encoder_lock(self, unit: Unit, arm: Arm) -> Lock:
        lock = encoder_lock(self.comparison.folder, arm, self.comparison.own(unit), unit)
        return self._locks.setdefault(lock.path, lock)

    def _is_free(self, lock: Lock) -> bool:
        if not lock.path.exists():
            return True
        return lock.abandoned() and not self.leave_abandoned

    def _hold(self, lock: Lock) -> bool:
        """Take a lock, or note who has it."""
        if self.leave_abandoned and lock.abandoned():
            return False
        try:
            lock.acquire()
        except LockedError as error:
            self.in_the_way = error.message
            return False
        return True

    def _is_given_up(self, job: Job) -> bool:
        """Say whether the process has died that was busy with a job, or with its encoder."""
        if not self.leave_abandoned:
            return False
        locks = [self._cell_lock(job.cell)]
        if job.cell.arm.start == "pretrained":
            locks.append(self._encoder_lock(job.cell.unit, job.cell.arm))
        return any(lock.abandoned() for lock in locks)
