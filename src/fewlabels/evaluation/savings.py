"""Label-efficiency curves, and how many labels the baseline needs to match an arm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import isotonic_regression

from fewlabels.evaluation.cells import Cell, Design, design_of, pair_scores, select, shots_of
from fewlabels.evaluation.intervals import RESAMPLES
from fewlabels.evaluation.metrics import LOWER_IS_BETTER
from fewlabels.evaluation.variances import ALPHA
from fewlabels.evaluation.verdicts import Images, mean_interval, nulls

Floats = npt.NDArray[np.float64]
Weights = Mapping[tuple[str, Any], Floats]


def curves(
    cells: Sequence[Cell],
    arms: Sequence[str],
    *,
    design: Design | None = None,
    metric: str = "accuracy",
    images: Images | None = None,
) -> list[dict[str, Any]]:
    """Return the rows of the label-efficiency curves.

    Parameters
    ----------
    cells : sequence of dict
        All cells of the comparison.
    arms : sequence of str
    design : Design, optional
        By default read off the cells.
    metric : str
    images : mapping, optional
        ``(n_test,)`` image scores averaged over the cells, by ``(arm, shots)`` and split.

    Returns
    -------
    list of dict
        ``arm``, ``shots``, ``seeds`` (cells), ``mean``, ``low``, ``high`` and
        ``note``; arms without a score are left out.
    """
    design = design or design_of(cells)
    rows = []
    for arm, shots in [(a, s) for a in arms for s in shots_of(cells, a)]:
        chosen = select(cells, arm, shots, metric)
        scores = (images or {}).get((arm, shots))
        found = mean_interval(chosen, design=design, metric=metric, image_scores=scores)
        if found is not None:
            row = {"arm": arm, "shots": shots, "seeds": len(chosen), "mean": found.value}
            rows.append(nulls({**row, "low": found.low, "high": found.high, "note": found.note}))
    return rows


def labels_needed(shots: Sequence[int], scores: Sequence[float], target: float) -> float:
    """Return where a learning curve first reaches a score, in labels per class.

    The curve is made monotone (isotonic least squares) and interpolated in
    log2 of the shots.

    Parameters
    ----------
    shots : sequence of int
        Increasing, at least one.
    scores : sequence of float
        Mean score at each; more is better.
    target : float

    Returns
    -------
    float
        inf above the curve, 0.0 below its first point.

    Examples
    --------
    >>> labels_needed([1, 4, 16], [0.2, 0.4, 0.6], 0.5)
    8.0
    """
    x = np.log2(np.asarray(shots, dtype=np.float64))
    y = isotonic_regression(np.asarray(scores, dtype=np.float64))
    if target > y[-1]:
        return math.inf
    if target < y[0]:
        return 0.0
    right = int(np.searchsorted(y, target, side="left"))
    if y[right] == target:
        return float(shots[right])
    step = (target - y[right - 1]) / (y[right] - y[right - 1])
    return float(2 ** (x[right - 1] + step * (x[right] - x[right - 1])))


def _spread(rng: np.random.Generator, count: int, resamples: int, overlap: float) -> Floats:
    """Return ``(count, resamples)`` random weights that sum to 1 over the units.

    A bootstrap with normal multipliers in place of counts (Rubin's Bayesian
    one has exponential ones): with three seeds, counts would allow ten
    different resamples. Scaled so that the weighted mean of independent units
    has exactly the t interval of `clustered`.
    """
    if count == 1:
        return np.ones((1, resamples))
    noise = rng.normal(size=(count, resamples))
    noise -= noise.mean(axis=0)
    student = np.sqrt(rng.chisquare(count - 1, size=resamples) / (count - 1))
    scale = math.sqrt((1 / count + overlap) / (count - 1))
    return np.asarray(1 / count + scale * noise / student, dtype=np.float64)


def _weights(cells: Sequence[Cell], design: Design, resamples: int, seed: int) -> Weights:
    """Return the bootstrap weights of each split, or of each seed and each label draw."""
    rng = np.random.default_rng(seed)
    repeated = design.kind == "repeated"
    out: dict[tuple[str, Any], Floats] = {}
    for stream in ("split",) if repeated else ("pretraining", "labels"):
        units = sorted({c["streams"].get(stream) for c in cells} - {None}, key=str)
        overlap = design.overlap if repeated else 0.0
        drawn = _spread(rng, max(1, len(units)), resamples, overlap)
        out.update({(stream, unit): drawn[i] for i, unit in enumerate(units)})
    return out


def _resampled(cells: Sequence[Cell], metric: str, design: Design, weights: Weights) -> Floats:
    """Return the mean score of one arm at one number of shots in every resample."""
    scores = pair_scores(cells, metric)
    splits = [key[0] for key in scores]
    total, norm = np.zeros(1), np.zeros(1)
    for (split, labels, seed), value in scores.items():
        if design.kind == "repeated":
            weight = weights[("split", split)] / splits.count(split)
        else:
            one = np.ones(1)
            weight = weights.get(("pretraining", seed), one) * weights.get(("labels", labels), one)
        total, norm = total + weight * value, norm + weight
    return np.asarray(total / norm, dtype=np.float64)


def _flat(cells: Sequence[Cell], design: Design) -> Weights:
    """Return weights that give every unit its due: the mean itself."""
    return {key: np.ones(1) for key in _weights(cells, design, 1, 0)}


def _factors(
    cells: Sequence[Cell],
    pair: tuple[str, str],
    shots: int,
    metric: str,
    design: Design,
    weights: Weights,
) -> tuple[list[float], list[int]]:
    """Return the factor in every resample, and the baseline's measured shots."""
    arm, baseline = pair
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    mine = select(cells, arm, shots, metric)
    theirs = {s: select(cells, baseline, s, metric) for s in shots_of(cells, baseline)}
    theirs = {s: found for s, found in theirs.items() if found}
    if not mine or not theirs:
        return [], []
    target = sign * _resampled(mine, metric, design, weights)
    curve = [sign * _resampled(found, metric, design, weights) for found in theirs.values()]
    table = np.stack(np.broadcast_arrays(target, *curve))
    measured = list(theirs)
    return [labels_needed(measured, row[1:], row[0]) / shots for row in table.T], measured


