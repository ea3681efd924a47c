"""Backbones by name: ours and timm's, at small sizes, in grey and in colour."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewlabels.core.errors import UsageError
from fewlabels.models.backbones import (
    TimmBackbone,
    auto_backbone,
    create_backbone,
    pooled_features,
)

TIMM = ("resnet18", "mobilenetv3_small_050")


@pytest.mark.medium
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("name", TIMM)
def test_timm_models_take_small_images(name: str, size: int, channels: int) -> None:
    net = create_backbone(name, in_chans=channels, image_size=size)
    x = torch.randn(2, channels, size, size)
    features = net.forward_features(x)
    assert features.shape[1] == net.num_channels
    assert net(x).shape == (2, net.num_features)
    net.eval()
    with torch.no_grad():
        assert torch.equal(net(x), net.forward_head(net.forward_features(x)))


@pytest.mark.medium
def test_a_transformer_is_built_for_the_size() -> None:
    net = create_backbone("vit_tiny_patch16_224", in_chans=3, image_size=64)
    assert net(torch.randn(2, 3, 64, 64)).shape == (2, net.num_features)
    assert pooled_features(net, torch.randn(2, 3, 64, 64), 2).shape == (2, net.num_features)


@pytest.mark.medium
def test_small_images_get_the_small_stem() -> None:
    small = create_backbone("resnet18", in_chans=1, image_size=32)
    assert isinstance(small, TimmBackbone)
    stem = small.net.conv1
    assert (stem.in_channels, stem.kernel_size, stem.stride) == (1, (3, 3), (1, 1))
    assert isinstance(small.net.maxpool, nn.Identity)
    assert small.forward_features(torch.zeros(1, 1, 32, 32)).shape[-1] == 4
    large = create_backbone("resnet18", in_chans=3, image_size=96)
    assert isinstance(large, TimmBackbone)
    assert large.net.conv1.stride == (2, 2)
    assert isinstance(large.net.maxpool, nn.MaxPool2d)


@pytest.mark.medium
def test_building_leaves_batch_statistics_alone() -> None:
    net = create_backbone("resnet18", in_chans=3, image_size=32)
    assert net.training
    counts = [b for k, b in net.named_buffers() if k.endswith("num_batches_tracked")]
    assert counts
    assert all(int(count) == 0 for count in counts)


@pytest.mark.parametrize(
    ("wrong", "right"), [("tyni", "tiny"), ("resnet-18", "resnet18"), ("conv-32-64", "conv-32-64-")]
)
def test_an_unknown_name_is_refused_with_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(UsageError, match="unknown backbone") as caught:
        create_backbone(wrong, in_chans=3, image_size=32)
    assert right in caught.value.hint


def test_pixels_are_the_picture_itself() -> None:
    net = create_backbone("pixels", in_chans=1, image_size=8)
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(net(x), x.flatten(1))
    assert net.num_features == 64
    assert not list(net.parameters())


def test_pixels_of_large_pictures_are_averaged() -> None:
    net = create_backbone("pixels", in_chans=3, image_size=64)
    x = torch.randn(2, 3, 64, 64)
    assert net.num_features == 3 * 32 * 32
    expected = x.reshape(2, 3, 32, 2, 32, 2).mean((3, 5)).flatten(1)
    assert torch.allclose(net(x), expected, atol=1e-6)
    assert torch.equal(pooled_features(net, x, 2), net(x))


def test_pooling_on_a_grid() -> None:
    net = create_backbone("tiny", in_chans=3, image_size=32).eval()
    x = torch.randn(2, 3, 32, 32)
    whole, quarters = pooled_features(net, x, 1), pooled_features(net, x, 2)
    assert whole.shape == (2, 256)
    assert quarters.shape == (2, 1024)
    assert torch.allclose(quarters.reshape(2, 256, 4).mean(2), whole, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny", "conv-32-64-128", "conv-32-64-64"])
def test_fresh_weights_come_from_the_global_generator(name: str) -> None:
    first, second = (_weights(name, seed) for seed in (0, 0))
    assert torch.equal(first, second)
    assert not torch.equal(first, _weights(name, 1))


def _weights(name: str, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    net = create_backbone(name, in_chans=3, image_size=32)
    return torch.cat([p.flatten() for p in net.parameters()])


def test_the_backbone_suits_the_machine() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert auto_backbone(32, cpu) == auto_backbone(224, cpu) == "tiny"
    assert auto_backbone(8, cuda) == "tiny"
    assert auto_backbone(32, cuda) == "resnet18"
