"""Remedies for classes of unequal size: macro F1 and balanced accuracy of each.

    FEWLABELS_DATA=... python benchmarks/imbalance.py           # scored on validation images
    FEWLABELS_DATA=... python benchmarks/imbalance.py --test    # and on test, which is opened once
    FEWLABELS_DATA=... python benchmarks/imbalance.py clothing --seeds 1 --steps 20

FEWLABELS_DATA is a folder that holds ``cifar10/`` and ``clothing/``.

cifar10   long-tailed as in Cui et al. 2019: class k of 10 keeps 500 * 100 ** (-k / 9) labels, from
          500 down to 5, chosen in the training folder by the hash of their content; all other
          labels are hidden
clothing  as it is, 7 to 1

Both at 32 pixels. Each remedy is tried on a network from scratch and on a logistic regression over
the features of an untrained one. What is chosen is chosen by the validation rows; a look at a test
split is counted in the ledger. Writes ``benchmarks/imbalance.csv``: low and high are the least and
the largest of the seeds. About ten minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from record import Record

from fewlabels.data.labels import draw
from fewlabels.evaluation.metrics import point
from fewlabels.models.classifier import Classifier
from fewlabels.pipeline.frozen import GRID, feature_space, fit_head
from fewlabels.pipeline.keys import test_key
from fewlabels.pipeline.stages import finetune, new_backbone, score
from fewlabels.pipeline.task import DataOptions, Task, open_task
from fewlabels.results.ledger import look
from fewlabels.training.progress import Reporter
from fewlabels.transfer.imbalance import IMBALANCE, head_remedy
from fewlabels.transfer.parameters import SCRATCH

DATA = ("cifar10", "clothing")
MOST, FACTOR = 500, 100
SCORED = 2_000  # validation images
FIGURES = {"f1_macro": "macro F1", "balanced_accuracy": "balanced accuracy", "accuracy": "accuracy"}
Scores = dict[str, list[float]]


def main() -> None:
    """Measure the data sets named on the command line, or both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="*", choices=[*DATA, []], default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600, help="of a training from scratch")
    parser.add_argument("--test", action="store_true", help="score on the test split as well")
    chosen = parser.parse_args()
    words = ["python benchmarks/imbalance.py", *chosen.data]
    words += [f"--seeds {chosen.seeds} --steps {chosen.steps}", *["--test"] * chosen.test]
    record = Record("imbalance", " ".join(words))
    for name in chosen.data or DATA:
        place = str(Path(os.environ["FEWLABELS_DATA"]) / name)
        options = DataOptions(place, image_size=32)
        task = open_task(options, policy="auto", device="auto", reporter=Reporter())
        if chosen.test:
            look(test_key(task), f"benchmarks/imbalance.py {name}")
        for figure, values in measure(task, name, chosen.seeds, chosen.steps, chosen.test).items():
            record.add(figure, values, "share")


def measure(task: Task, name: str, seeds: int, steps: int, test: bool) -> Scores:
    """Return the scores of every remedy by figure, one for each seed."""
    held = {"validation": some(task.dataset.rows("val"))}
    if test:
        held["test"] = task.dataset.rows("test")
    found: Scores = defaultdict(list)
    for seed in range(seeds):
        rows = long_tail(task, seed) if name == "cifar10" else task.dataset.labelled_rows("train")
        for approach, classifier in classifiers(task, rows, seed, steps).items():
            for split, images in held.items():
                scores = point(task.dataset.labels[images], score(task, classifier, images))
                for key, figure in FIGURES.items():
                    found[f"{name}, {approach}: {figure} on {split}"].append(scores[key])
    return found


def some(rows: np.ndarray) -> np.ndarray:
    """Return at most `SCORED` rows, evenly spaced."""
    even: np.ndarray = rows[np.linspace(0, len(rows) - 1, min(len(rows), SCORED)).astype(np.int64)]
    return even


def long_tail(task: Task, seed: int) -> np.ndarray:
    """Return labelled training rows, fewer from class to class, in all by `FACTOR`."""
    dataset, count = task.dataset, task.num_classes
    rows = dataset.labelled_rows("train")
    kept = []
    for code in range(count):
        wanted = round(MOST * FACTOR ** (-code / (count - 1)))
        own = rows[dataset.labels[rows] == code]
        kept.append(draw(dataset.labels, own, dataset.content, wanted, seed))
    return np.sort(np.concatenate(kept))


def classifiers(task: Task, rows: np.ndarray, seed: int, steps: int) -> dict[str, Classifier]:
    """Return a classifier for every remedy, from scratch and on frozen features."""
    found: dict[str, Classifier] = {}
    untrained = new_backbone(task, "tiny", seed)
    space, labels = feature_space(task, untrained, rows), task.dataset.labels[rows]
    for remedy in IMBALANCE:
        if head_remedy("logistic", remedy) == remedy:
            head = fit_head(space, rows, labels, task.num_classes, "logistic", remedy)
            frozen = Classifier(untrained, head, grid=GRID).eval()
            found[f"logistic regression, {remedy}"] = frozen
        tuned = finetune(
            task,
            untrained,
            rows,
            head=None,
            steps=steps,
            seed=seed,
            config=replace(SCRATCH, imbalance=remedy),
        )
        found[f"scratch, {remedy}"] = tuned.classifier
    return found


if __name__ == "__main__":
    main()
