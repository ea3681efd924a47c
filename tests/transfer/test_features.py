"""Frozen features: in order, in evaluation mode, and their neighbour graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fewlabels.core.types import Pictures
from fewlabels.models.backbones import create_backbone
from fewlabels.transfer import features as module
from fewlabels.transfer.features import build_space, extract, half_whitening

PICTURES = Pictures(8, 1, (0.5,), (0.3,))
CPU = torch.device("cpu")


class Noise:
    """A store of 30 grey images of 8x8."""

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, None]:
        images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)
        return images[rows], None


@pytest.fixture
def backbone() -> torch.nn.Module:
    torch.manual_seed(0)
    return create_backbone("tiny", in_chans=1, image_size=8)


def test_features_follow_the_rows(backbone: torch.nn.Module) -> None:
    rows = np.array([7, 3, 29, 3])
    together = extract(backbone, Noise(), rows, PICTURES, device=CPU)
    assert together.shape == (4, backbone.num_features)
    assert torch.equal(together[1], together[3])
    for place, row in enumerate(rows):
        alone = extract(backbone, Noise(), np.array([row]), PICTURES, device=CPU)
        assert torch.allclose(alone[0], together[place], atol=1e-5)


def test_features_do_not_depend_on_the_batch_size(backbone: torch.nn.Module) -> None:
    rows = np.arange(30)
    whole = extract(backbone, Noise(), rows, PICTURES, device=CPU)
    parts = extract(backbone, Noise(), rows, PICTURES, device=CPU, batch_size=7)
    assert torch.allclose(whole, parts, atol=1e-5)


def test_extracting_changes_nothing(backbone: torch.nn.Module) -> None:
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    backbone.train()
    first = extract(backbone, Noise(), np.arange(30), PICTURES, device=CPU)
    assert backbone.training
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())
    backbone.eval()
    assert torch.equal(extract(backbone, Noise(), np.arange(30), PICTURES, device=CPU), first)
    assert not backbone.training


def test_features_can_be_trained_on(backbone: torch.nn.Module) -> None:
    x = extract(backbone, Noise(), np.arange(4), PICTURES, device=CPU)
    layer = torch.nn.Linear(x.shape[1], 2)
    layer(x).sum().backward()  # an inference tensor would refuse
    assert layer.weight.grad is not None


def test_a_space_standardises(features: Tensor) -> None:
    space = build_space(np.arange(50), features)
    standard = (space.features - space.mean) * space.scale
    assert torch.allclose(standard.mean(0), torch.zeros(6), atol=1e-5)
    assert torch.allclose(standard[:, :5].std(0), torch.ones(5), atol=1e-4)
    assert standard[:, 5].abs().max() == 0  # a constant feature says nothing, and divides nothing


def test_half_whitening_halves_the_spread_of_the_variances(features: Tensor) -> None:
    """Against numpy's eigenvectors, the fourth root written out."""
    x = (features - features.mean(0)).double().numpy()
    variances, axes = np.linalg.eigh(np.cov(x.T))
    wanted = x @ axes[:, :0:-1] / variances[:0:-1] ** 0.25  # the constant feature is left out
    wanted /= np.sqrt((wanted**2).sum(0).mean() / (len(x) - 1))
    turned = torch.from_numpy(x).float() @ half_whitening(torch.from_numpy(x).float())
    assert turned.shape == (50, 5)
    assert np.allclose(np.abs(turned.numpy()), np.abs(wanted), atol=1e-3)
    assert float(turned.var(0).mean()) == pytest.approx(1.0, abs=1e-4)


def test_long_features_keep_their_principal_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DIRECTIONS", 3)
    x = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
    x = (x - x.mean(0)) * torch.tensor([1.0, 9.0, 0.1, 5.0, 0.2, 7.0])
    turn = half_whitening(x)
    assert turn.shape == (6, 3)
    assert set(turn.abs().argmax(0).tolist()) == {1, 3, 5}


def test_features_that_never_change_give_no_direction_and_no_fault() -> None:
    space = build_space(np.arange(20), torch.ones(20, 6))
    assert torch.isfinite(space.turn).all()
    assert torch.isfinite(space.bank).all()


def test_neighbours_are_the_most_alike_others(features: Tensor) -> None:
    space = build_space(np.arange(50), features)
    unit = ((features - features.mean(0)) @ space.turn).double().numpy()
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    similar = unit @ unit.T
    np.fill_diagonal(similar, -2)
    for one in range(50):
        expected = np.sort(similar[one])[::-1][:10]
        assert np.allclose(space.weights[one].numpy(), expected, atol=1e-5)
        assert one not in space.neighbours[one].tolist()
        assert np.allclose(similar[one, space.neighbours[one].numpy()], expected, atol=1e-5)


def test_the_graph_is_the_same_when_it_is_made_in_blocks() -> None:
    key = torch.Generator().manual_seed(0)
    space = build_space(np.arange(2_100), torch.randn(2_100, 4, generator=key))
    assert (space.neighbours == torch.arange(2_100)[:, None]).sum() == 0
    exact = (space.bank[2_050] @ space.bank.T).topk(11)
    assert torch.allclose(exact.values[1:], space.weights[2_050], atol=1e-5)


def test_few_images_have_few_neighbours(features: Tensor) -> None:
    assert build_space(np.arange(4), features[:4]).neighbours.shape == (4, 3)


def test_labelled_images_are_in_the_graph_of_a_large_pool(
    features: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRAPH_IMAGES", 10)
    rows = np.arange(100, 150)
    space = build_space(rows, features, first=np.array([149, 120]))
    assert set(space.rows[:2].tolist()) == {149, 120}
    assert len(space.bank) == 10
    assert sorted(space.rows.tolist()) == rows.tolist()
    place = int(np.flatnonzero(space.rows == 149)[0])
    assert torch.equal(space.features[place], features[49])


@pytest.fixture
def features() -> Tensor:
    """50 vectors; the last of their six numbers never changes."""
    key = torch.Generator().manual_seed(1)
    x = torch.randn(50, 6, generator=key) * torch.tensor([1.0, 5.0, 0.1, 2.0, 1.0, 0.0])
    return x + torch.tensor([0.0, 3.0, -1.0, 0.0, 0.0, 4.0])
