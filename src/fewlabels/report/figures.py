"""The figures of the report as inline SVG: curves, one-shot comparison, training, map.

Colours come from CSS classes, so a figure follows the light or dark scheme of the page.
Every series differs in shape as well as in colour, for readers who see few colours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from fewlabels.report import svg
from fewlabels.report.measures import Measure
from fewlabels.report.words import shortened

COLOURS = 8
_CURVE_POINTS = 160


@dataclass(frozen=True, slots=True)
class Point:
    """A mean at some labels per class, with its interval (or None) and a description."""

    shots: float
    mean: float
    low: float | None
    high: float | None
    note: str
    draws: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Series:
    """One arm in a figure: `index` picks colour and mark; plain arms are dashed.

    `ahead` is what it is forecast to score with more labels, drawn dotted.
    """

    title: str
    index: int
    strong: bool
    plain: bool
    points: tuple[Point, ...]
    ahead: tuple[Point, ...] = ()

    @property
    def shown(self) -> tuple[Point, ...]:
        """Return all points, measured and forecast."""
        return self.points + self.ahead


def group(series: Series, parts: Sequence[Markup]) -> Markup:
    """Return the parts of a series, in its colour."""
    kind = f"series c{series.index % COLOURS}"
    kind += " strong" if series.strong else ""
    kind += " plain" if series.plain else ""
    return svg.element("g", {"class": kind}, *parts)


def _range(series: Sequence[Series], measure: Measure, chance: float | None) -> tuple[float, float]:
    """Return the scores to show; chance is included where it is not far below."""
    points = [point for one in series for point in one.shown]
    low = min(point.mean if point.low is None else point.low for point in points)
    high = max(point.mean if point.high is None else point.high for point in points)
    if chance is not None and 0 < low - chance < 0.25:
        low = chance
    room = 0.04 * (high - low) or 0.01
    return measure.ends(low - room, high + room)


def label_efficiency(
    series: Sequence[Series],
    *,
    width: int,
    height: int,
    measure: Measure,
    chance: float | None = None,
) -> Markup:
    """Draw score against labels per class, on a log2 axis, with 95 % bands.

    Parameters
    ----------
    series : sequence of Series
        At least one, each with at least one point of positive shots.
    width, height : int
        Of the view box; titles stand on the lines from 700 on.
    measure : Measure
        Of the vertical axis.
    chance : float, optional
        Score of guessing, in [0, 1].
    """
    direct = width >= 700
    left, right, top, bottom = 44.0, width - (230.0 if direct else 14.0), 28.0, height - 46.0
    shots = sorted({point.shots for one in series for point in one.shown})
    x = svg.linear(math.log2(shots[0]), math.log2(shots[-1]), left + 14, right - 8)
    lowest, highest = _range(series, measure, chance)
    marks = svg.ticks(lowest, highest, about=6, inside=True)
    y = svg.linear(lowest, highest, bottom, top)
    parts = score_axis(marks, y, left, right, measure)
    parts += [_tick(x(math.log2(s)), bottom, f"{s:g}") for s in shots]
    parts.append(svg.text((left + right) / 2, bottom + 40, measure.per, "axis", "middle"))
    if chance is not None and lowest <= chance <= highest:
        parts.append(svg.line(left, y(chance), right, y(chance), "chance"))
        parts.append(svg.text(left + 6, y(chance) - 5, f"guessing: {100 * chance:.1f}", "tick"))
    ordered = sorted(series, key=lambda one: one.strong)
    parts += [group(one, _curve(one, x, y)) for one in ordered]
    if direct:
        parts += _end_labels(ordered, x, y, (top, bottom))
    return svg.figure(width, height, f"{measure.name} against {measure.per}", "chart", parts)


def score_axis(
    marks: Sequence[float], y: svg.Scale, left: float, right: float, measure: Measure
) -> list[Markup]:
    """Return the lines, numbers and words of an upright axis of scores."""
    parts = [svg.line(left, y(mark), right, y(mark), "grid") for mark in marks]
    parts += [svg.text(left - 8, y(m) + 4, measure.tick(m), "tick", "end") for m in marks]
    return [*parts, svg.text(4, 13, measure.axis, "axis")]


def _tick(x: float, bottom: float, words: str) -> Markup:
    return svg.line(x, bottom, x, bottom + 5, "rule") + svg.text(
        x, bottom + 20, words, "tick", "middle"
    )


def _curve(one: Series, x: svg.Scale, y: svg.Scale) -> list[Markup]:
    points = sorted(one.points, key=lambda p: p.shots)
    at = [x(math.log2(p.shots)) for p in points]
    banded = [(a, p.low, p.high) for a, p in zip(at, points, strict=True)]
    upper = [(a, y(high)) for a, low, high in banded if low is not None and high is not None]
    lower = [(a, y(low)) for a, low, high in banded if low is not None and high is not None]
    parts = [svg.path([*upper, *reversed(lower)], "band", close=True)] if len(upper) > 1 else []
    parts.append(svg.path([(a, y(p.mean)) for a, p in zip(at, points, strict=True)], "line"))
    parts += _ahead(points[-1], one.ahead, x, y)
    radius = 5.0 if one.strong else 4.0
    for a, p in zip(at, points, strict=True):
        halo = svg.element("circle", {"cx": a, "cy": y(p.mean), "r": 13, "class": "touch"})
        mark = svg.marker(one.index, a, y(p.mean), radius)
        parts.append(svg.element("g", {}, svg.title(p.note), halo, mark))
    return parts


def _ahead(last: Point, ahead: Sequence[Point], x: svg.Scale, y: svg.Scale) -> list[Markup]:
    """Draw a forecast from the last measured point on: dotted, its band opening from there."""
    if not ahead:
        return []
    start = (x(math.log2(last.shots)), y(last.mean))
    at = [x(math.log2(p.shots)) for p in ahead]
    upper = [(a, y(p.mean if p.high is None else p.high)) for a, p in zip(at, ahead, strict=True)]
    lower = [(a, y(p.mean if p.low is None else p.low)) for a, p in zip(at, ahead, strict=True)]
    middle = [(a, y(p.mean)) for a, p in zip(at, ahead, strict=True)]
    band = svg.path([start, *upper, *reversed(lower)], "band", close=True)
    line = svg.path([start, *middle], "line ahead")
    return [svg.element("g", {}, svg.title(ahead[-1].note), band, line)]


def _end_labels(
    series: Sequence[Series], x: svg.Scale, y: svg.Scale, bounds: tuple[float, float]
) -> list[Markup]:
    """Write each title beside the end of its line, moved apart where they would touch."""
    ends = [max(one.shown, key=lambda p: p.shots) for one in series]
    wanted = [y(end.mean) for end in ends]
    placed = svg.apart(wanted, 19.0, bounds[0] - 8, bounds[1] + 10)
    column = max(x(math.log2(end.shots)) for end in ends) + 26
    parts = []
    for one, end, at, there in zip(series, ends, wanted, placed, strict=True):
        begin = x(math.log2(end.shots)) + 8
        leader = svg.path([(begin, at), (column - 12, there), (column - 4, there)], "leader")
        words = svg.text(column, there + 4.5, shortened(one.title, 30), "direct")
        parts.append(group(one, [leader, svg.title(one.title), words]))
    return parts


def swatch(one: Series) -> Markup:
    """Return the line and mark of a series, for a legend."""
    stroke = svg.line(2, 9, 34, 9, "line")
    parts = [group(one, [stroke, svg.marker(one.index, 18, 9, 4.5)])]
    attributes: svg.Attributes = {"viewBox": "0 0 36 18", "aria-hidden": "true", "class": "swatch"}
    return svg.element("svg", attributes, *parts)


def dot_plot(series: Sequence[Series], *, width: int, measure: Measure) -> Markup:
    """Draw one row an arm: faint dots are draws, the mark is the mean, the bar its interval.

    Parameters
    ----------
    series : sequence of Series
        Only the first point of each is shown, best mean first.
    width : int
        Of the view box; below 700 the titles stand above their rows.
    measure : Measure
        Of the horizontal axis.
    """
    beside = width >= 700
    ordered = sorted(series, key=lambda one: measure.rank(one.points[0].mean))
    step = 36.0 if beside else 48.0
    height = int(step * len(ordered) + 54)
    left, right = (270.0 if beside else 8.0), width - (70.0 if beside else 52.0)
    shown = [v for one in ordered for v in extent(one.points[0])]
    room = 0.03 * (max(shown) - min(shown)) or 0.01
    ends = measure.ends(min(shown) - room, max(shown) + room)
    marks = svg.ticks(*ends, 6 if beside else 4, inside=True)
    x = svg.linear(*ends, left + 6, right - 6)
    parts = [svg.line(x(m), 6, x(m), height - 44, "grid") for m in marks]
    words = [measure.tick(mark) for mark in marks]
    parts += [
        svg.text(x(m), height - 27, w, "tick", "middle") for m, w in zip(marks, words, strict=True)
    ]
    parts.append(svg.text((left + right) / 2, height - 6, measure.axis, "axis", "middle"))
    for place, one in enumerate(ordered):
        middle = 6 + step * (place + (0.5 if beside else 0.68))
        parts.append(group(one, _dot_row(one, x, middle, (beside, left, right), measure)))
    return svg.figure(width, height, f"{measure.name} of each approach", "chart", parts)


def extent(point: Point) -> list[float]:
    """Return the scores that a point reaches over."""
    return [point.mean, *point.draws, *(v for v in (point.low, point.high) if v is not None)]


def _dot_row(
    one: Series, x: svg.Scale, y: float, place: tuple[bool, float, float], measure: Measure
) -> list[Markup]:
    beside, left, right = place
    point = one.points[0]
    name = svg.text(left - 14, y + 4.5, shortened(one.title, 36), "direct", "end")
    above = svg.text(left, y - 13, shortened(one.title, 44), "direct")
    parts = [svg.title(point.note), name if beside else above]
    parts += [
        svg.element("circle", {"cx": x(draw), "cy": y + 9, "r": 2.6, "class": "draw"})
        for draw in point.draws
    ]
    if point.low is not None and point.high is not None:
        parts.append(svg.line(x(point.low), y, x(point.high), y, "line"))
    parts.append(svg.marker(one.index, x(point.mean), y, 5.5))
    return [*parts, svg.text(right + 10, y + 4.5, measure.value(point.mean), "value")]


def training_curve(
    curves: Sequence[tuple[str, NDArray[np.float64]]],
    *,
    share: bool,
    label: str,
    kept: float | None = None,
) -> Markup:
    """Draw one or two metrics of a training against the step.

    Parameters
    ----------
    curves : sequence of (str, ndarray)
        Name and ``(k, 2)`` of step and value, k >= 2; thinned to means of neighbours.
    share : bool
        Whether values are shares in [0, 1], shown in %.
    label : str
        What the picture is, for those who cannot see it.
    kept : float, optional
        The step whose weights were kept, marked by a line.
    """
    width, height, left, top, bottom = 320.0, 170.0, 46.0, 10.0, 142.0
    thin = [(name, _thinned(curve)) for name, curve in curves]
    values = np.concatenate([curve[:, 1] for _, curve in thin])
    last = max(float(curve[-1, 0]) for _, curve in thin)
    marks = svg.ticks(float(values.min()), float(values.max()), 3)
    x = svg.linear(min(float(c[0, 0]) for _, c in thin), last, left, width - 10)
    y = svg.linear(marks[0], marks[-1], bottom, top)
    factor = 100.0 if share else 1.0
    parts = [svg.line(left, y(m), width - 10, y(m), "grid") for m in marks]
    parts += [svg.text(left - 7, y(m) + 4, f"{factor * m:.4g}", "tick", "end") for m in marks]
    ends = ((left, f"{thin[0][1][0, 0]:,.0f}", "start"), (width - 10, f"{last:,.0f} steps", "end"))
    parts += [svg.text(at, bottom + 20, words, "tick", anchor) for at, words, anchor in ends]
    if kept is not None:
        parts.append(svg.line(x(kept), top, x(kept), bottom, "chance"))
    for place, (name, curve) in enumerate(thin):
        drawn = svg.path([(x(step), y(value)) for step, value in curve], "line")
        note = f"{name}: {factor * curve[0, 1]:.4g} at first, {factor * curve[-1, 1]:.4g} at last"
        kind = f"series strong c{place}{' plain' if place else ''}"
        parts.append(svg.element("g", {"class": kind}, svg.title(note), drawn))
    return svg.figure(width, height, label, "chart", parts)


def _thinned(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(curve) <= _CURVE_POINTS:
        return curve
    parts = np.array_split(curve, _CURVE_POINTS)
    return np.stack([part.mean(axis=0) for part in parts])
