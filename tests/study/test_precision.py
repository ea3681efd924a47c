"""What a dry run says of the differences that a comparison will see."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fewlabels.pipeline.task import Task
from fewlabels.study.arms import DEFAULT_ARMS
from fewlabels.study.parsing import parse_arms
from fewlabels.study.plan import make_units
from fewlabels.study.precision import precision
from fewlabels.study.settings import Settings


def told(
    task: Task, *, given: bool = True, draws: int = 10, seeds: int = 3, **changes: Any
) -> dict[str, Any]:
    settings = replace(Settings(labels=(4,), pretraining_seeds=seeds, seeds=draws), **changes)
    own = settings.labels is None
    units = make_units(given=given, draws=draws, pretraining_seeds=seeds, seed=0, own_labels=own)
    return precision(task, parse_arms(list(settings.arms)), units, settings)


def test_it_counts_the_verdicts_and_tells_the_hardest(task: Task) -> None:
    found = told(task)
    rivals = len(DEFAULT_ARMS) - 1  # and simclr+features against four plain baselines
    assert found["verdicts"] == rivals + 4
    assert 0 < found["declared"]["low"] < found["declared"]["high"]
    assert found["corrected"]["low"] > found["declared"]["low"]
    assert "the 10 others, corrected" in found["said"]
    assert found["said"].startswith("simclr+features against scratch: differences from about")


def test_three_seeds_and_many_verdicts_are_useless(task: Task) -> None:
    """Three random splits leave two degrees of freedom, little for the first of Holm's steps."""
    found = told(task, given=False, draws=3, labels=(1, 4))
    assert found["verdicts"] > 18
    assert found["useless"]
    assert found["corrected"]["high"] > 0.4
    assert "useless" in found["said"]
    many = told(task, given=False, draws=20, seeds=10, arms=("scratch", "simclr+features"))
    assert (many["verdicts"], many["useless"]) == (1, False)
    assert "useless" not in many["said"]


def test_more_seeds_see_more(task: Task) -> None:
    few, many = told(task, seeds=2), told(task, seeds=8, draws=40)
    assert many["declared"]["high"] < few["declared"]["high"]


def test_the_labels_there_are_count_too(task: Task) -> None:
    assert told(task, labels=None)["declared"]["high"] > 0


def test_what_cannot_be_told(task: Task) -> None:
    single = told(task, draws=1, seeds=1)
    assert (single["declared"], single["corrected"]) == (None, None)
    assert "more --seeds" in single["said"]
    assert "no typical spread of nll" in told(task, metric="nll")["said"]


@pytest.mark.parametrize("arms", [("scratch", "pixels"), ("scratch", "simclr+features", "pixels")])
def test_as_many_verdicts_as_the_comparison_will_have(task: Task, arms: tuple[str, ...]) -> None:
    assert told(task, arms=arms)["verdicts"] == {2: 1, 3: 3}[len(arms)]
