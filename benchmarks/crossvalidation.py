"""How often intervals and verdicts of repeated cross-validation are right: the truth is known.

    python benchmarks/crossvalidation.py

Data sets of a few labelled images are drawn from classes that overlap, and classifiers are really
fitted on the folds: by nearest class means, ridge regression or the nearest neighbour, on images
as they are or on random features that stand for encoders. Folds share labels, and may share an
encoder, so that their results hang together as in a comparison. An arm against another of its kind
must not be told apart, and an interval must hold the expected difference, which is the mean over
all trials. Takes half an hour.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from record import HERE, MADE, made, replace

from fewlabels.evaluation.cells import Key, cross_validation, model_mean
from fewlabels.evaluation.intervals import Estimate, wilson

COMMAND = "python benchmarks/crossvalidation.py"
COLUMNS: tuple[str, ...] = (
    "arms",
    "alike",
    "images",
    "classes",
    "folds",
    "repeats",
    "encoders",
    "trials",
)
COLUMNS += ("false_verdicts", "false_low", "false_high", "coverage", "low", "high", "width")
COLUMNS += ("uncorrected", *MADE)
SAME = COLUMNS[:7]
WIDTH = 30  # numbers in an image, of which as many as there are classes tell these apart
APART = 2.0
BATCH = 200

Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def nearest_mean(x: np.ndarray, truth: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the classes ``(T, n)`` of images ``(T, n, d)`` by the class means of the known ones.

    Parameters
    ----------
    truth : ndarray
        ``(n, C)`` one-hot.
    known : ndarray
        ``(T, n)`` bool.
    """
    member = truth * known[:, :, None]
    means = np.einsum("tnc,tnd->tcd", member, x) / member.sum(1)[:, :, None]
    away = (means**2).sum(-1)[:, None] - 2 * x @ means.transpose(0, 2, 1)
    return np.asarray(away.argmin(-1))


