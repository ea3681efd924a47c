"""Does the forecast hold? The largest budgets of the committed comparisons are hidden from it.

    python benchmarks/forecast.py

Every arm of CIFAR-10 is seen at 1, 4 and 25 labels a class and forecast at 100; every arm of digits
at 1 and 4, and forecast at 25. The constants of the forecast come from other curves
(`forecast_constants.py`). Scores of single test images are not in the tables, so that errors of
CIFAR-10 leave their part out. Writes ``benchmarks/forecast.csv``. Nothing is trained.
"""

from __future__ import annotations

import csv
import sys
from typing import Any

from record import HERE, MADE, made, replace

from fewlabels.evaluation.cells import design_of
from fewlabels.evaluation.forecast import SHARES, points_of, predict
from fewlabels.evaluation.intervals import wilson

COMMAND = "python benchmarks/forecast.py"
COLUMNS = ("data", "arm", "seen", "shots", "value", "low", "high", "measured", "held", *MADE)
HIDDEN = {"cifar10": 100, "digits": 25}
CLASSES = 10


def read(name: str) -> list[dict[str, Any]]:
    """Return the cells of a committed comparison; of digits also those of the chosen arms."""
    found = []
    for part in ("cells", "best"):
        place = HERE / f"{name}_{part}.csv"
        if not place.exists():
            continue
        with place.open(newline="") as file:
            for row in csv.DictReader(file):
                streams = {"split": row["split"], "labels": row.get("labels") or row.get("draw")}
                streams["pretraining"] = row.get("pretraining") or None
                cell = {"arm": row["arm"], "shots": int(row["shots"]), "streams": streams}
                cell["arm"] = "the chosen one" if part == "best" else row["arm"]
                found.append({**cell, "accuracy": float(row["accuracy"])})
    return found


def told(name: str, arm: str, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what an arm was forecast to score where it was hidden, and what it did."""
    hidden, design = HIDDEN[name], design_of(cells)
    seen = points_of([c for c in cells if c["shots"] < hidden], arm, design=design)
    measured = points_of([c for c in cells if c["shots"] == hidden], arm, design=design)[0][1]
    shots, means, spreads = zip(*seen, strict=True)
    errors = [1 - mean for mean in means]
    found = predict(shots, errors, spreads, [hidden], guess=1 - 1 / CLASSES, prior=SHARES)[0]
    low, high = 1 - found.high, 1 - found.low
    numbers = {"value": 1 - found.value, "low": low, "high": high, "measured": measured}
    return {
        "data": name,
        "arm": arm,
        "seen": " ".join(map(str, shots)),
        "shots": hidden,
        **{key: f"{value:.4f}" for key, value in numbers.items()},
        "held": low <= measured <= high,
    }


def main() -> None:
    """Forecast every arm, and count."""
    rows = []
    for name in HIDDEN:
        cells = read(name)
        rows += [told(name, arm, cells) for arm in dict.fromkeys(cell["arm"] for cell in cells)]
    about = made(COMMAND)
    replace(HERE / "forecast.csv", COLUMNS, [{**row, **about} for row in rows], ("data", "arm"))
    for name in HIDDEN:
        held = [row["held"] for row in rows if row["data"] == name]
        low, high = wilson(sum(held), len(held))
        sys.stdout.write(f"{name}: {sum(held)} of {len(held)} ({low:.2f} to {high:.2f})\n")


if __name__ == "__main__":
    main()
