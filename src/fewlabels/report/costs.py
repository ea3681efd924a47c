"""What a comparison cost: scores against seconds as a picture, and what each arm took."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from fewlabels.report import svg, words
from fewlabels.report.figures import Point, Series, extent, group, score_axis
from fewlabels.report.findings import Comparison, shots_of
from fewlabels.report.tables import all_series, average, order, point_of
from fewlabels.report.words import Record, number, records

_WIDTH, _HEIGHT = 320.0, 262.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 306.0, 28.0, 212.0
_BESIDE = 8.0  # between the middles of marks that would lie on each other
_MARKS = 5  # on the axis of seconds, at most
_MINUTE, _HOUR = 60.0, 3_600.0
_ROUND = [unit * step for unit in (0.01, 0.1, 1.0) for step in (1, 2, 5)]
_ROUND += [10.0, 20.0, *(_MINUTE * step for step in (0.5, 1, 2, 5, 10, 20, 30))]
_ROUND += [_HOUR * step for step in (1, 2, 5, 10, 24, 48, 120, 240)]

Placed = tuple[Series, Point, float]


def cost_figure(comparison: Comparison) -> Record | None:
    """Return a panel for each label budget: the score of each arm against its seconds.

    Returns
    -------
    dict or None
        ``panels`` with ``where`` and ``picture``, and the ``series`` they show; None where
        no seconds are known.
    """
    named = {order(comparison)[one.index]: one for one in all_series(comparison)}
    budgets: list[float | None] = [shots for shots in comparison.shots if shots]
    found = {shots: _placed(comparison, named, shots) for shots in budgets or [None]}
    panels = {shots: placed for shots, placed in found.items() if placed}
    everything = [one for placed in panels.values() for one in placed]
    if not everything:
        return None
    x = _seconds_scale([seconds for _, _, seconds in everything])
    shown = [value for _, point, _ in everything for value in extent(point)]
    room = 0.04 * (max(shown) - min(shown)) or 0.01
    y = comparison.measure.ends(min(shown) - room, max(shown) + room)
    drawn = [
        {
            "where": comparison.measure.shots(shots),
            "picture": _panel(comparison, placed, x, y, shots),
        }
        for shots, placed in panels.items()
    ]
    return {"panels": drawn, "series": list(dict.fromkeys(one for one, _, _ in everything))}


def _placed(comparison: Comparison, named: dict[str, Series], shots: float | None) -> list[Placed]:
    """Return what a panel shows: arms with a score and with seconds."""
    found = []
    for name, one in named.items():
        point = point_of(comparison, name, shots)
        seconds = average(comparison.cells_of(name, shots), "seconds")
        if point is not None and seconds:
            found.append((one, point, seconds))
    return found


def _seconds_scale(seconds: Sequence[float]) -> tuple[float, float]:
    """Return the ends of a logarithmic axis that shows all seconds with some room."""
    low, high = min(seconds), max(seconds)
    room = max(1.25, (high / low) ** 0.06)
    return low / room, high * room


def _panel(
    comparison: Comparison,
    placed: Sequence[Placed],
    times: tuple[float, float],
    scores: tuple[float, float],
    shots: float | None,
) -> Markup:
    measure = comparison.measure
    low, high = (math.log(end) for end in times)
    x = svg.linear(low, high, _LEFT + 6, _RIGHT - 4)
    y = svg.linear(*scores, _BOTTOM, _TOP)
    parts = score_axis(svg.ticks(*scores, 5, inside=True), y, _LEFT, _RIGHT, measure)
    for mark in _time_marks(*times):
        parts.append(svg.line(x(math.log(mark)), _BOTTOM, x(math.log(mark)), _BOTTOM + 5, "rule"))
        words_of = words.duration(mark).replace(" 00 s", "").replace(" 00 min", "")
        parts.append(svg.text(x(math.log(mark)), _BOTTOM + 20, words_of, "tick", "middle"))
    middle = (_LEFT + _RIGHT) / 2
    parts.append(svg.text(middle, _HEIGHT - 8, "time of one training", "axis", "middle"))
    base = comparison.mean(comparison.primary.get("baseline"), shots)
    if base is not None:
        parts.append(svg.line(_LEFT, y(base), _RIGHT, y(base), "identity"))
    across = _side_by_side([x(math.log(seconds)) for _, _, seconds in placed])
    # The arms of the declared verdict lie on top.
    drawn = sorted(zip(placed, across, strict=True), key=lambda pair: pair[0][0].strong)
    parts += [group(one, _mark(one, point, at, seconds, y)) for (one, point, seconds), at in drawn]
    label = f"{measure.name} against time, {measure.shots(shots)}"
    return svg.figure(_WIDTH, _HEIGHT, label, "chart", parts)


def _mark(one: Series, point: Point, x: float, seconds: float, y: svg.Scale) -> list[Markup]:
    parts = [svg.title(f"{point.note}, {words.duration(seconds)}")]
    if point.low is not None and point.high is not None:
        parts.append(svg.line(x, y(point.low), x, y(point.high), "line"))
    halo = svg.element("circle", {"cx": x, "cy": y(point.mean), "r": 11, "class": "touch"})
    return [*parts, halo, svg.marker(one.index, x, y(point.mean), 5.0 if one.strong else 4.2)]


def _time_marks(low: float, high: float) -> list[float]:
    """Return round times between the ends, at most `_MARKS` of them.

    Examples
    --------
    >>> _time_marks(0.4, 500.0)
    [0.5, 2.0, 10.0, 30.0, 120.0]
    """
    inside = [mark for mark in _ROUND if low <= mark <= high]
    every = math.ceil(len(inside) / _MARKS)
    return inside[::every] if every else []


def _side_by_side(places: Iterable[float]) -> list[float]:
    """Spread places that lie on each other evenly around where they are.

    Examples
    --------
    >>> _side_by_side([10.0, 100.0, 101.0, 99.0])
    [10.0, 100.0, 108.0, 92.0]
    """
    found = list(places)
    groups: list[list[int]] = []
    for i in sorted(range(len(found)), key=lambda i: found[i]):
        if groups and found[i] - found[groups[-1][-1]] < _BESIDE:
            groups[-1].append(i)
        else:
            groups.append([i])
    for members in groups:
        middle = sum(found[i] for i in members) / len(members)
        for place, i in enumerate(members):
            found[i] = middle + (place - (len(members) - 1) / 2) * _BESIDE
    return found


def cost_table(comparison: Comparison) -> Record | None:
    """Return what one training of each arm took, at the declared labels per class."""
    rows = [row for name in comparison.arms if (row := _cost_row(comparison, name))]
    longest = max((row["before"] + row["after"] for row in rows), default=0.0) or 1.0
    for row in rows:
        row["before"] = round(100 * row["before"] / longest, 1)
        row["after"] = round(100 * row["after"] / longest, 1)
    total = words.duration(comparison.found.get("seconds"))
    if not rows and total == words.MISSING:
        return None
    known = [key for key in ("adds", "energy", "reached") if any(row[key] for row in rows)]
    baseline = words.inside(comparison.title(comparison.primary.get("baseline")))
    where = comparison.measure.shots(comparison.focus)
    return {"rows": rows, "total": total, "known": known, "baseline": baseline, "where": where}


def _cost_row(comparison: Comparison, name: str) -> Record | None:
    cells = comparison.cells_of(name, comparison.focus)
    total = average(cells, "seconds")
    if total is None:
        return None
    before, after = average(cells, "pretrain_seconds"), average(cells, "transfer_seconds")
    after = total if after is None else after
    adds, energy = average(cells, "multiply_adds"), average(cells, "energy_joules")
    return {
        "title": comparison.title(name),
        "before": before or 0.0,
        "after": after,
        "total": words.duration(total),
        "split": f"{words.duration(before or 0.0)} + {words.duration(after)}",
        "steps": words.count(average(cells, "steps")),
        "adds": "" if adds is None else words.large(adds),
        "energy": "" if energy is None else f"{words.large(energy)}J",
        "memory": words.memory(average(cells, "peak_memory_mb")),
        "reached": _reached(comparison, name),
    }


def _reached(comparison: Comparison, name: str) -> str:
    """Say within what time an arm was as good as the baseline."""
    for row in records(comparison.found.get("time_to_baseline")):
        if row.get("arm") == name and shots_of(row.get("shots")) == comparison.focus:
            seconds = number(row.get("seconds"))
            return "no" if seconds is None else f"≤ {words.duration(seconds)}"
    return ""
