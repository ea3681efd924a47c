"""Arms against themselves, resampled from real cells: how often a verdict is false, or missed.

    python benchmarks/aa.py

From the committed cells of CIFAR-10 (`cifar10_cells.csv`, and `aa_cells.csv` with its many
pre-training seeds, where it is there) and of digits (`digits_cells.csv`). Every trial goes through
the package's own verdicts:

a/a     an arm against itself, which no verdict should tell apart. On a given split the two sides
        get disjoint sets of pre-training seeds and share the draws of labels. Of repeated splits
        each has two draws: a coin says which side gets which
family  24 such pairs at once, under Holm's correction: how often any of them is decided (a quarter
        of the trials)
power   a/a with a difference planted as large as the one that was printed as detectable (the
        median of an arm's trials; the column has the median of the arms)
pair    SimCLR's features against scratch on CIFAR-10 at 4 labels a class, which differ

A trial's images are those of all trials, so that they are no source of variance here, and
intervals of a given split do not count them. Of repeated splits the scores of single images are
not in the tables: `the fewest` that can have differed are supposed to have; where nothing is
supposed, verdicts take `all of the spread` as shared. Takes a few minutes.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from record import HERE, MADE, made, replace

from fewlabels.evaluation.cells import Cell, Design, SplitImages
from fewlabels.evaluation.intervals import wilson
from fewlabels.evaluation.verdicts import Verdict, compare_arms, verdict_table

COMMAND = "python benchmarks/aa.py"
COLUMNS = ("kind", "data", "shots", "design", "pretraining", "draws", "splits", "images")
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
    rng: np.random.Generator, table: np.ndarray, kind: str, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return one arm's cells dealt to itself and to its like.

    Parameters
    ----------
    shape : tuple of int
        Seeds and draws; or splits, with the one draw of each side.
    """
    units, draws = shape
    if kind == "given":
        seeds = rng.permutation(len(table))[: 2 * units]
        chosen = table[:, rng.permutation(table.shape[1])[:draws]]
        return chosen[seeds[:units]], chosen[seeds[units:]]
    rows = table[rng.permutation(len(table))[:units]]
    swapped = np.where(rng.random((units, 1)) < 0.5, rows[:, ::-1], rows)
    return swapped[:, :1], swapped[:, 1:]


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


def told(about: dict[str, Any], hits: int, trials: int, promised: float, planted: Any = "") -> Any:
    """Return a row with the rate and its binomial interval."""
    low, high = wilson(hits, trials)
    sys.stderr.write(f"{' '.join(map(str, about.values()))}: {hits / trials:.4f}\n")
    rates = {"rate": hits / trials, "low": low, "high": high}
    rates = {key: f"{value:.4f}" for key, value in rates.items()}
    return {**about, "trials": trials, **rates, "promised": promised, "planted": planted}


