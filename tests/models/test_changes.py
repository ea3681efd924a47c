"""Declared changes of an architecture: what is asked for is built, all else is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fewlabels.core.errors import ModelError, UsageError
from fewlabels.core.types import Pictures
from fewlabels.models.backbones import create_backbone
from fewlabels.models.classifier import load_model, save_model
from fewlabels.models.small import SmallCNN
from fewlabels.results.files import read_json, to_json
from fewlabels.results.seals import read_sealed, write_sealed


def built(name: str = "conv-32-64-64", size: int = 16, **options: Any) -> Any:
    return create_backbone(name, in_chans=3, image_size=size, options=options)


def test_no_change_is_no_change() -> None:
    torch.manual_seed(0)
    first = built("tiny").state_dict()
    torch.manual_seed(0)
    second = built("tiny", norm=True).state_dict()
    assert all(torch.equal(v, second[k]) for k, v in first.items())


def test_every_setting_of_a_small_network() -> None:
    net = built(
        **{"channels": [8, 12], "strides": [2], "pool": [False, True], "norm": True},
        **{"pooling": "avg", "activation": "gelu", "grid": 2, "dense": 10},
    )
    assert isinstance(net, SmallCNN)
    kinds = [[type(part) for part in block] for block in net.blocks]
    assert kinds[0] == [nn.Conv2d, nn.BatchNorm2d, nn.GELU]
    assert kinds[1] == [*kinds[0], nn.AvgPool2d]
    assert net.blocks[0][0].stride == (2, 2)
    assert net(torch.zeros(2, 3, 16, 16)).shape == (2, 10)
    assert net.options["pooling"] == "avg"


def test_a_longer_stack_goes_on_without_shrinking() -> None:
    net = built(channels=[8, 8, 8, 8, 8])
    assert net.forward_features(torch.zeros(1, 3, 16, 16)).shape == (1, 8, 4, 4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"chanels": [8]}, "chanels"),
        ({"channels": []}, "channels"),
        ({"channels": [0]}, "channels"),
        ({"activation": "swish"}, "activation"),
        ({"in_chans": 1}, "in_chans"),
    ],
)
def test_settings_that_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        built(**options)
    with pytest.raises(UsageError, match="no settings"):
        built("pixels", **options)


def test_settings_of_timm() -> None:
    net = built("test_resnet", size=96, act_layer="gelu", layers=[2, 1, 1, 1])
    names = {type(part).__name__ for part in net.net.modules()}
    assert "GELU" in names
    assert "ReLU" not in names
    assert len(net.net.layer1) == 2
    with pytest.raises(UsageError, match=r"changed to \{legs: 4\}: .*'legs'"):
        built("test_resnet", size=96, legs=4)
    # timm answers these with a KeyError of one word, and with an assertion that says nothing.
    for wrong in ({"act_layer": "nosuch"}, {"output_stride": 7}):
        with pytest.raises(UsageError, match="it knows no such value") as caught:
            built("test_resnet", size=96, **wrong)
        assert all(f"{key}: {value}" in caught.value.message for key, value in wrong.items())
    for name in ("pretrained", "checkpoint_path", "num_classes", "pretrained_cfg_overlay"):
        with pytest.raises(UsageError, match="--from settle"):
            built("test_resnet", size=96, **{name: 1})


def test_a_changed_network_comes_back_from_its_folder(tmp_path: Path) -> None:
    net = built(channels=[8, 12], activation="tanh").eval()
    pictures = Pictures(16, 3, (0.5,) * 3, (0.2,) * 3, 0.9, "bilinear")
    save_model(tmp_path, net, "conv-32-64-64", pictures, short_side=16)
    saved = load_model(tmp_path)
    x = torch.randn(2, 3, 16, 16)
    assert torch.allclose(saved.backbone(x), net(x), atol=1e-6)
    assert saved.pictures == pictures
    assert saved.backbone.options == {"channels": [8, 12], "activation": "tanh"}
    config = read_sealed(tmp_path / "config.json")
    config["options"] = {"checkpoint_path": "/etc/passwd"}
    write_sealed(tmp_path / "config.json", config)
    with pytest.raises(ModelError):
        load_model(tmp_path)


def test_folders_from_before_had_no_options(tmp_path: Path) -> None:
    net = built().eval()
    pictures = Pictures(16, 3, (0.5,) * 3, (0.2,) * 3)
    save_model(tmp_path, net, "conv-32-64-64", pictures, short_side=16)
    config = read_json(tmp_path / "config.json")
    del config["options"], config["pictures"]["crop"], config["pictures"]["interpolation"]
    del config["seal"], config["weights_sha256"]
    (tmp_path / "config.json").write_text(to_json(config))
    assert load_model(tmp_path).pictures == pictures
