"""What a comparison will be able to see, said before it is run."""

from __future__ import annotations

import math

from scipy import stats

from fewlabels.evaluation.cells import Design
from fewlabels.evaluation.intervals import ALPHA, POWER


def half_width_forecast(
    design: Design,
    *,
    sd_pretraining: float = 0.0,
    sd_draws: float = 0.0,
    sd_rest: float = 0.0,
    image_variance: float = 0.0,
    comparisons: int = 1,
    alpha: float = ALPHA,
) -> tuple[float, float]:
    """Return what a design will be able to see, before it is run.

    Parameters
    ----------
    design : Design
        With the numbers of splits, draws and pre-training seeds planned.
    sd_pretraining, sd_draws, sd_rest : float
        Standard deviations of the paired difference: between pre-training
        seeds, between label draws (with repeated splits: between splits), and
        of one cell beyond both.
    image_variance : float
        Variance over test images of the per-image difference, divided by their
        number; with repeated splits it is in `sd_draws` already.
    comparisons : int
        Verdicts that share the error rate; the hardest of Holm's steps is used.

    Returns
    -------
    tuple of float
        Half-width of the interval and smallest detectable difference, both nan
        where nothing is repeated.
    """
    if design.kind == "repeated":
        count, df = design.splits, design.splits - 1.0
        spread = (
            sd_pretraining**2
            + sd_draws**2
            + sd_rest**2 * design.splits / max(design.draws, design.splits)
        )
        variance = spread * (1 / count + design.overlap)
    else:
        variance, df = _crossed_forecast(design, sd_pretraining**2, sd_draws**2, sd_rest**2)
        variance += image_variance
    if not df > 0:
        return math.nan, math.nan
    quantile = float(stats.t.ppf(1 - alpha / (2 * comparisons), df))
    se = math.sqrt(variance)
    return quantile * se, (quantile + float(stats.t.ppf(POWER, df))) * se


def _crossed_forecast(
    design: Design, seeds: float, draws: float, rest: float
) -> tuple[float, float]:
    """Return the expected variance of a crossed mean and its degrees of freedom."""
    p, count = max(1, design.pretraining_seeds), max(1, design.draws)
    size = p * count
    squares = [(rest + count * seeds, p - 1), (rest + p * draws, count - 1)]
    if min(p, count) == 1:
        return (seeds / p + draws / count + rest / size), size - 1.0
    total = rest + count * seeds + p * draws
    below = sum(v**2 / df for v, df in [*squares, (rest, (p - 1) * (count - 1))])
    df = total**2 / below if below > 0 else size - 1.0
    return total / size, min(max(df, min(p, count) - 1.0), size - 1.0)
