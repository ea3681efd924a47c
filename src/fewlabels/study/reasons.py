"""The likely reason why pre-training hurts, in words, or that nothing measured explains it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fewlabels.data.likeness import APART, LEVEL
from fewlabels.evaluation import reasons
from fewlabels.evaluation.cells import Design
from fewlabels.evaluation.reasons import Facts, Measured
from fewlabels.evaluation.verdicts import Images, verdict_row
from fewlabels.study.arms import Arm

Found = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Reasons:
    """Finds reasons in the cells of one comparison.

    Attributes
    ----------
    cells : sequence of dict
    arms : sequence of Arm
    design : Design
    images : mapping
        Scores of test images, as `verdicts.verdict_table` takes them.
    said : callable
        Writes a difference of scores.
    unit : str
        What is said behind it.
    """

    cells: Sequence[dict[str, Any]]
    arms: Sequence[Arm]
    design: Design
    images: Images
    said: Callable[[float], str]
    unit: str

    def add(self, table: list[dict[str, Any]]) -> None:
        """Write ``reason`` into every row: None where nothing hurts, or nothing explains it."""
        for row in table:
            row["reason"] = self._reason(row, table)

    def _reason(self, row: Facts, table: Sequence[Facts]) -> Found | None:
        arm = next((arm.at(row["shots"]) for arm in self.arms if arm.name == row["arm"]), None)
        pretrained = arm is not None and arm.start in ("pretrained", "given")
        if arm is None or row["verdict"] != "hurts" or not pretrained:
            return None
        found = self._supported(row, arm, table)
        return {**found[0], "also": found[1:]} if found else None

    def _supported(self, row: Facts, arm: Arm, table: Sequence[Facts]) -> list[Found]:
        """Return what is supported, the likeliest first: see ``docs/decisions/0011``."""
        encoders = _encoders(self.cells, row)
        same = reasons.as_untrained(row, self._against_untrained(row, arm))
        other = reasons.in_other_hands(row, self._other_hands(row, arm, table))
        parts: list[Found | None] = [
            _found("collapsed", reasons.collapsed(encoders), _collapsed),
            _found("short", reasons.short(encoders), _short),
            self._pair("transfer", other, _transferred) if other else None,
            _found("far", reasons.far(encoders, apart=APART, level=LEVEL), _far),
            self._pair("untrained", same, _untrained) if same else None,
        ]
        return [part for part in parts if part]

    def _other_hands(self, row: Facts, arm: Arm, table: Sequence[Facts]) -> list[Facts]:
        """Return the pairs of arms from the same encoder that do not lose, and this arm."""
        known = {
            other["arm"]: other["verdict"]
            for other in table
            if (other["baseline"], other["shots"]) == (row["baseline"], row["shots"])
        }
        alike = [
            one.name for one in self.arms if one.name != arm.name and _start(one) == _start(arm)
        ]
        rivals = [name for name in alike if known.get(name, "hurts") != "hurts"]
        return [self._judged(name, row) for name in rivals]

    def _against_untrained(self, row: Facts, arm: Arm) -> Facts | None:
        """Return the pair of an arm and the same on an untrained network, where that takes part."""
        for one in self.arms:
            alike = (one.backbone, one.transfer) == (arm.backbone, arm.transfer)
            if one.start == "random" and arm.start == "pretrained" and alike:
                return None if one.name == row["baseline"] else self._judged(arm.name, row, one)
        return None

    def _judged(self, name: str, row: Facts, against: Arm | None = None) -> Facts:
        baseline = row["arm"] if against is None else against.name
        pair = (name, baseline, row["shots"])
        return verdict_row(self.cells, pair, str(row["metric"]), self.design, self.images)

    def _pair(self, code: str, pair: Facts, words: Callable[[Facts, str], str]) -> Found:
        numbers = [self.said(pair[name]) for name in ("difference", "low", "high")]
        size = f"{numbers[0]}{self.unit} ({numbers[1]} to {numbers[2]})"
        kept = {k: pair[k] for k in ("arm", "baseline", "difference", "low", "high")}
        return {"code": code, "sentence": words(pair, size), "measured": kept}


def _start(arm: Arm) -> tuple[Any, ...]:
    return arm.start, arm.method, arm.source, arm.backbone


def _encoders(cells: Sequence[dict[str, Any]], row: Facts) -> list[Facts]:
    """Return what is known of each encoder behind a row, once."""
    found: dict[tuple[Any, Any], Facts] = {}
    for cell in cells:
        if cell["arm"] == row["arm"] and not cell["failed"]:
            streams = cell["streams"]
            found[streams["split"], streams["pretraining"]] = cell.get("encoder") or {}
    return list(found.values())


def _found(code: str, measured: Measured | None, words: Callable[[Measured], str]) -> Found | None:
    if measured is None:
        return None
    return {"code": code, "sentence": words(measured), "measured": measured}


def _collapsed(found: Measured) -> str:
    """Say that encoders have collapsed.

    Examples
    --------
    >>> _collapsed({"encoders": 3, "collapsed": 2, "rank": 1.26, "least_rank": 3.0})
    '2 of 3 encoders have collapsed: their features span about 1.3 directions, not 3 or more.'
    """
    one = found["encoders"] == 1
    who = "The encoder has" if one else "{collapsed} of {encoders} encoders have".format_map(found)
    return (
        f"{who} collapsed: {'its' if one else 'their'} features span about {found['rank']:.1f} "
        f"directions, not {found['least_rank']:g} or more."
    )


def _short(found: Measured) -> str:
    """Say that pre-training was short.

    Examples
    --------
    >>> _short({"encoders": 1, "short": 1, "passes": 0.356})
    'Pre-training was short: it saw the images 0.36 times over, so many of them never.'
    """
    times = f"{found['passes']:.2g}"
    return f"Pre-training was short: it saw the images {times} times over, so many of them never."


def _transferred(pair: Facts, size: str) -> str:
    return f"The transfer, not the encoder: from the same encoder {pair['arm']} is {size} better."


def _far(found: Measured) -> str:
    return (
        "Pre-training was on images of another world: one is told from a labelled one in "
        f"{100 * found['auc']:.0f} of 100 pairs (50 by guessing)."
    )


def _untrained(pair: Facts, size: str) -> str:
    return (
        "Pre-training added nothing that could be seen: the difference from the same transfer of "
        f"an untrained network ({pair['baseline']}) is {size}."
    )
