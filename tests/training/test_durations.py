"""Durations with units, and what they come to in steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewlabels.core.errors import UsageError
from fewlabels.training.durations import Duration, parse_duration


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("90s", 90, "seconds"),
        ("3m", 180, "seconds"),
        ("1.5h", 5400, "seconds"),
        (" 2 minutes ", 120, "seconds"),
        ("45 sec", 45, "seconds"),
        ("45 secs", 45, "seconds"),
        ("1 min", 60, "seconds"),
        ("1 Hour", 3600, "seconds"),
        (".5m", 30, "seconds"),
        ("2000 steps", 2000, "steps"),
        ("1 step", 1, "steps"),
        ("20 epochs", 20, "epochs"),
        ("0.5 epoch", 0.5, "epochs"),
        ("2000000images", 2_000_000, "images"),
        ("1 image", 1, "images"),
    ],
)
def test_durations_are_read(text: str, value: float, unit: str) -> None:
    assert parse_duration(text) == Duration(value, unit)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "m",
        "five minutes",
        "0s",
        "0 steps",
        "1.5 steps",
        "0.5 images",
        "2e6 images",
        "-3m",
        "3 m m",
        "10 parsecs",
        "1e3s",
    ],
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_duration(text)
    assert caught.value.exit_code == 2
    assert "3m" in caught.value.hint
    assert repr(text) in caught.value.message


def test_a_unit_can_be_ruled_out() -> None:
    with pytest.raises(UsageError, match="cannot be used here") as caught:
        parse_duration("20 epochs", units=("seconds",))
    assert "epochs" not in caught.value.hint
    assert parse_duration("20s", units=("seconds",)).value == 20


def test_steps_of_each_unit() -> None:
    assert Duration(7, "steps").steps(images=1, batch_size=64) == 7
    assert Duration(2, "epochs").steps(images=100, batch_size=64) == 4
    assert Duration(0.01, "epochs").steps(images=100, batch_size=64) == 1
    assert Duration(10, "seconds").steps(images=1, batch_size=1, seconds_per_step=0.3) == 33
    assert Duration(0.1, "seconds").steps(images=1, batch_size=1, seconds_per_step=5) == 1


def test_images_are_whole_batches() -> None:
    assert Duration(1_000, "images").steps(images=50, batch_size=64) == 15
    assert Duration(64, "images").steps(images=50, batch_size=64) == 1
    with pytest.raises(UsageError, match="63 images is less than one batch of 64") as caught:
        Duration(63, "images").steps(images=5_000, batch_size=64)
    assert caught.value.hint == "--budget 64images or more"


def test_seconds_need_a_measured_pace() -> None:
    with pytest.raises(ValueError, match="measured"):
        Duration(10, "seconds").steps(images=1, batch_size=1)


@given(st.integers(1, 10**9), st.sampled_from(["s", "m", "h", " steps", " epochs", "images"]))
def test_what_is_printed_can_be_read_again(value: int, unit: str) -> None:
    duration = parse_duration(f"{value}{unit}")
    assert parse_duration(str(Duration(float(value), duration.unit))).value == value
