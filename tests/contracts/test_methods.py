"""The contract that every pre-training method meets, on 64 real digits."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from fewlabels.core.arithmetic import MultiplyAdds
from fewlabels.core.errors import UsageError
from fewlabels.core.types import Labels, Method, Pictures, Uneven
from fewlabels.data.augment import POLICIES
from fewlabels.data.loader import Batches
from fewlabels.methods import BATCH_SIZES, LABELLED, METHODS, OWN_BACKBONE, create_method
from fewlabels.models.backbones import create_backbone
from fewlabels.training import loop
from fewlabels.training.loop import Plan, fresh_seed, take_step, train
from fewlabels.training.measuring import count_multiply_adds

PICTURES = Pictures(8, 1, (0.305,), (0.376,))
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """How long a method needs on 64 digits, and how far its loss must fall in that time.

    `floor` is what the loss can reach at best, where that is not 0.
    """

    steps: int
    falls_to: float
    floor: float = 0.0


# A method that is not listed here fails `test_every_method_has_a_case`.
CASES = {
    "autoencoder": Case(steps=60, falls_to=0.7),
    "denoising": Case(steps=60, falls_to=0.85),
    "dense_autoencoder": Case(steps=150, falls_to=0.85),
    "vae": Case(steps=60, falls_to=0.7),
    "gan": Case(steps=60, falls_to=0.85),
    "masked": Case(steps=80, falls_to=0.85),
    "kmeans": Case(steps=40, falls_to=0.7),
    "rotation": Case(steps=60, falls_to=0.7),
    "simclr": Case(steps=40, falls_to=0.7),
    "vicreg": Case(steps=60, falls_to=0.85),
    "barlow_twins": Case(steps=60, falls_to=0.7),
    "byol": Case(steps=40, falls_to=0.7),
    "dino": Case(steps=120, falls_to=0.8),
    "emp": Case(steps=40, falls_to=0.9, floor=-350.0),
    "supervised": Case(steps=60, falls_to=0.7),
}
# The quick loop trains this one; `make test` trains all.
ALWAYS = {"simclr"}
TRAINED = [
    pytest.param(name, marks=() if name in ALWAYS else pytest.mark.medium) for name in sorted(CASES)
]
# Of all others it looks at these, one of a kind; `make test` looks at all.
QUICK = {"autoencoder", "gan", "kmeans", "simclr", "supervised"}
EVERY = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.medium) for name in sorted(CASES)
]
# k-means follows no gradient: its optimizers are none.
BY_GRADIENT = [case for case in EVERY if case.values != ("kmeans",)]


class Digits:
    """The first 64 of scikit-learn's handwritten digits."""

    def __init__(self) -> None:
        images = load_digits().images[:64]
        self.images = np.round(images * (255 / 16)).astype(np.uint8)[..., None]

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, None]:
        return self.images[rows], None


def build(name: str, seed: int = 0) -> Method:
    fresh_seed(seed, "weights")
    backbone = create_backbone(OWN_BACKBONE.get(name, "tiny"), in_chans=1, image_size=8)
    backbone = backbone.to(memory_format=torch.channels_last)
    labels = Labels(torch.from_numpy(load_digits().target[:64]), 10) if name in LABELLED else None
    return create_method(name, backbone, PICTURES, POLICIES["digits"], labels)


def digits(size: int = 64) -> Batches:
    return Batches(Digits(), np.arange(64), size, seed=3)


def tensors(method: Method) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in method.state_dict().items() if isinstance(v, Tensor)}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Recorder:
    """A step that keeps the gradients it is asked to apply, and applies them."""

    def __init__(self, method: Method, index: int = 0) -> None:
        self.method = method
        self.index = index
        self.progress = 0.5
        self.images = 64
        self.span = slice(None)
        self.seed = 11
        self.generator = torch.Generator().manual_seed(index)
        self.gradients: dict[str, Tensor | None] = {}
        self.asked: list[str] = []

    def autocast(self) -> AbstractContextManager[object]:
        return nullcontext()

    def gather(self, x: Tensor) -> Tensor:
        return x

    def backward(self, loss: Tensor, name: str) -> None:
        assert name in self.method.optimizers()
        assert loss.ndim == 0
        loss.backward()

    def apply(self, name: str) -> None:
        self.asked.append(name)
        for key, parameter in self.method.named_parameters():  # type: ignore[attr-defined]
            if parameter.grad is not None:
                self.gradients[key] = parameter.grad.clone()
        self.method.optimizers()[name].step()
        self.method.optimizers()[name].zero_grad(set_to_none=True)


def test_every_method_has_a_case() -> None:
    assert CASES.keys() == METHODS.keys() == BATCH_SIZES.keys()
    assert CASES


def test_an_unknown_method_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(UsageError, match="simclr") as caught:
        create_method("simcrl", nn.Identity(), PICTURES, POLICIES["digits"])
    assert "simclr" in caught.value.hint


