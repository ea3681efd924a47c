"""The tables of a comparison: arms, verdicts, label savings, and the key numbers."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from fewlabels.report import words
from fewlabels.report.figures import Point, Series
from fewlabels.report.findings import SYMBOLS, Comparison, reach, shots_of, strip
from fewlabels.report.words import Record, number, record, records


def order(comparison: Comparison) -> list[str]:
    """Return arm names as they are coloured: declared arm, its baseline, then the others."""
    first = [str(comparison.primary.get(key)) for key in ("arm", "baseline")]
    return list(dict.fromkeys([*(n for n in first if n in comparison.arms), *comparison.arms]))


def all_series(comparison: Comparison) -> list[Series]:
    """Return what the curves show: one series an arm that was measured."""
    strong = {str(comparison.primary.get(key)) for key in ("arm", "baseline")}
    series = []
    for index, name in enumerate(order(comparison)):
        points = tuple(point_of(comparison, name, s) for s in comparison.shots if s)
        points = points or (point_of(comparison, name, None),)
        measured = tuple(p for p in points if p is not None)
        if measured:
            plain = words.is_plain(comparison.arms[name])
            title = comparison.title(name)
            ahead = _ahead(comparison, name) if name in strong and len(measured) > 1 else ()
            series.append(Series(title, index, name in strong, plain, measured, ahead))
    return series


def _ahead(comparison: Comparison, arm: str) -> tuple[Point, ...]:
    """Return what an arm is forecast to score at the next number of labels."""
    rows = [row for row in records(comparison.found.get("forecast")) if row.get("arm") == arm]
    rows = [row for row in rows if number(row.get("value")) is not None and shots_of(row["shots"])]
    if not rows:
        return ()
    row = min(rows, key=lambda row: float(row["shots"]))
    low, high = number(row.get("low")), number(row.get("high"))
    measure = comparison.measure
    where, bounds = measure.shots(row["shots"]), measure.bounds(low, high)
    note = f"{comparison.title(arm)}, {where}: forecast {measure.value(row['value'])} {bounds}"
    return (Point(float(row["shots"]), float(row["value"]), low, high, note),)


def point_of(comparison: Comparison, arm: str, shots: float | None) -> Point | None:
    """Return an arm's score at some labels per class, None where it was not measured."""
    row = comparison.curves.get((arm, shots))
    if row is None:
        return None
    low, high = number(row.get("low")), number(row.get("high"))
    measure = comparison.measure
    unit = "%" if measure.share else measure.unit
    note = f"{comparison.title(arm)}, {measure.shots(shots)}: {measure.value(row['mean'])} {unit}"
    note = " ".join([note.rstrip(), measure.bounds(low, high)]).rstrip()
    seeds = number(row.get("seeds"))
    note += f", {seeds:g} repeats" if seeds else ""
    cells = comparison.cells_of(arm, shots)
    metric = str(comparison.primary.get("metric") or "accuracy")
    draws = tuple(v for c in cells if (v := number(c.get(metric))) is not None)
    return Point(shots or 1.0, float(row["mean"]), low, high, note, draws)


def arms_table(comparison: Comparison) -> Record | None:
    """Return the rows of the table of arms, best first at the declared labels per class."""
    if not comparison.arms:
        return None
    focus, columns = comparison.focus, comparison.shots
    measure = comparison.measure
    best = {s: measure.best(comparison.mean(a, s) for a in comparison.arms) for s in columns}
    rows = [_arm_row(comparison, name, best) for name in comparison.arms]
    rows.sort(key=lambda row: measure.rank(row["mean"]))
    headings = [measure.heading(s) for s in columns]
    return {
        "headings": headings,
        "focus": columns.index(focus) if focus in columns else -1,
        "rows": rows,
        "focus_words": measure.shots(focus),
        "measure": measure,
        "baseline": words.inside(comparison.title(comparison.primary.get("baseline"))),
    }


