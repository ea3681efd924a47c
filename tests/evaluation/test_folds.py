"""Folds of images with numbers: even, spanning the range, keyed by the seed."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fewlabels.evaluation.folds import ENOUGH_NUMBERS, FOLDS, number_folds


@given(st.integers(ENOUGH_NUMBERS, 60), st.integers(0, 5))
def test_every_fold_spans_the_range(count: int, seed: int) -> None:
    targets = np.random.default_rng(count).permutation(np.arange(count) ** 3.0)
    folds = number_folds(targets, seed)
    assert folds is not None
    held = np.bincount(folds, minlength=FOLDS)
    assert held.sum() == count
    assert held.max() - held.min() <= 1
    ranks = np.argsort(np.argsort(targets))
    for fold in range(FOLDS):
        mine = np.sort(ranks[folds == fold])
        assert mine[0] < FOLDS  # one of the four lowest
        assert mine[-1] >= count - 2 * FOLDS
        assert np.diff(mine).max() < 2 * FOLDS


def test_too_few_are_not_folded() -> None:
    assert number_folds(np.arange(ENOUGH_NUMBERS - 1.0), 0) is None


def test_folds_depend_on_the_seed_and_equal_numbers_are_folded() -> None:
    targets = np.repeat([1.0, 2.0], 20)
    first, again, other = (number_folds(targets, seed) for seed in (0, 0, 1))
    assert first is not None
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(np.bincount(first[:20]), [5] * FOLDS)
