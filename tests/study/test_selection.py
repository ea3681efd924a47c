"""The choice of the best arm: within the label budget, by folds or by a documented order."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewlabels.evaluation.folds import ENOUGH, FOLDS, folds_of
from fewlabels.pipeline.goals import Classes
from fewlabels.study import selection as module
from fewlabels.study.arms import FIXED_ORDER, parse_arms
from fewlabels.study.selection import choose

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


def chosen(
    monkeypatch: pytest.MonkeyPatch,
    rates: dict[str, float],
    *,
    shots: int = 10,
    warned: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Choose among arms that are right on the given share of the labelled images."""
    tried: list[str] = []
    labels = np.repeat(np.arange(4), shots)
    dataset: Any = SimpleNamespace(labels=labels, targets=None)
    task: Any = SimpleNamespace(dataset=dataset, goal=Classes(dataset))
    encoders: Any = {
        name: SimpleNamespace(warning="collapsed" if name in warned else "") for name in NAMES
    }

    def hits(
        _task: Any, arm: Any, _encoder: Any, _rows: Any, out: np.ndarray, _steps: Any
    ) -> np.ndarray:
        tried.append(arm.name)
        right = np.arange(int(out.sum())) < round(rates[arm.name] * int(out.sum()))
        return right.astype(np.float64)

    monkeypatch.setattr(module, "fold_scores", hits)
    steps: Any = None
    found = choose(task, ARMS, encoders, np.arange(len(labels)), steps, seed=0)
    return found | {"tried": tried}


RATES = {
    "scratch": 0.5,
    "pixels": 0.9,
    "random+features": 0.2,
    "simclr+features": 0.7,
    "autoencoder+features": 0.3,
}


def test_the_most_accurate_arm_wins_even_against_the_recommended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    best = chosen(monkeypatch, RATES)
    assert best["name"] == "pixels"
    assert "cross-validation" in best["reason"]
    assert "90.0%" in best["reason"]
    scores = {row["arm"]: row["score"] for row in best["candidates"]}
    assert scores == pytest.approx(RATES)
    assert all(row["low"] < row["score"] < row["high"] for row in best["candidates"])


def test_a_tie_falls_to_the_documented_order(monkeypatch: pytest.MonkeyPatch) -> None:
    best = chosen(monkeypatch, dict.fromkeys(NAMES, 0.5))
    assert best["name"] == min(NAMES, key=FIXED_ORDER.index)


def test_too_few_labels_fall_to_the_documented_order(monkeypatch: pytest.MonkeyPatch) -> None:
    best = chosen(monkeypatch, RATES, shots=ENOUGH - 1)
    assert best["name"] == min(NAMES, key=FIXED_ORDER.index)
    assert best["candidates"] == []
    assert "documented order" in best["reason"]


def test_a_collapsed_encoder_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    first = min(NAMES, key=FIXED_ORDER.index)
    assert chosen(monkeypatch, RATES, shots=1, warned=(first,))["name"] != first
    assert chosen(monkeypatch, RATES, warned=("pixels",))["name"] == "simclr+features"


def test_if_all_have_collapsed_one_is_still_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(monkeypatch, RATES, warned=tuple(NAMES))["name"] == "pixels"


def test_an_arm_that_trains_is_dropped_once_it_is_clearly_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    behind = chosen(monkeypatch, RATES | {"scratch": 0.1}, shots=40)
    assert behind["tried"].count("scratch") == 1
    assert behind["tried"].count("random+features") == FOLDS  # cheap arms are tried to the end
    assert {row["arm"]: row["folds"] for row in behind["candidates"]}["scratch"] == 1
    close = chosen(monkeypatch, RATES | {"scratch": 0.88}, shots=40)
    assert close["tried"].count("scratch") == FOLDS
    assert close["name"] == "pixels"


def test_an_arm_that_was_dropped_never_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = chosen(monkeypatch, RATES | {"scratch": 0.95}, shots=40)
    assert ahead["name"] == "scratch"
    assert all(row["folds"] == FOLDS for row in ahead["candidates"])
