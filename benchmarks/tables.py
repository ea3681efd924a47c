"""The published comparisons: run one; write its result, report, cells, curves and verdicts.

    FEWLABELS_DATA=... python benchmarks/tables.py cifar10 --out runs/cifar10

Opens the test split once per table; the count of looks is in the CSV. A table that was
interrupted goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import fewlabels
from fewlabels.evaluation.cells import design_of
from fewlabels.evaluation.savings import curves
from fewlabels.methods import LABELLED, METHODS

HERE = Path(__file__).parent
REPORTS = HERE.parent / "docs" / "reports"
VERDICT: tuple[str, ...] = (
    "arm",
    "baseline",
    "shots",
    "metric",
    "primary",
    "difference",
    "low",
    "high",
)
VERDICT += ("p", "p_family", "p_holm", "verdict", "detectable", "n", "note")
SPREADS = ("splits", "pretraining", "draws", "rest", "images")  # as sd_...

# What the published claims are about: both transfers of the recommended method, and its rivals.
CLAIMED = [
    "simclr+features",
    "scratch",
    "pixels",
    "random+features",
    "autoencoder+features",
    "simclr+parameters",
]
TABLES: dict[str, dict[str, Any]] = {
    # 20 label draws over 10 random splits, each with its own pre-training.
    "digits": {
        "data": "digits",
        "labels": [1, 4, 25, 100],
        "seeds": 20,
        "pretraining_seeds": 10,
        "budget": "12s",
        "select": "all",
    },
    # 20 label draws crossed with 3 pre-training seeds on the set's own split.
    "cifar10": {
        "data": "cifar10",
        "labels": [1, 4, 25, 100],
        "arms": CLAIMED,
        "seeds": 20,
        "pretraining_seeds": 3,
        "budget": "300s",
        "select": "none",
    },
    # The same on photos with classes of unequal size.
    "clothing": {
        "data": "clothing",
        "image_size": 64,
        "labels": [4, 10, 25],
        "arms": CLAIMED,
        "metric": "f1_macro",
        "seeds": 20,
        "pretraining_seeds": 3,
        "budget": "300s",
        "select": "none",
    },
    # Every method, frozen under a linear model and fine-tuned; about two hours.
    "methods": {
        "data": "cifar10",
        "labels": [4, 25, 100],
        "arms": [
            "simclr+features",
            "scratch",
            "pixels",
            "random+logistic",
            *(f"{method}+logistic" for method in METHODS if method not in LABELLED),
            *(f"{method}+parameters" for method in METHODS if method not in LABELLED),
        ],
        "seeds": 5,
        "pretraining_seeds": 1,
        "budget": "300s",
        "select": "none",
    },
    # Scratch with as many steps as two idle cores take in the 300 seconds of the table of methods.
    "long": {
        "data": "cifar10",
        "labels": [4, 25],
        "arms": ["scratch+long", "pixels"],
        "baseline": "pixels",
        "seeds": 5,
        "pretraining_seeds": 1,
        "budget": "10600steps",
        "select": "none",
    },
}


def main() -> None:
    """Run the table named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=sorted(TABLES))
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    settings = dict(TABLES[chosen.table])
    name = settings.pop("data")
    path = name if name == "digits" else str(Path(os.environ["FEWLABELS_DATA"]) / name)
    data = fewlabels.DataOptions(path, settings.pop("image_size", None))
    command = f"python benchmarks/tables.py {chosen.table}"
    result = fewlabels.compare(data, **settings, out=chosen.out, command=command)
    export(result, chosen.table)
    shutil.copy(chosen.out / "comparison.json", HERE / f"{chosen.table}.json")
    shutil.copy(chosen.out / "report.html", REPORTS / f"{chosen.table}.html")


def export(result: dict[str, Any], name: str) -> None:
    """Write the CSV files of a comparison."""
    about = result["environment"]
    made = {
        "machine": about["machine"],
        "torch": about["torch"],
        "commit": about.get("commit", ""),
        "command": result["command"],
        "looks_at_test": result["looks_at_test"],
    }
    cells = [{**cell, **cell["streams"]} for cell in result["cells"]]
    columns: tuple[str, ...] = (
        "arm",
        "shots",
        "split",
        "labels",
        "pretraining",
        "training",
        "accuracy",
    )
    columns += ("balanced_accuracy", "f1_macro", "nll", "pretrain_seconds", "transfer_seconds")
    columns += ("steps", "images_seen", "peak_memory_mb", "failed")
    write(f"{name}_cells.csv", cells, columns, made)
    write(
        f"{name}_curves.csv",
        result["curves"],
        ("arm", "shots", "seeds", "mean", "low", "high"),
        made,
    )
    write(
        f"{name}_verdicts.csv",
        [
            {**row, **{f"sd_{k}": row["components"][k] for k in SPREADS}}
            for row in result["verdicts"]
        ],
        (*VERDICT, *(f"sd_{name}" for name in SPREADS)),
        made,
    )
    if result["choices"]:
        best = best_cells(result)
        rows = [{**cell, **cell["streams"], "draw": cell["streams"]["labels"]} for cell in best]
        write(f"{name}_best.csv", rows, ("shots", "split", "draw", "arm", "accuracy"), made)
        overlap = result["design"]["images_test"] / result["design"]["images_train"]
        # To the statistics the choice is one more arm, whichever it took each time.
        chosen = [{**cell, "arm": "best"} for cell in best]
        write(
            f"{name}_best_curve.csv",
            curves(chosen, ["best"], design=design_of(result["cells"], overlap=overlap)),
            ("arm", "shots", "seeds", "mean", "low", "high"),
            made,
        )


def best_cells(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the cell of the arm chosen within the label budget, choice by choice."""
    found = []
    for choice in result["choices"]:
        for cell in result["cells"]:
            streams = cell["streams"]
            where = (cell["arm"], cell["shots"], streams["split"], streams["labels"])
            if where == (choice["name"], choice["shots"], choice["split"], choice["draw"]):
                found.append(cell)
                break
    return found


def write(
    name: str, rows: list[dict[str, Any]], columns: tuple[str, ...], made: dict[str, Any]
) -> None:
    """Write rows with what they were made with."""
    with (HERE / name).open("w", newline="") as file:
        table = csv.DictWriter(file, [*columns, *made], extrasaction="ignore")
        table.writeheader()
        for row in rows:
            values = {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
            table.writerow({**values, **made})
    sys.stderr.write(f"wrote benchmarks/{name}: {len(rows)} rows\n")


if __name__ == "__main__":
    main()
