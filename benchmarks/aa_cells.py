"""Cells with many pre-training seeds, from which `aa.py` resamples comparisons.

    FEWLABELS_DATA=... python benchmarks/aa_cells.py --out runs/aa
    FEWLABELS_DATA=... python benchmarks/aa_cells.py --out runs/try --encoders 2 --draws 2 \
        --budget 2steps --write runs/try.csv

FEWLABELS_DATA is a folder that holds ``cifar10/``. One comparison on its own split at 4 labels a
class: frozen features of SimCLR, trained for a short while, and of untrained encoders. Two sides of
3 or 5 encoders each take 6 or 10 of them, more than a comparison for its own sake has. Begun
again, it goes on. Opens the test split once, and counts it.
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path
from typing import Any

import fewlabels

COLUMNS: tuple[str, ...] = (
    "arm",
    "shots",
    "split",
    "labels",
    "pretraining",
    "training",
    "accuracy",
)
COLUMNS += ("pretrain_seconds", "transfer_seconds", "steps", "failed")


def main() -> None:
    """Run the comparison and write its cells."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--encoders", type=int, default=10)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--budget", default="60s", help="of a cell")
    parser.add_argument("--write", type=Path, default=Path(__file__).parent / "aa_cells.csv")
    chosen = parser.parse_args()
    command = f"python benchmarks/aa_cells.py --encoders {chosen.encoders} --draws {chosen.draws}"
    result = fewlabels.compare(
        str(Path(os.environ["FEWLABELS_DATA"]) / "cifar10"),
        arms=["simclr+features", "random+features"],
        baseline="random+features",
        labels=[4],
        seeds=chosen.draws,
        pretraining_seeds=chosen.encoders,
        budget=chosen.budget,
        select="none",
        out=chosen.out,
        command=f"{command} --budget {chosen.budget}",
    )
    write(chosen.write, result)


def write(place: Path, result: dict[str, Any]) -> None:
    """Write the cells of a comparison with what they were made with."""
    about = result["environment"]
    made = {"machine": about["machine"], "torch": about["torch"]}
    made |= {"commit": about.get("commit", ""), "command": result["command"]}
    made |= {"looks_at_test": result["looks_at_test"]}
    with place.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [*COLUMNS, *made], extrasaction="ignore")
        table.writeheader()
        for cell in result["cells"]:
            row = {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in cell.items()}
            table.writerow({**row, **cell["streams"], **made})


if __name__ == "__main__":
    main()
