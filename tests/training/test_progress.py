"""Progress: lines off a terminal, a bar on one, always on stderr, nothing when quiet."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fewlabels.training import progress as module
from fewlabels.training.progress import Reporter


class Clock:
    """Time that moves only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", clock.monotonic)
    return clock


def test_lines_tell_rate_metrics_and_time_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Reporter().stage("pretrain", 1_000, unit=64) as advance:
        advance(1, loss=2.0)
        clock.now += 20
        advance(101, loss=1.25)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.strip() == "pretrain: 101/1000 steps, 320 images/s, loss 1.25 2:59 left"


def test_lines_are_far_apart_but_the_last_always_comes(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Reporter().stage("cells", 50, what="cells") as advance:
        for done in range(1, 51):
            clock.now += 1
            advance(done)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 5
    assert lines[-1].startswith("cells: 50/50 cells")
    assert lines[-1].endswith("0:00 left")


def test_the_rate_of_a_resumed_run_counts_its_own_steps(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Reporter().stage("pretrain", 10_000, unit=10) as advance:
        advance(9_000)
        clock.now += 20
        advance(9_200)
    assert "100 images/s" in capsys.readouterr().err


def test_quiet_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(quiet=True)
    reporter.say("hello")
    with reporter.stage("pretrain", 2) as advance:
        clock.now += 100
        advance(2, loss=1.0)
    assert capsys.readouterr() == ("", "")


def test_what_is_said_goes_to_stderr_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    Reporter().say("chose [bold]simclr[/bold] :smile:" + " long" * 60)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "chose [bold]simclr[/bold] :smile:" + " long" * 60 + "\n"


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter()
    screen = io.StringIO()
    reporter.console = Console(file=screen, force_terminal=True, width=120)
    reporter._live = True
    with reporter.stage("pretrain", 10, unit=8) as advance:
        advance(4, loss=0.5)
        advance(10, loss=0.25)
    drawn = screen.getvalue()
    assert "pretrain" in drawn
    assert "10/10" in drawn
    assert "loss 0.25" in drawn
    assert capsys.readouterr().out == ""


def test_an_error_inside_a_stage_comes_out(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), Reporter().stage("x", 3):
        _ = 1 / 0
    assert capsys.readouterr().out == ""