@pytest.mark.parametrize("name", sorted(LABELLED))
def test_a_method_that_learns_from_labels_asks_for_them(name: str) -> None:
    backbone = create_backbone("tiny", in_chans=1, image_size=8)
    with pytest.raises(UsageError, match="labels"):
        create_method(name, backbone, PICTURES, POLICIES["digits"])


@pytest.mark.parametrize("name", EVERY)
def test_it_builds_with_defaults(name: str) -> None:
    method = build(name)
    assert isinstance(method.encoder, nn.Module)
    assert method.encoder(torch.zeros(2, 1, 8, 8)).shape == (2, method.encoder.num_features)
    assert bool(method.optimizers()) == (name != "kmeans")


@pytest.mark.parametrize("name", BY_GRADIENT)
def test_every_weight_has_one_optimizer(name: str) -> None:
    method = build(name)
    assert isinstance(method, nn.Module)
    trained = [
        id(parameter)
        for optimizer in method.optimizers().values()
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    assert len(trained) == len(set(trained))
    assert set(trained) == {id(p) for p in method.parameters() if p.requires_grad}


@pytest.mark.parametrize("name", BY_GRADIENT)
def test_gradients_are_finite_and_reach_the_encoder(name: str) -> None:
    method = build(name)
    step = Recorder(method)
    metrics = method.update(digits()[0], step)
    assert set(step.asked) == set(method.optimizers())
    assert all(torch.isfinite(gradient).all() for gradient in step.gradients.values())
    for key, _ in method.encoder.named_parameters():
        gradient = step.gradients.get(f"encoder.{key}")
        assert gradient is not None, key
        assert gradient.abs().max() > 0, key
    assert "loss" in metrics
    assert all(not value.requires_grad for value in metrics.values())


@pytest.mark.parametrize("name", BY_GRADIENT)
def test_an_update_changes_the_encoder_and_leaves_no_gradient(name: str) -> None:
    method = build(name)
    before = {k: v.clone() for k, v in method.encoder.named_parameters()}
    method.update(digits()[0], Recorder(method))
    assert all(not torch.equal(before[k], v) for k, v in method.encoder.named_parameters())
    assert all(p.grad is None for p in method.encoder.parameters())


@pytest.mark.parametrize("name", EVERY)
def test_an_update_ignores_the_global_random_state(name: str) -> None:
    ends = []
    for seed in (1, 2):
        method = build(name)
        torch.manual_seed(seed)
        method.update(digits()[0], Recorder(method))
        ends.append(tensors(method))
    assert same(*ends)


@pytest.mark.parametrize("name", TRAINED)
def test_the_loss_falls(name: str) -> None:
    case = CASES[name]
    losses: list[float] = []
    train(
        build(name),
        digits(),
        Plan(case.steps, seed=5),
        device=CPU,
        watch=lambda _step, metrics: losses.append(metrics["loss"]),
    )
    assert len(losses) == case.steps
    assert np.isfinite(losses).all()
    start, end = np.mean(losses[:3]) - case.floor, np.mean(losses[-5:]) - case.floor
    assert 0 <= end < case.falls_to * start


@pytest.mark.parametrize("name", EVERY)
def test_steps_of_one_kind_take_the_same_arithmetic(name: str) -> None:
    """A training is counted by one step of each kind."""
    plan, method, batches = Plan(10, seed=5), build(name), digits()
    each = []
    for index in range(10) if isinstance(method, Uneven) else (0, 9):
        counted = MultiplyAdds()
        with counted:
            take_step(method, batches, plan, index, CPU, share=0.02)
        each.append(counted.total)
    whole = count_multiply_adds(lambda: build(name), batches, plan, CPU)
    assert whole == 10 * np.mean(each) > 0
    assert (len(set(each)) > 1) == isinstance(method, Uneven)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("killed_at", [1, 4, 6])
def test_a_killed_training_ends_in_the_same_weights(
    name: str, killed_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_SECONDS", -1.0)  # a checkpoint after every step
    plan = Plan(6, seed=5)
    whole = build(name)
    train(whole, digits(24), plan, device=CPU)

    def kill(step: int, _metrics: dict[str, float]) -> None:
        if step == killed_at:
            raise Killed

    with pytest.raises(Killed):
        train(build(name), digits(24), plan, device=CPU, folder=tmp_path, watch=kill)
    # Where there is a checkpoint, what the method was built with must not matter.
    again = build(name, seed=99 if killed_at > 1 else 0)
    seen: list[int] = []
    train(
        again,
        digits(24),
        plan,
        device=CPU,
        folder=tmp_path,
        watch=lambda step, _metrics: seen.append(step),
    )
    assert seen == list(range(killed_at, 7))
    assert same(tensors(again), tensors(whole))


@pytest.mark.parametrize("name", EVERY)
def test_the_state_survives_a_round_trip(name: str) -> None:
    trained, other = build(name), build(name, seed=1)
    trained.update(digits()[0], Recorder(trained))
    assert not same(tensors(trained), tensors(other))
    other.load_state_dict(trained.state_dict())
    assert same(tensors(trained), tensors(other))
    losses = [m.update(digits()[1], Recorder(m, 1))["loss"] for m in (trained, other)]
    assert torch.equal(*losses)
