"""How often 95 % intervals hold the truth, on synthetic cells whose truth is known.

    python benchmarks/coverage.py

Cells are drawn under the models that the intervals assume, with sources of variance in several
proportions, and go through the package's own functions. Repeated splits are resampled from finite
data sets: a random tenth is tested on, eight tenths are trained on, and the truth is that of the
population the data sets are drawn from. Takes a few minutes; begun again, it goes on.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from record import HERE, MADE, Rows, fill

from fewlabels.evaluation.cells import Design, Key, model_mean, paired
from fewlabels.evaluation.components import mean_squares
from fewlabels.evaluation.intervals import Estimate, wilson
from fewlabels.evaluation.variances import plus, quantile_of, two_way

COMMAND = "python benchmarks/coverage.py"
COLUMNS: tuple[str, ...] = (
    "kind",
    "design",
    "pretraining",
    "draws",
    "splits",
    "ratio",
    "images",
    "trials",
)
COLUMNS += ("coverage", "low", "high", "width", *MADE)
SAME = COLUMNS[:7]
TRUTH = 0.03
IMAGES = 300  # test images of a given split
FROM_CELLS = 20  # trials of a row that go all the way
POOL = 500  # images of a data set that is split at random

# Standard deviations of seeds, draws and the rest, in points.
RATIOS = {
    "as on CIFAR-10": (0.5, 1.5, 0.4),  # benchmarks/spreads.csv
    "equal": (1.0, 1.0, 1.0),
    "seeds": (2.0, 0.5, 0.5),
    "draws": (0.5, 2.0, 0.5),
    "seeds and draws": (1.0, 1.0, 0.2),
    "rest alone": (0.0, 0.0, 1.0),
    # Just too little to be seen, where intervals that watch for it are at their shortest.
    "a little of both": (0.3, 0.3, 1.0),
    "a little of seeds": (0.5, 0.0, 1.0),
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


class Tables(NamedTuple):
    """Many comparisons at once: tables ``(trials, P, L)`` and their images' scores."""

    values: np.ndarray
    scores: np.ndarray | None
    true: float  # standard deviation of a table's mean


def tables(rng: np.random.Generator, about: dict[str, Any], trials: int) -> Tables:
    """Return made cells of given splits."""
    p, draws = about["pretraining"], about["draws"]
    seeds_sd, draws_sd, rest_sd = (sd / 100 for sd in RATIOS[about["ratio"]])
    true = math.sqrt(seeds_sd**2 / p + draws_sd**2 / draws + rest_sd**2 / (p * draws))
    values = TRUTH + seeds_sd * rng.normal(size=(trials, p, 1))
    values = values + draws_sd * rng.normal(size=(trials, 1, draws))
    values += rest_sd * rng.normal(size=(trials, p, draws))
    if about["images"] == "none":
        return Tables(values, None, true)
    scores = true * math.sqrt(IMAGES) * rng.normal(size=(trials, IMAGES))
    return Tables(values + scores.mean(axis=1)[:, None, None], scores, math.hypot(true, true))


def as_a_comparison(rng: np.random.Generator, made: Tables, trial: int, kind: str) -> Estimate:
    """Return what the package says of one table, from its cells on."""
    table, images = made.values[trial], None if made.scores is None else {0: made.scores[trial]}
    found: dict[Key, float] = {(0, d, s): float(v) for (s, d), v in np.ndenumerate(table)}
    if kind == "difference":  # the luck of a draw that both arms share is no difference
        luck = 0.05 * rng.normal(size=table.shape[1])
        baseline: dict[Key, float] = {(0, d, None): float(v) for d, v in enumerate(luck)}
        found = {key: value + float(luck[key[1]]) for key, value in found.items()}
        found = paired(found, baseline)
    design = Design("given", 1, table.shape[1], len(table))
    estimate = model_mean(found, design, images=images)
    assert estimate is not None
    return estimate


def of_given(about: dict[str, Any], trials: int, rng: np.random.Generator) -> Rows:
    """Return the row of a design of given splits.

    All trials go through the functions that a comparison's intervals are made of; the first
    go all the way from cells, and come to the same.
    """
    made = tables(rng, about, trials)
    p, draws = made.values.shape[1:]
    known = two_way(mean_squares(made.values), p, draws)
    if made.scores is not None:
        known = plus(known, made.scores.var(axis=1, ddof=1) / IMAGES, IMAGES - 1)
    half = quantile_of(known.df) * np.sqrt(known.value)
    mean = made.values.mean(axis=(1, 2))
    for trial in range(FROM_CELLS):
        whole = as_a_comparison(rng, made, trial, about["kind"])
        short = mean[trial], mean[trial] + half[trial]
        np.testing.assert_allclose((whole.value, whole.high), short, rtol=1e-9)
    return told(about, np.abs(mean - TRUTH) <= half, half / made.true)


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


def told(about: dict[str, Any], held: np.ndarray, widths: np.ndarray) -> Rows:
    """Return a row: how many of the trials hold the truth, and how wide their intervals are."""
    share = float(held.mean())
    low, high = wilson(held.sum(), len(held))
    sys.stderr.write(f"{' '.join(map(str, about.values()))}: {share:.4f}\n")
    width = float(np.median(widths)) / 1.959964
    numbers = {"coverage": share, "low": low, "high": high, "width": width}
    return [{**about, "trials": len(held), **{k: f"{v:.4f}" for k, v in numbers.items()}}]


def of_repeated(about: dict[str, Any], trials: int, rng: np.random.Generator) -> Rows:
    """Return the row of a design of repeated splits."""
    splits, counted = about["splits"], about["images"] == "counted"
    drawn = split_trials(rng, splits, about["draws"] // splits, about["ratio"], counted)
    held, widths = [], []
    for found, true in islice(drawn, trials):
        assert found is not None
        held.append(found.low <= TRUTH <= found.high)
        widths.append((found.high - found.low) / 2 / true)
    return told(about, np.array(held), np.array(widths))


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
