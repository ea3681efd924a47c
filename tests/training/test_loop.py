"""The loop: exact resume from anywhere, no step on a loss that is not finite, signals, the rate."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewlabels.core.errors import DivergedError, OutOfMemoryError
from fewlabels.core.types import Batch, Step
from fewlabels.data.loader import Batches
from fewlabels.training import loop
from fewlabels.training.checkpoint import latest_checkpoint
from fewlabels.training.loop import Interrupted, Plan, fresh_seed, rate, train
from fewlabels.training.step import CLIP

CPU = torch.device("cpu")
PLAN = Plan(9, seed=4)
Weights = Callable[[Any], dict[str, torch.Tensor]]


class Killed(BaseException):
    """Stands for the end of the process."""


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def stop_at(step: int, act: Callable[[], None]) -> Callable[[int, dict[str, float]], None]:
    def watch(done: int, _metrics: dict[str, float]) -> None:
        if done == step:
            act()

    return watch


def die() -> None:
    raise Killed


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save after every step."""
    monkeypatch.setattr(loop, "SAVE_SECONDS", -1.0)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("killed", range(1, 10))
def test_killed_at_any_step_it_ends_in_the_same_weights(
    killed: int,
    bf16: bool,
    make: Callable[..., Any],
    batches: Batches,
    weights: Weights,
    tmp_path: Path,
) -> None:
    plan = Plan(9, seed=4, bf16=bf16)
    whole = make()
    train(whole, batches, plan, device=CPU)
    with pytest.raises(Killed):
        train(make(), batches, plan, device=CPU, folder=tmp_path, watch=stop_at(killed, die))
    again, steps = make(seed=0 if killed == 1 else 5), []
    ended = train(
        again, batches, plan, device=CPU, folder=tmp_path, watch=lambda s, _m: steps.append(s)
    )
    assert steps == list(range(killed, 10))
    assert equal(weights(again), weights(whole))
    assert ended.steps == 9
    assert ended.images_seen == 72


@pytest.mark.usefixtures("eager")
def test_killed_again_and_again(
    make: Callable[..., Any], batches: Batches, weights: Weights, tmp_path: Path
) -> None:
    whole, last = make(), make()
    train(whole, batches, PLAN, device=CPU)
    for killed in (2, 3, 7, 8):
        with pytest.raises(Killed):
            watch = stop_at(killed, die)
            train(make(), batches, PLAN, device=CPU, folder=tmp_path, watch=watch)
    train(last, batches, PLAN, device=CPU, folder=tmp_path)
    assert equal(weights(last), weights(whole))


@pytest.mark.usefixtures("eager")
def test_a_damaged_newest_checkpoint_costs_a_step_and_no_bit(
    make: Callable[..., Any], batches: Batches, weights: Weights, tmp_path: Path
) -> None:
    whole = make()
    train(whole, batches, PLAN, device=CPU)
    with pytest.raises(Killed):
        train(make(), batches, PLAN, device=CPU, folder=tmp_path, watch=stop_at(6, die))
    (tmp_path / "step-00000005.safetensors").write_bytes(b"torn")
    again, steps = make(), []
    train(again, batches, PLAN, device=CPU, folder=tmp_path, watch=lambda s, _m: steps.append(s))
    assert steps[0] == 5
    assert equal(weights(again), weights(whole))


def test_a_finished_training_does_nothing_more(
    make: Callable[..., Any], batches: Batches, weights: Weights, tmp_path: Path
) -> None:
    first, second = make(), make(seed=3)
    train(first, batches, PLAN, device=CPU, folder=tmp_path)
    ended = train(second, batches, PLAN, device=CPU, folder=tmp_path, watch=stop_at(9, die))
    assert equal(weights(first), weights(second))
    assert ended.metrics == {}


def test_checkpoints_are_rare(make: Callable[..., Any], batches: Batches, tmp_path: Path) -> None:
    train(make(), batches, PLAN, device=CPU, folder=tmp_path)
    assert [path.name for path in tmp_path.glob("*.json")] == ["step-00000009.json"]


