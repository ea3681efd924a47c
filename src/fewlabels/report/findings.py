"""What a comparison found, in the order a reader asks: verdict, why, against what, at what cost."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from typing import Any

from fewlabels.report import copies, words
from fewlabels.report.measures import Measure, measure_of
from fewlabels.report.words import Record, number, record, records

SYMBOLS = {"helps": "▲", "hurts": "▼", "undecided": "◆"}
_MOST_STATEMENTS = 6


class Comparison:
    """A comparison record with its arms, cells and curves indexed for reading."""

    def __init__(self, found: Record) -> None:
        self.found = found
        self.arms = {str(arm.get("name")): arm for arm in self._arms(found)}
        self.titles = words.arm_titles(list(self.arms.values()))
        self.cells = [c for c in records(found.get("cells")) if not c.get("failed")]
        self.failed = [c for c in records(found.get("cells")) if c.get("failed")]
        self.curves = {
            (str(row.get("arm")), shots_of(row.get("shots"))): row
            for row in records(found.get("curves"))
            if number(row.get("mean")) is not None
        }
        self.shots = sorted({shots for _, shots in self.curves}, key=lambda s: s or float("inf"))
        self.verdicts = records(found.get("verdicts"))
        self.declared = record(found.get("declared"))
        self.primary = {**self.declared, **record(found.get("primary"))}

    @staticmethod
    def _arms(found: Record) -> list[Record]:
        """Return the arms, also those only named by a curve or a verdict."""
        arms = [arm for arm in records(found.get("arms")) if arm.get("name")]
        rows = records(found.get("curves")) + records(found.get("verdicts"))
        used = [r[k] for r in rows for k in ("arm", "baseline") if r.get(k)]
        known = {str(arm["name"]) for arm in arms}
        return [*arms, *({"name": name} for name in dict.fromkeys(used) if str(name) not in known)]

    def title(self, arm: Any) -> str:
        """Return the readable title of an arm name."""
        return self.titles.get(str(arm), words.method_title(arm) if arm else words.MISSING)

    @property
    def focus(self) -> float | None:
        """Return the declared labels per class; the most that were tried if none were."""
        declared = shots_of(self.primary.get("shots"))
        if declared in self.shots or not self.shots:
            return declared
        return self.shots[-1]

    @property
    def measure(self) -> Measure:
        """Return how the compared score is written."""
        target = record(record(self.found.get("inspect")).get("target"))
        measure = measure_of(str(self.primary.get("metric") or "accuracy"), target)
        in_all = self.found.get("labels_counted") == "in all"
        return replace(measure, whole=True) if in_all else measure

    @property
    def metric(self) -> str:
        """Return the words for the compared score."""
        return self.measure.name

    def mean(self, arm: Any, shots: float | None) -> float | None:
        """Return the mean score of an arm, or None where it was not measured."""
        return number(record(self.curves.get((str(arm), shots))).get("mean"))

    def cells_of(self, arm: str, shots: float | None) -> list[Record]:
        """Return the finished cells of an arm at some labels per class."""
        return [c for c in self.cells if c.get("arm") == arm and shots_of(c.get("shots")) == shots]


def shots_of(value: Any) -> float | None:
    """Return labels per class as a float; None stands for all labels there are."""
    return number(value) or None


def headline(comparison: Comparison) -> Record:
    """Return verdict, sentence, detail and strip for the top of the page."""
    primary = comparison.primary
    verdict = str(primary.get("verdict") or "")
    if number(primary.get("difference")) is None and not primary.get("sentence"):
        arms = len(comparison.arms)
        sentence = f"No verdict yet: {arms} approaches, none compared on held-out images so far."
        if arms == 1:
            sentence = "One classifier was made, and compared with nothing."
        empty = {"verdict": "", "detail": "", "reason": "", "seen": "", "strip": None}
        return {**empty, "sentence": sentence}
    return {
        "verdict": verdict if verdict in SYMBOLS else "",
        "sentence": str(primary.get("sentence") or _sentence(comparison)),
        "detail": _detail(comparison.measure, primary),
        "reason": reasons(comparison, [primary]),
        "seen": " ".join(
            filter(
                None,
                [
                    _detectable(comparison.measure, primary),
                    primary.get("outlook"),
                    primary.get("unseen"),
                    _folded(comparison),
                    copies.compared(comparison),
                ],
            )
        ),
        "strip": strip(comparison.measure, primary, reach(comparison.measure, [primary])),
        "pair": (comparison.title(primary.get("arm")), comparison.title(primary.get("baseline"))),
    }


def _folded(comparison: Comparison) -> str:
    """Return how a cross-validation used the images, in words; nothing of other comparisons."""
    design = record(comparison.found.get("design"))
    if not design.get("folds"):
        return ""
    times = words.count(design.get("draws"))
    return (
        f"There is no test split: this is {design['folds']}-fold cross-validation over all "
        f"{words.count(design.get('images_test'))} labelled images, repeated {times} times. "
        "The folds overlap, and the interval is wider for it."
    )


def _sentence(comparison: Comparison) -> str:
    primary = comparison.primary
    arm = words.inside(comparison.title(primary.get("arm")))
    baseline = words.inside(comparison.title(primary.get("baseline")))
    where = comparison.measure.shots(primary.get("shots"))
    if primary.get("verdict") == "helps":
        return f"With {where}, {arm} beats {baseline}."
    if primary.get("verdict") == "hurts":
        return f"With {where}, {arm} loses to {baseline}."
    return f"With {where}, it stays undecided whether {arm} beats {baseline}."


def _detail(measure: Measure, primary: Record) -> str:
    difference = number(primary.get("difference"))
    if difference is None:
        return ""
    text = f"{measure.change} in {measure.name}: {measure.difference(difference)}"
    text += " percentage points" if measure.share else f" {measure.unit}".rstrip()
    if number(primary.get("low")) is not None and number(primary.get("high")) is not None:
        low, high = measure.difference(primary["low"]), measure.difference(primary["high"])
        text += f" (95 % interval {low} to {high})"
    return text + "."


def reasons(comparison: Comparison, rows: list[Record]) -> str:
    """Return the likely reasons why an arm hurts, each kind once, or that none was measured.

    Nothing where nothing was pre-trained, and where the record is older than reasons are.
    """
    arm = comparison.arms.get(str(rows[0].get("arm")), {"name": rows[0].get("arm")})
    lost = [row for row in rows if row.get("verdict") == "hurts" and "reason" in row]
    if not lost or words.is_plain(arm):
        return ""
    found: dict[str, list[tuple[str, Record]]] = defaultdict(list)
    for row in lost:
        reason = record(row["reason"])
        for one in [reason, *records(reason.get("also"))]:
            if one.get("sentence"):
                found[str(one.get("code"))].append((str(one["sentence"]), row))
    if not found:
        return "Nothing measured explains it."
    first, *others = [_reason(comparison, told, len(lost)) for told in found.values()]
    return " ".join([f"Likely reason: {first[:1].lower()}{first[1:]}", *others])


def _reason(comparison: Comparison, told: list[tuple[str, Record]], count: int) -> str:
    """Return the first sentence of a kind, with its labels where it holds for these alone."""
    sentence, row = told[0]
    if len(told) == count:
        return sentence
    return f"{sentence.rstrip('.')} (with {comparison.measure.shots(row.get('shots'))})."


def _detectable(measure: Measure, primary: Record) -> str:
    least = number(primary.get("detectable"))
    if least is None:
        return "The smallest difference this design could have seen is not known."
    size = f"{measure.size(least)} {measure.points}".rstrip()
    text = f"The smallest difference this design could have seen is {size}"
    if primary.get("verdict") == "undecided":
        text += ": a smaller one may exist and would look just like this"
    return text + "."


def strip(measure: Measure, row: Record, limit: float) -> Record | None:
    """Place a difference and its interval on a line from -limit to +limit, in percent."""
    difference, low, high = (number(row.get(k)) for k in ("difference", "low", "high"))
    if difference is None:
        return None

    def place(value: float) -> float:
        return round(50 + 47 * max(-1.0, min(1.0, value / limit)), 2)

    low, high = (difference if low is None else low), (difference if high is None else high)
    blind = abs(number(row.get("detectable")) or 0.0)
    return {
        "at": place(difference),
        "left": place(low),
        "width": round(place(high) - place(low), 2),
        "blind": (place(-blind), round(place(blind) - place(-blind), 2)) if blind else None,
        "ends": (measure.difference(-limit), f"{measure.difference(limit)} {measure.points}"),
    }


def reach(measure: Measure, rows: list[Record]) -> float:
    """Return the half-width of a common axis for differences, a round number above all ends."""
    ends = [abs(v) for r in rows for k in ("difference", "low", "high") if (v := number(r.get(k)))]
    most = max([0.01, *ends] if measure.share else [*ends, 1e-12]) * 1.08
    if measure.share:
        rounds: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, most)
    else:
        power = 10.0 ** math.floor(math.log10(most))
        rounds = (power, 2 * power, 3 * power, 5 * power, 10 * power, most)
    return next(limit for limit in rounds if limit >= most)


def statements(comparison: Comparison) -> list[tuple[str, str]]:
    """Return plain sentences on who lost to a plain baseline, and who else won.

    Returns
    -------
    list of (str, str)
        Verdict word and sentence; losses of pre-training come first.
    """
    told = [
        (verdict, text) for verdict in ("hurts", "helps") for text in tested(comparison, verdict)
    ]
    told = [("", text) for text in by_rule(comparison)] + _untested_losses(comparison) + told
    left = len(told) - _MOST_STATEMENTS
    more = [("", f"And {left} more in the table of verdicts below.")] if left > 0 else []
    return told[:_MOST_STATEMENTS] + more


def by_rule(comparison: Comparison) -> list[str]:
    """Return a sentence on each recipe that the arm auto was, with the reason."""
    reasons_of: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for row in records(comparison.found.get("auto")):
        reasons_of[str(row.get("recipe")), str(row.get("reason"))].append(row)
    told = []
    for (recipe, reason), rows in reasons_of.items():
        labels = ", ".join(str(row.get("shots") or "all") for row in rows)
        outside = str(rows[-1].get("uncovered") or "")
        told.append(
            f"auto is {recipe} at {labels} labels: {reason}" + (outside and f" ({outside})") + "."
        )
    return told


def tested(comparison: Comparison, verdict: str) -> list[str]:
    """Return a sentence on each pair with a verdict that is worth telling, the main arm first."""

    def importance(item: tuple[tuple[str, str, str], list[Record]]) -> tuple[bool, bool]:
        arm = item[0][1]
        plain = words.is_plain(comparison.arms.get(arm, {"name": arm}))
        return plain, arm != comparison.primary.get("arm")

    return [
        _told(comparison, verdict, arm, baseline, rows)
        for (found, arm, baseline), rows in sorted(_grouped(comparison).items(), key=importance)
        if found == verdict and _worth_telling(comparison, arm, baseline, rows)
    ]


def _grouped(comparison: Comparison) -> dict[tuple[str, str, str], list[Record]]:
    """Return the judged rows by verdict, arm and baseline."""
    grouped: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for row in comparison.verdicts:
        key = (str(row.get("verdict")), str(row.get("arm")), str(row.get("baseline")))
        if key[0] in SYMBOLS and number(row.get("difference")) is not None:
            grouped[key].append(row)
    return grouped


def _worth_telling(comparison: Comparison, arm: str, baseline: str, rows: list[Record]) -> bool:
    """Leave out untrained arms that lose, and the primary pair where it stands alone."""
    record_of = comparison.arms.get(arm, {"name": arm})
    if words.is_plain(record_of):
        return words.start_of(record_of) == "pixels" and rows[0].get("verdict") == "helps"
    pair = (str(comparison.primary.get("arm")), str(comparison.primary.get("baseline")))
    return (arm, baseline) != pair or len(rows) > 1


def _told(comparison: Comparison, verdict: str, arm: str, baseline: str, rows: list[Record]) -> str:
    rows = sorted(rows, key=lambda r: shots_of(r.get("shots")) or float("inf"))
    shots = [shots_of(row.get("shots")) for row in rows]
    measure = comparison.measure
    where = words.joined([f"{s:g}" for s in shots if s])
    noun = measure.shots(1 if where == "1" else 2).partition(" ")[2]
    place = f"{where} {noun}" if where else words.shots_words(None)
    by = words.joined([measure.size(r["difference"]) for r in rows])
    verb = "beats" if verdict == "helps" else "loses to"
    other = words.inside(comparison.title(baseline))
    size = f"{by} {measure.points}".rstrip()
    told = f"{comparison.title(arm)} {verb} {other} with {place}, by {size}."
    return " ".join(filter(None, [told, reasons(comparison, rows)]))


def _untested_losses(comparison: Comparison) -> list[tuple[str, str]]:
    """Say where the primary arm scored below raw pixels or scratch and no test was made."""
    arm = str(comparison.primary.get("arm"))
    judged = {(a, b) for _, a, b in _grouped(comparison)}
    judged.add((arm, str(comparison.primary.get("baseline"))))
    mine = comparison.mean(arm, comparison.focus)
    told = []
    for name, other in comparison.arms.items():
        theirs = comparison.mean(name, comparison.focus)
        plain = words.start_of(other) in ("pixels", "scratch") and name != arm
        if mine is None or theirs is None or not plain or (arm, name) in judged:
            continue
        if comparison.measure.rank(mine) > comparison.measure.rank(theirs):
            told.append(("hurts", _scored_below(comparison, (arm, name), (mine, theirs))))
    return told


def _scored_below(
    comparison: Comparison, pair: tuple[str, str], scores: tuple[float, float]
) -> str:
    arm, other = comparison.title(pair[0]), words.inside(comparison.title(pair[1]))
    measure = comparison.measure
    where = measure.shots(comparison.focus)
    mine, theirs = (measure.value(score) for score in scores)
    unit = "%" if measure.share else measure.unit
    return (
        f"{arm} scored {'above' if measure.falls else 'below'} {other} with {where}: "
        f"{f'{mine} against {theirs} {unit}'.rstrip()}. This pair was not tested, so it may be "
        "chance."
    )
