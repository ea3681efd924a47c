"""One of the processes of `test_processes.py`: ``python together.py TASK FOLDER``.

RANK and WORLD_SIZE say which one, as under torchrun. What it found goes to
``FOLDER/<WORLD_SIZE>-<RANK>.safetensors``.
"""

from __future__ import annotations

import atexit
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

from fewlabels.core import collectives, processes
from fewlabels.core.types import Batch, Labels, Method, Pictures, Step
from fewlabels.data.augment import POLICIES
from fewlabels.data.loader import Batches, PairedBatches
from fewlabels.methods import LABELLED, METHODS, OWN_BACKBONE, create_method
from fewlabels.models.backbones import create_backbone
from fewlabels.models.norm import OverProcesses
from fewlabels.training import loop
from fewlabels.training.loop import Plan, fresh_seed, train
from fewlabels.transfer import confidence
from fewlabels.transfer.parameters import SCRATCH, FineTune, fresh_classifier
from fewlabels.transfer.unlabelled import UNLABELLED, FineTuneBoth, Propagated, with_unlabelled

CPU = torch.device("cpu")
PICTURES = Pictures(8, 1, (0.305,), (0.376,))
DIGITS = load_digits()
IMAGES = 40
BATCH = 13  # no even number: the shares of two processes differ
STEPS = 20
RATE = 0.03  # of plain gradient descent: Adam would divide the noise of rounding by itself

LOSSES = [name for name in UNLABELLED if name != "none"]

Found = dict[str, Tensor]


class Digits:
    """The first of scikit-learn's handwritten digits."""

    images = np.round(DIGITS.images[:IMAGES] * (255 / 16)).astype(np.uint8)[..., None]

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, None]:
        return self.images[rows], None


class Descent(torch.optim.SGD):
    """Plain gradient descent that keeps its first gradients."""

    first: list[Tensor] | None = None

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        if self.first is None:
            parameters = [p for group in self.param_groups for p in group["params"]]
            self.first = [p.grad.clone() for p in parameters if p.grad is not None]
        super().step(closure)


def build(name: str) -> nn.Module:
    fresh_seed(0, name)
    backbone = create_backbone(OWN_BACKBONE.get(name, "tiny"), in_chans=1, image_size=8)
    backbone = backbone.to(memory_format=torch.channels_last)
    labels = Labels(torch.from_numpy(DIGITS.target[:IMAGES]), 10) if name in LABELLED else None
    # `natural` crops, turns colours and blurs; all of it must not depend on who does it.
    method = create_method(name, backbone, PICTURES, POLICIES["natural"], labels)
    assert isinstance(method, nn.Module)
    return method.to(torch.get_default_dtype())


def smoothed(method: nn.Module) -> nn.Module:
    """Put GELU in the place of ReLU.

    A number that float32 rounds to the other side of a ReLU's kink changes gradients by a
    hundredth of their size: one process in float32 is that far from itself in float64.
    """
    for part in method.modules():
        for name, child in part.named_children():
            if isinstance(child, nn.ReLU):
                setattr(part, name, nn.GELU())
    return method


def descending(method: nn.Module) -> dict[str, Descent]:
    """Let a method learn by plain gradient descent."""
    own = method.optimizers()
    swapped = {
        name: Descent([p for group in one.param_groups for p in group["params"]], lr=RATE)
        for name, one in own.items()
    }
    method.optimizers = lambda: swapped
    return swapped


def build_both(loss: str) -> FineTuneBoth:
    """Return a fine-tune on a dozen labelled images and all others."""
    fresh_seed(0, loss)
    rows, every = np.arange(12), np.arange(IMAGES)
    backbone = create_backbone("tiny", in_chans=1, image_size=8)
    backbone = backbone.to(memory_format=torch.channels_last)
    classifier = fresh_classifier(backbone, 10, backbone.num_features, grid=1)
    nn.init.normal_(classifier.head.linear.weight, std=0.1)
    config = replace(with_unlabelled(SCRATCH, loss), imbalance="logits")
    labels, policies = DIGITS.target[:IMAGES], POLICIES["natural"]
    tuned = FineTune(
        classifier, rows, labels[rows], PICTURES, policies.light, config, freeze_norm=False
    )
    guesses = Propagated(every, labels, np.linspace(0, 1, IMAGES)) if loss == "pseudo" else None
    return FineTuneBoth(tuned, every, policies, guesses).to(torch.get_default_dtype())


