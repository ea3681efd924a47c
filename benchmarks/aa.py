"""Arms against themselves, resampled from real cells: how often a verdict is false, or missed.

    python benchmarks/aa.py

From the committed cells of comparisons on a given split (`GIVEN`, those that are there) and of
digits (`digits_cells.csv`). Every trial goes through the package's own verdicts:

a/a     an arm against itself, which no verdict should tell apart. On a given split the two sides
        are kept apart by disjoint sets of pre-training seeds, of label draws, or of both; what is
        not told apart they share. Of repeated splits each has two draws: a coin says which side
        gets which
family  24 such pairs at once, under Holm's correction: how often any of them is decided
power   a/a with a difference planted as large as the one that was printed as detectable (the
        median of an arm's trials; the column has the median of the arms)
pair    SimCLR's features against scratch on CIFAR-10 at 4 labels a class, which differ

A trial's images are those of all trials, so that they are no source of variance here, and
intervals of a given split do not count them. Of repeated splits the scores of single images are
not in the tables: `the fewest` that can have differed are supposed to have; where nothing is
supposed, verdicts take `all of the spread` as shared. Takes an hour; begun again, it goes on.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from record import HERE, MADE, Key, Rows, fill

from fewlabels.evaluation.cells import Cell, Design, SplitImages
from fewlabels.evaluation.intervals import wilson
from fewlabels.evaluation.verdicts import Verdict, compare_arms, verdict_table

COMMAND = "python benchmarks/aa.py"
GIVEN = ("cifar10_cells.csv", "clothing_cells.csv", "aa_cells.csv")
COLUMNS: tuple[str, ...] = (
    "kind",
    "data",
    "shots",
    "design",
    "apart",
    "pretraining",
    "draws",
    "splits",
    "images",
)
SAME = COLUMNS
COLUMNS += ("trials", "rate", "low", "high", "promised", "planted", *MADE)
FAMILY = 24  # verdicts at once, at most
TESTED = 197  # test images in a split of digits
Pool = dict[tuple[str, int], np.ndarray]  # (seeds, draws), or (splits, 2)


def read(name: str) -> Pool:
    """Return complete tables of cells by arm and shots: seeds or splits by draws."""
    values: dict[tuple[str, int], dict[tuple[str, str], float]] = {}
    with (HERE / name).open(newline="") as file:
        for row in csv.DictReader(file):
            if not row["failed"]:
                repeated = "digits" in name
                unit = row["split"] if repeated else row["pretraining"]
                of_arm = values.setdefault((row["arm"], int(row["shots"])), {})
                of_arm[unit, row["labels"]] = float(row["accuracy"])
    return {key: _table(cells) for key, cells in values.items()}


def _table(cells: dict[tuple[str, str], float]) -> np.ndarray:
    units = sorted({unit for unit, _ in cells})
    rows = [[v for (u, _), v in sorted(cells.items()) if u == unit] for unit in units]
    return np.array(rows)


def cells_of(arm: str, table: np.ndarray, kind: str, shots: int = 4) -> list[Cell]:
    """Return a table as cells: of seeds by draws on one split, or of splits with a draw each."""
    found: list[Cell] = []
    for (unit, draw), value in np.ndenumerate(table):
        streams = {"split": unit, "labels": unit, "pretraining": unit, "training": 0}
        if kind == "given":
            streams |= {"split": 0, "labels": draw, "pretraining": unit}
        cell: dict[str, Any] = {"arm": arm, "shots": shots, "failed": None, "streams": streams}
        found.append({**cell, "accuracy": float(value)})
    return found


def sides(
    rng: np.random.Generator,
    table: np.ndarray,
    kind: str,
    shape: tuple[int, int],
    apart: str = "seeds",
) -> tuple[np.ndarray, np.ndarray]:
    """Return one arm's cells dealt to itself and to its like.

    Parameters
    ----------
    shape : tuple of int
        Seeds and draws; or splits, with the one draw of each side.
    apart : {"seeds", "draws", "both"}
        What the sides do not share on a given split.
    """
    units, draws = shape
    if kind == "given":
        seeds, columns = (rng.permutation(count) for count in table.shape)
        theirs = seeds[units * (apart != "draws") :][:units]
        others = columns[draws * (apart != "seeds") :][:draws]
        return table[np.ix_(seeds[:units], columns[:draws])], table[np.ix_(theirs, others)]
    rows = table[rng.permutation(len(table))[:units]]
    swapped = np.where(rng.random((units, 1)) < 0.5, rows[:, ::-1], rows)
    return swapped[:, :1], swapped[:, 1:]


def fitting(pool: Pool, shape: tuple[int, int], apart: str) -> Pool:
    """Return the tables of a given split that are large enough for two sides."""
    units, draws = shape[0] * (1 + (apart != "draws")), shape[1] * (1 + (apart != "seeds"))
    return {k: t for k, t in pool.items() if len(t) >= units and t.shape[1] >= draws}


def design_of(kind: str, shape: tuple[int, int]) -> Design:
    """Return the design of a trial."""
    units, draws = shape
    if kind == "given":
        return Design("given", 1, draws, units)
    return Design("repeated", units, units, units)


def shared(differences: np.ndarray, images: str) -> SplitImages | None:
    """Return scores of test images in which the fewest images differ; None where unknown.

    Parameters
    ----------
    differences : ndarray
        ``(splits,)`` of accuracies.
    """
    if images != "the fewest":
        return None
    found = {}
    for split, difference in enumerate(differences):
        found[split] = np.zeros(TESTED)
        found[split][: round(abs(difference) * TESTED)] = np.sign(difference)
    return found


def judge(a: np.ndarray, b: np.ndarray, kind: str, shape: tuple[int, int], images: str) -> Verdict:
    """Return the package's verdict on two tables."""
    return compare_arms(
        cells_of("a", a, kind),
        cells_of("b", b, kind),
        design=design_of(kind, shape),
        image_differences=shared((a - b).mean(axis=1), images),
    )


