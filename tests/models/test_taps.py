"""Features of stages: the numbers are those of the maps inside, averaged."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from fewlabels.core.errors import UsageError
from fewlabels.core.types import Backbone, Pictures
from fewlabels.models.backbones import OURS, create_backbone
from fewlabels.models.classifier import load_model, save_model
from fewlabels.models.taps import Taps, tap_names, untapped

# With the number of stages that their papers or timm count.
KNOWN = {"tiny": 5, "dense": 7, "resnet18": 5, "convnext_atto": 4, "torchvision:resnet18": 5}
KNOWN |= {"vgg11": 6, "torchvision:vgg11_bn": 6, "torchvision:swin_t": 4, "pixels": 1}
KNOWN |= {"swin_tiny_patch4_window7_224": 4, "vit_tiny_patch16_224": 12}


def build(name: str, size: int = 64) -> Backbone:
    torch.manual_seed(0)
    return create_backbone(name, in_chans=3, image_size=size).eval()


def tap(backbone: Backbone, *stages: int, size: int = 64) -> Taps:
    return Taps(backbone, stages, channels=3, size=size).eval()


@pytest.mark.medium
@pytest.mark.parametrize("name", sorted({*OURS, *KNOWN}))
@torch.no_grad()
def test_the_last_stage_is_the_backbone_itself(name: str) -> None:
    backbone, x = build(name), torch.randn(2, 3, 64, 64)
    count = len(tap_names(backbone, 3, 64))
    assert count == KNOWN.get(name, count)
    torch.testing.assert_close(tap(backbone, count)(x), backbone.eval()(x))
    every = tap(backbone, *range(1, count + 1))
    parts = [tap(backbone, stage)(x) for stage in range(1, count + 1)]
    assert torch.equal(every(x), torch.cat(parts, 1))
    assert every.num_features == every(x).shape[1]
    with pytest.raises(UsageError, match=f"{count} stage"):
        tap(backbone, count + 1)


@torch.no_grad()
def test_a_stage_is_its_map_averaged_over_places() -> None:
    backbone, x = build("resnet18"), torch.randn(2, 3, 64, 64)
    layers = backbone.net  # type: ignore[attr-defined]
    inside = layers.layer2(layers.layer1(layers.maxpool(layers.act1(layers.bn1(layers.conv1(x))))))
    torch.testing.assert_close(tap(backbone, 3)(x), inside.mean((2, 3)))


@pytest.mark.medium
@torch.no_grad()
def test_channels_that_come_last_are_kept() -> None:
    backbone = build("swin_tiny_patch4_window7_224")
    found: list[torch.Tensor] = []
    layer = backbone.get_submodule("net.layers.1")
    with layer.register_forward_hook(lambda *args: found.append(args[2])):
        first = tap(backbone, 2)
        found.clear()
        features = first(torch.randn(2, 3, 64, 64))
    assert features.shape == (2, 192)
    torch.testing.assert_close(features, found[0].flatten(1, 2).mean(1))


def test_a_copy_reads_its_own_stages() -> None:
    whole = tap(build("tiny", 32), 1, 3, size=32)
    x = torch.randn(2, 3, 32, 32)
    copied = copy.deepcopy(whole)
    with torch.no_grad():
        next(copied.parameters()).mul_(3)
        assert not torch.equal(copied(x), whole(x))
        assert all(not part._forward_hooks for part in whole.modules())


def test_a_model_folder_keeps_its_stages(tmp_path: Path) -> None:
    pictures = Pictures(32, 3, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    whole = tap(build("tiny", 32), 3, 2, size=32)
    save_model(tmp_path, whole, "tiny", pictures, short_side=32)
    loaded = load_model(tmp_path)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded.backbone(x), whole(x))  # in another memory layout
    assert loaded.config["stages"] == [2, 3]
    assert untapped(loaded.backbone).state_dict().keys() == build("tiny", 32).state_dict().keys()