def _arm_row(comparison: Comparison, name: str, best: dict[float | None, float | None]) -> Record:
    focus, arm, measure = comparison.focus, comparison.arms[name], comparison.measure
    scores = []
    for shots in best:
        row = record(comparison.curves.get((name, shots)))
        mean = number(row.get("mean"))
        spread = measure.bounds(row.get("low"), row.get("high"))
        scores.append((measure.value(mean), spread, mean is not None and mean == best[shots]))
    cells = comparison.cells_of(name, focus)
    return {
        "name": name,
        "title": comparison.title(name),
        "index": order(comparison).index(name) % 8,
        "description": str(arm.get("description") or ""),
        "mean": comparison.mean(name, focus),
        "scores": scores,
        "seconds": words.duration(average(cells, "seconds")),
        "images": words.count(average(cells, "images_seen")),
        "verdict": _verdict_word(comparison, name),
        "chosen": name == record(comparison.found.get("best")).get("name"),
    }


def average(rows: Sequence[Record], key: str) -> float | None:
    """Return the mean of a number over rows that have it."""
    values = [v for row in rows if (v := number(row.get(key))) is not None]
    return fmean(values) if values else None


def _verdict_word(comparison: Comparison, arm: str) -> str:
    baseline = str(comparison.primary.get("baseline"))
    if arm == baseline:
        return "baseline"
    rows = [comparison.primary, *comparison.verdicts]
    for row in rows:
        pair = (str(row.get("arm")), str(row.get("baseline")), shots_of(row.get("shots")))
        if pair == (arm, baseline, comparison.focus):
            return str(row.get("verdict") or "")
    return ""


def verdicts_table(comparison: Comparison) -> Record | None:
    """Return all tested pairs, those at the declared labels per class apart from the rest."""
    if not comparison.verdicts:
        return None
    here = [r for r in comparison.verdicts if shots_of(r.get("shots")) == comparison.focus]
    main, main_ends = _verdict_rows(comparison, here or comparison.verdicts)
    others = [row for row in comparison.verdicts if here and row not in here]
    others.sort(key=lambda row: shots_of(row.get("shots")) or float("inf"))
    rest, rest_ends = _verdict_rows(comparison, others)
    rows = main + rest
    tally = [f"{sum(r['verdict'] == v for r in rows)} {v}" for v in SYMBOLS]
    tables = [(main, main_ends), (rest, rest_ends)]
    points = comparison.measure.points
    return {"tables": tables, "total": len(rows), "tally": words.joined(tally), "points": points}


def _verdict_rows(
    comparison: Comparison, rows: list[Record]
) -> tuple[list[Record], tuple[str, str]]:
    """Return rows drawn on one axis, and the words for its ends."""
    measure = comparison.measure
    limit = reach(measure, rows)
    drawn = [_verdict_row(comparison, row, limit) for row in rows]
    return drawn, (measure.difference(-limit), measure.difference(limit))


def _verdict_row(comparison: Comparison, row: Record, limit: float) -> Record:
    low, high = number(row.get("low")), number(row.get("high"))
    bounded = low is not None and high is not None
    detectable = number(row.get("detectable"))
    measure = comparison.measure
    return {
        "shots": shots_of(row.get("shots")),
        "where": measure.shots(row.get("shots")),
        "arm": comparison.title(row.get("arm")),
        "baseline": words.inside(comparison.title(row.get("baseline"))),
        "verdict": str(row.get("verdict") or ""),
        "difference": measure.difference(row.get("difference")),
        "spread": f"({measure.difference(low)} to {measure.difference(high)})" if bounded else "",
        "p": words.probability(row.get("p_holm", row.get("p"))),
        "detectable": measure.size(detectable),
        "strip": strip(measure, row, limit),
    }


