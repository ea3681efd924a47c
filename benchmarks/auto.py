"""What the rules of ``auto`` lose against every fixed recipe on the committed tables.

    python benchmarks/auto.py

Nothing is trained: the cells of committed comparisons are read, and `auto` scores what the arm
scored that it chooses. Every table is judged twice: as it is (``pretraining`` yes), and as if the
budget left no time for pre-training (no), among the arms that need none.

The rules are written by hand in `fewlabels.study.recipes`. `fitted` works the choices out anew:
of the arms that all sets have, the one whose mean regret is least; at a number of labels another
replaces it where its paired interval against the first excludes zero in every table that has
this number. Sets of small images and of photos are fitted apart. ``committed`` are the rules as
they stand, ``fitted`` those that all tables give, ``left out`` those that the other data sets
give: the score of rules on a set which they were not derived from. Where no other set of the
kind (small or photos) is left, they are derived from the other kind.

What is not covered: bounds on steps and images cannot be fitted, since every table has one
budget; they were set by hand from the files that the rules name. With two data sets, one of a
kind, leaving one out always means deriving rules for digits from photos, or for photos from
digits. What no table has at all is written into the last row (`NOT_COVERED`). Intervals against
scratch are about the test images of these tables.

Writes ``benchmarks/auto.csv``.
"""

from __future__ import annotations

import csv
import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record import HERE, MADE, made

from fewlabels.evaluation.cells import Cell, design_of, select
from fewlabels.evaluation.verdicts import compare_arms
from fewlabels.study.parsing import parse_arm
from fewlabels.study.recipes import PRETRAINED, SMALL, UNTRAINED, Conditions, choose

