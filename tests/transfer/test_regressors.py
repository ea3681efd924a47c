"""Small models of a number: against scikit-learn, loops, and what they may not read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV

from fewlabels.models.heads import RegressionHead, answers
from fewlabels.transfer.features import Space, build_space
from fewlabels.transfer.regressors import (
    PENALTIES,
    REGRESSORS,
    constant,
    neighbours,
    ridge,
    scale_of,
    standardised,
)

TOTAL, WIDTH = 150, 12
ROWS = 1_000 + np.arange(0, 90, 2)


@pytest.fixture
def space() -> Space:
    """150 images on a curved sheet; the rows of the data set are 1000 upwards, shuffled."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(TOTAL, WIDTH)) * np.linspace(3, 0.3, WIDTH)
    order = rng.permutation(TOTAL)
    return build_space(1_000 + order, torch.tensor(x[order], dtype=torch.float32))


@pytest.fixture
def truth(space: Space) -> np.ndarray:
    """Return the number of every row from 1000 on, in units far from those of the features."""
    x = space.features[space.positions(1_000 + np.arange(TOTAL))].double().numpy()
    noise = np.random.default_rng(1).normal(0, 20, TOTAL)
    return 2_000 + 30 * x[:, 0] - 12 * x[:, 1] + noise


def predicted(space: Space, head: torch.nn.Module) -> np.ndarray:
    x = space.features[space.positions(1_000 + np.arange(TOTAL))]
    return answers(head, head(x))


def inputs(space: Space, rows: np.ndarray) -> np.ndarray:
    return ((space.features[space.positions(rows)] - space.mean) * space.scale).double().numpy()


def test_ridge_is_scikit_learns_in_the_unit(space: Space, truth: np.ndarray) -> None:
    """Of RidgeCV on numbers that nobody standardised: a penalty is the same in any unit."""
    alphas = [WIDTH * penalty for penalty in PENALTIES]
    model = RidgeCV(alphas=alphas).fit(inputs(space, ROWS), truth[ROWS - 1_000])
    expected = model.predict(inputs(space, 1_000 + np.arange(TOTAL)))
    np.testing.assert_allclose(
        predicted(space, ridge(space, ROWS, truth[ROWS - 1_000])), expected, rtol=1e-4
    )


def test_the_penalty_is_the_best_when_each_image_is_left_out(
    space: Space, truth: np.ndarray
) -> None:
    """Against a loop that fits as often as there are images and penalties."""
    x, wanted = inputs(space, ROWS), truth[ROWS - 1_000]
    errors = []
    for penalty in PENALTIES:
        total = 0.0
        for out in range(len(ROWS)):
            kept = np.arange(len(ROWS)) != out
            model = Ridge(alpha=WIDTH * penalty).fit(x[kept], wanted[kept])
            total += float((model.predict(x[[out]])[0] - wanted[out]) ** 2)
        errors.append(total)
    best = Ridge(alpha=WIDTH * PENALTIES[int(np.argmin(errors))]).fit(x, wanted)
    assert 0 < np.argmin(errors) < len(PENALTIES) - 1  # or the grid would be too narrow
    found = predicted(space, ridge(space, ROWS, wanted))
    expected = best.predict(inputs(space, 1_000 + np.arange(TOTAL)))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_neighbours_agree_with_a_loop(space: Space, truth: np.ndarray) -> None:
    found = predicted(space, neighbours(space, ROWS, truth[ROWS - 1_000]))
    vectors = ((space.features - space.mean) @ space.turn).double().numpy()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    at = {int(row): vectors[place] for place, row in enumerate(space.rows)}
    for row in (1_001, 1_050, 1_149):
        similar = sorted(((float(at[row] @ at[int(j)]), int(j)) for j in ROWS), reverse=True)[:5]
        weights = np.exp(np.array([value for value, _ in similar]) / 0.1)
        numbers = np.array([truth[j - 1_000] for _, j in similar])
        assert found[row - 1_000] == pytest.approx((weights * numbers).sum() / weights.sum(), 1e-4)


def test_features_are_the_average_of_both(space: Space, truth: np.ndarray) -> None:
    seen = truth[ROWS - 1_000]
    line, near, whole = (
        predicted(space, REGRESSORS[kind](space, ROWS, seen))
        for kind in ("ridge", "knn", "features")
    )
    np.testing.assert_allclose(whole, (line + near) / 2, rtol=1e-6)


def test_neighbours_stay_within_what_they_saw(space: Space, truth: np.ndarray) -> None:
    found = predicted(space, neighbours(space, ROWS, truth[ROWS - 1_000]))
    seen = truth[ROWS - 1_000]
    assert found.min() >= seen.min() - 1e-3
    assert found.max() <= seen.max() + 1e-3


def test_the_mean_predictor_says_the_mean_of_what_it_saw(space: Space, truth: np.ndarray) -> None:
    found = predicted(space, constant(space, ROWS, truth[ROWS - 1_000]))
    np.testing.assert_allclose(found, truth[ROWS - 1_000].mean())


@pytest.mark.parametrize("kind", REGRESSORS)
def test_units_change_nothing_but_the_unit(kind: str, space: Space, truth: np.ndarray) -> None:
    seen = truth[ROWS - 1_000]
    one = predicted(space, REGRESSORS[kind](space, ROWS, seen))
    other = predicted(space, REGRESSORS[kind](space, ROWS, seen * 1e-6 + 5))
    np.testing.assert_allclose(other, one * 1e-6 + 5, rtol=1e-6)


@pytest.mark.parametrize("kind", REGRESSORS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_one_label_is_enough_to_fit(kind: str, count: int, space: Space, truth: np.ndarray) -> None:
    rows = ROWS[:count]
    found = predicted(space, REGRESSORS[kind](space, rows, truth[rows - 1_000]))
    assert np.isfinite(found).all()
    if count == 1:
        np.testing.assert_allclose(found, truth[rows[0] - 1_000])


@pytest.mark.parametrize("kind", ["ridge", "knn", "features"])
def test_they_learn_more_than_the_mean(kind: str, space: Space, truth: np.ndarray) -> None:
    head = REGRESSORS[kind](space, ROWS, truth[ROWS - 1_000])
    held = np.setdiff1d(np.arange(TOTAL), ROWS - 1_000)
    error = ((predicted(space, head) - truth)[held] ** 2).mean()
    assert error < 0.5 * truth[held].var()


def test_equal_numbers_give_that_number(space: Space) -> None:
    for fit in REGRESSORS.values():
        np.testing.assert_allclose(predicted(space, fit(space, ROWS, np.full(len(ROWS), 7.5))), 7.5)


def test_the_scale_is_numpys() -> None:
    values = np.array([1.0, 4.0, 4.0, 11.0])
    centre, spread = scale_of(values)
    assert (centre, spread) == (values.mean(), values.std())
    inside = standardised(values, centre, spread)
    assert inside.mean() == pytest.approx(0)
    assert inside.std() == pytest.approx(1)


@pytest.mark.parametrize("scale", [(np.nan, 1.0), (0.0, 0.0), (0.0, -1.0), (np.inf, 1.0)])
def test_a_scale_that_is_none_is_refused(scale: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="cannot scale"):
        RegressionHead(torch.nn.Linear(2, 1), *scale)