def trained(method: nn.Module, steps: int) -> dict[str, float]:
    batches = Batches(Digits(), np.arange(IMAGES), BATCH, seed=3)
    if isinstance(method, FineTuneBoth):
        labelled = Batches(Digits(), np.arange(12), BATCH, seed=3)
        batches = PairedBatches(labelled, method.pool, method.config.ratio, seed=4)
    return train(method, batches, Plan(steps, seed=5, constant_rate=True), device=CPU).metrics


def use_float64() -> None:
    """Compute in float64 from here on, all but the views, which are made as ever."""
    single = torch.Tensor.float

    def as_ever(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def made(*given: Any, **settings: Any) -> Tensor:
            precision(torch.float32, single)
            try:
                return make(*given, **settings).double()
            finally:
                precision(torch.float64, torch.Tensor.double)

        return made

    def precision(dtype: torch.dtype, full: Callable[[Tensor], Tensor]) -> None:
        torch.set_default_dtype(dtype)
        torch.Tensor.float = full  # what asks for full precision gets this one

    for name, module in list(sys.modules.items()):
        if name.startswith(("fewlabels.methods.", "fewlabels.transfer.")):
            for view in ("augment", "plain"):
                if hasattr(module, view):
                    setattr(module, view, as_ever(getattr(module, view)))
    precision(torch.float64, torch.Tensor.double)


def parity(_folder: Path) -> Found:
    """Train every method: weights after 20 steps in float64, first gradients in float32."""
    found: Found = {}
    for name in METHODS:
        method = smoothed(build(name))
        optimizers = descending(method)
        trained(method, 1)
        for one, optimizer in optimizers.items():
            for place, gradient in enumerate(optimizer.first or []):
                found[f"gradients/{name}/{one}/{place}"] = gradient.contiguous()

    use_float64()
    for name in METHODS:
        method = build(name)
        fresh = {key: value.clone() for key, value in method.state_dict().items()}
        descending(method)
        for metric, value in trained(method, STEPS).items():
            found[f"metrics/{name}/{metric}"] = torch.tensor(value)
        for key, value in method.state_dict().items():
            found[f"weights/{name}/{key}"] = value.clone().contiguous()
            found[f"moved/{name}/{key}"] = (value - fresh[key]).abs().max()
    return found


def both(_folder: Path) -> Found:
    """Train on labelled and unlabelled images together, in float64; all that is kept counts."""
    use_float64()
    confidence.THRESHOLD = 0.12  # so that a network which has learned little trusts some guesses
    found: Found = {}
    for loss in LOSSES:
        method = build_both(loss)
        descending(method)
        for metric, value in trained(method, STEPS).items():
            found[f"metrics/{loss}/{metric}"] = torch.tensor(value)
        for key, value in method.state_dict().items():
            found[f"weights/{loss}/{key}"] = value.clone().contiguous()
    return found


def tools(_folder: Path) -> Found:
    """Use what several processes have for tensors; the test does the same with the whole."""
    rank, count = processes.rank(), processes.count()
    rows = torch.arange(12.0, dtype=torch.float64).reshape(6, 2).sin()
    span = collectives.span(5)
    x = rows[:5][span].clone().requires_grad_(True)
    every = collectives.stacked(x, span.start, 5 - span.stop)
    # A different loss in every process: what counts is the gradient of their sum.
    (slope,) = torch.autograd.grad((every**3).sum() * (rank + 1), x, create_graph=True)
    (slope.square().sum() + 0 * every.sum()).backward()
    short = collectives.stacked(rows[:1].bfloat16(), rank, count - rank - 1)
    found = {"every": every, "slope": slope, "second": x.grad, "short": short}

    fresh_seed(1, "norm")
    whole = torch.randn(5, 3, 4, 4, dtype=torch.float64) * 3 + 50
    norm = nn.BatchNorm2d(3, momentum=None).double()
    nn.init.uniform_(norm.weight)
    part = whole[span].clone().requires_grad_(True)
    with OverProcesses():
        norm(part)
        out = norm(part)
        loss = (out**3).sum()
        (slope,) = torch.autograd.grad(loss, part, create_graph=True)
        slope.square().sum().backward()
    collectives.average_gradients(norm.parameters())
    found |= {"out": out, "norm slope": slope, "norm second": part.grad}
    found |= {f"norm {k}": v for k, v in norm.state_dict().items()}
    found |= {f"norm gradient {k}": p.grad for k, p in norm.named_parameters()}
    norm.eval()
    with OverProcesses():
        found["evaluated"] = norm(part)

    start = torch.full((2,), float(rank))
    collectives.copy_from_main([start])
    told = processes.by_main(lambda: {"from": rank, "none": None})
    found |= {"start": start, "told": torch.tensor(told["from"])}
    assert processes.share(b"" if rank else b"abc") == b"abc"
    return {name: value.detach().contiguous() for name, value in found.items()}


def resumed(folder: Path) -> Found:
    """Train with a checkpoint a step, stopped by a signal to the last process, then go on."""
    loop.SAVE_SECONDS = -1.0
    plan = Plan(6, seed=5)
    batches = Batches(Digits(), np.arange(IMAGES), BATCH, seed=3)

    def signal_here(step: int, _metrics: dict[str, float]) -> None:
        if step == 3 and processes.rank() == processes.count() - 1:
            loop.signal.raise_signal(loop.signal.SIGTERM)

    whole, stopped, again = build("byol"), build("byol"), build("byol")
    train(whole, batches, plan, device=CPU)
    try:
        train(stopped, batches, plan, device=CPU, folder=folder / "run", watch=signal_here)
    except loop.Interrupted as error:
        assert error.exit_code == 143
    else:
        raise AssertionError("the signal was not heard")
    assert (folder / "run" / "step-00000003.json").exists()
    steps: list[int] = []
    with torch.no_grad():  # what the others were built with must not matter
        for value in again.parameters():
            value += processes.rank()
    place = folder / "run" if processes.is_main() else folder / "nothing here"
    ended = train(
        again, batches, plan, device=CPU, folder=place, watch=lambda s, _m: steps.append(s)
    )
    assert steps == [4, 5, 6]
    assert ended.images_seen == 6 * BATCH
    whole_state, state = whole.state_dict(), again.state_dict()
    assert all(torch.equal(state[key], whole_state[key]) for key in state)
    return {key: value.contiguous() for key, value in state.items()}


def failing(_folder: Path) -> Found:
    """Fail in the last process alone, at its second step."""
    from fewlabels.core.errors import DataError

    method = build("autoencoder")
    learn = method.update

    def update(batch: Batch, step: Step) -> dict[str, Tensor]:
        if step.index == 1 and processes.rank() == processes.count() - 1:
            raise DataError("data.changed", "a file has changed", "look at it")
        return learn(batch, step)

    method.update = update
    trained(method, 5)
    raise AssertionError("nobody failed")


def diverging(_folder: Path) -> Found:
    """Meet a loss that is no number, in the last process alone."""
    method: Method = build("rotation")

    def update(_batch: Batch, step: Step) -> dict[str, Tensor]:
        share = float("nan") if processes.rank() == processes.count() - 1 else 1.0
        loss = method.classify.weight.sum() * share
        step.backward(loss, "rotation")
        step.apply("rotation")
        return {"loss": loss.detach()}

    method.update = update
    trained(method, 5)
    raise AssertionError("nothing diverged")


def killed(_folder: Path) -> Found:
    """Lose the last process without a word."""
    method = build("autoencoder")
    learn = method.update

    def update(batch: Batch, step: Step) -> dict[str, Tensor]:
        if step.index == 1 and processes.rank() == processes.count() - 1:
            os.kill(os.getpid(), 9)
        return learn(batch, step)

    method.update = update
    trained(method, 5)
    raise AssertionError("nobody was lost")


def closing(_folder: Path) -> Found:
    """Train and end; `tell_threads` has the last word."""
    trained(build("autoencoder"), 2)
    return {"trained": torch.ones(1)}


def tell_threads() -> None:
    """Say which threads for talking to others still run."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    sys.stderr.write("".join(f"{name}\n" for name in names if "gloo" in name))


TASKS: dict[str, Callable[[Path], Found]] = {
    "parity": parity,
    "both": both,
    "tools": tools,
    "resumed": resumed,
    "failing": failing,
    "diverging": diverging,
    "killed": killed,
    "closing": closing,
}


def main() -> int:
    task, folder = sys.argv[1], Path(sys.argv[2])
    rank, count = processes.launched()
    if task == "closing":
        atexit.register(tell_threads)  # before, hence called after, what closes the connections
    try:
        with processes.joined("cpu"):
            found = TASKS[task](folder)
    except BaseException as error:
        if processes.speaks(error):
            sys.stderr.write(f"process {rank}: {error}\n")
            if not hasattr(error, "exit_code"):
                traceback.print_exc()
        return int(getattr(error, "exit_code", 1))
    save_file(found, folder / f"{count}-{rank}.safetensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