COMMAND = "python benchmarks/auto.py"
COLUMNS: tuple[str, ...] = ("data", "table", "pretraining", "shots", "recipe", "rules", "chosen")
COLUMNS += (
    "metric",
    "score",
    "best",
    "best_score",
    "regret",
    "over_scratch",
    "low",
    "high",
    "note",
    *MADE,
)
NOT_COVERED = (
    "no table yet: clothing or any photos above 32 pixels; more than 100 labels a class; GPUs; "
    "unlabelled losses; budgets other than those of the tables"
)
CLASSES = 10
# Size, channels and training images of each set; the tables of a set; and its metric.
SETS: dict[str, tuple[int, int, int, tuple[str, ...], str]] = {
    "digits": (8, 1, 1_425, ("digits",), "accuracy"),
    "cifar10": (32, 3, 45_000, ("cifar10", "methods"), "accuracy"),
    "clothing": (64, 3, 3_068, ("clothing",), "f1_macro"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A committed comparison, with the arms of one state: pre-training affordable or not.

    Attributes
    ----------
    data, name, metric : str
    pretraining : bool
    cells : list of dict
        Of the arms that may be chosen.
    """

    data: str
    name: str
    metric: str
    pretraining: bool
    cells: list[Cell]

    @property
    def small(self) -> bool:
        """Return whether its images are small."""
        return SETS[self.data][0] <= SMALL

    @property
    def shots(self) -> list[int]:
        """Return the numbers of labels a class."""
        return sorted({cell["shots"] for cell in self.cells})

    def scores(self, shots: int) -> dict[str, float]:
        """Return the mean score of every arm."""
        names = dict.fromkeys(cell["arm"] for cell in self.cells if cell["shots"] == shots)
        found = {name: select(self.cells, name, shots, self.metric) for name in names}
        return {
            name: sum(cell[self.metric] for cell in cells) / len(cells)
            for name, cells in found.items()
            if cells
        }

    def over(self, arm: str, other: str, shots: int) -> tuple[float, float, float]:
        """Return by how much an arm is better than another, with its paired interval."""
        if arm == other:
            return 0.0, 0.0, 0.0
        sides = [select(self.cells, name, shots, self.metric) for name in (arm, other)]
        found = compare_arms(*sides, design=design_of(self.cells), metric=self.metric)
        return found.difference, found.low, found.high

    def conditions(self, shots: int) -> Conditions:
        """Return what `auto` would have known."""
        size, channels, images, _, _ = SETS[self.data]
        steps = {
            cell["arm"]: cell["steps"]
            for cell in self.cells
            if cell["shots"] == shots and cell["arm"] in (PRETRAINED, UNTRAINED)
        }
        return Conditions(
            size,
            channels,
            images,
            shots * CLASSES,
            shots,
            "cpu",
            steps.get(PRETRAINED, 0),
            steps[UNTRAINED],
        )


Choices = Mapping[int, str]


def main() -> None:
    """Score the rules on every table and write the CSV."""
    tables = read()
    rows = [row for table in tables for row in scored(table, tables)]
    rows += averages(rows)
    rows.append({"data": "not covered", "note": NOT_COVERED})
    about = made(COMMAND)
    with (HERE / "auto.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows({**row, **about} for row in rows)
    for line in told(rows):
        sys.stderr.write(line + "\n")


def read(folder: Path = HERE) -> list[Table]:
    """Return the committed tables, each in both states."""
    found = []
    for data, (_, _, _, names, metric) in SETS.items():
        for name in names:
            path = folder / f"{name}_cells.csv"
            if path.exists():
                cells = cells_of(path, metric)
                plain = [cell for cell in cells if not pretrains(cell["arm"])]
                found.append(Table(data, name, metric, True, cells))
                found.append(Table(data, name, metric, False, plain))
    return found


def cells_of(path: Path, metric: str) -> list[Cell]:
    """Return the cells of a table that ended; those of `auto` itself are no fixed recipe."""
    streams = ("split", "labels", "pretraining", "training")
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {
                "arm": row["arm"],
                "shots": int(row["shots"]),
                metric: float(row[metric]),
                "steps": int(row["steps"]),
                "failed": None,
                "streams": {key: int(row[key]) if row[key] else None for key in streams},
            }
            for row in csv.DictReader(file)
            if not row["failed"] and row["arm"] != "auto"
        ]


def pretrains(arm: str) -> bool:
    """Say whether an arm needs a pre-training."""
    return parse_arm(arm).method is not None


def committed(table: Table) -> Choices:
    """Return what the rules choose at each number of labels."""
    return {shots: choose(table.conditions(shots)).recipe for shots in table.shots}


def fitted(tables: Sequence[Table], table: Table, *, without: str = "") -> Choices:
    """Return what tables other than those of the set `without` give for a table.

    Empty where there are none.
    """
    rest = [one for one in tables if one.pretraining == table.pretraining and one.data != without]
    kind = [one for one in rest if one.small == table.small] or rest
    if not kind:
        return {}
    always = least_regret(kind, allowed=arms_of([table]))
    seen = sorted({shots for one in kind for shots in one.shots})
    choices = {shots: replaced(kind, always, shots, arms_of([table])) for shots in seen}
    return {shots: choices[nearest(seen, shots)] for shots in table.shots}


def arms_of(tables: Sequence[Table]) -> set[str]:
    """Return the arms that all tables have."""
    return set.intersection(*({cell["arm"] for cell in table.cells} for table in tables))


def least_regret(tables: Sequence[Table], allowed: set[str]) -> str:
    """Return the arm with the least mean regret, every set counting alike."""
    known = sorted(arms_of(tables) & allowed)
    by_set: dict[tuple[str, str], list[float]] = defaultdict(list)
    for table in tables:
        for shots in table.shots:
            scores = table.scores(shots)
            best = max(scores.values())
            for arm in known:
                by_set[arm, table.data].append(best - scores[arm])
    mean = {
        arm: [sum(v) / len(v) for (name, _), v in by_set.items() if name == arm] for arm in known
    }
    return min(known, key=lambda arm: sum(mean[arm]) / len(mean[arm]))


def replaced(tables: Sequence[Table], always: str, shots: int, allowed: set[str]) -> str:
    """Return the arm that is surely better at a number of labels, else the one for always."""
    having = [table for table in tables if shots in table.shots]
    scores: dict[str, float] = defaultdict(float)
    for table in having:
        for arm, score in table.scores(shots).items():
            scores[arm] += score
    better = [
        arm
        for arm in sorted(arms_of(having) & allowed)
        if all(table.over(arm, always, shots)[1] > 0 for table in having)
    ]
    return max(better, key=lambda arm: scores[arm], default=always)


def nearest(seen: Sequence[int], shots: int) -> int:
    """Return the nearest number of labels on a log scale.

    Examples
    --------
    >>> nearest([1, 4, 25], 10), nearest([1, 4, 25], 100)
    (4, 25)
    """
    return min(seen, key=lambda one: abs(math.log(one / shots)))


def scored(table: Table, tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Return the rows of a table: each fixed recipe, and `auto` by each set of rules."""
    rules = {
        "committed": committed(table),
        "fitted": fitted(tables, table),
        "left out": fitted(tables, table, without=table.data),
    }
    rows = []
    for shots in table.shots:
        for name, choices in rules.items():
            if shots in choices:
                rows.append(_row(table, shots, "auto", choices[shots], name))
        rows += [_row(table, shots, arm, "") for arm in table.scores(shots)]
    return rows


def _row(table: Table, shots: int, recipe: str, chosen: str, rules: str = "") -> dict[str, Any]:
    scores, arm = table.scores(shots), chosen or recipe
    row: dict[str, Any] = {
        "data": table.data,
        "table": table.name,
        "pretraining": "yes" if table.pretraining else "no",
        "shots": shots,
        "recipe": recipe,
        "rules": rules,
        "chosen": chosen,
        "metric": table.metric,
    }
    if arm not in scores:
        return {**row, "note": "this table does not have the arm"}
    best = max(scores, key=lambda name: scores[name])
    row |= {"score": _short(scores[arm]), "best": best, "best_score": _short(scores[best])}
    row["regret"] = _short(scores[best] - scores[arm])
    if recipe == "auto":
        found = table.over(arm, UNTRAINED, shots)
        row |= dict(zip(("over_scratch", "low", "high"), map(_short, found), strict=True))
    return row


def averages(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean regret of `auto` and of each arm that every set has.

    A mean over numbers of labels within a table, tables within a set, and sets.
    """
    out = []
    for state in ("yes", "no"):
        own = [row for row in rows if row["pretraining"] == state and "regret" in row]
        every = {row["data"] for row in own}
        for recipe, rules in dict.fromkeys((row["recipe"], row["rules"]) for row in own):
            mine = [row for row in own if (row["recipe"], row["rules"]) == (recipe, rules)]
            if {row["data"] for row in mine} == every:
                mean = _nested(mine)
                about = {"data": "mean of sets", "pretraining": state, "recipe": recipe}
                out.append({**about, "rules": rules, "regret": _short(mean)})
    return out


def _nested(rows: Sequence[Mapping[str, Any]], keys: Sequence[str] = ("data", "table")) -> float:
    if not keys:
        return sum(float(row["regret"]) for row in rows) / len(rows)
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row[keys[0]]].append(row)
    return sum(_nested(group, keys[1:]) for group in groups.values()) / len(groups)


def told(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the rows about `auto` in words."""
    lines = []
    for row in rows:
        if row.get("recipe") == "auto" and row.get("table"):
            place = f"{row['table']:8} pre-training {row['pretraining']:3} {row['shots']:3} labels"
            regret = f"{100 * float(row['regret']):5.1f}" if "regret" in row else "    -"
            lines.append(f"{place}  {row['rules']:10} {row['chosen']:18} regret {regret}")
        elif row["data"] == "mean of sets":
            which = f"{row['recipe']} {row['rules']}"
            regret = f"{100 * float(row['regret']):5.1f}"
            lines.append(f"mean, pre-training {row['pretraining']:3} {which:28} {regret}")
    return lines


def _short(value: float) -> str:
    return f"{value:.6g}"


if __name__ == "__main__":
    main()
