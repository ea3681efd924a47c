"""The label budget: nested, balanced and stable draws."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fewlabels.data.labels import draw, shortfall

LABELS = st.lists(st.integers(-1, 3), min_size=1, max_size=80)


def keys_of(count: int) -> list[str]:
    return [f"{i:064x}" for i in range(count)]


@given(LABELS, st.integers(1, 8), st.integers(0, 3))
def test_a_draw_holds_the_shots_or_all_there_are(labels: list[int], shots: int, seed: int) -> None:
    codes = np.array(labels)
    rows = np.arange(0, len(codes), 2)
    drawn = draw(codes, rows, keys_of(len(codes)), shots, seed)
    assert set(drawn.tolist()) <= set(rows.tolist())
    assert np.all(np.diff(drawn) > 0)
    for code in range(4):
        there = int(np.sum(codes[rows] == code))
        assert np.sum(codes[drawn] == code) == min(shots, there)
    assert not np.any(codes[drawn] == -1)


@given(LABELS, st.integers(1, 5), st.integers(0, 5), st.integers(0, 3))
def test_draws_are_nested(labels: list[int], shots: int, more: int, seed: int) -> None:
    codes, rows, keys = np.array(labels), np.arange(len(labels)), keys_of(len(labels))
    few = draw(codes, rows, keys, shots, seed)
    many = draw(codes, rows, keys, shots + more, seed)
    assert set(few.tolist()) <= set(many.tolist())


@given(st.permutations(range(30)), st.integers(0, 3))
def test_a_draw_depends_on_content_not_on_order(order: list[int], seed: int) -> None:
    codes, keys = np.arange(30) % 3, keys_of(30)
    drawn = {keys[i] for i in draw(codes, np.arange(30), keys, 4, seed)}
    moved = [keys[i] for i in order]
    again = draw(codes[order], np.arange(30), moved, 4, seed)
    assert {moved[i] for i in again} == drawn


def test_copies_come_last() -> None:
    codes = np.zeros(10, np.int64)
    keys = ["same"] * 6 + ["a", "b", "c", "d"]
    drawn = draw(codes, np.arange(10), keys, 5, 0)
    assert sorted({keys[i] for i in drawn}) == ["a", "b", "c", "d", "same"]
    assert len(draw(codes, np.arange(10), keys, 7, 0)) == 7


def test_seeds_differ_and_every_row_can_be_drawn() -> None:
    codes, rows, keys = np.zeros(20, np.int64), np.arange(20), keys_of(20)
    counts = np.zeros(20)
    for seed in range(400):
        counts[draw(codes, rows, keys, 5, seed)] += 1
    assert counts.min() > 60
    assert counts.max() < 140


def test_shortfall_names_the_small_classes() -> None:
    labels = np.array([0, 0, 1, -1, 0])
    assert shortfall(labels, np.arange(5), ("a", "b", "c"), 2) == {"b": 1, "c": 0}
    assert shortfall(labels, np.arange(3), ("a", "b"), 1) == {}