def alone(
    rng: np.random.Generator,
    tables: list[np.ndarray],
    kind: str,
    shape: tuple[int, int],
    about: dict[str, Any],
    trials: int,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of one pair a trial: false verdicts, and power."""
    images = about["images"]
    which = rng.integers(len(tables), size=trials)

    def pair(place: int) -> tuple[np.ndarray, np.ndarray]:
        return sides(rng, tables[place], kind, shape)

    found = [judge(*pair(place), kind, shape, images) for place in which]
    false = sum(one.verdict != "undecided" for one in found)
    yield told({"kind": "a/a", **about}, false, trials, 0.05)
    printed = np.array([one.detectable for one in found])
    planted = [np.nanmedian(printed[which == place]) for place in range(len(tables))]
    hits = 0
    for place in which:
        a, b = pair(place)
        hits += judge(a + planted[place], b, kind, shape, images).verdict == "helps"
    typical = f"{100 * np.median(planted):.2f}"
    yield told({"kind": "power", **about}, hits, trials, 0.8, typical)


def family(
    rng: np.random.Generator,
    pool: Pool,
    kind: str,
    shape: tuple[int, int],
    about: dict[str, Any],
    trials: int,
) -> dict[str, Any]:
    """Return the row of many pairs at once: how often Holm's correction lets any be decided."""
    tables = list(pool.values())
    tables = (tables * FAMILY)[: FAMILY if kind == "given" else len(tables)]
    design = design_of(kind, shape)
    names = [f"arm{place}" for place in range(len(tables))]
    flat = np.zeros((shape[0], shape[1] if kind == "given" else 1))
    false = 0
    for _ in range(trials):
        cells, scores = cells_of("baseline", flat, kind), {}
        for name, table in zip(names, tables, strict=True):
            a, b = sides(rng, table, kind, shape)
            cells += cells_of(name, a - b, kind)
            known = shared((a - b).mean(axis=1), about["images"])
            if known is not None:
                scores[name, 4] = known
                scores["baseline", 4] = dict.fromkeys(known, np.zeros(TESTED))
        rows = verdict_table(cells, {}, names, "baseline", design=design, images=scores)
        false += any(row["verdict"] != "undecided" for row in rows)
    return told({"kind": f"family of {len(names)}", **about}, false, trials, 0.05)


def given(rng: np.random.Generator, trials: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of given splits."""
    for name in ("cifar10_cells.csv", "aa_cells.csv"):
        if not (HERE / name).exists():
            continue
        pool = {key: table for key, table in read(name).items() if len(table) > 1}
        for units in (1, 2, 3, 5):
            for draws in (5, 10, 20):
                fits = {
                    key: table
                    for key, table in pool.items()
                    if len(table) >= 2 * units and table.shape[1] >= draws
                }
                about = {"data": name, "design": "given", "pretraining": units, "draws": draws}
                about |= {"splits": 1, "images": "none"}
                for shots in sorted({key[1] for key in fits}):
                    tables = [table for key, table in fits.items() if key[1] == shots]
                    own = {**about, "shots": shots}
                    yield from alone(rng, tables, "given", (units, draws), own, trials)
                if fits:
                    own = {**about, "shots": "all"}
                    yield family(rng, fits, "given", (units, draws), own, trials // 4)


def repeated(rng: np.random.Generator, trials: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of repeated splits."""
    pool = read("digits_cells.csv")
    for splits in (3, 5, 10):
        about = {"data": "digits_cells.csv", "design": "repeated", "pretraining": splits}
        about |= {"draws": splits, "splits": splits}
        for images in ("the fewest", "all of the spread"):
            for shots in sorted({key[1] for key in pool}):
                tables = [table for key, table in pool.items() if key[1] == shots]
                own = {**about, "shots": shots, "images": images}
                yield from alone(rng, tables, "repeated", (splits, 1), own, trials)
            own = {**about, "shots": "all", "images": images}
            yield family(rng, pool, "repeated", (splits, 1), own, trials // 4)


def real_pair(rng: np.random.Generator, trials: int) -> Iterator[dict[str, Any]]:
    """Yield how often SimCLR's features are told from scratch at 4 labels on CIFAR-10."""
    for name in ("cifar10_cells.csv", "aa_cells.csv"):
        pool = read(name) if (HERE / name).exists() else {}
        if ("scratch", 4) not in pool:
            continue
        ours, theirs = pool["simclr+features", 4], pool["scratch", 4]
        for units in (1, 2, 3, 5):
            for draws in (5, 10, 20):
                if len(ours) < units or ours.shape[1] < draws:
                    continue
                hits = 0
                for _ in range(trials):
                    columns = rng.permutation(ours.shape[1])[:draws]
                    rows = rng.permutation(len(ours))[:units]
                    b = np.repeat(theirs[:1, columns], units, axis=0)
                    found = judge(ours[rows][:, columns], b, "given", (units, draws), "none")
                    hits += found.verdict == "helps"
                about = {"kind": "pair", "data": name, "shots": 4, "design": "given"}
                about |= {"pretraining": units, "draws": draws, "splits": 1, "images": "none"}
                yield told(about, hits, trials, "")


def main() -> None:
    """Resample all designs and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=4000)
    trials = parser.parse_args().trials
    rng = np.random.default_rng(0)
    rows = [*given(rng, trials), *repeated(rng, trials), *real_pair(rng, trials)]
    about = made(COMMAND)
    replace(HERE / "aa.csv", COLUMNS, [{**row, **about} for row in rows], SAME)


if __name__ == "__main__":
    main()