def told(
    about: dict[str, Any], hits: int, trials: int, promised: Any, planted: Any = ""
) -> dict[str, Any]:
    """Return a row with the rate and its binomial interval."""
    low, high = wilson(hits, trials)
    sys.stderr.write(f"{' '.join(map(str, about.values()))}: {hits / trials:.4f}\n")
    found = {"rate": hits / trials, "low": low, "high": high}
    rates = {key: f"{value:.4f}" for key, value in found.items()}
    return {**about, "trials": trials, **rates, "promised": promised, "planted": planted}


def shape_of(about: dict[str, Any]) -> tuple[int, int]:
    """Return the shape of a side's table."""
    repeated = about["design"] == "repeated"
    return (about["splits"], 1) if repeated else (about["pretraining"], about["draws"])


def alone(
    tables: list[np.ndarray], about: dict[str, Any], trials: int, rng: np.random.Generator
) -> Rows:
    """Return the rows of one pair a trial: false verdicts, and power."""
    images, kind, shape = about["images"], about["design"], shape_of(about)
    which = rng.integers(len(tables), size=trials)

    def pair(place: int) -> tuple[np.ndarray, np.ndarray]:
        return sides(rng, tables[place], kind, shape, about["apart"])

    found = [judge(*pair(place), kind, shape, images) for place in which]
    false = sum(one.verdict != "undecided" for one in found)
    printed = np.array([one.detectable for one in found])
    planted = [np.nanmedian(printed[which == place]) for place in range(len(tables))]
    hits = 0
    for place in which:
        a, b = pair(place)
        hits += judge(a + planted[place], b, kind, shape, images).verdict == "helps"
    typical = f"{100 * np.median(planted):.2f}"
    return [
        told(about, false, trials, 0.05),
        told({**about, "kind": "power"}, hits, trials, 0.8, typical),
    ]


