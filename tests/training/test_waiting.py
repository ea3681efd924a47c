"""A step on an accelerator is queued whole: nothing in it asks the device for a number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fewlabels.core.types import Method, Pictures
from fewlabels.data.loader import Batches
from fewlabels.data.policies import POLICIES
from fewlabels.data.resident import Resident
from fewlabels.methods import create_method
from fewlabels.models.backbones import create_backbone
from fewlabels.training import step as steps
from fewlabels.training.step import LoopStep
from fewlabels.transfer.parameters import PRETRAINED, FineTune, fresh_classifier
from fewlabels.transfer.unlabelled import FineTuneBoth, with_unlabelled

CPU = torch.device("cpu")
PICTURES = Pictures(16, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.2))
# Of these a GPU is waited for: a number that is asked for, one that is brought, shapes that depend
# on values.
WAITING = {"_local_scalar_dense", "lift_fresh", "nonzero", "masked_select", "unique_dim", "equal"}


class Waits(TorchDispatchMode):
    """Counts what a GPU would be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, _types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        masked = name == "index" and any(
            x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1]
        )
        if name in WAITING or masked:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


CONTRASTS = ("simclr", "vicreg", "byol", "emp", "barlow_twins")
ALL = (*CONTRASTS, "fixmatch", "freematch", "softmatch")


def backbone() -> Any:
    return create_backbone("tiny", in_chans=3, image_size=16)


def images() -> Any:
    """A store of 16 coloured images of one size."""
    block = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), dtype=np.uint8)
    names = ("count", "channels", "short_side", "ok", "sha256", "widths", "heights")
    others = dict.fromkeys((*names, "issues", "notes", "codes", "folder"))
    return SimpleNamespace(block=block, **others)


def tuning(loss: str) -> Method:
    rows, labels = np.arange(16), np.arange(16) % 4
    config = with_unlabelled(PRETRAINED, loss)
    encoder = backbone()
    classifier = fresh_classifier(encoder, 4, encoder.num_features, grid=1)
    policy = POLICIES["natural"].light
    tuned = FineTune(classifier, rows, labels, PICTURES, policy, config, freeze_norm=False)
    return FineTuneBoth(tuned, rows, POLICIES["natural"])


def method(name: str) -> Method:
    if name in ("fixmatch", "freematch", "softmatch"):
        return tuning(name)
    return create_method(name, backbone(), PICTURES, POLICIES["natural"])


@pytest.mark.parametrize("name", ALL)
def test_a_step_waits_for_no_number(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built = method(name)
    asked: list[int] = []

    def numbers(values: Sequence[Tensor]) -> list[float]:
        asked.append(len(values))
        return [0.0] * len(values)

    monkeypatch.setattr(steps, "numbers", numbers)
    batches = Batches(Resident(images(), CPU), np.arange(16), 16, seed=0)
    for index in range(2):  # in the first, constants are brought and optimizers begin
        step = LoopStep(built, index, 9, images=16, seed=0, device=CPU, bf16=False)
        batch = batches[index]
        with Waits() as waits:
            built.update(batch, step)
    assert waits.found == Counter()
    assert asked == [2, 2]  # loss and length of the gradient together, once a step


def test_what_waits_is_found() -> None:
    x = torch.arange(4.0)
    with Waits() as waits:
        float(x.sum())
        x[x > 1]
        x.new_tensor([1.0])
    assert waits.found == {"_local_scalar_dense": 1, "index": 1, "lift_fresh": 1}


@pytest.mark.gpu
@pytest.mark.parametrize("name", ALL)
def test_nor_does_it_on_a_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By CUDA's own word, from the store to the optimizer."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    cuda = torch.device("cuda")
    built: Any = method(name)
    built.to(cuda)
    batches = Batches(Resident(images(), cuda), np.arange(16), 16, seed=0, device=cuda)
    monkeypatch.setattr(steps, "numbers", lambda values: [0.0] * len(values))
    for index in range(3):  # in the first, constants are brought and optimizers begin
        torch.cuda.set_sync_debug_mode("error" if index else "default")
        try:
            step = LoopStep(built, index, 9, images=16, seed=0, device=cuda, bf16=True)
            built.update(batches[index], step)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert all(torch.isfinite(p).all() for p in built.parameters())
