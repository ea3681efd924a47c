"""The cells of a comparison: which belong together, and how their mean varies.

A cell is one trained and scored classifier: a dict with ``arm``, ``shots``,
``failed``, its metrics, and ``streams`` (``split``, ``labels``,
``pretraining`` or None, ``training``). Two cells are paired when they share
split, label draw and, if both arms pre-train, the pre-training seed. Cells
that agree in all three differ by training alone and are averaged first.

Two designs are told apart by the streams. With one split, pre-training seeds
are crossed with label draws and both are random effects (if instead each draw
met one seed only, what was repeated together is the unit). With several
splits, a split is the unit, and everything in it is averaged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fewlabels.evaluation.components import Components, Repeats
from fewlabels.evaluation.crossvalidation import ONE_ENCODER, cross_validated
from fewlabels.evaluation.intervals import (
    OVERLAP,
    Estimate,
    clustered,
    crossed,
    variance_of_mean,
)
from fewlabels.evaluation.variances import ALPHA

Floats = npt.NDArray[np.floating]
Cell = Mapping[str, Any]
SplitImages = Mapping[Any, Floats]
"""``(n_test,)`` numbers of the test images of each split, averaged over its cells."""
Key = tuple[Any, Any, Any]  # split, label draw, pre-training seed or None
_DRAW, _PRETRAINING = 1, 2  # their places in a key


@dataclass(frozen=True, slots=True)
class Design:
    """How the cells of a comparison were repeated.

    Attributes
    ----------
    kind : {"given", "repeated"}
        One split for all cells, or several random splits of one data set.
    splits, draws, pretraining_seeds : int
        Counted over the whole comparison: 10 splits with a draw each are 10
        splits and 10 draws.
    overlap : float
        Test images over training images, which repeated splits share.
    all_labels : bool
        Whether all labels there are were used, no draw of them (``shots`` is 0): splits then
        share most of their labels as well.
    folds : int
        Where the splits are the folds of a repeated cross-validation: how many a repeat has.
    """

    kind: Literal["given", "repeated"]
    splits: int
    draws: int
    pretraining_seeds: int
    overlap: float = OVERLAP
    all_labels: bool = False
    folds: int = 0


def cross_validation(folds: int, splits: int, repeats: int, encoders: int) -> Design:
    """Return the design of a repeated cross-validation.

    Parameters
    ----------
    folds, splits, repeats, encoders : int
        Folds of a repeat, and of all; repeats; pre-training seeds.
    """
    # Whatever the number of labels drawn: they come from the same few.
    overlap = 1 / (folds - 1)
    return Design("repeated", splits, repeats, encoders, overlap, all_labels=True, folds=folds)


def select(cells: Iterable[Cell], arm: str, shots: int, metric: str) -> list[Cell]:
    """Return the cells of one arm at one number of shots that ended with a finite score."""
    return [
        c
        for c in cells
        if c["arm"] == arm
        and c["shots"] == shots
        and not c.get("failed")
        and isinstance(c.get(metric), int | float)
        and math.isfinite(c[metric])
    ]


def shots_of(cells: Iterable[Cell], arm: str) -> list[int]:
    """Return the numbers of shots at which an arm has cells, in order."""
    return sorted({c["shots"] for c in cells if c["arm"] == arm})


def design_of(cells: Sequence[Cell], *, overlap: float = OVERLAP, folds: int = 0) -> Design:
    """Return the design that the streams of the cells follow.

    Parameters
    ----------
    cells : sequence of dict
        All cells of the comparison, failed ones included.
    overlap : float
        ``n_test / n_train`` of one split.
    folds : int
        Of a cross-validation.
    """
    streams = [c["streams"] for c in cells]
    splits = {s.get("split") for s in streams}
    if folds:
        seeds = {s["pretraining"] for s in streams if _pretraining(s) is not None}
        return cross_validation(folds, len(splits), len({s["labels"] for s in streams}), len(seeds))
    encoders = {(s.get("split"), s["pretraining"]) for s in streams if _pretraining(s) is not None}
    return Design(
        kind="repeated" if len(splits) > 1 else "given",
        splits=len(splits),
        draws=len({(s.get("split"), s.get("labels")) for s in streams}),
        pretraining_seeds=len(encoders),
        overlap=overlap,
        all_labels=not any(cell["shots"] for cell in cells),
    )


def _pretraining(streams: Mapping[str, Any]) -> Any:
    return streams.get("pretraining")


def pair_scores(cells: Sequence[Cell], metric: str) -> dict[Key, float]:
    """Return the mean score at each pairing key."""
    groups: dict[Key, list[float]] = {}
    for cell in cells:
        s = cell["streams"]
        key = (s.get("split"), s.get("labels"), _pretraining(s))
        groups.setdefault(key, []).append(float(cell[metric]))
    return {key: float(np.mean(v)) for key, v in groups.items()}


def _lookup(scores: dict[Key, float], key: Key) -> float | None:
    """Return the score paired with `key`: an arm without pre-training serves every seed."""
    split, labels, _ = key
    return scores.get(key, scores.get((split, labels, None)))


def paired(a: dict[Key, float], b: dict[Key, float]) -> dict[Key, float]:
    """Return the differences a - b at the keys that both arms have."""
    out = {}
    for key in dict.fromkeys([*a, *b]):
        left, right = _lookup(a, key), _lookup(b, key)
        if left is not None and right is not None:
            out[key] = left - right
    return out


def _nested(scores: dict[Key, float]) -> int | None:
    """Return the place in the key of the unit that holds the other; None if crossed."""
    met = {(key[1], key[2]) for key in scores}
    draws, seeds = {d for d, _ in met}, {p for _, p in met}
    if min(len(draws), len(seeds)) == 1 or len(met) > max(len(draws), len(seeds)):
        return None
    return _PRETRAINING if len(met) == len(draws) else _DRAW


def _table(scores: dict[Key, float]) -> tuple[Floats, int]:
    """Return the ``(P, L)`` table of one split, and how many cells were left out to fill it."""
    unit = _nested(scores)
    if unit is not None:
        return np.array([[group.mean() for group in _groups(scores, unit)]]), 0
    seeds = sorted({k[2] for k in scores}, key=str)
    draws = sorted({k[1] for k in scores}, key=str)
    at = {(p, d): v for (_, d, p), v in scores.items()}
    table = np.array([[at.get((p, d), np.nan) for d in draws] for p in seeds], dtype=np.float64)
    while np.isnan(table).any():
        gaps = np.isnan(table)
        rows, columns = gaps.mean(axis=1), gaps.mean(axis=0)
        # Drop the emptiest row or column: a crossed model needs every pair of the two.
        axis = 0 if rows.max() > columns.max() else 1
        table = np.delete(table, int((rows, columns)[axis].argmax()), axis=axis)
    return table, len(scores) - table.size


def _groups(scores: dict[Key, float], place: int) -> list[Floats]:
    """Return the scores that agree in one place of their key, group by group."""
    groups: dict[Any, list[float]] = {}
    for key, value in scores.items():
        groups.setdefault(key[place], []).append(value)
    return [np.array(groups[s], dtype=np.float64) for s in sorted(groups, key=str)]


def repeats_of(scores: dict[Key, float], *, folds: int = 0) -> Repeats:
    """Return how many splits, pre-trainings and label draws some scores rest on."""
    if folds:  # a draw of labels is a repeat of the cross-validation
        draws, seeds = ({key[i] for key in scores} - {None} for i in (_DRAW, _PRETRAINING))
        return Repeats(len({key[0] for key in scores}), len(seeds), len(draws))
    return Repeats(
        splits=len({key[0] for key in scores}),
        pretraining=len({(key[0], key[2]) for key in scores if key[2] is not None}),
        draws=len({(key[0], key[1]) for key in scores}),
    )


def model_mean(
    scores: dict[Key, float],
    design: Design,
    *,
    images: SplitImages | None = None,
    alpha: float = ALPHA,
) -> Estimate | None:
    """Return the mean under the design's model of variance; None without a score.

    Parameters
    ----------
    scores : dict
        From `pair_scores` or `paired`.
    images : mapping, optional
        The same quantity for each test image, by split. With one split the interval covers
        the choice of test images by them alone. Repeated splits vary in it already; there it
        says how much of their spread they share (see `intervals.clustered`).
    """
    if not scores:
        return None
    if design.folds:
        return cross_validated(
            [group.mean() for group in _groups(scores, 0)],
            encoders=[group.mean() for group in _groups(scores, _PRETRAINING)],
            overlap=design.overlap,
            image_variance=_image_variance(images),
            note=ONE_ENCODER if len({key[2] for key in scores} - {None}) == 1 else "",
            alpha=alpha,
        )
    if design.kind == "repeated":
        return clustered(
            _groups(scores, 0),
            overlap=design.overlap,
            image_variance=_image_variance(images),
            images_alone=not design.all_labels,
            alpha=alpha,
        )
    table, dropped = _table(scores)
    shared = next(iter((images or {}).values()), None)
    notes = []
    if len({k[2] for k in scores} | {None}) == 2:
        notes.append(ONE_ENCODER)
    if shared is None:
        notes.append("the interval does not cover the choice of test images")
    if dropped:
        notes.append(f"{dropped} cells were left out to make seeds and draws complete")
    found = crossed(table, image_differences=shared, note="; ".join(notes), alpha=alpha)
    if _nested(scores) == _PRETRAINING:
        told = found.components
        found = replace(found, components=Components(pretraining=told.draws, images=told.images))
    return found


def _image_variance(images: SplitImages | None) -> float:
    """Return the variance of the mean over the test images of one split; nan if unknown."""
    return float(np.mean([variance_of_mean(v) for v in images.values()])) if images else math.nan
