"""Where the spread of a mean comes from: standard deviations by the method of moments.

The mean squares of a two-way table are set equal to what they are expected to be under
random effects (Henderson's method 1; Searle, Casella and McCulloch 1992, ch. 4), and what
comes out negative is taken as zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Components:
    """Standard deviations of one cell, by source, in the unit of the metric.

    Attributes
    ----------
    splits : float
        From split to split, with the pre-training that belongs to each; with one label draw
        in every split also what the draw adds.
    pretraining : float
        From one pre-training seed to the next.
    draws : float
        From one draw of labels to the next. Where each draw met one seed only, or within a
        split, this includes the rest, which is then nan.
    rest : float
        Of one cell beyond seeds and draws.
    images : float
        Of the mean, not of a cell: what the choice of test images adds to it, and no
        repetition takes away.

    Notes
    -----
    nan stands for what the cells cannot tell.
    """

    splits: float = math.nan
    pretraining: float = math.nan
    draws: float = math.nan
    rest: float = math.nan
    images: float = math.nan


@dataclass(frozen=True, slots=True)
class Repeats:
    """How many of each a mean rests on; `pretraining` is 0 where nothing was pre-trained."""

    splits: int
    pretraining: int
    draws: int


def mean_squares(table: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the mean squares of rows, columns and the rest of a two-way table.

    Parameters
    ----------
    table : ndarray
        ``(..., P, L)`` with P, L >= 2: one table or many.
    """
    p, draws = table.shape[-2:]
    rows, columns = table.mean(axis=-1), table.mean(axis=-2)
    mean = rows.mean(axis=-1)[..., None, None]
    rest = table - rows[..., :, None] - columns[..., None, :] + mean
    return (
        np.asarray(draws * rows.var(axis=-1, ddof=1)),
        np.asarray(p * columns.var(axis=-1, ddof=1)),
        np.asarray((rest**2).sum(axis=(-2, -1)) / ((p - 1) * (draws - 1))),
    )


def _root(variance: float) -> float:
    return math.sqrt(max(0.0, variance))


def of_table(table: Floats, images: float = math.nan) -> Components:
    """Return the components of a table of pre-training seeds by label draws.

    Parameters
    ----------
    table : ndarray
        ``(P, L)`` float64.
    images : float
        Variance of the mean over the test images.

    Examples
    --------
    >>> found = of_table(np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]]))
    >>> round(found.pretraining, 3), found.draws, found.rest
    (1.414, 1.0, 0.0)
    """
    p, draws = table.shape
    root = math.nan if math.isnan(images) else _root(images)
    if table.size == 1:
        return Components(images=root)
    if p == 1:
        return Components(draws=float(table.std(ddof=1)), images=root)
    if draws == 1:
        return Components(pretraining=float(table.std(ddof=1)), images=root)
    seeds, labels, rest = (float(square) for square in mean_squares(table))
    return Components(
        pretraining=_root((seeds - rest) / draws),
        draws=_root((labels - rest) / p),
        rest=_root(rest),
        images=root,
    )


def of_splits(groups: Sequence[Floats], images: float = math.nan) -> Components:
    """Return the components of repeated splits.

    Parameters
    ----------
    groups : sequence of ndarray
        The cells of each split.
    images : float
        Variance of the mean that the test images leave, whatever the number of splits.
    """
    root = math.nan if math.isnan(images) else _root(images)
    if len(groups) < 2:
        return Components(images=root)
    between = float(np.var([group.mean() for group in groups], ddof=1))
    freedom = sum(len(group) - 1 for group in groups)
    if not freedom:
        return Components(splits=math.sqrt(between), images=root)
    within = sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / freedom
    share = float(np.mean([1 / len(group) for group in groups]))
    return Components(splits=_root(between - share * within), draws=_root(within), images=root)
