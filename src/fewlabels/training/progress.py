"""Progress: a bar on terminals and in notebooks, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from fewlabels.core import processes
from fewlabels.results.told import told

Advance = Callable[..., None]

LINE_SECONDS = 10.0


class Reporter:
    """Tells people what is going on.

    Parameters
    ----------
    quiet : bool
        Say nothing at all, as all processes but the first do.

    Examples
    --------
    >>> reporter = Reporter(quiet=True)
    >>> with reporter.stage("pretrain", 10) as advance:
    ...     advance(5, loss=0.3)
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet or not processes.prints()
        self.console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
        self._live = self.console.is_terminal or self.console.is_jupyter

    def say(self, text: str) -> None:
        """Print a line of plain text."""
        if not self.quiet:
            self.console.print(text, markup=False)

    @contextmanager
    def stage(
        self, title: str, total: int, *, unit: int = 1, what: str = "steps"
    ) -> Iterator[Advance]:
        """Lend a function to call with the number done and metrics by name.

        Parameters
        ----------
        title : str
        total : int
            Steps in all.
        unit : int
            Images a step, for the rate.
        what : str
            The plural of what is counted.
        """
        if self.quiet:
            yield lambda _done, **_metrics: None
        elif self._live:
            with self._bar(title, total, unit) as advance:
                yield advance
        else:
            yield self._lines(title, total, unit, what)

    @contextmanager
    def _bar(self, title: str, total: int, unit: int) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[detail]}"),
            TimeRemainingColumn(),
        )
        clock = _Clock(unit)
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(title, total=total, detail="")

            def advance(done: int, **metrics: float) -> None:
                clock.begin(done)
                speed = f"{clock.rate(done):,.0f} images/s " if unit > 1 else ""
                detail = f"{speed}{_values(metrics)}"
                progress.update(task, completed=done, detail=detail)

            yield advance

    def _lines(self, title: str, total: int, unit: int, what: str) -> Advance:
        clock = _Clock(unit)
        last = [time.monotonic()]

        def advance(done: int, **metrics: float) -> None:
            clock.begin(done)
            now = time.monotonic()
            if now - last[0] < LINE_SECONDS and done < total:
                return
            last[0] = now
            left = clock.left(done, total)
            speed = f"{clock.rate(done):,.0f} images/s, " if unit > 1 else ""
            sys.stderr.write(
                f"{title}: {done}/{total} {what}, {speed}{_values(metrics)} "
                f"{int(left // 60)}:{int(left % 60):02d} left\n"
            )
            sys.stderr.flush()

        return advance


class _Clock:
    """Rates since the first call, which may start in the middle of a resumed run."""

    def __init__(self, unit: int) -> None:
        self._unit = unit
        self._first: tuple[int, float] | None = None

    def begin(self, done: int) -> None:
        if self._first is None:
            self._first = (done, time.monotonic())

    def rate(self, done: int) -> float:
        if self._first is None:
            return 0.0
        start, began = self._first
        return (done - start) * self._unit / max(time.monotonic() - began, 1e-9)

    def left(self, done: int, total: int) -> float:
        speed = self.rate(done) / self._unit
        return (total - done) / speed if speed > 0 else 0.0


def _values(metrics: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in told(metrics).items())
