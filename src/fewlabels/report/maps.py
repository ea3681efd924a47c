"""The map of images as the network sees them: points as inline SVG, names beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from fewlabels.report import svg
from fewlabels.report.figures import COLOURS
from fewlabels.report.measures import plain
from fewlabels.report.words import shortened

_MAP_POINTS = 6000
_KINDS = (("unlabelled", 2.2), ("test", 3.4), ("labelled", 8.0))


@dataclass(frozen=True, slots=True)
class EmbeddingMap:
    """The map and where its names go, in percent of its width and height.

    `code` tells the ranges of the two numbers where the places are the code itself, else nothing.
    """

    picture: Markup
    names: list[tuple[str, int, float, float]]
    repeats: bool
    shown: int
    total: int
    ordered: bool
    code: str


def embedding_map(
    xy: NDArray[np.float64],
    label: NDArray[np.int64],
    kind: NDArray[np.str_],
    classes: list[str],
    *,
    ordered: bool = False,
    layout: str = "t-SNE",
) -> EmbeddingMap:
    """Draw images as points, coloured by class, with the labelled ones ringed.

    Parameters
    ----------
    xy : ndarray
        ``(n, 2)`` finite float64.
    label, kind : ndarray
        ``(n,)`` int64, -1 unknown, and ``(n,)`` str.
    classes : list of str
        Names by label; a label beyond them is shown as its number.
    ordered : bool
        Whether they are ranges of a number, from low to high: coloured from pale to strong.
    layout : str
        ``code`` where the places are what the encoder itself says of each image.
    """
    keep = _thinned_rows(kind)
    at, width, height = _fitted(xy[keep])
    label, kind = label[keep], kind[keep]
    parts = []
    for name, size in _KINDS:
        for one in np.unique(label[kind == name]):
            rows = (kind == name) & (label == one)
            words = f"{name}: {_class_name(int(one), classes)} ({rows.sum()} images)"
            parts.append(_dots(at[rows], name, int(one), size, words))
    known = [int(one) for one in np.unique(label[label >= 0])]
    names = [_name_place(one, at[label == one], classes) for one in known]
    placed = [(n, c, 100 * x / width, 100 * y / height) for n, c, x, y in names]
    picture = svg.figure(width, height, "map of the images as the network sees them", "map", parts)
    shown = placed if len(known) <= 20 else []
    code = _ranges(xy) if layout == "code" else ""
    return EmbeddingMap(picture, shown, len(known) > COLOURS, len(keep), len(xy), ordered, code)


def _ranges(xy: NDArray[np.float64]) -> str:
    """Return the ranges of both numbers in words."""
    left, bottom = (plain(float(value)) for value in xy.min(0))
    right, top = (plain(float(value)) for value in xy.max(0))
    return f"{left} to {right} across, {bottom} to {top} upwards"


def _thinned_rows(kind: NDArray[np.str_]) -> NDArray[np.int64]:
    """Keep every labelled point, and evenly spaced others up to the cap."""
    labelled = np.flatnonzero(kind == "labelled")[:_MAP_POINTS]
    others = np.flatnonzero(kind != "labelled")
    room = max(_MAP_POINTS - len(labelled), 0)
    if len(others) > room:
        others = others[np.linspace(0, len(others) - 1, room).astype(np.int64)]
    return np.sort(np.concatenate([labelled, others])).astype(np.int64)


def _fitted(xy: NDArray[np.float64]) -> tuple[NDArray[np.float64], float, float]:
    """Scale both axes alike into a view box 640 wide."""
    low, span = xy.min(axis=0), np.maximum(np.ptp(xy, axis=0), 1e-9)
    height = float(np.clip(640 * span[1] / span[0], 380, 560))
    factor = min(600 / span[0], (height - 40) / span[1])
    margin = (np.array([640.0, height]) - factor * span) / 2
    at = margin + factor * (xy - low)
    at[:, 1] = height - at[:, 1]
    return at, 640.0, height


def _class_name(label: int, classes: list[str]) -> str:
    if label < 0:
        return "no label"
    return classes[label] if label < len(classes) else f"class {label}"


def _dots(at: NDArray[np.float64], kind: str, label: int, size: float, words: str) -> Markup:
    """Draw round dots as one path of zero-length strokes: a tenth of the bytes of circles."""
    d = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in at)
    colour = f"c{label % COLOURS}" if label >= 0 else "none"
    dots = svg.element("path", {"d": d, "class": "dots", "stroke-width": size})
    ring = svg.element("path", {"d": d, "class": "dots ring", "stroke-width": size + 3.5})
    parts = [svg.title(words), ring, dots] if kind == "labelled" else [svg.title(words), dots]
    return svg.element("g", {"class": f"{kind} {colour}"}, *parts)


def _name_place(
    label: int, at: NDArray[np.float64], classes: list[str]
) -> tuple[str, int, float, float]:
    x, y = np.median(at, axis=0)
    return shortened(_class_name(label, classes), 18), label % COLOURS, float(x), float(y)
