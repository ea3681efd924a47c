"""What an arm will score with more labels than were tried, from its own learning curve.

The error is taken to fall with the number n of labels as ``e(n) = a + (g - a) / (1 + (n/m)^d)``,
from that of guessing, g, to one that no labels remove, a: the curve of Morgan, Mercer and Flodin
(1975), which of sixteen fits most learning curves best (Mohr et al. 2022, "LCDB 1.0"). Without g
it is the power law with an asymptote (Cortes et al. 1993; Hestness et al. 2017). Two to four
points do not determine it, so it is not fitted but averaged over: given a, its logarithm
``z = log (g - e) / (e - a)`` is a straight line in log n, of which Bayes' rule with a normal prior
of the slope gives the posterior in closed form, and every a weighs as much as it explains.
Real curves are not quite of this form: z may wander from the line as a Brownian motion in log n,
so that the last point tells most, and the farther ahead, the less is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from fewlabels.evaluation.cells import Cell, Design, select, shots_of
from fewlabels.evaluation.metrics import LOWER_IS_BETTER, RANGES
from fewlabels.evaluation.verdicts import Images, mean_interval, nulls

Floats = npt.NDArray[np.float64]

LEVEL = 0.8
"""Share of forecasts whose interval holds what is measured then."""

AHEAD = (4, 16)
"""Times the most labels that were tried."""

FLOORS = (0.0, 0.2, 0.4, 0.6, 0.8)
"""Errors that no labels remove, in shares of the least error seen; each as likely beforehand."""

_FLAT = 100.0  # variance of the height of the line: nothing is known of it
_QUANTILES = 400


@dataclass(frozen=True, slots=True)
class Prior:
    """What is known of learning curves beforehand, in units of z.

    Attributes
    ----------
    slope, slope_sd : float
        Per doubling of the labels.
    wander : float
        Standard deviation from the line after one doubling.
    """

    slope: float
    slope_sd: float
    wander: float


# Of largest predictive likelihood on benchmarks/learning_curves.csv, none of whose data are those
# of a committed comparison (`benchmarks/forecast_constants.py`).
SHARES = Prior(0.337, 0.083, 0.165)
LOSSES = Prior(1.638, 0.627, 0.562)


class Prediction(NamedTuple):
    """An error at some number of labels: median and ends of the interval at `LEVEL`."""

    value: float
    low: float
    high: float


class _Line(NamedTuple):
    """The prediction of z with one floor: its weight, mean and variance at each number ahead."""

    floor: float
    evidence: float
    mean: Floats
    variance: Floats


def predict(
    shots: Sequence[float],
    errors: Sequence[float],
    spreads: Sequence[float],
    ahead: Sequence[float],
    *,
    guess: float | None = None,
    prior: Prior = SHARES,
) -> list[Prediction]:
    """Return the errors that are to be expected with more labels.

    Parameters
    ----------
    shots : sequence of float
        Numbers of labels, increasing, at least two.
    errors, spreads : sequence of float
        Positive errors at each, with their standard errors.
    ahead : sequence of float
        Numbers of labels to predict.
    guess : float, optional
        The error of guessing; without it the curve is a power law.
    prior : Prior
        `SHARES` goes with a guess, `LOSSES` without.

    Returns
    -------
    list of Prediction
        What would be measured, with an error of measurement as at the last point.

    Examples
    --------
    >>> found = predict([1, 4, 16], [0.8, 0.6, 0.4], [0.01] * 3, [64], guess=0.9)[0]
    >>> found.low < found.value < found.high < 0.4
    True
    """
    x = np.log2(np.asarray(shots, np.float64))
    y, se = np.asarray(errors, np.float64), np.asarray(spreads, np.float64)
    target = np.log2(np.asarray(ahead, np.float64)) - x[0]
    lines = [_line(x - x[0], y, se, target, share * y.min(), guess, prior) for share in FLOORS]
    weights = special.softmax([line.evidence for line in lines])
    steps = special.ndtri((np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    found = []
    for place in range(len(target)):
        drawn = [
            error_of(line.mean[place] + math.sqrt(line.variance[place]) * steps, line.floor, guess)
            for line in lines
        ]
        found.append(_quantiles(np.concatenate(drawn), np.repeat(weights, _QUANTILES)))
    return found


def _quantiles(values: Floats, weights: Floats) -> Prediction:
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    tail = (1 - LEVEL) / 2
    low, middle, high = (
        float(values[order][np.searchsorted(reached, q)]) for q in (tail, 0.5, 1 - tail)
    )
    return Prediction(middle, low, high)


def z_of(error: Floats, floor: float, guess: float | None, least: Floats) -> tuple[Floats, Floats]:
    """Return z and its slope in the error; `least` keeps both gaps from closing."""
    below = np.maximum(error - floor, least)
    if guess is None:
        return -np.log(below), 1 / below
    above = np.maximum(guess - error, least)
    return np.log(above / below), 1 / above + 1 / below


def error_of(z: Floats, floor: float, guess: float | None) -> Floats:
    """Return the error whose z this is."""
    if guess is None:
        return np.asarray(floor + np.exp(-z))
    return np.asarray(floor + (guess - floor) * special.expit(-z))


def _line(
    x: Floats,
    error: Floats,
    se: Floats,
    target: Floats,
    floor: float,
    guess: float | None,
    prior: Prior,
) -> _Line:
    """Return the posterior of the line at the targets, and how well this floor explains it."""
    least = np.maximum(se, 1e-4 * max(float(error.max()), guess or 0.0, 1e-9))
    z, steep = z_of(error, floor, guess, least)
    noise = (se * steep) ** 2

    def covariance(a: Floats, b: Floats) -> Floats:
        line = _FLAT + prior.slope_sd**2 * np.outer(a, b)
        return np.asarray(line + prior.wander**2 * np.minimum.outer(a, b))

    known = covariance(x, x) + np.diag(noise)
    off, cross = z - prior.slope * x, covariance(target, x)
    solved = np.linalg.solve(known, np.column_stack([off, cross.T]))
    mean = prior.slope * target + cross @ solved[:, 0]
    left = np.diag(covariance(target, target)) - (cross * solved[:, 1:].T).sum(axis=1)
    # Of the errors, not of z: hence the slopes. The least error set the floor itself, and its z
    # changes with it as without a floor.
    evidence = -0.5 * (off @ solved[:, 0] + np.linalg.slogdet(known)[1])
    evidence += np.log(np.delete(steep, error.argmin())).sum()
    return _Line(floor, float(evidence), mean, np.maximum(left, 0.0) + noise[-1])


def forecast(
    cells: Sequence[Cell],
    arms: Sequence[str],
    *,
    design: Design,
    metric: str = "accuracy",
    classes: int | None = None,
    images: Images | None = None,
) -> list[dict[str, Any]]:
    """Return what each arm will score with 4 and 16 times the most labels that were tried.

    Parameters
    ----------
    cells : sequence of dict
        All cells of the comparison.
    arms : sequence of str
        Those without two numbers of labels of known error are left out.
    design : Design
    metric : str
    classes : int, optional
        Number of classes, by which guessing is known.
    images : mapping, optional
        As in `verdicts.verdict_table`.

    Returns
    -------
    list of dict
        ``arm``, ``shots``, ``value``, ``low``, ``high`` (at `LEVEL`) and ``level``.
    """
    rows = []
    for arm in arms:
        points = points_of(cells, arm, design=design, metric=metric, images=images)
        if len(points) < 2:
            continue
        shots, means, spreads = zip(*points, strict=True)
        ahead = [times * max(shots) for times in AHEAD]
        for count, found in zip(
            ahead, _scores(shots, means, spreads, ahead, metric, classes), strict=True
        ):
            row = {"arm": arm, "shots": count, "value": found[0], "low": found[1]}
            rows.append(nulls({**row, "high": found[2], "level": LEVEL}))
    return rows


def points_of(
    cells: Sequence[Cell],
    arm: str,
    *,
    design: Design,
    metric: str = "accuracy",
    images: Images | None = None,
) -> list[tuple[int, float, float]]:
    """Return the points of a learning curve: number of labels, mean, standard error."""
    points = []
    for shots in shots_of(cells, arm):
        scores = (images or {}).get((arm, shots))
        chosen = select(cells, arm, shots, metric)
        found = mean_interval(chosen, design=design, metric=metric, image_scores=scores)
        if shots and found is not None and not math.isnan(found.se):
            points.append((shots, found.value, found.se))
    return points


def _scores(
    shots: Sequence[int],
    means: Sequence[float],
    spreads: Sequence[float],
    ahead: Sequence[int],
    metric: str,
    classes: int | None,
) -> list[tuple[float, float, float]]:
    """Return median and ends of the score at each number ahead."""
    rises = metric not in LOWER_IS_BETTER
    share = rises and metric != "r2"
    errors = [1 - mean if rises else mean for mean in means]
    guess = 1 - 1 / classes if share and classes and classes > 1 else None
    prior = LOSSES if guess is None else SHARES
    found = predict(shots, errors, spreads, ahead, guess=guess, prior=prior)
    least, most = RANGES.get(metric, (-math.inf, math.inf))
    turned = [(1 - p.value, 1 - p.high, 1 - p.low) if rises else tuple(p) for p in found]
    return [(v, max(least, low), min(most, high)) for v, low, high in turned]