def label_saving(
    cells: Sequence[Cell],
    arm: str,
    baseline: str,
    shots: int,
    *,
    metric: str = "accuracy",
    design: Design | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Return how many times the labels the baseline needs to match the arm.

    The interval is a percentile bootstrap that weights whole units at random:
    splits, or pre-training seeds and label draws independently (Owen 2007);
    the same weights serve both arms and all shots, so pairing is kept. It
    does not cover the choice of test images where all cells share one test
    set.

    Parameters
    ----------
    cells : sequence of dict
        All cells of the comparison.
    arm, baseline : str
    shots : int
        Labels per class of the arm.
    metric : str
    design : Design, optional
        By default read off the cells.
    seed, resamples : int
        Of the bootstrap.

    Returns
    -------
    dict
        ``arm``, ``baseline``, ``shots``; ``factor`` (None: unbounded or
        unknown; under 1 where the arm is worse), ``low``, ``high`` (None:
        unbounded), and ``bound``: "at least" where no measured budget of the
        baseline reaches the arm (then `low` is the best that can be said), "at
        most" where even its smallest one beats the arm, else None.
    """
    design = design or design_of(cells)
    row = {"arm": arm, "baseline": baseline, "shots": shots}
    pair = (arm, baseline)
    factor, measured = _factors(cells, pair, shots, metric, design, _flat(cells, design))
    if not factor:
        return {**row, "factor": None, "low": None, "high": None, "bound": None}
    weights = _weights(cells, design, resamples, seed)
    drawn, _ = _factors(cells, pair, shots, metric, design, weights)
    # No interpolation between quantiles: between a number and infinity there is none.
    tails = np.quantile(drawn, [ALPHA / 2, 1 - ALPHA / 2], method="inverted_cdf")
    least, most = measured[0] / shots, measured[-1] / shots
    value = least if factor[0] == 0 else factor[0]
    bound = "at most" if factor[0] == 0 else "at least" if math.isinf(value) else None
    low, high = min(float(tails[0]), value, most), max(float(tails[1]), value)
    return {
        **row,
        "factor": value if math.isfinite(value) else None,
        "low": low,
        "high": high if math.isfinite(high) else None,
        "bound": bound,
    }
