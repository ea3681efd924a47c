"""A reason is given where its numbers are there and say so, and not otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from fewlabels.evaluation import reasons

BOUNDS = {"apart": 0.75, "level": 0.01}


def encoders(*values: Any, name: str, **others: Any) -> list[dict[str, Any]]:
    empty = dict.fromkeys(("rank", "least_rank", "passes", "auc", "p"))
    return [{**empty, name: value, **others} for value in values]


def test_collapse_is_that_of_half_of_the_encoders() -> None:
    found = reasons.collapsed(encoders(1.2, 1.4, 40.0, name="rank", least_rank=3.0))
    assert found == {"encoders": 3, "collapsed": 2, "rank": pytest.approx(1.3), "least_rank": 3.0}
    assert reasons.collapsed(encoders(1.2, 30.0, 40.0, name="rank", least_rank=3.0)) is None
    assert reasons.collapsed(encoders(3.0, name="rank", least_rank=3.0)) is None
    # A code of two numbers has two directions at most: its own bound counts.
    assert reasons.collapsed(encoders(1.8, name="rank", least_rank=1.5)) is None
    assert reasons.collapsed(encoders(1.2, name="rank")) is None
    assert reasons.collapsed([]) is None


def test_short_is_less_than_once_over_the_images() -> None:
    found = reasons.short(encoders(0.2, 0.4, 3.0, name="passes"))
    assert found == {"encoders": 3, "short": 2, "passes": pytest.approx(0.3)}
    assert reasons.short(encoders(1.0, 1.0, name="passes")) is None
    assert reasons.short(encoders(None, name="passes")) is None
    # What nobody knows speaks against it.
    assert reasons.short(encoders(0.2, None, None, name="passes")) is None


def test_another_world_is_both_told_apart_and_no_chance() -> None:
    assert reasons.far(encoders(0.9, name="auc", p=0.005), **BOUNDS) == {"auc": 0.9, "p": 0.005}
    assert reasons.far(encoders(0.74, name="auc", p=0.005), **BOUNDS) is None
    assert reasons.far(encoders(0.9, name="auc", p=0.02), **BOUNDS) is None
    assert reasons.far(encoders(0.9, name="auc"), **BOUNDS) is None


def pair(difference: float, p: float | None) -> dict[str, Any]:
    return {"difference": difference, "p_family": p}


def test_other_hands_must_be_better_at_the_rate_of_the_row() -> None:
    row = {"difference": -0.1, "level": 0.01}
    better = pair(0.1, 0.004)
    assert reasons.in_other_hands(row, [better]) is better
    # Two chances to find something: each at half the rate.
    assert reasons.in_other_hands(row, [better, pair(0.02, 0.5)]) is better
    assert reasons.in_other_hands(row, [better, *[pair(0.02, 0.5)] * 2]) is None
    assert reasons.in_other_hands(row, [pair(0.1, 0.011)]) is None
    assert reasons.in_other_hands(row, [pair(-0.1, 0.001), pair(0.3, None)]) is None
    assert reasons.in_other_hands(row, []) is None


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.02, 0.03, True),
        (-0.09, -0.01, True),  # worse than untrained
        (0.01, 0.03, False),  # something was learned
        (-0.02, 0.12, False),  # as much may have been learned as is missing
        (None, None, False),
    ],
)
def test_nothing_gained_is_shown_by_an_interval(
    low: float | None, high: float | None, said: bool
) -> None:
    found = reasons.as_untrained({"difference": -0.1}, {"low": low, "high": high})
    assert (found is not None) == said
