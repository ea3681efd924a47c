"""Another optimizer than a method's own: what is carried over, and who has none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewlabels.core.errors import UsageError
from fewlabels.core.types import Pictures
from fewlabels.data.augment import POLICIES
from fewlabels.methods import create_method
from fewlabels.models.backbones import create_backbone
from fewlabels.training.optimizers import Reoptimized, exchanged


def adamw() -> torch.optim.Optimizer:
    one, two = nn.Linear(2, 2), nn.Linear(2, 1)
    groups = [{"params": list(one.parameters()), "lr": 1e-4, "weight_decay": 0.0}]
    groups.append({"params": list(two.parameters()), "lr": 3e-3})
    return torch.optim.AdamW(groups, weight_decay=0.05, betas=(0.8, 0.9))


def test_groups_rates_and_decay_are_carried_over() -> None:
    own = adamw()
    sgd, adam = exchanged(own, "sgd"), exchanged(own, "adam")
    assert isinstance(sgd, torch.optim.SGD)
    assert isinstance(adam, torch.optim.Adam)
    assert not isinstance(adam, torch.optim.AdamW)
    assert exchanged(own, "adamw") is exchanged(own, "auto") is own
    for other in (sgd, adam):
        for mine, theirs in zip(own.param_groups, other.param_groups, strict=True):
            assert all(a is b for a, b in zip(mine["params"], theirs["params"], strict=True))
    assert [g["lr"] for g in sgd.param_groups] == pytest.approx([3e-3, 9e-2])
    assert [g["lr"] for g in adam.param_groups] == [1e-4, 3e-3]
    assert [g["betas"] for g in adam.param_groups] == [(0.8, 0.9)] * 2
    assert [g["weight_decay"] for g in adam.param_groups] == [0.0, 0.0]


def test_sgd_shrinks_weights_as_fast() -> None:
    """Without a gradient only decay moves a weight."""
    left = []
    for name in ("auto", "sgd"):
        weight = nn.Parameter(torch.ones(3, dtype=torch.float64))
        optimizer = exchanged(torch.optim.AdamW([weight], lr=0.01, weight_decay=0.1), name)
        for _ in range(500):
            weight.grad = torch.zeros_like(weight)
            optimizer.step()
        left.append(float(weight.detach()[0].log()))
    assert left[0] == pytest.approx(-0.5, rel=1e-3)  # 500 times rate times decay
    assert left[1] == pytest.approx(left[0], rel=0.03)


def test_adam_becomes_adamw_with_a_decay() -> None:
    own = torch.optim.Adam([nn.Parameter(torch.ones(3))], lr=0.01)
    found = exchanged(own, "adamw")
    assert isinstance(found, torch.optim.AdamW)
    assert found.param_groups[0]["weight_decay"] == 0.01


def test_a_method_without_an_optimizer_refuses_one() -> None:
    pictures = Pictures(16, 1, (0.5,), (0.2,))
    backbone = create_backbone("patches", in_chans=1, image_size=16)
    method = create_method("kmeans", backbone, pictures, POLICIES["none"])
    assert Reoptimized(method, "auto").optimizers() == {}
    with pytest.raises(UsageError, match="no optimizer"):
        Reoptimized(method, "sgd")
