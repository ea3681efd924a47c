"""What a design will see: said before it is run, and of more of it once it was."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt

from fewlabels.evaluation.cells import Design
from fewlabels.evaluation.components import Components
from fewlabels.evaluation.intervals import FEWEST
from fewlabels.evaluation.variances import (
    ALPHA,
    POWER,
    Part,
    Variance,
    detectable,
    missed,
    one_way,
    over_splits,
    plus,
    reach,
    spread_out,
    two_way_ahead,
)

Floats = npt.NDArray[np.float64]

MOST, NEAR = 1000, 33
"""Repetitions beyond which nobody goes, and within which most are."""


@dataclass(frozen=True, slots=True)
class Typical:
    """Spreads of a paired difference of accuracies, as shares, at one number of labels a class.

    Attributes
    ----------
    pretraining, draws, rest : float
        Standard deviations of a cell, as in `Components`.
    image : float
        Standard deviation over test images of the difference of two arms.
    largest : float
        The largest difference from scratch that was measured.
    """

    pretraining: float
    draws: float
    rest: float
    image: float
    largest: float


TYPICAL = {
    "CIFAR-10": {
        1: Typical(0.0072, 0.0202, 0.0062, 0.167, 0.090),
        4: Typical(0.0044, 0.0157, 0.0047, 0.208, 0.128),
        25: Typical(0.0053, 0.0117, 0.0041, 0.269, 0.171),
        100: Typical(0.0052, 0.0065, 0.0037, 0.314, 0.256),
    },
    "digits": {
        1: Typical(0.0100, 0.0878, 0.0, 0.246, 0.196),
        4: Typical(0.0121, 0.0295, 0.0, 0.246, 0.127),
        25: Typical(0.0000, 0.0118, 0.0, 0.246, 0.071),
    },
}
"""By data set and labels per class, from ``benchmarks/spreads.csv`` (`benchmarks/spreads.py`)."""


def expected(design: Design, components: Components) -> Variance:
    """Return the variance that a mean will have, with its degrees of freedom.

    Parameters
    ----------
    design : Design
        With the numbers of splits, draws and pre-training seeds planned; 0 or 1 seeds where
        nothing is pre-trained.
    components : Components
        Of one cell; nan counts as zero.
    """
    return _expected(design, components, *map(float, _counts(design)))


def _counts(design: Design) -> tuple[int, int, int]:
    return design.splits, design.pretraining_seeds, design.draws


def half_width_forecast(
    design: Design,
    components: Components,
    *,
    comparisons: int = 1,
    corrected: bool = False,
    alpha: float = ALPHA,
) -> tuple[float, float]:
    """Return what a design will be able to see, before it is run.

    Parameters
    ----------
    design, components
        As in `expected`.
    comparisons : int
        Verdicts that share the error rate; the hardest of Holm's steps is used.
    corrected : bool
        Whether it is for one of those, not for the verdict that stands alone.

    Returns
    -------
    tuple of float
        Half-width at that rate and smallest detectable difference, both nan
        where nothing is repeated.
    """
    known, level = expected(design, components), alpha / max(1, comparisons)
    if not known.df > 0:
        return math.nan, math.nan
    half = math.sqrt(reach(known, level, corrected=corrected).value)
    return half, detectable(known, level, corrected=corrected)


def typical(data: str, shots: float) -> Typical:
    """Return the spreads of a data set at some labels per class, between those measured in log2.

    Examples
    --------
    >>> round(typical("CIFAR-10", 2).draws, 5), typical("digits", 100).draws
    (0.01795, 0.0118)
    """
    known = TYPICAL[data]
    x = np.log2([float(n) for n in known])
    names = [f.name for f in fields(Typical)]
    return Typical(
        *(
            float(np.interp(math.log2(shots), x, [getattr(one, n) for one in known.values()]))
            for n in names
        )
    )


def prospect(design: Design, spread: Typical, images: int, corrected: int = 0) -> float:
    """Return the smallest difference that a design will probably see, with some spreads.

    Parameters
    ----------
    design : Design
    spread : Typical
    images : int
        Test images.
    corrected : int
        Verdicts that are corrected for their number, of which the hardest step is told; 0 for
        the one that stands alone.

    Returns
    -------
    float
        nan where nothing is repeated.
    """
    image = spread.image / math.sqrt(images)
    if design.kind == "given":
        parts = Components(math.nan, spread.pretraining, spread.draws, spread.rest, image)
    else:
        parts = Components(
            splits=math.hypot(spread.pretraining, image),
            draws=math.hypot(spread.draws, spread.rest),
            images=math.nan if design.all_labels else math.sqrt(design.overlap) * image,
        )
    many = max(1, corrected)
    return half_width_forecast(design, parts, comparisons=many, corrected=corrected > 0)[1]


def more(
    difference: float,
    design: Design,
    components: Components,
    alpha: float = ALPHA,
    *,
    corrected: bool = False,
) -> dict[str, int | None]:
    """Return how many more repetitions would probably make a difference of this size seen.

    Parameters
    ----------
    difference : float
        That was seen.
    design, components
        Behind it.
    alpha : float
        Error rate at which it is judged.
    corrected : bool
        Whether it is one of many.

    Returns
    -------
    dict
        ``draws``, ``pretraining`` and ``splits``: the smallest number of more of each alone
        with which the smallest detectable difference is no larger than `difference`;
        ``both``: of draws and pre-training seeds together. None where that takes more than
        `MOST`, where the cells do not tell, and where a design has no such repetitions (a
        split of its own comes with a pre-training of its own; a draw of a cross-validation is
        a repeat of it).
    """

    def search(known: float, step: tuple[float, int, float]) -> int | None:
        def planned(n: Floats) -> Variance:
            numbers = zip(_counts(design), step, strict=True)
            return _expected(design, components, *(c + s * n for c, s in numbers))

        def enough(n: Floats) -> npt.NDArray[np.bool_]:
            unseen = missed(abs(difference), planned(n), alpha, corrected=corrected)
            return np.asarray(unseen <= 1 - POWER)

        near, far = np.arange(1.0, NEAR), np.arange(float(NEAR), MOST + 1)
        # Each number takes a while, and many rows have none that would do.
        for n, some in (near, near), (far, far[::20]):
            if not math.isnan(known) and enough(some).any():
                return int(n[enough(n).argmax()])
        return None

    if design.folds:  # one more repeat brings all of its folds
        repeats = search(components.splits, (design.folds, 0, 1))
        return {"draws": repeats, "pretraining": None, "splits": None, "both": None}
    draws = search(components.draws, (0, 0, 1))
    if design.kind == "repeated":
        each = design.draws / max(1, design.splits)
        splits = search(components.splits, (1, 0, each))
        if corrected and math.isnan(components.images) and design.splits < FEWEST:
            draws, splits = None, splits and max(splits, FEWEST - design.splits)
        return {"draws": draws, "pretraining": None, "splits": splits, "both": None}
    return {
        "draws": draws,
        "pretraining": search(components.pretraining, (0, 1, 0)),
        "splits": None,
        "both": search(components.pretraining + components.draws, (0, 1, 1)),
    }


def add_more(rows: Sequence[dict[str, Any]], design: Design) -> None:
    """Write into each verdict row what `more` says of it: None where it is decided or unknown.

    Parameters
    ----------
    rows : sequence of dict
        From `verdicts.verdict_table`, adjusted as they will stay.
    design : Design
        Of the comparison; what a row rests on is its own ``repeats``.
    """
    for row in rows:
        known = row["difference"] is not None and row["detectable"] is not None
        row["more"] = None
        if known and row["verdict"] == "undecided":
            counts = row["repeats"]
            own = replace(
                design,
                splits=counts["splits"],
                draws=counts["draws"],
                pretraining_seeds=counts["pretraining"],
            )
            parts, alone = components_of(row), row["primary"]
            row["more"] = more(row["difference"], own, parts, row["level"], corrected=not alone)


def components_of(row: Mapping[str, Any]) -> Components:
    """Return the components of a row of results, whose unknown ones are None."""
    return Components(**{k: math.nan if v is None else v for k, v in row["components"].items()})


def _expected(
    design: Design,
    components: Components,
    splits: Floats | float,
    seeds: Floats | float,
    draws: Floats | float,
) -> Variance:
    """Return what `expected` does, for arrays of counts."""
    own = (components.splits, components.pretraining, components.draws, components.rest)
    splits_sd, seeds_sd, draws_sd, rest_sd = (0.0 if math.isnan(sd) else sd for sd in own)
    known = Components(splits_sd, seeds_sd, draws_sd, rest_sd, components.images)
    sizes = np.broadcast_arrays(*(np.asarray(n, np.float64) for n in (splits, seeds, draws)))
    if design.kind == "repeated":
        return _over_splits(known, sizes[0], sizes[2], design.overlap)
    return _over_table(known, np.maximum(sizes[1], 1.0), np.maximum(sizes[2], 1.0))


def _over_splits(known: Components, splits: Floats, draws: Floats, overlap: float) -> Variance:
    """Return the expectation of what `intervals.clustered` estimates."""
    cell = known.draws**2 + known.rest**2
    spread = known.splits**2 + known.pretraining**2 + cell / np.maximum(1.0, draws / splits)
    shared = overlap * spread
    if not math.isnan(known.images):
        shared = np.minimum(shared, known.images**2)
    return over_splits(spread, shared, splits)


def _over_table(known: Components, seeds: Floats, draws: Floats) -> Variance:
    """Return the expectation of what `intervals.crossed` estimates."""
    rest = known.rest**2
    rows, columns = rest + draws * known.pretraining**2, rest + seeds * known.draws**2
    both = two_way_ahead((rows, columns, rest), seeds, draws)
    # One of either: the table is a row or a column, and what was not repeated is not covered.
    row = spread_out(one_way(rest + known.draws**2, draws))
    column = spread_out(one_way(rest + known.pretraining**2, seeds))
    found = _where(seeds == 1, row, _where(draws == 1, column, both))
    return found if math.isnan(known.images) else plus(found, known.images**2)


def _where(here: npt.NDArray[np.bool_], a: Variance, b: Variance) -> Variance:
    """Return one variance or the other, place by place."""
    nothing = Part(np.zeros(()), np.ones(()))
    pairs = zip_longest(a.parts, b.parts, fillvalue=nothing)
    parts = tuple(
        Part(*(np.where(here, *both) for both in zip(*pair, strict=True))) for pair in pairs
    )
    numbers = [np.where(here, *both) for both in zip(a[:4], b[:4], strict=True)]
    likely = _where(here[..., None], a.likely, b.likely) if a.likely and b.likely else None
    return Variance(numbers[0], numbers[1], numbers[2], numbers[3], parts, likely)
