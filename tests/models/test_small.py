"""Small networks: shapes at every size and channel count, and how large they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewlabels.models.backbones import SMALL, VARIANTS, create_backbone
from fewlabels.models.small import (
    SmallCNN,
    conv_32_64_64,
    conv_32_64_64_dense_64,
    conv_32_64_128,
    conv_32_64_128_128_dense_512,
    pool_grid,
    tiny,
)

SIZES = (8, 12, 16, 20, 28, 32, 48, 64, 96, 128)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", sorted(SMALL))
def test_shapes(name: str, size: int, channels: int) -> None:
    net = SMALL[name](channels, size)
    x = torch.randn(2, channels, size, size)
    features = net.forward_features(x)
    assert features.shape[:2] == (2, net.num_channels)
    assert min(features.shape[2:]) >= 1
    assert net.forward_head(features).shape == (2, net.num_features)
    net.eval()
    assert torch.equal(net(x), net.forward_head(net.forward_features(x)))


@pytest.mark.parametrize("size", [32, 40, 48, 64, 96, 128])
def test_the_last_map_of_tiny_stays_small(size: int) -> None:
    side = tiny(3, size).forward_features(torch.zeros(1, 3, size, size)).shape[-1]
    assert 2 <= side <= 6


def test_tiny_has_about_400_thousand_weights() -> None:
    count = sum(p.numel() for p in tiny(3, 32).parameters())
    assert 350_000 < count < 450_000


def test_tiny_learns_at_the_start() -> None:
    net = tiny(1, 8)
    net(torch.randn(4, 1, 8, 8)).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize(
    ("build", "widths", "pools"),
    [
        (conv_32_64_128, [32, 64, 128], 3),
        (conv_32_64_64, [32, 64, 64], 2),
        (conv_32_64_64_dense_64, [32, 64, 64], 2),
        (conv_32_64_128_128_dense_512, [32, 64, 128, 128], 4),
    ],
)
def test_the_plain_networks_are_as_their_names_say(
    build: type, widths: list[int], pools: int
) -> None:
    net = build(3, 32)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == widths
    assert all(c.kernel_size == (3, 3) and c.bias is not None for c in convolutions)
    assert sum(isinstance(m, nn.MaxPool2d) for m in net.modules()) == pools
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())


def test_a_grid_keeps_where_things_are() -> None:
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 0, 3] = 16.0
    assert pool_grid(x, 1).tolist() == [[1.0]]
    assert pool_grid(x, 2).tolist() == [[0.0, 4.0, 0.0, 0.0]]


def test_features_count_the_grid() -> None:
    net = SmallCNN((4, 8), (2, 2), grid=2)
    assert net.num_features == 32
    assert net(torch.randn(3, 3, 16, 16)).shape == (3, 32)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_activation_and_pooling_are_part_of_the_name(name: str) -> None:
    net = create_backbone(name, in_chans=1, image_size=16)
    kinds = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh}
    activation = next((k for word, k in kinds.items() if word in name), nn.ReLU)
    pooling = nn.AvgPool2d if name.endswith("-avg") else nn.MaxPool2d
    found = [type(m) for m in net.modules() if isinstance(m, nn.ReLU | nn.Sigmoid | nn.Tanh)]
    assert set(found) == {activation}
    assert len(found) == sum(isinstance(m, nn.Conv2d | nn.Linear) for m in net.modules())
    pools = [type(m) for m in net.modules() if isinstance(m, nn.AvgPool2d | nn.MaxPool2d)]
    assert set(pools) == {pooling}
    plain = create_backbone(name.split("-sig")[0].split("-tanh")[0], in_chans=1, image_size=16)
    assert net.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("name", ["conv-32-64-64-sigmoid", "conv-32-64-64-tanh-avg"])
def test_signals_come_through_sigmoid_and_tanh(name: str) -> None:
    """What goes in must still differ when it comes out, or nothing could be learned."""
    torch.manual_seed(0)
    net = create_backbone(name, in_chans=1, image_size=16)
    x = torch.randn(32, 1, 16, 16)
    out = net.forward_features(x)
    out.mean().backward()
    assert out.std(0).mean() > 0.02
    first = next(iter(net.parameters())).grad
    assert first is not None
    assert first.abs().mean() > 1e-7


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "gelu"])
def test_signals_keep_their_size_without_normalisation(activation: str) -> None:
    torch.manual_seed(0)
    channels = (32, 64, 128, 128)
    net = SmallCNN(channels, (1, 1, 1, 1), norm=False, activation=activation)
    out = net.forward_features(torch.randn(16, 3, 16, 16))
    assert 0.2 < out.square().mean() < 2.5  # torch's own weights leave a thousandth
