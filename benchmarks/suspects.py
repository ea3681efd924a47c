"""Suspect labels: how many of those found first are wrong, where wrong ones were planted.

    python benchmarks/suspects.py digits
    FEWLABELS_DATA=... python benchmarks/suspects.py cifar10 clothing --from simclr --steps 2000
    FEWLABELS_DATA=... python benchmarks/suspects.py clothing --from runs/encoder

FEWLABELS_DATA is a folder that holds ``cifar10/`` and ``clothing/``. Pixels and SimCLR see images
of 32 pixels (digits: 8); a run or published weights see the size that they take.

500 labels are drawn at random from the training images, and 10 or 20 % of them are replaced by
another class, drawn evenly. The ranking is that of ``fewlabels suspects``: cross-validated small
models on frozen features of raw pixels, of a given encoder, or of networks pre-trained on all
training images without labels: one after the other, from `PRETRAININGS` seeds. Labels of test are
never read. Writes ``benchmarks/suspects.csv``: the precision where half of the wrong labels are
found, and precision and recall of the list that the command prints; low and high are the least and
the largest of all draws of labels, on every encoder.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from record import Record

from fewlabels.core.types import Backbone
from fewlabels.evaluation.suspects import judge, precision_at
from fewlabels.pipeline.frozen import feature_space
from fewlabels.pipeline.stages import PretrainPlan, new_backbone, on_device, pretrain_encoder
from fewlabels.pipeline.suspects import held_out_shares
from fewlabels.pipeline.task import DataOptions, Task, open_task, pick_backbone
from fewlabels.study.given import open_given
from fewlabels.training.progress import Reporter

DATA = ("digits", "cifar10", "clothing")
LABELS = 500
NOISE = (0.1, 0.2)
PRETRAININGS = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the data sets named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", choices=DATA)
    parser.add_argument("--from", dest="start", default="pixels", help="pixels, simclr or a run")
    parser.add_argument("--steps", type=int, default=400, help="of a pre-training")
    parser.add_argument("--seeds", type=int, default=10)
    chosen = parser.parse_args(arguments)
    words = f"--from {Path(chosen.start).name} --steps {chosen.steps} --seeds {chosen.seeds}"
    record = Record("suspects", f"python benchmarks/suspects.py {' '.join(chosen.data)} {words}")
    for name in chosen.data:
        found: dict[str, list[float]] = defaultdict(list)
        for task, backbone in encoders(name, chosen.start, chosen.steps):
            for figure, values in measure(task, backbone, chosen.seeds).items():
                found[figure] += values
        for figure, values in found.items():
            record.add(f"{name}, {Path(chosen.start).name}, {figure}", values, "share")


def encoders(name: str, start: str, steps: int) -> Iterator[tuple[Task, Backbone]]:
    """Yield the networks whose features are used, each with the data in the format it takes."""
    place = name if name == "digits" else str(Path(os.environ["FEWLABELS_DATA"]) / name)
    reporter = Reporter()
    if start not in ("pixels", "simclr"):
        options = DataOptions(place)
        given = open_given(start, options, policy="auto", device="auto", reporter=reporter)
        yield given.task, on_device(given.task, given.backbone()[1])
        return
    options = DataOptions(place, image_size=None if name == "digits" else 32)
    task = open_task(options, policy="auto", device="auto", reporter=reporter)
    if start == "pixels":
        yield task, new_backbone(task, "pixels", 0)
        return
    for seed in range(PRETRAININGS):
        plan = PretrainPlan("simclr", pick_backbone("auto", task), steps, seed)
        yield task, pretrain_encoder(task, plan)[0].encoder


def measure(task: Task, backbone: Backbone, seeds: int) -> dict[str, list[float]]:
    """Return precision and recall by figure, one number for each seed."""
    found: dict[str, list[float]] = defaultdict(list)
    count = task.num_classes
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        rows = rng.choice(task.dataset.labelled_rows("train"), LABELS, replace=False)
        space = feature_space(task, backbone, rows)
        for noise in NOISE:
            labels, wrong = planted(task.dataset.labels[rows], noise, count, rng)
            doubts = judge(labels, held_out_shares(space, rows, labels, count, seed))
            hits = int((wrong & doubts.suspect).sum())
            told = f"{noise:.0%} wrong"
            found[f"{told}: precision at recall 0.5"].append(precision_at(0.5, wrong, doubts.score))
            found[f"{told}: precision of the list"].append(hits / max(1, doubts.suspect.sum()))
            found[f"{told}: recall of the list"].append(hits / int(wrong.sum()))
    return found


def planted(
    labels: np.ndarray, noise: float, classes: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels of which a share names another class, and which these are."""
    wrong = np.zeros(len(labels), bool)
    wrong[rng.choice(len(labels), round(noise * len(labels)), replace=False)] = True
    given = labels.copy()
    given[wrong] = (labels[wrong] + rng.integers(1, classes, wrong.sum())) % classes
    return given, wrong


if __name__ == "__main__":
    main()
