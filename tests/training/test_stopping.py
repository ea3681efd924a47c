"""Early stopping: when it ends, what it keeps, and that a kill changes nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fewlabels.core.types import Batch, Step
from fewlabels.data.loader import Batches
from fewlabels.models.small import SmallCNN
from fewlabels.training.loop import Plan, train
from fewlabels.training.stopping import Check, EarlyStopping, best_of, over

CPU = torch.device("cpu")


class Blank:
    """A store of empty pictures."""

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, None]:
        return np.zeros((len(rows), 4, 4, 1), np.uint8), None


class Counter(nn.Module):
    """A method whose only weight says how many steps it has learned."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = SmallCNN((1,), (1,), in_chans=1, norm=False)
        self.steps = nn.Parameter(torch.zeros(()))
        self._sgd = torch.optim.SGD([self.steps], lr=0.0)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"counter": self._sgd}

    def update(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        with torch.no_grad():
            self.steps += 1
        return {"loss": torch.tensor(0.5)}


def watched(losses: list[float], steps: int = 100) -> tuple[EarlyStopping, Counter]:
    """Return a method whose validation loss takes these values, one every ten steps."""
    method = Counter()

    def look(step: int) -> Check:
        return Check(step, losses[step // 10 - 1], 0.5, 0.75)

    return EarlyStopping(method, method, look, steps=steps, every=10), method


def run(stopping: EarlyStopping, folder: Path | None = None, **settings: Any) -> Any:
    batches = Batches(Blank(), np.arange(8), 4, seed=0)
    return train(stopping, batches, Plan(100, 0), device=CPU, folder=folder, **settings)


LOSSES = [1.0, 0.8, 0.6, 0.7, 0.65, 0.9, 0.1, 0.1, 0.1, 0.1]  # the last four are not reached


def test_it_ends_after_three_checks_without_a_new_best() -> None:
    stopping, method = watched(LOSSES)
    trained = run(stopping, stop=stopping.is_over)
    assert (trained.steps, trained.images_seen) == (60, 240)
    assert [check.step for check in stopping.found] == [10, 20, 30, 40, 50, 60]
    assert float(stopping.best["steps"]) == 30
    assert float(method.steps.detach()) == 60
    assert trained.metrics == pytest.approx(
        {"loss": 0.5, "val_loss": 0.9, "val_accuracy": 0.5, "plain_train_accuracy": 0.75}
    )


def test_without_a_stop_it_goes_on_and_finds_a_later_best() -> None:
    stopping, _ = watched(LOSSES)
    assert run(stopping).steps == 100
    assert float(stopping.best["steps"]) == 70


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.medium
@pytest.mark.parametrize("moment", [5, 10, 31, 44, 59, 60])
def test_a_kill_at_any_step_changes_nothing(
    tmp_path: Path, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewlabels.training.loop.SAVE_SECONDS", -1.0)
    whole, _ = watched(LOSSES)
    run(whole, stop=whole.is_over)

    def kill(step: int, _metrics: dict[str, float]) -> None:
        if step == moment:  # before the state of this step is saved
            raise Killed

    first, _ = watched(LOSSES)
    with pytest.raises(Killed):
        run(first, tmp_path, watch=kill, stop=first.is_over)
    again, method = watched(LOSSES)
    trained = run(again, tmp_path, stop=again.is_over)
    assert again.found == whole.found
    assert float(again.best["steps"]) == 30
    assert (float(method.steps.detach()), trained.steps) == (60, 60)


def test_a_run_that_had_ended_early_is_not_taken_up_again(tmp_path: Path) -> None:
    first, _ = watched(LOSSES)
    run(first, tmp_path, stop=first.is_over)
    again, method = watched(LOSSES)
    assert run(again, tmp_path, stop=again.is_over).steps == 60
    assert float(method.steps.detach()) == 60
    assert float(again.best["steps"]) == 30


def checks(losses: list[float]) -> list[Check]:
    return [Check(step, loss, 0.5, 0.5) for step, loss in enumerate(losses, 1)]


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, math.nan, math.inf]), max_size=10))
def test_over_means_that_the_best_is_three_checks_old(losses: list[float]) -> None:
    found = checks(losses)
    finite = [loss for loss in losses if math.isfinite(loss)]
    best = best_of(found)
    assert (best is None) == (not finite)
    if best is not None:
        assert best.val_loss == min(finite)
        assert all(check.val_loss != best.val_loss for check in found[: best.step - 1])
        assert over(found) == (len(losses) - best.step >= 3)
    else:
        assert not over(found)