def ridge(x: np.ndarray, truth: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return classes by ridge regression in its dual form, as `nearest_mean`."""
    gram = x @ x.transpose(0, 2, 1) / x.shape[2] * known[:, None, :]
    target = (truth - truth.mean(0)) * known[:, :, None]
    weights = np.linalg.solve(gram * known[:, :, None] + 0.05 * np.eye(len(truth)), target)
    return np.asarray((gram @ weights).argmax(-1))


def neighbour(x: np.ndarray, truth: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return classes by the nearest neighbour, as `nearest_mean`."""
    away = (x**2).sum(-1)[:, None] - 2 * x @ x.transpose(0, 2, 1)
    return np.asarray(truth.argmax(1)[np.where(known[:, None], away, np.inf).argmin(-1)])


# What each of two arms sees of an image beside what tells the classes apart (the first or the
# second half of the noise, or a random mixture of all of it, as encoders differ), and its fit.
ARMS: dict[str, tuple[tuple[str, Fit], tuple[str, Fit]]] = {
    "ridge, other noise": (("first", ridge), ("second", ridge)),
    "means, other noise": (("first", nearest_mean), ("second", nearest_mean)),
    "encoders": (("mixed", nearest_mean), ("mixed", nearest_mean)),
    "ridge against neighbour": (("all", ridge), ("all", neighbour)),
    "means against neighbour": (("all", nearest_mean), ("all", neighbour)),
    "encoders against none": (("mixed", nearest_mean), ("all", nearest_mean)),
}


@dataclass(frozen=True, slots=True)
class World:
    """A design and two arms; without `encoders` every fold has one of its own."""

    arms: str
    images: int
    classes: int = 4
    folds: int = 5
    repeats: int = 5
    encoders: int = 0

    @property
    def alike(self) -> bool:
        """Whether the arms are of one kind."""
        one, other = ARMS[self.arms]
        return one[1] is other[1] and "all" not in (one[0], other[0])

    def encoder_of(self, repeat: int, fold: int) -> int:
        """Return the number of the encoder that serves a fold."""
        if not self.encoders:
            return repeat * self.folds + fold
        return repeat * self.encoders // self.repeats


def differences(world: World, trials: int, rng: np.random.Generator) -> np.ndarray:
    """Return the paired differences of accuracy, ``(trials, repeats, folds)``."""
    n, k = world.images, world.classes
    labels = np.arange(n) % k
    x = rng.normal(size=(trials, n, WIDTH)) + APART * np.eye(k, WIDTH)[labels]
    count = world.encoder_of(world.repeats - 1, world.folds - 1) + 1
    mixing = [0.3 * rng.normal(size=(trials, count, WIDTH - k, k)) for _ in range(2)]
    found = np.zeros((trials, world.repeats, world.folds))
    for repeat in range(world.repeats):
        # Dealt class by class, as `fewlabels.data.folds.deal` does.
        order = np.lexsort((rng.random((trials, n)), np.broadcast_to(labels, (trials, n))))
        dealt = np.empty((trials, n), np.int64)
        np.put_along_axis(dealt, order, np.broadcast_to(np.arange(n), (trials, n)), axis=1)
        for fold in range(world.folds):
            test, encoder = dealt % world.folds == fold, world.encoder_of(repeat, fold)
            for sign, (kind, fit), mix in zip((1, -1), ARMS[world.arms], mixing, strict=True):
                called = fit(_seen(x, kind, mix[:, encoder], k), np.eye(k)[labels], ~test)
                right = ((called == labels) & test).sum(1) / test.sum(1)
                found[:, repeat, fold] += sign * right
    return found


def _seen(x: np.ndarray, kind: str, mix: np.ndarray, classes: int) -> np.ndarray:
    half = (x.shape[2] + classes) // 2
    if kind == "mixed":
        return np.asarray(x[:, :, :classes] + x[:, :, classes:] @ mix)
    if kind == "second":
        return np.concatenate([x[:, :, :classes], x[:, :, half:]], axis=2)
    return x[:, :, :half] if kind == "first" else x


def estimates(world: World, found: np.ndarray) -> list[Estimate]:
    """Return the package's estimates from the differences of each trial."""
    k, r = world.folds, world.repeats
    design = cross_validation(k, k * r, r, world.encoders or k * r)
    mixed = world.arms.startswith("encoders")
    told = []
    for one in found:
        scores: dict[Key, float] = {}
        for repeat, fold in np.ndindex(r, k):
            encoder = world.encoder_of(repeat, fold) if mixed else None
            scores[repeat * k + fold, repeat, encoder] = float(one[repeat, fold])
        estimate = model_mean(scores, design)
        assert estimate is not None
        told.append(estimate)
    return told


def row(world: World, trials: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return a line of the table."""
    parts = [differences(world, min(BATCH, trials), rng) for _ in range(-(-trials // BATCH))]
    found = np.concatenate(parts)[:trials]
    truth = 0.0 if world.alike else float(found.mean())
    told = estimates(world, found)
    held = sum(one.low <= truth <= one.high for one in told)
    flat = found.reshape(trials, -1)  # as if folds were independent
    short = 1.96 * flat.std(1, ddof=1) / np.sqrt(flat.shape[1])
    low, high = wilson(held, trials)
    line = {
        "arms": world.arms,
        "alike": world.alike,
        "images": world.images,
        "classes": world.classes,
        "folds": world.folds,
        "repeats": world.repeats,
        "encoders": world.encoders or "own",
        "trials": trials,
        "coverage": round(held / trials, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "width": round(200 * float(np.mean([one.high - one.value for one in told])), 1),
        "uncorrected": round(float((abs(flat.mean(1) - truth) <= short).mean()), 4),
    }
    if world.alike:
        line |= {"false_verdicts": round(1 - held / trials, 4)}
        line |= {"false_low": round(1 - high, 4), "false_high": round(1 - low, 4)}
    return line


def worlds() -> list[World]:
    """Return the designs that are tried."""
    found = []
    for arms in ARMS:
        for images, classes in ((40, 2), (40, 4), (100, 4)):
            designs = [(5, 0), (5, 5), (5, 2), (3, 3)] if "encoders" in arms else [(3, 0), (5, 0)]
            found += [World(arms, images, classes, 5, r, encoders) for r, encoders in designs]
    return found


def main() -> None:
    """Simulate all designs and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=4000)
    trials = parser.parse_args().trials
    rng = np.random.default_rng(0)
    rows = [row(world, trials, rng) for world in worlds()]
    about = made(COMMAND)
    place = HERE / "crossvalidation.csv"
    replace(place, COLUMNS, [{**line, **about} for line in rows], SAME)


if __name__ == "__main__":
    main()
