"""The few parts our SVG figures are made of. All text is escaped by construction."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup, escape

Attributes = Mapping[str, str | float]
Scale = Callable[[float], float]


def element(name: str, attributes: Attributes, *children: Markup) -> Markup:
    """Return one SVG element; attribute values are escaped, children are markup."""
    written = Markup("").join(
        Markup(' {}="{}"').format(Markup(key), _written(value)) for key, value in attributes.items()
    )
    start = Markup("<{}{}").format(Markup(name), written)
    if not children:
        return start + Markup("/>")
    return start + Markup(">") + Markup("").join(children) + Markup("</{}>").format(Markup(name))


def _written(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


def text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> Markup:
    """Return escaped text at a point; `kind` is its CSS class."""
    return element("text", {"x": x, "y": y, "class": kind, "text-anchor": anchor}, escape(words))


def title(words: str) -> Markup:
    """Return what is shown when the pointer rests on the parent element."""
    return element("title", {}, escape(words))


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """Return a straight line of a CSS class."""
    return element("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": kind})


def path(points: Sequence[tuple[float, float]], kind: str, close: bool = False) -> Markup:
    """Return a polyline, or a filled outline when `close`."""
    d = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + ("Z" if close else "")
    return element("path", {"d": d, "class": kind})


def marker(index: int, x: float, y: float, radius: float) -> Markup:
    """Return the mark of a series: four shapes, then the same four hollow."""
    kind = "mark" if index % 8 < 4 else "mark hollow"
    if index % 4 == 0:
        return element("circle", {"cx": x, "cy": y, "r": radius, "class": kind})
    outlines: dict[int, list[tuple[float, float]]] = {
        1: [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        2: [(0, -1.2), (1.15, 0.9), (-1.15, 0.9)],
        3: [(0, -1.35), (1.35, 0), (0, 1.35), (-1.35, 0)],
    }
    size = radius * 0.92
    return path([(x + a * size, y + b * size) for a, b in outlines[index % 4]], kind, close=True)


def figure(width: float, height: float, label: str, kind: str, parts: Sequence[Markup]) -> Markup:
    """Return a whole picture that scales with its container."""
    attributes: Attributes = {
        "viewBox": f"0 0 {width:g} {height:g}",
        "role": "img",
        "aria-label": label,
        "class": kind,
    }
    return element("svg", attributes, *parts)


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Return the map of ``[low, high]`` onto ``[start, end]``."""
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def ticks(low: float, high: float, about: int, inside: bool = False) -> list[float]:
    """Return about `about` round numbers that enclose, or lie inside, ``[low, high]``.

    Examples
    --------
    >>> ticks(0.21, 0.83, 4)
    [0.2, 0.4, 0.6, 0.8, 1.0]
    >>> ticks(0.21, 0.83, 4, inside=True)
    [0.4, 0.6, 0.8]
    """
    span = (high - low) or abs(high) or 1.0
    rough = span / max(about, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.99)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    marks = [round(k * step, 12) for k in range(first, max(last, first + 1) + 1)]
    return [mark for mark in marks if low <= mark <= high] if inside else marks


def apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move positions as little as needed so that neighbours stand `gap` apart.

    Examples
    --------
    >>> apart([10, 11, 40], 10, 0, 100)
    [10, 20, 40]
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [min(max(wanted[i], low), high) for i in order]
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    if placed and placed[-1] > high:
        placed[-1] = high
        for i in range(len(placed) - 2, -1, -1):
            placed[i] = min(placed[i], placed[i + 1] - gap)
    back = dict(zip(order, placed, strict=True))
    return [back[i] for i in range(len(wanted))]
