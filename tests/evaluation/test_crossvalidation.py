"""The corrected resampled t test, against a few lines of scipy and against simulation."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fewlabels.evaluation.cells import cross_validation, design_of
from fewlabels.evaluation.crossvalidation import ONE_ENCODER, cross_validated
from fewlabels.evaluation.verdicts import Verdict, compare_arms

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def corrected_t(x: np.ndarray, test_share: float) -> tuple[float, float, float, float]:
    """Return mean, ends and p as Nadeau and Bengio (2003) have them."""
    n = len(x)
    se = np.sqrt(x.var(ddof=1) * (1 / n + test_share / (1 - test_share)))
    low, high = stats.t.interval(0.95, n - 1, x.mean(), se)
    return float(x.mean()), low, high, float(2 * stats.t.sf(abs(x.mean()) / se, n - 1))


def cells(values: np.ndarray, arm: str, seed_of: Any = lambda repeat, fold: None) -> list[Any]:
    """Return cells with these accuracies, ``(repeats, folds)``."""
    return [
        {
            "arm": arm,
            "shots": 0,
            "failed": None,
            "accuracy": float(values[repeat, fold]),
            "streams": {
                "split": repeat * values.shape[1] + fold,
                "labels": repeat,
                "pretraining": seed_of(repeat, fold),
                "training": 0,
            },
        }
        for repeat, fold in np.ndindex(*values.shape)
    ]


def judged(a: np.ndarray, b: np.ndarray, **about: Any) -> Verdict:
    ours, theirs = cells(a, "a", **about), cells(b, "b")
    design = design_of([*ours, *theirs], folds=a.shape[1])
    return compare_arms(ours, theirs, design=design)


@pytest.mark.parametrize(("repeats", "folds"), [(1, 5), (5, 5), (3, 10), (10, 2)])
def test_interval_and_p_are_those_of_the_corrected_resampled_t_test(
    repeats: int, folds: int
) -> None:
    rng = np.random.default_rng(repeats)
    a, b = rng.normal(0.7, 0.1, (2, repeats, folds))
    found = judged(a, b)
    value, low, high, p = corrected_t((a - b).ravel(), 1 / folds)
    assert (found.difference, found.low, found.high) == pytest.approx((value, low, high))
    assert found.p == pytest.approx(p)
    assert found.df == repeats * folds - 1
    assert (found.repeats.splits, found.repeats.draws) == (repeats * folds, repeats)


def test_more_repeats_do_not_narrow_it_past_what_the_images_leave_open() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.7, 0.1, (2, 200, 5))
    found = judged(a, b)
    least = found.components.images
    assert least == pytest.approx(np.sqrt((a - b).var(ddof=1) / 4))
    assert least < found.se < 1.02 * least


def test_encoders_that_differ_are_counted_as_themselves_not_as_their_folds() -> None:
    rng = np.random.default_rng(0)
    own = np.array([0.0, 0.3, 0.3, 0.0])[:, None]  # of four encoders, each for one repeat
    a = 0.6 + own + rng.normal(0, 0.01, (4, 5))
    b = np.full((4, 5), 0.6) + rng.normal(0, 0.01, (4, 5))
    shared = judged(a, b, seed_of=lambda repeat, fold: repeat)
    means = (a - b).mean(1)
    assert shared.df == pytest.approx(3)
    assert shared.se == pytest.approx(means.std(ddof=1) / 2)
    assert shared.repeats.pretraining == 4
    each = judged(a, b, seed_of=lambda repeat, fold: 5 * repeat + fold)
    assert each.df == 19 and each.repeats.pretraining == 20


def test_one_encoder_for_all_folds_is_said() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.7, 0.1, (2, 3, 5))
    assert judged(a, b, seed_of=lambda repeat, fold: 0).note == ONE_ENCODER
    assert judged(a, b, seed_of=lambda repeat, fold: repeat).note == ""
    assert judged(a, b).note == ""


def test_folds_of_a_few_images_that_agree_by_rounding_are_not_certain() -> None:
    found = cross_validated([0.25] * 10, overlap=0.25, image_variance=0.04)
    assert found.se == pytest.approx(np.sqrt(0.04 / 12 * (1 / 10 + 1 / 4)))


def test_one_fold_has_no_interval() -> None:
    assert np.isnan(cross_validated([0.5], overlap=0.25).low)


def test_the_design_takes_all_of_the_spread_as_shared_whatever_was_drawn() -> None:
    design = cross_validation(5, 25, 5, 2)
    assert (design.overlap, design.all_labels, design.folds) == (0.25, True, 5)


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        place = BENCHMARKS / "crossvalidation.py"
        spec = importlib.util.spec_from_file_location("crossvalidation_benchmark", place)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


def test_fitted_classifiers_of_one_kind_are_rarely_told_apart(benchmark: ModuleType) -> None:
    world = benchmark.World("means, other noise", 40, repeats=3)
    line = benchmark.row(world, 400, np.random.default_rng(0))
    assert line["false_low"] <= 0.05
    assert line["uncorrected"] < 0.9  # which is why it is corrected


@pytest.mark.slow
@pytest.mark.parametrize("arms", ["ridge, other noise", "means, other noise", "encoders"])
def test_verdicts_err_no_more_often_than_stated(benchmark: ModuleType, arms: str) -> None:
    line = benchmark.row(benchmark.World(arms, 40), 2000, np.random.default_rng(0))
    assert line["false_verdicts"] <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("arms", ["ridge against neighbour", "means against neighbour"])
def test_intervals_hold_the_truth(benchmark: ModuleType, arms: str) -> None:
    line = benchmark.row(benchmark.World(arms, 40), 2000, np.random.default_rng(0))
    assert 0.93 <= line["coverage"] <= 0.995