def savings_table(comparison: Comparison) -> list[Record]:
    """Return how many times the labels the baseline needs to match the arms that matter.

    Those are the declared arm and the chosen one; all others are in ``comparison.json``.
    """
    rows = []
    chosen = record(comparison.found.get("best")).get("name")
    for row in records(comparison.found.get("label_saving")):
        if row.get("arm") not in (comparison.declared.get("arm"), chosen):
            continue
        factor, low, high = (number(row.get(key)) for key in ("factor", "low", "high"))
        if factor is None and not low:
            continue
        said = f"at least {low:.1f} times" if factor is None else f"{factor:.1f} times"
        bounds = "" if low is None else _bounds(low, high)
        rows.append(
            {
                "arm": comparison.title(row.get("arm")),
                "baseline": words.inside(comparison.title(row.get("baseline"))),
                "where": comparison.measure.shots(row.get("shots")),
                "said": said,
                "bounds": "" if factor is None else bounds,
            }
        )
    return rows


def _bounds(low: float, high: float | None) -> str:
    return f"({low:.1f} or more)" if high is None else f"({low:.1f}{words.DASH}{high:.1f})"


def tiles(comparison: Comparison, test: Record) -> list[Record]:
    """Return the key numbers: chosen arm, baseline, labels saved, time, looks at test."""
    found, focus = comparison.found, comparison.focus
    best = record(found.get("best"))
    name = best.get("name") or comparison.primary.get("arm")
    # Both scores where the choice was made: at the most labels.
    shots = shots_of(best["shots"]) if "shots" in best else focus
    measure = comparison.measure
    where = measure.shots(shots)
    row = record(comparison.curves.get((str(name), shots)))
    # The mean over repeats, as the baseline's beside it; the one classifier has its own section.
    metric = str(comparison.primary.get("metric") or "accuracy")
    value, spread = measure.interval(_as_interval(row) if row else test.get(metric))
    note = f"{comparison.title(name)}, {where}" if name else ""
    baseline = comparison.primary.get("baseline")
    base = record(comparison.curves.get((str(baseline), shots)))
    base_value, base_spread = measure.interval(_as_interval(base))
    unit, about = ("%", "") if measure.share else (measure.unit, measure.name)
    looks = number(found.get("looks_at_test"))
    shown = [
        _tile("Chosen approach", value, unit, _lines(about, spread, note)),
        _tile(
            "Baseline",
            base_value,
            unit,
            _lines(about, base_spread, f"{comparison.title(baseline)}, {where}"),
        ),
        _saving_tile(comparison, name, shots),
        _tile("Whole comparison", words.duration(found.get("seconds")), "", _repeats(comparison)),
        _tile("Looks at the test set", words.count(looks), "", _looks_note(looks)),
    ]
    return [tile for tile in shown if tile and tile["value"] != words.MISSING]


def _lines(*parts: str) -> str:
    return "\n".join(part for part in parts if part)


def _tile(label: str, value: str, unit: str, note: str) -> Record:
    return {"label": label, "value": value, "unit": unit, "note": note.strip()}


def _as_interval(row: Record) -> Record:
    return {"value": row.get("mean"), "low": row.get("low"), "high": row.get("high")}


def _saving_tile(comparison: Comparison, arm: object, shots: float | None) -> Record:
    for row in records(comparison.found.get("label_saving")):
        factor = number(row.get("factor"))
        same = row.get("arm") == arm and shots_of(row.get("shots")) == shots
        if same and factor is not None:
            other = words.inside(comparison.title(row.get("baseline")))
            return _tile(
                "Labels saved", f"{factor:.1f}{words.TIMES}", "", f"{other} needs as many to match"
            )
    return {}


def _repeats(comparison: Comparison) -> str:
    design = record(comparison.found.get("design"))
    said = f"{len(comparison.cells)} trainings of {len(comparison.arms)} approaches"
    images = number(design.get("images_test"))
    return f"{said}, {images:,.0f} test images" if images else said


def _looks_note(looks: float | None) -> str:
    return "each look makes the next less trustworthy" if looks and looks > 1 else "the first look"
