"""torchvision's classifiers: taken apart and put together again they say what they said."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewlabels.core.errors import UsageError
from fewlabels.models import vision
from fewlabels.models.backbones import create_backbone
from fewlabels.models.depth import stages

# One of each way to end: a pool and a list, a convolution, a mean, tokens, a map, a head.
FAMILIES = (
    *("alexnet", "torchvision:squeezenet1_1", "torchvision:shufflenet_v2_x0_5"),
    *("torchvision:vit_b_32", "torchvision:convnext_tiny", "torchvision:regnet_y_400mf"),
    *("torchvision:densenet121", "torchvision:mobilenet_v2", "torchvision:swin_t"),
)


@pytest.mark.medium
@pytest.mark.parametrize("name", FAMILIES)
def test_the_parts_make_the_whole(name: str) -> None:
    backbone = create_backbone(name, in_chans=1, image_size=64).eval()
    x = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        found = backbone.forward_features(x)
        pooled = backbone(x)
        assert torch.equal(pooled, backbone.net(x))  # with nothing in the classifier's place
    assert pooled.shape == (2, backbone.num_features)
    assert backbone.num_channels == found.shape[1 if found.ndim == 4 else -1]
    parts = [id(p) for part in stages(backbone) for p in part]
    assert sorted(parts) == sorted(id(p) for p in backbone.parameters())
    assert len(stages(backbone)) > 3


@pytest.mark.medium
@pytest.mark.parametrize("name", ["alexnet", "vgg11", "inception_v3", "resnet18"])
def test_the_four_that_everybody_asks_for(name: str) -> None:
    backbone = create_backbone(name, in_chans=3, image_size=96).eval()
    assert backbone(torch.zeros(1, 3, 96, 96)).shape == (1, backbone.num_features)


@pytest.mark.medium
@pytest.mark.parametrize("name", ["alexnet", "torchvision:vgg11", "torchvision:squeezenet1_1"])
def test_signals_keep_their_size_without_normalisation(name: str) -> None:
    torch.manual_seed(0)
    backbone = create_backbone(name, in_chans=3, image_size=64).eval()
    with torch.no_grad():
        features = backbone(torch.randn(8, 3, 64, 64))
    assert 0.1 < features.square().mean() < 30  # as torchvision draws it, AlexNet leaves 0.0001


def test_names() -> None:
    assert vision.architecture("torchvision:resnet50.imagenet1k_v1") == "resnet50"
    assert vision.is_vision("alexnet")
    assert not vision.is_vision("resnet18x")
    v1, v2 = (vision.weights_of(f"torchvision:resnet50.imagenet1k_{v}") for v in ("v1", "v2"))
    assert v1.url != v2.url
    assert vision.weights_of("torchvision:resnet50") is v2
    for wrong in ("torchvision:resnet51", "torchvision:alexnet.imagenet1k_v3"):
        with pytest.raises(UsageError, match="unknown start"):
            vision.weights_of(wrong)


def test_pictures_are_those_of_the_training() -> None:
    found = vision.vision_pictures("torchvision:alexnet")
    assert (found.size, found.crop, found.interpolation) == (224, 224 / 256, "bilinear")
    assert found.mean == (0.485, 0.456, 0.406)
    assert vision.vision_pictures("torchvision:inception_v3").mean == (0.5, 0.5, 0.5)


def test_images_that_are_too_small() -> None:
    with pytest.raises(UsageError, match="cannot take 32x32"):
        create_backbone("alexnet", in_chans=3, image_size=32)


def test_squeezenet_ends_in_a_convolution() -> None:
    net = vision.build_vision("squeezenet1_1", in_chans=3, image_size=64, num_classes=7)
    assert vision.classifier_of(net) == "classifier.1"
    assert isinstance(net.get_submodule(vision.first_conv(net)), nn.Conv2d)
