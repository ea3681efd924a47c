"""Cells with many pre-training seeds, from which `aa.py` resamples comparisons.

    FEWLABELS_DATA=... python benchmarks/aa_cells.py --out runs/aa
    FEWLABELS_DATA=... python benchmarks/aa_cells.py --out runs/try --encoders 2 --draws 2 \
        --budget 2steps --write runs/try.csv

FEWLABELS_DATA is a folder that holds ``cifar10/``. Two comparisons on its own split, at 4 and 25
labels a class: frozen features of untrained encoders (24 seeds), and of SimCLR for a short while
(half as many), both on 20 draws of labels; raw pixels are the baseline of both, scratch takes part
in the second. Hours on two cores; begun again, it goes on. Opens the test split twice, and counts
it.
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path
from typing import Any

import fewlabels
from fewlabels.results.files import read_json

COLUMNS = ("arm", "shots", "split", "labels", "pretraining", "training", "accuracy")
COLUMNS += ("pretrain_seconds", "transfer_seconds", "steps", "failed")


def main() -> None:
    """Run both comparisons and write their cells."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--encoders", type=int, default=24, help="untrained; half of SimCLR")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--budget", default="60s", help="of a SimCLR cell")
    parser.add_argument("--write", type=Path, default=Path(__file__).parent / "aa_cells.csv")
    chosen = parser.parse_args()
    data = str(Path(os.environ["FEWLABELS_DATA"]) / "cifar10")
    command = f"python benchmarks/aa_cells.py --encoders {chosen.encoders} --draws {chosen.draws}"
    command += f" --budget {chosen.budget}"
    plans = {
        "untrained": (["random+features", "pixels"], chosen.encoders),
        "simclr": (["simclr+features", "pixels", "scratch"], max(1, chosen.encoders // 2)),
    }
    cells: list[dict[str, Any]] = []
    for name, (arms, encoders) in plans.items():
        result = fewlabels.compare(
            data,
            arms=arms,
            baseline="pixels",
            labels=[4, 25],
            seeds=chosen.draws,
            pretraining_seeds=encoders,
            budget=chosen.budget,
            select="none",
            out=chosen.out / name,
            command=command,
        )
        cells += [{**cell, **cell["streams"]} for cell in result["cells"]]
    write(chosen.write, cells, read_json(chosen.out / "simclr" / "comparison.json"))


def write(place: Path, cells: list[dict[str, Any]], last: dict[str, Any]) -> None:
    """Write the cells, those that both comparisons have once, with what they were made with."""
    about = last["environment"]
    made = {"machine": about["machine"], "torch": about["torch"]}
    made |= {"commit": about.get("commit", ""), "command": last["command"]}
    made |= {"looks_at_test": last["looks_at_test"]}
    once = {tuple(cell[name] for name in COLUMNS[:5]): cell for cell in cells}
    with place.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [*COLUMNS, *made], extrasaction="ignore")
        table.writeheader()
        for cell in once.values():
            row = {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in cell.items()}
            table.writerow({**row, **made})


if __name__ == "__main__":
    main()
