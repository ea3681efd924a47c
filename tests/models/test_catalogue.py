"""What can be started from: counted right, known where it is, null where it is not known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fewlabels.models import catalogue
from fewlabels.models.catalogue import count


def test_counting_against_a_count_by_hand() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16 * 16, 5)
    )
    convolution, linear = 3 * 8 * 9 * 16 * 16, 8 * 16 * 16 * 5
    assert count(net, [3, 32, 32]) == {
        "parameters": 3 * 8 * 9 + 8 + linear + 5,
        "macs": convolution + linear,
    }


def test_ours() -> None:
    (row,) = catalogue.catalogue("conv-32-64-64-dense")
    maps = (3 * 32 * 32**2, 32 * 64 * 16**2, 64 * 64 * 8**2)
    assert row["macs"] == 9 * sum(maps) + 64 * 8 * 8 * 64
    assert (row["available"], row["published_accuracy"], row["fit"]) == (True, None, None)


@pytest.mark.medium
def test_torchvision_tells_and_timm_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    rows = {row["name"]: row for row in catalogue.catalogue("alexnet")}
    alexnet = rows["torchvision:alexnet.imagenet1k_v1"]
    assert alexnet["parameters"] == 61_100_840
    assert alexnet["published_accuracy"] == pytest.approx(0.56522)
    assert alexnet["input_size"] == [3, 224, 224]
    assert alexnet["available"] is False
    assert catalogue.catalogue("alexnet", available=True) == []
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/alexnet-owt-7be5be79.pth").touch()
    assert catalogue.catalogue("alexnet", available=True) == [{**alexnet, "available": True}]
    (timm_row,) = catalogue.catalogue("test_resnet")
    assert (timm_row["published_accuracy"], timm_row["licence"]) == (None, "apache-2.0")
    assert timm_row["parameters"] == 469_688
    assert 1e7 < timm_row["macs"] < 1e9


@pytest.mark.medium
def test_what_lies_in_the_hub_cache_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert catalogue.catalogue("test_vit.", available=True) == []
    repo = tmp_path / "models--timm--test_vit.r160_in1k"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs/main").write_text("abc")
    (repo / "snapshots/abc").mkdir(parents=True)
    assert catalogue.catalogue("test_vit.", available=True) == []
    (repo / "snapshots/abc/model.safetensors").touch()
    (row,) = catalogue.catalogue("test_vit.", available=True)
    assert row["name"] == "test_vit.r160_in1k"
