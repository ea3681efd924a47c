"""How predicted numbers lie on held-out images: against the true ones, and their errors."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from fewlabels.report import svg
from fewlabels.report.measures import plain
from fewlabels.report.scores import picture
from fewlabels.report.words import Record, name_of, number, record, shortened

_POINTS = 2_000
_LARGEST = 24
_SIDE, _LEFT, _BOTTOM, _TOP, _RIGHT = 420.0, 62.0, 48.0, 26.0, 12.0

Floats = NDArray[np.float64]


def scatter(evaluation: Record) -> Record | None:
    """Return the two figures of a regressor: predicted against true numbers, and the errors.

    Returns
    -------
    dict or None
        ``pictures``, ``name`` and ``unit`` of the number, ``shown`` and ``total`` images; None
        where no pairs of numbers are known.
    """
    pairs = _pairs(evaluation.get("pairs"))
    if pairs is None:
        return None
    target = record(evaluation.get("target"))
    name = shortened(str(target.get("name") or "the number"), 32)
    shown = pairs[:_POINTS]
    return {
        "pictures": [_against(shown, name), _residuals(shown, name)],
        "name": name,
        "unit": str(target.get("unit") or ""),
        "shown": len(shown),
        "total": int(number(evaluation.get("n")) or len(pairs)),
    }


def _pairs(value: Any) -> Floats | None:
    """Return true and predicted numbers ``(n, 2)``, or None where there are none."""
    try:
        pairs = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        return None
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    return pairs if len(pairs) else None


def _against(pairs: Floats, name: str) -> Markup:
    """Draw predicted against true numbers on equal axes, with the line where both agree."""
    low, high = _ends(pairs)
    x, y, parts = _axes((low, high), (low, high), f"true {name}", f"predicted {name}")
    parts.append(svg.line(x(low), y(low), x(high), y(high), "identity"))
    parts.append(_dots(x, y, pairs))
    return svg.figure(_SIDE, _SIDE, f"predicted against true {name}", "chart", parts)


def _residuals(pairs: Floats, name: str) -> Markup:
    """Draw the error of each image against what was predicted."""
    error = pairs[:, 1] - pairs[:, 0]
    most = float(np.abs(error).max()) * 1.06 or 1.0
    x, y, parts = _axes(
        _ends(pairs[:, 1]), (-most, most), f"predicted {name}", "error: predicted less true"
    )
    left, right = (float(v) for v in _ends(pairs[:, 1]))
    parts.append(svg.line(x(left), y(0.0), x(right), y(0.0), "identity"))
    parts.append(_dots(x, y, np.stack([pairs[:, 1], error], axis=1)))
    return svg.figure(_SIDE, _SIDE, f"errors against predicted {name}", "chart", parts)


def _ends(values: Floats) -> tuple[float, float]:
    """Return the ends of an axis that shows all values with some room."""
    low, high = float(values.min()), float(values.max())
    room = 0.04 * (high - low) or 0.5
    return low - room, high + room


def _axes(
    across: tuple[float, float], upward: tuple[float, float], below: str, beside: str
) -> tuple[svg.Scale, svg.Scale, list[Markup]]:
    """Return both scales, and grid, ticks and words of the axes."""
    bottom, right = _SIDE - _BOTTOM, _SIDE - _RIGHT
    x = svg.linear(*across, _LEFT, right)
    y = svg.linear(*upward, bottom, _TOP)
    parts = []
    for mark in svg.ticks(*across, 6, inside=True):
        parts.append(svg.line(x(mark), _TOP, x(mark), bottom, "grid"))
        parts.append(svg.text(x(mark), bottom + 18, _tick(mark), "tick", "middle"))
    for mark in svg.ticks(*upward, 7, inside=True):
        parts.append(svg.line(_LEFT, y(mark), right, y(mark), "grid"))
        parts.append(svg.text(_LEFT - 8, y(mark) + 4, _tick(mark), "tick", "end"))
    parts.append(svg.text((_LEFT + right) / 2, _SIDE - 8, below, "axis", "middle"))
    parts.append(svg.text(4, 13, beside, "axis"))
    return x, y, parts


def _tick(value: float) -> str:
    return plain(value, 4)


def _dots(x: svg.Scale, y: svg.Scale, points: Floats) -> Markup:
    """Draw round dots as one path of zero-length strokes: a tenth of the bytes of circles."""
    d = "".join(f"M{x(float(a)):.1f} {y(float(b)):.1f}h0" for a, b in points)
    dense = len(points) > 300
    path = svg.element("path", {"d": d, "class": "dots", "stroke-width": 4.0 if dense else 6.0})
    return svg.element("g", {"class": "scatter dense" if dense else "scatter"}, path)


def number_facts(target: Record) -> list[tuple[str, str, str]]:
    """Return what `inspect` found of the numbers, as label, value and tone."""
    if not target:
        return []
    unit = str(target.get("unit") or "")
    shown = [("what is predicted", str(target.get("name") or "the number"))]
    keys = (("lowest", "min"), ("mean", "mean"), ("highest", "max"), ("standard deviation", "std"))
    shown += [(words, amount(v, unit)) for words, key in keys if (v := target.get(key)) is not None]
    return [(label, value, "") for label, value in shown]


def histogram(target: Record) -> Markup | None:
    """Draw how many images have which number; None where nothing is known of it."""
    found = record(target.get("histogram"))
    counts = [number(count) or 0.0 for count in found.get("counts") or []]
    edges = [number(edge) or 0.0 for edge in found.get("edges") or []]
    if not counts or len(edges) != len(counts) + 1 or not max(counts):
        return None
    width, height, bottom = 560.0, 150.0, 122.0
    x, y = svg.linear(edges[0], edges[-1], 6, width - 6), svg.linear(0, max(counts), bottom, 8)
    parts = []
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        place = {"x": x(low) + 1, "width": max(x(high) - x(low) - 2, 1), "y": y(count)}
        words = svg.title(f"{_tick(low)} to {_tick(high)}: {count:,.0f} images")
        parts.append(svg.element("rect", {**place, "height": bottom - y(count)}, words))
    marks = svg.ticks(edges[0], edges[-1], 6, inside=True)
    parts += [svg.text(x(m), bottom + 20, _tick(m), "tick", "middle") for m in marks]
    name = shortened(str(target.get("name") or "the number"), 40)
    return svg.figure(width, height, f"how many images have which {name}", "histogram", parts)


def largest_errors(found: list[Record], evaluation: Record) -> list[Record]:
    """Return the images whose number is farthest off, with safe pictures."""
    unit = str(record(evaluation.get("target")).get("unit") or "")
    rows = [row for row in found if number(row.get("error")) is not None]
    return [
        {
            "path": name_of(row.get("path")),
            **amounts(row, unit),
            **picture(row.get("thumbnail")),
        }
        for row in rows[:_LARGEST]
    ]


def amounts(row: Record, unit: str) -> Record:
    """Return true and predicted number of an image, and how far off it is, in words."""
    error = number(row.get("error"))
    return {
        "value": amount(row.get("value"), unit),
        "predicted": amount(row.get("predicted"), unit),
        "off": amount(None if error is None else abs(error), unit),
        "side": "too high" if (error or 0.0) > 0 else "too low",
    }


def amount(value: Any, unit: str) -> str:
    """Return a number with its unit; a question mark where it is not known."""
    found = number(value)
    return "?" if found is None else f"{plain(found, 4)} {unit}".rstrip()