def family(
    tables: list[np.ndarray], about: dict[str, Any], trials: int, rng: np.random.Generator
) -> Rows:
    """Return the row of many pairs at once: how often Holm's correction lets any be decided."""
    kind, shape = about["design"], shape_of(about)
    design = design_of(kind, shape)
    names = [f"arm{place}" for place in range(len(tables))]
    flat = cells_of("baseline", np.zeros(shape), kind)
    false = 0
    for _ in range(trials):
        cells, scores = list(flat), {}
        for name, table in zip(names, tables, strict=True):
            a, b = sides(rng, table, kind, shape, about["apart"])
            cells += cells_of(name, a - b, kind)
            known = shared((a - b).mean(axis=1), about["images"])
            if known is not None:
                scores[name, 4] = known
                scores["baseline", 4] = dict.fromkeys(known, np.zeros(TESTED))
        rows = verdict_table(cells, {}, names, "baseline", design=design, images=scores)
        false += any(row["verdict"] != "undecided" for row in rows)
    return [told(about, false, trials, 0.05)]


def real_pair(pool: Pool, about: dict[str, Any], trials: int, rng: np.random.Generator) -> Rows:
    """Return how often SimCLR's features are told from scratch at 4 labels on CIFAR-10."""
    ours, theirs = pool["simclr+features", 4], pool["scratch", 4]
    units, draws = shape_of(about)
    hits = 0
    for _ in range(trials):
        columns = rng.permutation(ours.shape[1])[:draws]
        rows = rng.permutation(len(ours))[:units]
        b = np.repeat(theirs[:1, columns], units, axis=0)
        found = judge(ours[rows][:, columns], b, "given", (units, draws), "none")
        hits += found.verdict == "helps"
    return [told(about, hits, trials, "")]


Task = tuple[Callable[..., Rows], Any, Key]  # what makes rows, of what, and the row it begins with


def given(name: str) -> Iterator[Task]:
    """Yield what is tried on the cells of a given split."""
    whole = read(name)
    for apart in ("seeds", "draws", "both"):
        for units in (1, 2, 3, 5):
            for draws in (5, 10, 20):
                pool = fitting(whole, (units, draws), apart)
                rest = ("given", apart, units, draws, 1, "none")
                for shots in sorted({key[1] for key in pool}):
                    tables = [table for key, table in pool.items() if key[1] == shots]
                    yield alone, tables, ("a/a", name, shots, *rest)
                if pool and units >= 3 and draws == 10:
                    tables = (list(pool.values()) * FAMILY)[:FAMILY]
                    yield family, tables, (f"family of {FAMILY}", name, "all", *rest)
                rest = ("given", "", units, draws, 1, "none")
                if apart == "seeds" and ("scratch", 4) in whole and "cifar10" in name:
                    ours = whole["simclr+features", 4]
                    if len(ours) >= units and ours.shape[1] >= draws:
                        yield real_pair, whole, ("pair", name, 4, *rest)


def repeated() -> Iterator[Task]:
    """Yield what is tried on the cells of repeated splits."""
    name = "digits_cells.csv"
    pool = read(name)
    for splits in (3, 5, 10):
        for images in ("the fewest", "all of the spread"):
            rest = ("repeated", "draws", splits, splits, splits, images)
            for shots in sorted({key[1] for key in pool}):
                tables = [table for key, table in pool.items() if key[1] == shots]
                yield alone, tables, ("a/a", name, shots, *rest)
            tables = list(pool.values())[:FAMILY]
            yield family, tables, (f"family of {len(tables)}", name, "all", *rest)


def main() -> None:
    """Resample all designs and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=4000)
    trials = parser.parse_args().trials
    there = [name for name in GIVEN if (HERE / name).exists()]
    tasks = {}
    for task, of, key in (*(one for name in there for one in given(name)), *repeated()):
        tasks[key] = partial(task, of, dict(zip(SAME, key, strict=True)), trials)
    fill(HERE / "aa.csv", COLUMNS, SAME, COMMAND, tasks)


if __name__ == "__main__":
    main()
