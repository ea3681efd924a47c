"""The most from few labels: random ones, unlabelled images beside them, and suggested ones.

    python benchmarks/few_labels.py digits
    FEWLABELS_DATA=... python benchmarks/few_labels.py cifar10 --only suggested
    FEWLABELS_DATA=... python benchmarks/few_labels.py clothing --dry-run

FEWLABELS_DATA is a folder that holds ``cifar10/`` and ``clothing/``.

random      as many labels of each class, drawn at random: `compare` of fixed recipes, and of what
            the rules of ``auto`` take
unlabelled  the same labels, with unlabelled images a second time while fine-tuning
suggested   10 and 40 labels in all, each strategy against uniform random ones: `study label`

Recipes, draws and budgets are fixed in `PARTS`, the weights are those of the last step, and the
test split is opened once for each part. What is written down follows from the result alone.

A part that was interrupted goes on when the same command is given again. The row of a cell is
written as soon as the cell ends: into ``benchmarks/few_labels.csv``. At the end of a part come its
``few_labels_curves.csv`` and ``few_labels_verdicts.csv``; until then ``looks_at_test`` is empty.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from record import HERE, MADE, made, replace
from tables import SPREADS, VERDICT

import fewlabels
from fewlabels.study.cells import load_cell, read_cell
from fewlabels.study.plan import make_units
from fewlabels.study.summary import sentence
from fewlabels.training.durations import parse_duration
from fewlabels.training.progress import Advance, Reporter

SUGGESTED = "suggested"
STRATEGIES = (
    *("coverage", "typicality", "spread_margin", "margin", "badge", "coreset"),
    *("uniform", "class_balanced"),
)
AGAIN = [  # unlabelled images a second time, and what has seen them once or never
    *("simclr+freematch", "simclr+softmatch", "simclr+pseudo", "scratch+freematch"),
    *("simclr+features", "scratch"),
]
IMAGE_SIZE = {"digits": None, "cifar10": None, "clothing": 128}
LIMIT = {"digits": 120, "cifar10": 600, "clothing": 1_200}  # seconds a cell may take in all

# What a part asks of the verb. On digits 20 draws of labels over 10 random splits, each with a
# pre-training of its own; on the others draws are crossed with pre-trainings. Budgets in seconds
# leave some of the limit to scoring, and to a machine that is slower than its calibration.
PARTS: dict[str, dict[str, dict[str, Any]]] = {
    "digits": {
        "random": {
            "arms": ["auto", "simclr+features", "pixels+spreading", "random+features", "scratch"],
            "labels": [1, 4, 25],
            "seeds": 20,
            "pretraining_seeds": 10,
            "budget": "12s",
            "select": "none",
        },
        "unlabelled": {
            "arms": AGAIN,
            "baseline": "simclr+features",
            "labels": [1, 4, 25],
            "seeds": 20,
            "pretraining_seeds": 10,
            "budget": "60s",
            "select": "none",
        },
        SUGGESTED: {
            "arms": STRATEGIES,
            "labels": [10, 40],
            "seeds": 20,
            "pretraining_seeds": 10,
            "budget": "12s",
        },
    },
    "cifar10": {
        "random": {
            "arms": ["auto", "simclr+features", "random+features", "pixels", "scratch"],
            "labels": [1, 4, 25, 100],
            "seeds": 10,
            "pretraining_seeds": 3,
            "budget": "500s",
            "select": "none",
        },
        "unlabelled": {
            "arms": AGAIN,
            "baseline": "simclr+features",
            "labels": [1, 4, 25, 100],
            "seeds": 5,
            "pretraining_seeds": 2,
            "budget": "500s",
            "select": "none",
        },
        SUGGESTED: {
            "arms": STRATEGIES,
            "labels": [10, 40],
            "seeds": 10,
            "pretraining_seeds": 3,
            "budget": "500s",
        },
    },
    "clothing": {
        "random": {
            "arms": ["auto", "simclr+features", "scratch", "scratch+long"],
            "labels": [10, 40],
            "metric": "f1_macro",
            "seeds": 5,
            "pretraining_seeds": 2,
            "budget": "1080s",
            "select": "none",
        },
        "unlabelled": {
            "arms": ["simclr+freematch", "simclr+pseudo", "scratch+freematch", "scratch"],
            "labels": [10, 40],
            "metric": "f1_macro",
            "seeds": 5,
            "pretraining_seeds": 2,
            "budget": "1080s",
            "select": "none",
        },
    },
}
# What was hoped for, by the number of labels.
WANTED = {
    ("digits", "random"): {1: 0.78, 4: 0.945, 25: 0.98},
    ("digits", SUGGESTED): {10: 0.82, 40: 0.965},
    ("cifar10", "random"): {1: 0.30, 4: 0.40, 25: 0.50, 100: 0.58},
}

WHERE = ("data", "part")
STREAMS = ("split", "labels", "pretraining", "training")
SAME = (*WHERE, "arm", "shots", *STREAMS[:-1])
COLUMNS = (
    *(*WHERE, "arm", "shots", *STREAMS, "classes_found", "accuracy", "balanced_accuracy"),
    *("f1_macro", "nll", "pretrain_seconds", "transfer_seconds", "seconds", "steps"),
    *("images_seen", "peak_memory_mb", "failed", "id", "looks_at_test", *MADE),
)
CURVES = (*WHERE, "arm", "shots", "seeds", "mean", "low", "high", "looks_at_test", *MADE)
VERDICTS = (*WHERE, *VERDICT, *(f"sd_{name}" for name in SPREADS), "looks_at_test", *MADE)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the parts that were asked for, or say what they are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("data", choices=list(PARTS))
    add("--only", choices=["random", "unlabelled", SUGGESTED], help="one part")
    add("--dry-run", action="store_true", help="say which cells there are, and their seconds")
    add("--out", type=Path, default=Path("runs/few-labels"), help="the folder of all runs")
    add("--tables", type=Path, default=HERE, help="where the CSV files lie")
    chosen = parser.parse_args(arguments)
    parts = PARTS[chosen.data]
    if chosen.only and chosen.only not in parts:
        parser.error(f"{chosen.data} has no part {chosen.only}; it has {', '.join(parts)}")
    for part in [chosen.only] if chosen.only else parts:
        if chosen.dry_run:
            tell_plan(chosen.data, part)
        else:
            measure(chosen.data, part, chosen.out / chosen.data / part, chosen.tables)


def options(data: str) -> fewlabels.DataOptions:
    """Return where a data set is, and how it is read."""
    place = data if data == "digits" else str(Path(os.environ.get("FEWLABELS_DATA", "")) / data)
    return fewlabels.DataOptions(place, IMAGE_SIZE[data])


def measure(data: str, part: str, place: Path, tables: Path) -> None:
    """Compute what is missing of a part, and write its rows."""
    command = f"python benchmarks/few_labels.py {data} --only {part}"
    clerk = Clerk((data, part), place, tables / "few_labels.csv", command)
    verb = fewlabels.label_study if part == SUGGESTED else fewlabels.compare
    settings = PARTS[data][part]
    result = verb(options(data), **settings, out=place, command=command, reporter=clerk)
    found = {name: result["environment"].get(name, "") for name in ("machine", "commit")}
    about = {**made(command), **found}  # of the measurement, which may lie before this start
    clerk.close(result, about)
    summed = {"data": data, "part": part, "looks_at_test": result["looks_at_test"], **about}
    verdicts = [
        {**row, **{f"sd_{name}": row["components"][name] for name in SPREADS}}
        for row in result["verdicts"]
    ]
    for name, columns, rows in (
        ("few_labels_curves.csv", CURVES, result["curves"]),
        ("few_labels_verdicts.csv", VERDICTS, verdicts),
    ):
        replace(
            tables / name, columns, [as_kept({**row, **summed}, columns) for row in rows], WHERE
        )
    tell(data, part, result)


class Clerk(Reporter):
    """Tells what a `Reporter` tells, and writes the row of every cell as soon as it ends.

    Parameters
    ----------
    where : tuple of str
        Data and part.
    place : Path
        The folder of the run.
    table : Path
    command : str
    """

    def __init__(self, where: tuple[str, str], place: Path, table: Path, command: str) -> None:
        super().__init__()
        self._where = dict(zip(WHERE, where, strict=True))
        self._cells, self._table, self._command = place / "cells", table, command
        # Rows of an earlier start keep the commit and the date that they were made on.
        self._written = {row["id"] for row in self._rows() if load_cell(self._cells, row["id"])}

    @contextmanager
    def stage(
        self, title: str, total: int, *, unit: int = 1, what: str = "steps"
    ) -> Iterator[Advance]:
        """Lend the function of `Reporter.stage`; where cells are counted, it writes them."""
        with super().stage(title, total, unit=unit, what=what) as advance:

            def advance_and_write(done: int, **metrics: float) -> None:
                advance(done, **metrics)
                if what in ("cells", "strategies"):
                    self.write()

            yield advance_and_write

    def write(self, about: dict[str, str] | None = None) -> None:
        """Write the rows of cells that have ended since, by default as made here and now."""
        names = [path.stem for path in sorted(self._cells.glob("*.json"))]
        new = [read_cell(self._cells, name) for name in names if name not in self._written]
        about = about or made(self._command)
        rows = [{**row, **row["streams"], **self._where, **about} for row in new if row]
        if rows:
            replace(self._table, COLUMNS, [as_kept(row, COLUMNS) for row in rows], SAME)
        self._written |= {row["id"] for row in rows}

    def close(self, result: dict[str, Any], about: dict[str, str]) -> None:
        """Leave the rows of a result alone, each with the number of looks at the test split."""
        self.write(about)
        cells = {cell["id"] for cell in result["cells"]}
        rows = [row for row in self._rows() if row["id"] in cells]
        looks = {"looks_at_test": result["looks_at_test"]}
        replace(self._table, COLUMNS, [{**row, **looks} for row in rows], WHERE)

    def _rows(self) -> list[dict[str, str]]:
        """Return the rows of this part that the table holds."""
        return [row for row in rows_of(self._table) if self._where.items() <= row.items()]


def rows_of(table: Path) -> list[dict[str, str]]:
    """Return the rows of a table, none where there is none."""
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def as_kept(row: dict[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """Return the columns of a row as a CSV keeps them: floats to six digits, None as nothing."""
    values = {name: row.get(name) for name in columns}
    return {
        name: "" if value is None else f"{value:.6g}" if isinstance(value, float) else value
        for name, value in values.items()
    }


def tell(data: str, part: str, result: dict[str, Any]) -> None:
    """Print what a part came to, beside what was hoped for."""
    wanted = WANTED.get((data, part), {})
    for row in result["curves"]:
        hoped = f"  hoped for {wanted[row['shots']]:.1%}" if row["shots"] in wanted else ""
        interval = f"({row['low']:.1%} to {row['high']:.1%})" if row["low"] is not None else ""
        print(f"{row['arm']:>20} {row['shots']:>4} labels  {row['mean']:.1%} {interval}{hoped}")
    for row in result["verdicts"]:
        print(("declared: " if row["primary"] else "") + sentence(row, whole=part == SUGGESTED))
    longest = max((cell["seconds"] for cell in result["cells"] if not cell["failed"]), default=0)
    over = f", more than the {LIMIT[data]} that it may take" if longest > LIMIT[data] else ""
    print(f"the longest cell took {longest:.0f} s, pre-training included{over}")


def tell_plan(data: str, part: str) -> None:
    """Print the cells of a part, and what they will take on this machine."""
    settings = PARTS[data][part]
    print(f"\n{data}, {part}", flush=True)
    if part == SUGGESTED:
        tell_study(data, settings)
        return
    try:
        plan = fewlabels.compare(options(data), **settings, dry_run=True)
    except fewlabels.FewlabelsError as error:  # the other parts may do
        print(f"  {error}")
        return
    for row in plan["plan"]:
        note = f"{row['note']:<42} {row['steps']:>6} steps"
        print(f"  {row['stage']:<34} {note} {row['seconds']:>8,.0f} s")
    print(f"  in all about {plan['seconds'] / 60:,.0f} minutes", flush=True)


def tell_study(data: str, settings: dict[str, Any]) -> None:
    """Print the cells of a labelling study; what takes time are its pre-trainings."""
    given = data != "digits"
    units = make_units(
        given=given,
        draws=settings["seeds"],
        pretraining_seeds=settings["pretraining_seeds"],
        seed=0,
        own_labels=False,
    )
    chains = sum(len(unit.draws) for unit in units)
    budget = parse_duration(settings["budget"])
    print(f"  pretrain simclr: {len(units)} times, {budget} each")
    for name in settings["arms"]:
        print(f"  {name:<16} {chains * len(settings['labels'])} cells of a second or a few")
    if budget.unit == "seconds":
        print(f"  the pre-trainings are {len(units) * budget.value / 60:,.0f} minutes in all")


if __name__ == "__main__":
    main()
