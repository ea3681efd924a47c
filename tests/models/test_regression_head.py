"""Heads that predict a number: saved and loaded to the bit, and refused where damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fewlabels.core.errors import ModelError
from fewlabels.core.types import Pictures
from fewlabels.models.backbones import create_backbone
from fewlabels.models.classifier import load_model, save_model
from fewlabels.models.heads import (
    AverageHead,
    LinearHead,
    MixtureHead,
    NeighbourAverage,
    NeighbourHead,
    RegressionHead,
    answers,
    is_linear,
)
from fewlabels.results.seals import read_sealed, write_sealed

PICTURES = Pictures(8, 1, (0.3,), (0.4,))
CENTRE, SPREAD = 2_015.123456789012, 0.1 + 0.2  # no float32 holds either


def neighbours() -> NeighbourAverage:
    head = NeighbourAverage(6, 64, 4, 1, k=3, temperature=0.1)
    generator = torch.Generator().manual_seed(0)
    for name, buffer in head.named_buffers():
        buffer.copy_(torch.randn(buffer.shape, generator=generator))
        if name == "bank":
            buffer.div_(buffer.norm(dim=1, keepdim=True))
    return head


def linear(outputs: int = 1) -> LinearHead:
    torch.manual_seed(0)
    return LinearHead(64, outputs)


INNER = {"linear": linear, "neighbours": neighbours}


def inner(kind: str) -> nn.Module:
    return AverageHead(linear(), neighbours()) if kind == "average" else INNER[kind]()


@pytest.mark.parametrize("kind", ["linear", "neighbours", "average"])
def test_a_saved_head_says_the_same(kind: str, tmp_path: Path) -> None:
    backbone = create_backbone("pixels", in_chans=1, image_size=8)
    head = RegressionHead(inner(kind), CENTRE, SPREAD)
    save_model(tmp_path, backbone, "pixels", PICTURES, short_side=8, head=head, target="year (AD)")
    saved = load_model(tmp_path)
    assert (saved.target, saved.classes) == ("year (AD)", ())
    assert isinstance(saved.head, RegressionHead)
    assert (saved.head.centre, saved.head.spread) == (CENTRE, SPREAD)
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(saved.head(x), head(x))
    found = answers(saved.head, saved.head(x))
    assert (found.shape, found.dtype) == ((5,), np.float64)
    np.testing.assert_allclose(found, CENTRE + SPREAD * head(x)[:, 0].detach().numpy())


@pytest.mark.parametrize(
    "change",
    [
        {"spread": 0.0},
        {"spread": -1.0},
        {"centre": "high"},
        {"inner": {"kind": "tree"}},
        {"inner": 3},
    ],
)
def test_a_damaged_description_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    backbone = create_backbone("pixels", in_chans=1, image_size=8)
    head = RegressionHead(linear(), 0.0, 1.0)
    save_model(tmp_path, backbone, "pixels", PICTURES, short_side=8, head=head, target="x")
    config = read_sealed(tmp_path / "config.json")
    config["head"] |= change
    write_sealed(tmp_path / "config.json", config)
    with pytest.raises(ModelError, match="cannot load"):
        load_model(tmp_path)


def test_classes_keep_their_probabilities() -> None:
    shares = answers(linear(4), torch.tensor([[0.0, 1.0, 2.0, 3.0]]))
    assert shares.shape == (1, 4)
    assert shares.sum() == pytest.approx(1)


def test_what_can_be_trained_further() -> None:
    voters = NeighbourHead(6, 64, 4, 2, k=3, temperature=0.1)
    assert is_linear(linear())
    assert is_linear(RegressionHead(linear(), 0.0, 1.0))
    assert not is_linear(RegressionHead(neighbours(), 0.0, 1.0))
    assert not is_linear(MixtureHead(linear(2), voters))
    assert not is_linear(None)
