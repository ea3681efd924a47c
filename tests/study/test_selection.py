"""The choice of the best arm: within the label budget, by folds or by a documented order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewlabels.evaluation.folds import ENOUGH, FOLDS, folds_of
from fewlabels.pipeline.goals import Classes
from fewlabels.study.arms import FIXED_ORDER, Arm
from fewlabels.study.parsing import parse_arms
from fewlabels.study.selection import (
    choose,
    counted,
    load_folds,
    save_folds,
    tried_in_order,
    until_behind,
)

NAMES = ["scratch", "pixels", "random+features", "simclr+features", "autoencoder+features"]
ARMS = parse_arms(NAMES)


@given(st.lists(st.integers(ENOUGH, 12), min_size=2, max_size=5), st.integers(0, 3))
def test_folds_are_even_in_every_class(counts: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    folds = folds_of(labels, seed)
    assert folds is not None
    number = min(FOLDS, *counts)
    for name, count in enumerate(counts):
        held = np.bincount(folds[labels == name], minlength=number)
        assert held.sum() == count
        assert held.max() - held.min() <= 1
        assert len(held) == number  # every fold holds some of it and trains on the rest
        assert held.min() >= 1


@pytest.mark.parametrize("smallest", [1, 2, 3])
def test_too_few_labels_are_not_folded(smallest: int) -> None:
    labels = np.repeat([0, 1], [20, smallest])
    assert folds_of(labels, 0) is None


def test_folds_depend_on_the_seed() -> None:
    labels = np.repeat(np.arange(3), 10)
    first, again, other = (folds_of(labels, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_class_without_labels_does_not_count() -> None:
    assert folds_of(np.repeat([0, 2], 5), 0) is not None


def goal_of(shots: int) -> tuple[Classes, np.ndarray]:
    labels = np.repeat(np.arange(4), shots)
    dataset: Any = SimpleNamespace(labels=labels, targets=None)
    return Classes(dataset), np.arange(len(labels))


def chosen(
    rates: dict[str, float], *, shots: int = 10, warned: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Choose among arms that are right on the given share of the labelled images, as one does."""
    goal, rows = goal_of(shots)
    arms = [arm for arm in ARMS if arm.name not in warned] or ARMS
    tried: list[str] = []
    found: dict[str, list[np.ndarray]] = {}
    folds = goal.folds(rows, 0)

    def scores(arm: Arm, sizes: list[int]) -> Iterator[np.ndarray]:
        for size in sizes:
            tried.append(arm.name)
            yield (np.arange(size) < round(rates[arm.name] * size)).astype(np.float64)

    if folds is not None:
        sizes = [int((folds == fold).sum()) for fold in np.unique(folds)]
        for arm in tried_in_order(arms):
            before = [other for other in tried_in_order(arms) if other.name in found]
            leader = counted(goal, before, found, len(sizes))[1]
            found[arm.name] = until_behind(goal, arm, scores(arm, sizes), leader)
    return choose(goal, arms, rows, found, seed=0) | {"tried": tried}


RATES = {
    "scratch": 0.5,
    "pixels": 0.9,
    "random+features": 0.2,
    "simclr+features": 0.7,
    "autoencoder+features": 0.3,
}


def test_the_most_accurate_arm_wins_even_against_the_recommended() -> None:
    best = chosen(RATES)
    assert best["name"] == "pixels"
    assert "cross-validation" in best["reason"]
    assert "90.0%" in best["reason"]
    scores = {row["arm"]: row["score"] for row in best["candidates"]}
    assert scores == pytest.approx(RATES)
    assert all(row["low"] < row["score"] < row["high"] for row in best["candidates"])


def test_a_tie_falls_to_the_documented_order() -> None:
    best = chosen(dict.fromkeys(NAMES, 0.5))
    assert best["name"] == min(NAMES, key=FIXED_ORDER.index)


def test_too_few_labels_fall_to_the_documented_order() -> None:
    best = chosen(RATES, shots=ENOUGH - 1)
    assert best["name"] == min(NAMES, key=FIXED_ORDER.index)
    assert best["candidates"] == []
    assert "documented order" in best["reason"]


def test_a_collapsed_encoder_is_passed_over() -> None:
    first = min(NAMES, key=FIXED_ORDER.index)
    assert chosen(RATES, shots=1, warned=(first,))["name"] != first
    assert chosen(RATES, warned=("pixels",))["name"] == "simclr+features"


def test_if_all_have_collapsed_one_is_still_named() -> None:
    assert chosen(RATES, warned=tuple(NAMES))["name"] == "pixels"


def test_an_arm_that_trains_is_dropped_once_it_is_clearly_behind() -> None:
    behind = chosen(RATES | {"scratch": 0.1}, shots=40)
    assert behind["tried"].count("scratch") == 1
    assert behind["tried"].count("random+features") == FOLDS  # cheap arms are tried to the end
    assert {row["arm"]: row["folds"] for row in behind["candidates"]}["scratch"] == 1
    close = chosen(RATES | {"scratch": 0.88}, shots=40)
    assert close["tried"].count("scratch") == FOLDS
    assert close["name"] == "pixels"


def test_an_arm_that_was_dropped_never_wins() -> None:
    ahead = chosen(RATES | {"scratch": 0.95}, shots=40)
    assert ahead["name"] == "scratch"
    assert all(row["folds"] == FOLDS for row in ahead["candidates"])


@given(st.integers(0, 10_000), st.lists(st.floats(0.05, 0.95), min_size=5, max_size=5))
def test_who_computes_the_folds_in_which_order_changes_no_choice(
    seed: int, rates: list[float]
) -> None:
    """All folds of every arm, as workers find them, choose as one process does that stops early."""
    goal, rows = goal_of(12)
    folds = goal.folds(rows, 0)
    assert folds is not None
    count = len(np.unique(folds))
    rng = np.random.default_rng(seed)
    every = {
        name: [(rng.random((folds == f).sum()) < rate).astype(np.float64) for f in np.unique(folds)]
        for name, rate in zip(NAMES, rates, strict=True)
    }
    early: dict[str, list[np.ndarray]] = {}
    for arm in tried_in_order(ARMS):
        before = [other for other in tried_in_order(ARMS) if other.name in early]
        leader = counted(goal, before, early, count)[1]
        early[arm.name] = until_behind(goal, arm, every[arm.name], leader)
    assert choose(goal, ARMS, rows, every, seed=0) == choose(goal, ARMS, rows, early, seed=0)


def test_an_arm_without_fold_scores_is_not_chosen() -> None:
    goal, rows = goal_of(10)
    folds = goal.folds(rows, 0)
    assert folds is not None
    found: dict[str, list[np.ndarray]] = {name: [] for name in NAMES}
    found["pixels"] = [np.zeros(int((folds == fold).sum())) for fold in np.unique(folds)]
    best = choose(goal, ARMS, rows, found, seed=0)
    assert best["name"] == "pixels"
    assert [row["arm"] for row in best["candidates"]] == ["pixels"]


def test_fold_scores_are_kept_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "choices" / "a.npz"
    parts = [np.random.default_rng(n).random(n + 1) for n in range(12)]
    assert load_folds(path) is None
    save_folds(path, parts)
    kept = load_folds(path)
    assert kept is not None
    assert all(np.array_equal(a, b) for a, b in zip(kept, parts, strict=True))
    save_folds(path, [])
    assert load_folds(path) == []
    path.write_bytes(b"PK\x03\x04 torn")
    assert load_folds(path) is None
