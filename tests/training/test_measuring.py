"""What is measured before a training: the pace of a step, and its multiply-adds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fewlabels.core.types import Batch, Step
from fewlabels.data.loader import Batches
from fewlabels.training import measuring
from fewlabels.training.loop import Plan, train
from fewlabels.training.measuring import calibrate, count_multiply_adds

CPU = torch.device("cpu")
PLAN = Plan(9, seed=4)
# 8 images: 4x4 places, 4 channels of 9 values; then 64 features to 1. Forward and backward, where
# images need no gradient.
STEP = 2 * 8 * 16 * 4 * 9 + 3 * 8 * 64


def test_calibration_times_a_throw_away_copy_and_no_busy_moment(
    make: Callable[..., Any], batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Any] = []
    clock = [0.0]
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: clock[0])

    def build() -> Any:
        method = make()
        built.append(method)
        plain = method.update

        def update(batch: Batch, step: Step) -> dict[str, torch.Tensor]:
            clock[0] += 3.0 if step.index < 4 else 0.25
            return plain(batch, step)

        method.update = update
        return method

    assert calibrate(build, batches, PLAN, CPU) == pytest.approx(0.25)
    assert len(built) == 1


def test_a_training_is_counted_by_one_step(make: Callable[..., Any], batches: Batches) -> None:
    built: list[Any] = []

    def build() -> Any:
        built.append(make())
        return built[-1]

    assert count_multiply_adds(build, batches, PLAN, CPU) == 9 * STEP
    assert count_multiply_adds(build, batches, PLAN, CPU, done=4) == 4 * STEP
    assert count_multiply_adds(build, batches, PLAN, CPU, done=0) == 0
    assert len(built) == 3


def test_steps_of_two_kinds_are_counted_each(make: Callable[..., Any], batches: Batches) -> None:
    taken: list[int] = []

    def build() -> Any:
        method = make()
        plain = method.update

        def update(batch: Batch, step: Step) -> dict[str, torch.Tensor]:
            taken.append(step.index)
            if step.index % 4 == 0:
                torch.ones(2, 3) @ torch.ones(3, 5)
            return plain(batch, step)

        method.update = update
        method.kind_of_step = lambda index, _steps: int(index % 4 == 0)
        return method

    # Steps 0, 4 and 8 of nine.
    assert count_multiply_adds(build, batches, PLAN, CPU) == 9 * STEP + 3 * 30
    assert taken == [0, 1]


def test_counting_moves_no_random_stream(make: Callable[..., Any], batches: Batches) -> None:
    drawn = []
    for counts in (True, False):
        torch.manual_seed(3)
        if counts:
            count_multiply_adds(make, batches, PLAN, CPU)
        drawn.append(torch.rand(5))
    assert torch.equal(*drawn)


def test_a_training_tells_what_it_took(make: Callable[..., Any], batches: Batches) -> None:
    trained = train(make(), batches, PLAN, device=CPU)
    cost = trained.cost(77)
    assert (cost.steps, cost.images_seen, cost.multiply_adds) == (9, 72, 77)
    assert cost.seconds == trained.seconds
