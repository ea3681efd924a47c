"""The main job as a user types it, timed from outside: seconds, the chosen arm and its scores.

    FEWLABELS_DATA=... python benchmarks/main_job.py cifar10 --runs 3 --out runs/main
    FEWLABELS_DATA=... python benchmarks/main_job.py clothing --runs 1 --out runs/main

Adds a row a run to ``benchmarks/main_job.csv``.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
JOBS: dict[str, list[str]] = {
    "cifar10": ["--labels", "25", "--budget", "10m"],
    "clothing": ["--labels", "10", "--budget", "20m", "--image-size", "128"],
}
JOBS["clothing"] += ["--metric", "f1_macro"]
COLUMNS = ["data", "run", "seconds", "best", "accuracy", "accuracy_low", "accuracy_high"]
COLUMNS += ["f1_macro", "f1_low", "f1_high", "pixels_f1_macro"]
COLUMNS += ["metric", "verdict", "detectable", "sentence"]
COLUMNS += ["over_pixels", "over_pixels_low", "over_pixels_high", "verdict_pixels"]
COLUMNS += ["detectable_pixels", "imbalance", "looks_at_test", "machine", "commit", "command"]


def main() -> None:
    """Run the job as often as asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=sorted(JOBS))
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    for number in range(chosen.runs):
        add(job(chosen.data, number, chosen.out / f"{chosen.data}-{number}"))


def job(data: str, number: int, out: Path) -> dict[str, Any]:
    """Run the command once and return its row."""
    place = str(Path(os.environ["FEWLABELS_DATA"]) / data)
    tail = [*JOBS[data], "--seed", str(number)]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "fewlabels", "run", place, *tail, "--out", str(out), "--json"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    seconds = time.perf_counter() - began
    found = json.loads(done.stdout)
    primary, test = found["compare"]["primary"], found["test"]
    pixels = [c["f1_macro"] for c in found["compare"]["cells"] if c["arm"] == "pixels"]
    about = found["compare"]["environment"]
    # Of the chosen arm, by the metric of the run; empty when pixels themselves were chosen.
    over: dict[str, Any] = next(
        (
            row
            for row in found["compare"]["verdicts"]
            if row["arm"] == found["best"] and row["baseline"] == "pixels"
        ),
        {},
    )
    return {
        "data": data,
        "run": number,
        "seconds": round(seconds, 1),
        "best": found["best"],
        "accuracy": test["accuracy"]["value"],
        "accuracy_low": test["accuracy"]["low"],
        "accuracy_high": test["accuracy"]["high"],
        "f1_macro": test["f1_macro"]["value"],
        "f1_low": test["f1_macro"]["low"],
        "f1_high": test["f1_macro"]["high"],
        "pixels_f1_macro": sum(pixels) / max(len(pixels), 1),
        "metric": primary["metric"],
        "verdict": primary["verdict"],
        "detectable": primary["detectable"],
        "sentence": primary["sentence"],
        "over_pixels": over.get("difference"),
        "over_pixels_low": over.get("low"),
        "over_pixels_high": over.get("high"),
        "verdict_pixels": over.get("verdict"),
        "detectable_pixels": over.get("detectable"),
        "imbalance": found["inspect"]["imbalance"],
        "looks_at_test": test["looks_at_test"],
        "machine": about["machine"],
        "commit": about.get("commit", ""),
        "command": " ".join(["fewlabels run", data, *tail]),
    }


def add(row: dict[str, Any]) -> None:
    """Append a row to the table."""
    path = HERE / "main_job.csv"
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        if fresh:
            table.writeheader()
        table.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()})


if __name__ == "__main__":
    main()
