"""How often 95 % intervals hold the truth, on synthetic cells whose truth is known.

    python benchmarks/coverage.py

Cells are drawn under the models that the intervals assume, with sources of variance in several
proportions, and go through the package's own functions as a comparison's cells do. Repeated
splits are resampled from finite data sets: a random tenth is tested on, eight tenths are trained
on, and the truth is that of the population the data sets are drawn from. Takes a
few minutes; begun again, it goes on.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from record import HERE, MADE, Rows, fill

from fewlabels.evaluation.cells import Design, Key, model_mean, paired
from fewlabels.evaluation.intervals import Estimate, wilson

COMMAND = "python benchmarks/coverage.py"
COLUMNS = ("kind", "design", "pretraining", "draws", "splits", "ratio", "images", "trials")
COLUMNS += ("coverage", "low", "high", "width", *MADE)
SAME = COLUMNS[:7]
TRUTH = 0.03
IMAGES = 300  # test images of a given split
POOL = 500  # images of a data set that is split at random

# Standard deviations of seeds, draws and the rest, in points.
RATIOS = {
    "as on CIFAR-10": (0.5, 1.5, 0.4),  # benchmarks/spreads.csv
    "equal": (1.0, 1.0, 1.0),
    "seeds": (2.0, 0.5, 0.5),
    "draws": (0.5, 2.0, 0.5),
    "seeds and draws": (1.0, 1.0, 0.2),
    "rest alone": (0.0, 0.0, 1.0),
}
# Variances of a split's mean, in squared points: its test images, its own pre-training and
# training, one label draw in it, and the training images that it shares with other splits.
SPLIT_RATIOS = {
    "test images alone": (4.0, 0.0, 0.0, 0.0),
    "test images a half": (2.0, 1.0, 1.0, 0.0),
    "test images a fifth": (1.0, 2.0, 2.0, 0.0),
    "no test images": (0.0, 2.0, 2.0, 0.0),
    "training images a tenth": (1.0, 1.4, 1.2, 0.4),
}


def crossed_trials(
    rng: np.random.Generator, shape: tuple[int, int], ratio: str, images: bool, difference: bool
) -> Iterator[tuple[Estimate | None, float]]:
    """Yield estimates of given splits: of an arm's mean, or of the difference of two arms."""
    p, draws = shape
    seeds_sd, draws_sd, rest_sd = (sd / 100 for sd in RATIOS[ratio])
    true = math.sqrt(seeds_sd**2 / p + draws_sd**2 / draws + rest_sd**2 / (p * draws))
    image_sd = true * math.sqrt(IMAGES) if images else 0.0
    true = math.hypot(true, true) if images else true
    design = Design("given", 1, draws, p)
    while True:
        table = seeds_sd * rng.normal(size=(p, 1)) + draws_sd * rng.normal(size=draws)
        table = TRUTH + table + rest_sd * rng.normal(size=(p, draws))
        scores = image_sd * rng.normal(size=IMAGES)
        table += scores.mean()
        found: dict[Key, float] = {
            (0, d, s): float(table[s, d]) for s in range(p) for d in range(draws)
        }
        if difference:  # the luck of a draw that both arms share is no difference
            luck = 0.05 * rng.normal(size=draws)
            baseline: dict[Key, float] = {(0, d, None): float(luck[d]) for d in range(draws)}
            found = {key: value + float(luck[key[1]]) for key, value in found.items()}
            found = paired(found, baseline)
        yield model_mean(found, design, images={0: scores} if images else None), true


def split_trials(
    rng: np.random.Generator, splits: int, each: int, ratio: str, images: bool
) -> Iterator[tuple[Estimate | None, float]]:
    """Yield estimates of repeated splits of finite data sets."""
    tested, trained = POOL // 10, POOL * 8 // 10
    test_sd, own_sd, draw_sd, shared_sd = (math.sqrt(v) / 100 for v in SPLIT_RATIOS[ratio])
    design = Design("repeated", splits, splits * each, splits, tested / trained)
    variance = (own_sd**2 + draw_sd**2 / each) / splits + shared_sd**2 * trained / POOL
    variance += shared_sd**2 * 0.2 / splits + test_sd**2 * tested / POOL
    variance += test_sd**2 * (1 - tested / POOL) / splits
    while True:
        effect = test_sd * math.sqrt(tested) * rng.normal(size=POOL)
        taught = shared_sd * math.sqrt(trained) * rng.normal(size=POOL)
        found: dict[Key, float] = {}
        scores = {}
        order = rng.permuted(np.tile(np.arange(POOL), (splits, 1)), axis=1)
        for split, rows in enumerate(order):
            scores[split] = effect[rows[:tested]]
            mean = TRUTH + scores[split].mean() + taught[rows[tested : tested + trained]].mean()
            mean += own_sd * rng.normal()
            for draw in range(each):
                found[split, draw, split] = float(mean + draw_sd * rng.normal())
        yield model_mean(found, design, images=scores if images else None), math.sqrt(variance)


def tell(
    about: dict[str, Any], estimates: Iterator[tuple[Estimate | None, float]], trials: int
) -> Rows:
    """Return a row: how many of the trials hold the truth, and how wide their intervals are."""
    held, widths = 0, []
    for _ in range(trials):
        found, true = next(estimates)
        assert found is not None
        held += found.low <= TRUTH <= found.high
        widths.append((found.high - found.low) / 2 / (1.959964 * true))
    low, high = wilson(held, trials)
    sys.stderr.write(f"{' '.join(map(str, about.values()))}: {held / trials:.4f}\n")
    numbers = {"coverage": held / trials, "low": low, "high": high, "width": np.median(widths)}
    return [{**about, "trials": trials, **{k: f"{v:.4f}" for k, v in numbers.items()}}]


def of_given(about: dict[str, Any], trials: int, rng: np.random.Generator) -> Rows:
    """Return the row of a design of given splits."""
    shape = about["pretraining"], about["draws"]
    counted, paired = about["images"] == "counted", about["kind"] == "difference"
    return tell(about, crossed_trials(rng, shape, about["ratio"], counted, paired), trials)


def of_repeated(about: dict[str, Any], trials: int, rng: np.random.Generator) -> Rows:
    """Return the row of a design of repeated splits."""
    splits, counted = about["splits"], about["images"] == "counted"
    each = about["draws"] // splits
    return tell(about, split_trials(rng, splits, each, about["ratio"], counted), trials)


def given() -> Iterator[tuple[Any, ...]]:
    """Yield the designs and mixtures of given splits."""
    for kind, images in (("curve", "counted"), ("difference", "none"), ("difference", "counted")):
        for p in (2, 3, 5):
            for draws in (5, 10, 20):
                for ratio in RATIOS:
                    yield kind, "given", p, draws, 1, ratio, images


def repeated() -> Iterator[tuple[Any, ...]]:
    """Yield the designs and mixtures of repeated splits."""
    for splits in (3, 5, 10):
        for each in (1, 2):
            for ratio in SPLIT_RATIOS:
                for images in ("counted", "unknown"):
                    yield "difference", "repeated", splits, splits * each, splits, ratio, images


def main() -> None:
    """Simulate all designs and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=4000)
    trials = parser.parse_args().trials
    tasks = {}
    for task, keys in ((of_given, given()), (of_repeated, repeated())):
        for key in keys:
            tasks[key] = partial(task, dict(zip(SAME, key, strict=True)), trials)
    fill(HERE / "coverage.csv", COLUMNS, SAME, COMMAND, tasks)


if __name__ == "__main__":
    main()
