"""Rows of a benchmark's CSV: one figure a row, with what it was measured on.

A benchmark that is run again replaces its own figures and leaves the others as they are.
"""

from __future__ import annotations

import csv
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fewlabels.results.environment import describe

HERE = Path(__file__).parent
COLUMNS = ("figure", "value", "unit", "low", "high", "repeats")
COLUMNS += ("machine", "commit", "command", "date")


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
        about = describe("cpu")
        self.path = HERE / f"{name}.csv"
        self._made = {
            "machine": about["machine"],
            "commit": about.get("commit", ""),
            "command": command,
            "date": datetime.now(UTC).date().isoformat(),
        }

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
        rows = [old for old in self._read() if old["figure"] != figure]
        with self.path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, COLUMNS)
            table.writeheader()
            table.writerows([*rows, row])
        sys.stderr.write(
            f"{figure}: {row['value']} {unit} ({row['low']} to {row['high']}, {len(repeats)})\n"
        )

    def _read(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))


def _short(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