def test_the_seconds_of_an_interrupted_run_add_up(
    make: Callable[..., Any], batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_SECONDS", -1.0)
    with pytest.raises(Killed):
        train(
            make(),
            batches,
            PLAN,
            device=CPU,
            folder=tmp_path,
            watch=lambda s, _m: die() if s == 5 else time.sleep(0.05),
        )
    ended = train(make(), batches, PLAN, device=CPU, folder=tmp_path)
    assert ended.seconds > 0.2


def test_the_seed_decides(make: Callable[..., Any], batches: Batches, weights: Weights) -> None:
    ends = []
    for seed in (4, 4, 5):
        method = make()
        train(method, batches, Plan(3, seed=seed), device=CPU)
        ends.append(weights(method))
    assert equal(ends[0], ends[1])
    assert not equal(ends[0], ends[2])


# ---- a loss or gradient that is not finite ---------------------------------------------------


class Spoiled:
    """Batches whose loss is no number at one step."""

    def __init__(self, method: Any, at: int, what: str) -> None:
        self.method, self.at, self.what = method, at, what
        self.plain = method.update
        method.update = self.update

    def update(self, batch: Batch, step: Step) -> dict[str, torch.Tensor]:
        if step.index != self.at:
            return self.plain(batch, step)
        if self.what == "gradient":
            # The square root of zero is finite, its slope is not.
            loss = (self.method.head.weight.sum() * 0).abs().sqrt() + 1.0
            step.backward(loss, "head")
            step.apply("head")
        else:
            step.backward(self.method.head.weight.sum() * float(self.what), "head")
            step.apply("head")
        return {"loss": loss.detach()}


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("what", ["nan", "inf", "gradient"])
def test_training_stops_before_anything_is_spoiled(
    what: str, make: Callable[..., Any], batches: Batches, weights: Weights, tmp_path: Path
) -> None:
    good, bad = make(), make()
    sound: dict[str, torch.Tensor] = {}
    Spoiled(bad, 5, what)
    watch = stop_at(5, lambda: sound.update(weights(good)))
    train(good, batches, PLAN, device=CPU, watch=watch)
    with pytest.raises(DivergedError, match="at step 5") as caught:
        train(bad, batches, PLAN, device=CPU, folder=tmp_path)
    assert caught.value.exit_code == 5
    assert "'head'" in caught.value.message
    assert "nan" in caught.value.message or what != "nan"
    assert equal(weights(bad), sound)
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 5
    assert all(torch.isfinite(t).all() for t in found.tensors.values())


def test_outbursts_are_clipped(make: Callable[..., Any], batches: Batches) -> None:
    method = make()
    before = method.head.bias.detach().clone()

    def update(_batch: Batch, step: Step) -> dict[str, torch.Tensor]:
        loss = 1e6 * method.head.bias.sum()
        step.backward(loss, "head")
        step.apply("head")
        return {"loss": loss.detach()}

    method.update = update
    train(method, batches, Plan(1, seed=0, constant_rate=True), device=CPU)
    moved = float((method.head.bias.detach() - before).abs())
    assert moved == pytest.approx(0.05 * CLIP, rel=1e-3)


def test_gradients_do_not_pile_up(make: Callable[..., Any], batches: Batches) -> None:
    method = make()
    train(method, batches, Plan(2, seed=0), device=CPU)
    assert all(p.grad is None for p in method.parameters())


def test_out_of_memory_is_said_in_words(make: Callable[..., Any], batches: Batches) -> None:
    method = make()

    def update(_batch: Batch, _step: Step) -> dict[str, torch.Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    method.update = update
    with pytest.raises(OutOfMemoryError, match="8 images") as caught:
        train(method, batches, PLAN, device=CPU)
    assert caught.value.exit_code == 6


# ---- signals ---------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="signals of another kind")
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_stops(
    signum: signal.Signals,
    code: int,
    make: Callable[..., Any],
    batches: Batches,
    weights: Weights,
    tmp_path: Path,
) -> None:
    whole, stopped, again = make(), make(), make()
    train(whole, batches, PLAN, device=CPU)
    handlers = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(Interrupted, match="saved") as caught:
        watch = stop_at(4, lambda: signal.raise_signal(signum))
        train(stopped, batches, PLAN, device=CPU, folder=tmp_path, watch=watch)
    assert caught.value.exit_code == code
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == handlers
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 4
    train(again, batches, PLAN, device=CPU, folder=tmp_path)
    assert equal(weights(again), weights(whole))


@pytest.mark.skipif(sys.platform == "win32", reason="signals of another kind")
def test_a_signal_at_the_last_step_is_not_lost(
    make: Callable[..., Any], batches: Batches, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        watch = stop_at(9, lambda: signal.raise_signal(signal.SIGTERM))
        train(make(), batches, PLAN, device=CPU, folder=tmp_path, watch=watch)
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 9


@pytest.mark.skipif(sys.platform == "win32", reason="signals of another kind")
def test_a_second_signal_does_not_wait(make: Callable[..., Any], batches: Batches) -> None:
    def twice() -> None:
        for _ in range(2):  # os.kill may be delivered late, and two become one
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(make(), batches, PLAN, device=CPU, watch=stop_at(2, twice))


def test_training_works_off_the_main_thread(make: Callable[..., Any], batches: Batches) -> None:
    ended: list[int] = []
    thread = threading.Thread(
        target=lambda: ended.append(train(make(), batches, PLAN, device=CPU).steps)
    )
    thread.start()
    thread.join(60)
    assert ended == [9]


@pytest.mark.medium
@pytest.mark.skipif(sys.platform == "win32", reason="signals of another kind")
def test_sigterm_ends_the_command_with_143_and_everything_saved(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["pretrain", "digits", "--method", "autoencoder", "--budget", "20000 steps"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fewlabels", *words, "--out", str(run)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        _wait_for(run / "metrics.jsonl", process)  # written after a hundredth of the steps
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    assert process.returncode == 143, said
    assert "saved" in said
    found = latest_checkpoint(run / "checkpoints")
    assert found is not None
    assert found.step >= 1


def _wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(1_200):
        if path.exists():
            return
        assert process.poll() is None, "ended before it began"
        time.sleep(0.1)
    pytest.fail(f"{path.name} was never written")


# ---- the rate --------------------------------------------------------------------------------


@given(st.floats(0, 1))
def test_the_rate_is_a_share(progress: float) -> None:
    assert 0 <= rate(progress) <= 1


def test_the_rate_rises_then_follows_half_a_cosine() -> None:
    warm = [rate(p) for p in np.linspace(0, loop.WARMUP, 20)]
    rest = [rate(p) for p in np.linspace(loop.WARMUP, 1, 50)]
    assert warm == sorted(warm)
    assert warm[0] > 0
    assert rest == sorted(rest, reverse=True)
    assert rest[0] == 1.0
    assert rest[-1] == pytest.approx(0)
    middle = loop.WARMUP + (1 - loop.WARMUP) / 2
    assert rate(middle) == pytest.approx(0.5)
    assert rate(middle / 2 + loop.WARMUP / 2) == pytest.approx(0.5 + math.sqrt(2) / 4)


@pytest.mark.parametrize("constant", [False, True])
def test_the_rate_reaches_every_optimizer(
    constant: bool, make: Callable[..., Any], batches: Batches
) -> None:
    method = make(lr=0.1)
    rates: list[list[float]] = []

    def note(_step: int, _metrics: dict[str, float]) -> None:
        groups = [g for o in method.optimizers().values() for g in o.param_groups]
        rates.append([group["lr"] for group in groups])

    train(method, batches, Plan(40, seed=0, constant_rate=constant), device=CPU, watch=note)
    expected = [0.1 * (1.0 if constant else rate(step / 40)) for step in range(40)]
    assert [row[0] for row in rates] == pytest.approx(expected)
    assert all(row[0] == row[1] for row in rates)


# ---- the rest --------------------------------------------------------------------------------


def test_a_step_knows_its_place(make: Callable[..., Any], batches: Batches) -> None:
    method, steps, drawn = make(), [], []
    plain = method.update

    def update(batch: Batch, step: Step) -> dict[str, torch.Tensor]:
        steps.append((step.index, step.progress, step.seed))
        drawn.append(float(torch.rand(1, generator=step.generator)))
        return plain(batch, step)

    method.update = update
    train(method, batches, Plan(4, seed=6), device=CPU)
    assert steps == [(0, 0.0, 6), (1, 0.25, 6), (2, 0.5, 6), (3, 0.75, 6)]
    assert len(set(drawn)) == 4  # every step has random numbers of its own


def test_a_fresh_seed_names_its_weights() -> None:
    drawn = []
    for names in (("weights", "tiny"), ("weights", "tiny"), ("head",)):
        fresh_seed(1, *names)
        drawn.append(float(torch.rand(1)))
    assert drawn[0] == drawn[1] != drawn[2]


def test_bf16_is_for_images_that_are_not_tiny() -> None:
    assert loop.default_bf16(CPU, 8) is False
    assert isinstance(loop.default_bf16(CPU, 32), bool)
