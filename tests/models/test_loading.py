"""Weights of timm and torchvision, saved by them, loaded by us: to the last bit, or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model

from fewlabels.core.errors import FewlabelsError, ModelError, UsageError
from fewlabels.models.loading import adapt, whole
from fewlabels.models.published import find, format_for

pytestmark = pytest.mark.medium


def timm_net(name: str = "test_resnet", **settings: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model(name, **settings).eval()


def same(first: nn.Module, second: nn.Module, size: int, channels: int = 3) -> None:
    """Check that two networks hold the same tensors and say the same."""
    ours, theirs = first.state_dict(), second.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(v, theirs[k]) for k, v in ours.items())
    x = torch.randn(2, channels, size, size)
    with torch.no_grad():
        assert torch.equal(first.eval()(x), second.eval()(x))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_that_timm_saved(tmp_path: Path, name: str, suffix: str) -> None:
    net, file = timm_net(name), tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save(net.state_dict(), file)
    else:
        save_file(net.state_dict(), file)
    weights = find(str(file), name)
    assert (weights.backbone, weights.file, weights.classes) == (name, file, ())
    loaded = whole(weights)
    same(loaded, net, 160)
    backbone = adapt(weights, loaded, weights.pictures)
    x = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        features = net.forward_head(net.forward_features(x), pre_logits=True)
        assert torch.equal(backbone.eval()(x), features)


@pytest.mark.parametrize("settings", [{"num_classes": 7}, {"num_classes": 0}, {"in_chans": 1}])
def test_a_file_of_another_task(tmp_path: Path, settings: dict[str, int]) -> None:
    net = timm_net(**settings)
    torch.save(net.state_dict(), tmp_path / "w.pth")
    weights = find(str(tmp_path / "w.pth"), "test_resnet")
    same(whole(weights), net, 160, settings.get("in_chans", 3))


def save_folder(place: Path, net: Any, **config: Any) -> Path:
    place.mkdir()
    timm.models._hub.save_for_hf(net, str(place), safe_serialization=True)
    if config:
        told = json.loads((place / "config.json").read_text())
        (place / "config.json").write_text(json.dumps(told | config))
    return place


def test_a_folder_that_timm_saved(tmp_path: Path) -> None:
    net = timm_net(num_classes=3, in_chans=1, act_layer="gelu")
    place = save_folder(tmp_path / "folder", net, label_names=["ant", "bee", "cat"])
    for start in (str(place), f"local-dir:{place}"):
        weights = find(start)
        assert weights.backbone == "test_resnet"
        assert weights.classes == ("ant", "bee", "cat")
        assert (weights.pictures.size, weights.pictures.channels) == (160, 1)
        assert (weights.pictures.crop, weights.pictures.interpolation) == (0.95, "bilinear")
        loaded = whole(weights)
        same(loaded, net, 160, 1)
        assert "GELU" in {type(part).__name__ for part in loaded.modules()}
    assert find(str(place)).options["act_layer"] == "gelu"
    assert not find(str(place)).options.keys() & {"num_classes", "in_chans"}
    with pytest.raises(UsageError, match="cannot become a resnet18"):
        find(str(place), "resnet18")


def test_grey_images_and_another_size(tmp_path: Path) -> None:
    net = timm_net("test_vit")
    torch.save(net.state_dict(), tmp_path / "w.pth")
    weights = find(str(tmp_path / "w.pth"), "test_vit")
    pictures = format_for(weights, image_size=96, channels=1)
    assert (pictures.size, pictures.channels, pictures.mean) == (96, 1, (0.5,))
    backbone = adapt(weights, whole(weights), pictures)
    kernel, before = backbone.net.patch_embed.proj.weight, net.patch_embed.proj.weight
    assert torch.allclose(kernel, before.sum(1, keepdim=True), atol=1e-6)
    assert backbone.net.pos_embed.shape[1] < net.pos_embed.shape[1]
    assert backbone(torch.zeros(1, 1, 96, 96)).shape == (1, backbone.num_features)
    with pytest.raises(UsageError, match="published weights cannot take 32x32"):
        format_for(weights, image_size=32, channels=3)


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    torch.manual_seed(0)
    net = get_model("alexnet", weights=None, num_classes=5).eval()
    file = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save(net.state_dict(), file)
    return file, net


@pytest.mark.medium
@pytest.mark.parametrize("name", ["alexnet", "torchvision:alexnet"])
def test_a_checkpoint_of_torchvision(alexnet: tuple[Path, nn.Module], name: str) -> None:
    file, net = alexnet
    weights = find(str(file), name)
    loaded = whole(weights)
    same(loaded, net, 96)
    grey = format_for(weights, image_size=96, channels=1)
    backbone = adapt(weights, loaded, grey).eval()
    picture = torch.randn(2, 1, 96, 96)
    with torch.no_grad():
        features = backbone(picture)
        logits = features @ net.classifier[-1].weight.T + net.classifier[-1].bias
        expected = net(picture.expand(-1, 3, -1, -1))
    assert torch.allclose(logits, expected, atol=1e-5)


@pytest.mark.medium
def test_auxiliary_classifiers_are_left_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = get_model("googlenet", weights=None, num_classes=4, aux_logits=True, init_weights=True)
    torch.save(net.state_dict(), tmp_path / "w.pth")
    loaded = whole(find(str(tmp_path / "w.pth"), "torchvision:googlenet")).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(x), net.eval()(x))


@pytest.mark.medium
def test_a_torchvision_file_of_a_network_that_timm_has_as_well(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = get_model("resnet18", weights=None, num_classes=9).eval()
    torch.save(net.state_dict(), tmp_path / "w.pth")
    loaded = whole(find(str(tmp_path / "w.pth"), "resnet18")).eval()
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        assert torch.allclose(loaded(x), net(x), atol=1e-5)


def refused(start: Path, backbone: str = "auto") -> FewlabelsError:
    with pytest.raises(FewlabelsError) as caught:
        whole(find(str(start), backbone))
    return caught.value


def test_another_architecture(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save(timm_net("test_vit").state_dict(), file)
    for backbone in ("test_resnet", "resnet18", "torchvision:squeezenet1_1"):
        error = refused(file, backbone)
        assert (error.code, error.exit_code) == ("model.architecture", 4)
        assert f"does not hold the weights of a {backbone}" in error.message
    wide = tmp_path / "wide.pth"
    state = timm_net().state_dict()
    torch.save({**state, "layer1.0.conv1.weight": torch.zeros(1, 1, 3, 3)}, wide)
    assert "1 have another shape" in refused(wide, "test_resnet").message
    torch.save({k: v for k, v in state.items() if k != "layer1.0.conv1.weight"}, wide)
    assert "1 are missing" in refused(wide, "test_resnet").message


def test_a_file_that_does_not_say_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save(timm_net().state_dict(), file)
    assert "--backbone" in refused(file).hint
    assert refused(file, "resnte18").code == "usage.backbone"
    assert refused(file, "tiny").code == "usage.backbone"
    torch.save({"arch": "test_resnet", "state_dict": timm_net().state_dict()}, file)
    same(whole(find(str(file))), timm_net(), 160)
    assert refused(tmp_path / "gone.pth").exit_code == 4


def test_folders_that_are_damaged(tmp_path: Path) -> None:
    place = save_folder(tmp_path / "folder", timm_net())
    config = json.loads((place / "config.json").read_text())
    for broken, said in (
        ({"architecture": "resnet-99"}, "knows no"),
        ({"pretrained_cfg": {"input_size": 3}}, "config.json"),
        ({"num_classes": "many"}, "config.json"),
        ({"pretrained_cfg": [1]}, "config.json"),
        ({"model_args": [2]}, "config.json"),
        ({"label_names": 5}, "config.json"),
        ({"pretrained_cfg": {"std": [0, 0, 0]}}, "every std is above 0"),
        ({"pretrained_cfg": {"mean": [float("nan")] * 3}}, "config.json"),
        ({"pretrained_cfg": {"input_size": [3, 100_000, 100_000]}}, "sides are 1 to"),
        ({"pretrained_cfg": {"crop_pct": 1e-9}}, "crop 1e-09"),
        ({"num_classes": 12}, "size mismatch for fc"),
        ({"model_args": {"layers": [2, 1, 1, 1]}}, "12 are missing"),
        ({"model_args": {"legs": 4}}, "legs"),
    ):
        (place / "config.json").write_text(json.dumps(config | broken))
        error = refused(place)
        assert error.exit_code == 4, error
        assert said in error.message
    (place / "config.json").write_text(json.dumps(config))
    (place / "model.safetensors").write_bytes(b"x")
    assert refused(place).code == "model.damaged"
    (place / "model.safetensors").unlink()
    assert "holds no weights" in refused(place).message


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(tmp_path: Path, odd: float) -> None:
    net = timm_net()
    net.layer2[0].conv1.weight.data[0, 0, 0, 0] = odd
    torch.save(net.state_dict(), tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"the tensor layer2.0.conv1.weight holds") as caught:
        whole(find(str(tmp_path / "w.pth"), "test_resnet"))
    assert caught.value.exit_code == 4


def test_names_that_nobody_has_published() -> None:
    for name, said in (("tiny", "no published weights"), ("resnet81", "unknown start")):
        with pytest.raises(UsageError, match=said):
            find(name)
    with pytest.raises(ModelError, match="no run folder"):
        find("runs/none")


@pytest.mark.medium
def test_a_download_that_fails_names_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*given: Any, **asked: Any) -> Any:
        assert asked["weights_only"] is True
        raise OSError("Network is unreachable")

    import torchvision.models._api

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", offline)
    weights = find("torchvision:alexnet")
    assert (weights.num_classes, len(set(weights.classes))) == (1000, 1000)
    with pytest.raises(ModelError, match="torchvision:alexnet cannot be had: Network"):
        whole(replace(weights))


def test_without_a_network_the_hub_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own client would ask six times, wait more than 20 seconds and warn each time."""
    from huggingface_hub import constants

    asked: list[str] = []

    class Client:
        def head(self, url: str, **_settings: Any) -> None:
            asked.append(url)
            raise OSError("Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.get_session", Client)
    with pytest.raises(
        ModelError, match=r"does not answer \(Name or service not known\)"
    ) as caught:
        whole(find("resnet18"))
    assert caught.value.exit_code == 4
    assert asked == [constants.ENDPOINT]
    assert "Retrying" not in "".join(capsys.readouterr())


def test_a_long_reason_ends_at_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_name: str) -> None:
        raise OSError("sentences " * 60)

    monkeypatch.setattr("fewlabels.models.loading.refuse_silence", refuse)
    with pytest.raises(ModelError, match=r"sentences \.\.\.\n"):
        whole(find("resnet18"))
