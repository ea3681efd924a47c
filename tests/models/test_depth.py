"""Stages of backbones: every weight in one of them, from the images to the features."""

from __future__ import annotations

import pytest

from fewlabels.models.backbones import OURS, create_backbone
from fewlabels.models.depth import stages

TIMM = ("resnet18", "vgg11", "mobilenetv3_small_050", "convnext_atto", "vit_tiny_patch16_224")


@pytest.mark.medium
@pytest.mark.parametrize("name", [*sorted(OURS), *TIMM])
def test_every_weight_is_in_one_stage(name: str) -> None:
    backbone = create_backbone(name, in_chans=3, image_size=224 if "vit" in name else 32)
    parts = stages(backbone)
    listed = [id(p) for part in parts for p in part]
    assert sorted(listed) == sorted(id(p) for p in backbone.parameters())
    assert all(parts)


@pytest.mark.medium
@pytest.mark.parametrize("name", ["tiny", "dense", *TIMM])
def test_the_first_stage_sees_the_images(name: str) -> None:
    backbone = create_backbone(name, in_chans=3, image_size=224 if "vit" in name else 32)
    parts = stages(backbone)
    assert len(parts) > 2
    first = next(p for p in backbone.parameters() if p.ndim > 1 and p.shape[0] > 1)
    assert any(p is first for p in parts[0])


@pytest.mark.medium
@pytest.mark.parametrize(
    "name",
    [
        "convnext_atto",
        "torchvision:convnext_tiny",
        "torchvision:densenet121",
        "swin_tiny_patch4_window7_224",
    ],
)
def test_no_stage_only_normalises(name: str) -> None:
    backbone = create_backbone(name, in_chans=3, image_size=64)
    assert all(any(p.ndim > 1 for p in part) for part in stages(backbone))
