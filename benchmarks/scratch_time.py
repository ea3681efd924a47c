"""Whether training from scratch is at its best: its accuracy against the steps it is given.

    FEWLABELS_DATA=... python benchmarks/scratch_time.py cifar10

Scored on validation images carved out of the training folder; the test split stays closed.
Writes ``benchmarks/scratch_time_<data>.csv``.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
from record import replace

from fewlabels.pipeline.stages import finetune, finetune_steps, new_backbone, score
from fewlabels.pipeline.task import DataOptions, Task, open_task
from fewlabels.results.environment import describe
from fewlabels.training.progress import Reporter

HERE = Path(__file__).parent
SHARES = (0.25, 0.5, 1.0, 2.0)
# For each number of labels per class, more shares: the last takes as long as five minutes of
# pre-training on two cores, at 0.028 s a step.
SHOTS: dict[str, dict[int, tuple[float, ...]]] = {
    "digits": {1: (), 4: (), 25: ()},
    "cifar10": {4: (8.0, 28.0), 25: (4.0, 13.0), 100: (7.0,)},
}
COLUMNS = ("shots", "share", "steps", "draw", "seconds", "val_accuracy", "machine", "commit")


def main() -> None:
    """Train with shares and multiples of the fixed number of steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=sorted(SHOTS))
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--shots", default="", help="only these, as in 4,25; other rows stay")
    parser.add_argument("--shares", default="", help="only these, as in 8,28")
    chosen = parser.parse_args()
    wanted = [int(one) for one in chosen.shots.split(",") if one] or SHOTS[chosen.data]
    shares = [float(one) for one in chosen.shares.split(",") if one]
    root = os.environ.get("FEWLABELS_DATA", "")
    data = chosen.data if chosen.data == "digits" else str(Path(root) / chosen.data)
    task = open_task(DataOptions(data), policy="auto", device="auto", reporter=Reporter())
    about = describe(str(task.device))
    made = {"machine": about["machine"], "commit": about.get("commit", "")}
    out = HERE / f"scratch_time_{chosen.data}.csv"
    for shots in wanted:
        for share in shares or (*SHARES, *SHOTS[chosen.data][shots]):
            for draw in range(100, 100 + chosen.draws):
                row = point(task.with_split(draw), shots, share, draw) | made
                replace(out, COLUMNS, [row], ("shots", "share", "draw"))


def point(task: Task, shots: int, share: float, draw: int) -> dict[str, object]:
    """Train once and return a row."""
    rows = task.dataset.visible(shots, draw)
    steps = int(share * finetune_steps(task, len(rows), pretrained=False))
    began = time.perf_counter()
    fresh = new_backbone(task, "tiny", draw)
    classifier = finetune(task, fresh, rows, head=None, steps=steps, seed=draw).classifier
    seconds = time.perf_counter() - began
    held = task.dataset.rows("val")
    hits = score(task, classifier, held).argmax(1) == task.dataset.labels[held]
    row: dict[str, object] = {"shots": shots, "share": share, "steps": steps, "draw": draw}
    return row | {"seconds": round(seconds, 2), "val_accuracy": round(float(np.mean(hits)), 4)}


if __name__ == "__main__":
    main()
