"""Whether training from scratch is at its best: its accuracy against the steps it is given.

    FEWLABELS_DATA=... python benchmarks/scratch_time.py cifar10

Scored on validation images carved out of the training folder; the test split stays closed.
Writes ``benchmarks/scratch_time_<data>.csv``.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path

import numpy as np

from fewlabels.pipeline.stages import finetune, finetune_steps, new_backbone, score
from fewlabels.pipeline.task import DataOptions, Task, open_task
from fewlabels.results.environment import describe
from fewlabels.training.progress import Reporter

HERE = Path(__file__).parent
SHARES = (0.25, 0.5, 1.0, 2.0)
SHOTS = {"digits": (1, 4, 25), "cifar10": (4, 25)}


def main() -> None:
    """Train with shares and multiples of the fixed number of steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=sorted(SHOTS))
    parser.add_argument("--draws", type=int, default=3)
    chosen = parser.parse_args()
    root = os.environ.get("FEWLABELS_DATA", "")
    data = chosen.data if chosen.data == "digits" else str(Path(root) / chosen.data)
    task = open_task(DataOptions(data), policy="auto", device="auto", reporter=Reporter())
    about = describe(str(task.device))
    with (HERE / f"scratch_time_{chosen.data}.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["shots", "share", "steps", "draw", "seconds", "val_accuracy"])
        for shots in SHOTS[chosen.data]:
            for share in SHARES:
                for draw in range(chosen.draws):
                    table.writerow(point(task.with_split(100 + draw), shots, share, 100 + draw))
                    file.flush()
        table.writerow(["# machine", about["machine"], "commit", about.get("commit", "")])


def point(task: Task, shots: int, share: float, draw: int) -> list[float]:
    """Train once and return a row."""
    rows = task.dataset.visible(shots, draw)
    steps = int(share * finetune_steps(task, len(rows), pretrained=False))
    began = time.perf_counter()
    fresh = new_backbone(task, "tiny", draw)
    classifier = finetune(task, fresh, rows, head=None, steps=steps, seed=draw).classifier
    seconds = time.perf_counter() - began
    held = task.dataset.rows("val")
    hits = score(task, classifier, held).argmax(1) == task.dataset.labels[held]
    return [shots, share, steps, draw, round(seconds, 2), round(float(np.mean(hits)), 4)]


if __name__ == "__main__":
    main()
