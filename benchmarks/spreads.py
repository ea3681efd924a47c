"""Typical spreads of paired differences, from the cells of the committed comparisons.

    python benchmarks/spreads.py

What `fewlabels.evaluation.planning` expects of a comparison before it is run. Of every arm
against scratch: the components of variance, averaged over the arms (as variances), and the
largest difference of all. Nothing is trained; the committed tables are read.

The standard deviation over test images is not in the tables of cells. It is what the interval
in the table of verdicts holds beyond the cells' own variance (CIFAR-10, a given split); the
splits of digits hold it among their differences, and it is taken out of those.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from typing import Any

import numpy as np
from record import HERE, MADE, made, replace
from scipy import optimize, stats

from fewlabels.evaluation.cells import pair_scores, paired
from fewlabels.evaluation.components import mean_squares, of_splits, of_table

COMMAND = "python benchmarks/spreads.py"
COLUMNS = ("data", "shots", "arms", "pretraining", "draws", "rest", "image", "largest", *MADE)
TESTED = {"cifar10": 10_000, "digits": 197}  # test images of a split
Scores = dict[tuple[Any, Any, Any], float]


def read(name: str) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Return the cells of a committed comparison by arm and number of labels."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    with (HERE / f"{name}_cells.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            streams: dict[str, int | None] = {
                key: int(row[key]) if row[key] else None
                for key in ("split", "labels", "pretraining", "training")
            }
            cell = {"accuracy": float(row["accuracy"]), "streams": streams}
            groups[row["arm"], int(row["shots"])].append(cell)
    return groups


def differences(name: str) -> dict[tuple[str, int], Scores]:
    """Return the paired differences of every arm from scratch, in points."""
    cells = read(name)
    found = {}
    for (arm, shots), own in cells.items():
        if arm != "scratch":
            theirs = pair_scores(cells["scratch", shots], "accuracy")
            pairs = paired(pair_scores(own, "accuracy"), theirs)
            found[arm, shots] = {key: 100 * value for key, value in pairs.items()}
    return found


def table_of(scores: Scores) -> np.ndarray:
    """Return the ``(P, L)`` table of a given split."""
    seeds = sorted({key[2] for key in scores}, key=str)
    draws = sorted({key[1] for key in scores})
    return np.array([[scores[0, draw, seed] for draw in draws] for seed in seeds])


def image_sd(table: np.ndarray, row: dict[str, str]) -> float:
    """Return the standard deviation over test images that a committed interval counted.

    Later tables tell it. The first was made when the half-width was ``t(0.975, df) se``, the
    detectable difference ``(t(0.975, df) + t(0.8, df)) se``, and the cells' own variance as
    below: two equations for df and se, and a variance to take away.
    """
    if row.get("sd_images"):
        return 100 * float(row["sd_images"]) * math.sqrt(TESTED["cifar10"])
    half, detectable = (float(row["high"]) - float(row["low"])) * 50, float(row["detectable"]) * 100

    def off(df: float) -> float:
        return float(1 + stats.t.ppf(0.8, df) / stats.t.ppf(0.975, df) - detectable / half)

    se = half / stats.t.ppf(0.975, optimize.brentq(off, 1.01, 1e4))
    if len(table) == 1:
        own = table.var(ddof=1)
    else:
        squares = mean_squares(table)
        own = max(squares[0] + squares[1] - squares[2], *squares)
    return math.sqrt(max(0.0, float(se**2 - own / table.size)) * TESTED["cifar10"])


def cifar10() -> list[dict[str, Any]]:
    """Return the rows of CIFAR-10: seeds crossed with draws on its own split."""
    with (HERE / "cifar10_verdicts.csv").open(newline="") as file:
        rows = {(r["arm"], r["baseline"], int(r["shots"])): r for r in csv.DictReader(file)}
    found: dict[int, list[dict[str, float]]] = defaultdict(list)
    for (arm, shots), scores in differences("cifar10").items():
        table = table_of(scores)
        parts = of_table(table)
        told = {"image": image_sd(table, rows[arm, "scratch", shots]), "mean": table.mean()}
        if len(table) > 1:
            told |= {k: getattr(parts, k) for k in ("pretraining", "draws", "rest")}
        found[shots].append(told)
    return [summed("cifar10", shots, rows) for shots, rows in sorted(found.items())]


def digits(image: float) -> list[dict[str, Any]]:
    """Return the rows of digits: two draws in each of ten splits.

    Parameters
    ----------
    image : float
        Standard deviation over test images, as on CIFAR-10.
    """
    found: dict[int, list[dict[str, float]]] = defaultdict(list)
    for (_, shots), scores in differences("digits").items():
        groups: dict[int, list[float]] = defaultdict(list)
        for (split, _, _), value in scores.items():
            groups[split].append(value)
        parts = of_splits([np.array(group) for group in groups.values()])
        told = {"draws": parts.draws, "splits": parts.splits, "rest": 0.0, "image": image}
        found[shots].append(told | {"mean": float(np.mean(list(scores.values())))})
    rows = []
    for shots, every in sorted(found.items()):
        between = np.mean([one["splits"] ** 2 for one in every])
        left = math.sqrt(max(0.0, float(between) - image**2 / TESTED["digits"]))
        rows.append(summed("digits", shots, [one | {"pretraining": left} for one in every]))
    return rows


def summed(data: str, shots: int, arms: list[dict[str, float]]) -> dict[str, Any]:
    """Return the root mean squares over arms, and the largest difference."""
    row: dict[str, Any] = {"data": data, "shots": shots, "arms": len(arms)}
    for name in ("pretraining", "draws", "rest", "image"):
        known = [arm[name] ** 2 for arm in arms if name in arm]
        row[name] = f"{math.sqrt(np.mean(known)):.3f}"
    return {**row, "largest": f"{max(abs(arm['mean']) for arm in arms):.1f}"}


def main() -> None:
    """Write the table; spreads are in points, `image` is that of one image."""
    first = cifar10()
    image = math.sqrt(np.mean([float(row["image"]) ** 2 for row in first]))
    rows = [*first, *digits(image)]
    about = made(COMMAND)
    place = HERE / "spreads.csv"
    replace(place, COLUMNS, [{**row, **about} for row in rows], ("data", "shots"))


if __name__ == "__main__":
    main()
