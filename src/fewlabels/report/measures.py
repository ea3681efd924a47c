"""How the score of a comparison is written: in percent and points, or in units of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fewlabels.report import words
from fewlabels.report.words import DASH, MINUS, MISSING, Record, number, record


def plain(value: float, digits: int = 3) -> str:
    """Return a number with some digits; from 1,000 to 10 million whole, as years are.

    Examples
    --------
    >>> plain(2015.0), plain(123456.7), plain(0.012345), plain(-2.0).replace(MINUS, "-")
    ('2015', '123,457', '0.0123', '-2')
    """
    large = 999.5 <= abs(value) < 1e7
    form = f".{digits}g" if not large else ",.0f" if abs(value) >= 9999.5 else ".0f"
    return f"{value:{form}}".replace("-", MINUS)


@dataclass(frozen=True, slots=True)
class Measure:
    """One score: its words, its direction, and how its values are written.

    Attributes
    ----------
    name : str
        In the reader's words.
    share : bool
        Whether it lies in [0, 1] and is written in percent, its differences in points.
    falls : bool
        Whether less is better.
    unit : str
        Behind its values, where they are no shares.
    whole : bool
        Whether labels are counted in all, not per class: where a number is predicted.
    least, most : float or None
        What it cannot leave.
    """

    name: str
    share: bool = True
    falls: bool = False
    unit: str = ""
    whole: bool = False
    least: float | None = 0.0
    most: float | None = 1.0

    @property
    def axis(self) -> str:
        """Return the words for an axis."""
        unit = "%" if self.share else self.unit
        return f"{self.name}, {unit}" if unit else self.name

    @property
    def points(self) -> str:
        """Return what differences are counted in."""
        return "points" if self.share else self.unit

    @property
    def change(self) -> str:
        """Return what a difference is called, which is positive where it is for the better."""
        return "Fall" if self.falls else "Difference"

    def value(self, value: object) -> str:
        """Return a score without its unit."""
        if self.share:
            return words.percent(value)
        found = number(value)
        return MISSING if found is None else plain(found)

    def tick(self, value: float) -> str:
        """Return a score on an axis."""
        return f"{100 * value:.4g}" if self.share else plain(value, 4)

    def bounds(self, low: object, high: object) -> str:
        """Return the ends of an interval in brackets, or nothing."""
        if self.share:
            return words.spread(low, high)
        least = number(low)
        if least is None or number(high) is None:
            return ""
        dash = DASH if least >= 0 else " to "  # a dash before a minus would be misread
        return f"({self.value(low)}{dash}{self.value(high)})"

    def interval(self, value: object) -> tuple[str, str]:
        """Return mean and bounds of ``{"value", "low", "high"}`` or of a bare number."""
        found = value if isinstance(value, dict) else {"value": value}
        return self.value(found.get("value")), self.bounds(found.get("low"), found.get("high"))

    def difference(self, value: object) -> str:
        """Return a difference with its sign; positive is better."""
        if self.share:
            return words.points(value)
        found = number(value)
        if found is None:
            return MISSING
        return f"+{plain(found)}" if found > 0 else plain(found)

    def size(self, value: object) -> str:
        """Return a difference without its sign."""
        return self.difference(value).lstrip(f"+{MINUS}")

    def best(self, values: Iterable[float | None]) -> float | None:
        """Return the best of some scores."""
        known = [value for value in values if value is not None]
        return (min if self.falls else max)(known, default=None)

    def rank(self, value: float | None) -> float:
        """Return what sorts the best score first and a missing one last."""
        if value is None:
            return float("inf")
        return value if self.falls else -value

    def ends(self, low: float, high: float) -> tuple[float, float]:
        """Return the ends of an axis, no farther than the score can go."""
        least = low if self.least is None else max(low, self.least)
        return least, high if self.most is None else min(high, self.most)

    def shots(self, shots: object) -> str:
        """Return a label budget in words."""
        amount = number(shots)
        if not self.whole or not amount:
            return words.shots_words(shots)
        return f"{amount:g} label{'' if amount == 1 else 's'}"

    def heading(self, shots: float | None) -> str:
        """Return a label budget as the heading of a column."""
        if shots is None:
            return "all labels"
        return f"{shots:g} labels" if self.whole else f"{shots:g} / class"

    @property
    def per(self) -> str:
        """Return what the axis of label budgets counts."""
        return "labels" if self.whole else "labels per class"


def measure_of(metric: str, target: Record | None = None) -> Measure:
    """Return how a metric is written.

    Parameters
    ----------
    metric : str
        As in ``comparison.json``.
    target : dict, optional
        ``name`` and ``unit`` of the number that is predicted.

    Examples
    --------
    >>> measure_of("accuracy").value(0.5), measure_of("mae", {"unit": "cm"}).axis
    ('50.0', 'mean absolute error, cm')
    """
    unit = str(record(target).get("unit") or "")
    squared = unit and f"{unit}\N{SUPERSCRIPT TWO}"
    if metric == "mse":
        return Measure("mean squared error", False, True, squared, True, 0.0, None)
    if metric == "mae":
        return Measure("mean absolute error", False, True, unit, True, 0.0, None)
    if metric == "r2":
        return Measure("R\N{SUPERSCRIPT TWO}", False, False, "", True, None, 1.0)
    if metric == "spearman":
        return Measure("rank correlation", False, False, "", True, -1.0, 1.0)
    if metric == "nll":
        return Measure("log loss", False, True, "", False, 0.0, None)
    return Measure(words.METRICS.get(metric, metric))
