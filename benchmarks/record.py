"""Rows of a benchmark's CSV: one figure a row, with what it was measured on.

A benchmark that is run again replaces its own figures and leaves the others as they are.
"""

from __future__ import annotations

import csv
import io
import statistics
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fewlabels.results.environment import describe
from fewlabels.results.files import write_atomic

HERE = Path(__file__).parent
MADE = ("machine", "commit", "command", "date")
COLUMNS = ("figure", "value", "unit", "low", "high", "repeats", *MADE)


class Record:
    """The figures of one benchmark.

    Parameters
    ----------
    name : str
        The CSV is ``benchmarks/<name>.csv``.
    command : str
        How to measure it again, without the paths of this machine.
    """

    def __init__(self, name: str, command: str) -> None:
        self.path = HERE / f"{name}.csv"
        self._made = made(command)

    def add(self, figure: str, values: float | Sequence[float], unit: str) -> None:
        """Write a figure: the median of its repeats, and the least and the largest of them."""
        repeats = [values] if isinstance(values, int | float) else list(values)
        row = {
            "figure": figure,
            "value": _short(statistics.median(repeats)),
            "unit": unit,
            "low": _short(min(repeats)),
            "high": _short(max(repeats)),
            "repeats": len(repeats),
            **self._made,
        }
        replace(self.path, COLUMNS, [row], ("figure",))
        sys.stderr.write(
            f"{figure}: {row['value']} {unit} ({row['low']} to {row['high']}, {len(repeats)})\n"
        )


def made(command: str) -> dict[str, str]:
    """Return the columns that say on what, from what and by what command a row was made."""
    about = describe("cpu")
    return {
        "machine": about["machine"],
        "commit": about.get("commit", ""),
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
    }


def replace(
    path: Path,
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    same: Sequence[str],
    order: Callable[[Mapping[str, Any]], Any] | None = None,
) -> None:
    """Write rows into a table in place of those that tell of the same; the others stay.

    Parameters
    ----------
    path : Path
        Of a CSV, which need not be there yet.
    columns : sequence of str
    rows : sequence of mapping
    same : sequence of str
        Columns by whose values two rows tell of the same.
    order : callable, optional
        Key to sort all rows by; without it they keep their order and new ones come last.
    """
    old: list[Mapping[str, Any]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            old = list(csv.DictReader(file))
    new = {tuple(str(row[name]) for name in same) for row in rows}
    kept = [row for row in old if tuple(row[name] for name in same) not in new]
    found = [*kept, *rows]
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, columns)
    table.writeheader()
    table.writerows(sorted(found, key=order) if order else found)
    write_atomic(path, text.getvalue())


Rows = list[dict[str, Any]]
Key = tuple[Any, ...]


def fill(
    path: Path,
    columns: Sequence[str],
    same: Sequence[str],
    command: str,
    tasks: Mapping[Key, Callable[[np.random.Generator], Rows]],
) -> None:
    """Make a whole simulated table anew; begun again on the same commit, go on with it.

    Until it is whole it lies beside the old one, which stays, as ``<name>.part``.

    Parameters
    ----------
    path, columns, same
        As in `replace`.
    command : str
    tasks : mapping
        By the values of `same` in its first row: what makes its rows. Each has random numbers
        of its own, whatever was made before.
    """
    about = made(command)
    part = path.with_suffix(".part")
    kept = [] if "dirty" in about["commit"] else _of(part, about["commit"])
    if not kept:
        part.unlink(missing_ok=True)
    done = {_key(row, same) for row in kept}
    for key, task in tasks.items():
        if tuple(map(str, key)) not in done:
            rows = task(np.random.default_rng(zlib.crc32(repr(key).encode())))
            replace(part, columns, [{**row, **about} for row in rows], same)
    part.replace(path)


def _of(path: Path, commit: str) -> Rows:
    """Return the rows that were made on a commit."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["commit"] == commit]


def _key(row: Mapping[str, Any], same: Sequence[str]) -> Key:
    return tuple(str(row[name]) for name in same)


def _short(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
