"""Somebody else's weights on their whole way: started from, changed, predicted with, given away."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torchvision.models import get_model

import fewlabels
from fewlabels.cli import main
from fewlabels.core.errors import FewlabelsError, ModelError, UsageError
from fewlabels.core.types import Pictures
from fewlabels.data.augment import plain
from fewlabels.models.backbones import create_backbone
from fewlabels.models.classifier import load_model, save_model
from fewlabels.models.heads import LinearHead
from fewlabels.pipeline.choosing import models
from fewlabels.pipeline.export import export
from fewlabels.pipeline.predict import Predictor, as_batch, load, predict_table
from fewlabels.pipeline.stages import learned_rows
from fewlabels.pipeline.task import DataOptions, Task
from fewlabels.pipeline.verbs import evaluate, finetune
from fewlabels.results.runfolder import RunFolder
from fewlabels.training.progress import Reporter

pytestmark = pytest.mark.medium

QUIET = Reporter(quiet=True)
Run = tuple[Path, dict[str, Any]]


def fit(data: DataOptions, out: Path, **settings: Any) -> dict[str, Any]:
    defaults = {"budget": "2 steps", "device": "cpu", "labels": 4, "out": out, "reporter": QUIET}
    return finetune(data, **defaults | settings)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as timm saves it, of three classes, for images of 72 pixels."""
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("timm") / "net"
    net = timm.create_model("test_resnet", num_classes=3)
    timm.models._hub.save_for_hf(net, str(place), safe_serialization=True)
    config = json.loads((place / "config.json").read_text())
    config["pretrained_cfg"] |= {"input_size": [3, 224, 224], "crop_pct": 0.875}
    config["pretrained_cfg"] |= {"interpolation": "bicubic", "mean": [0.4, 0.5, 0.6]}
    config["label_names"] = ["ant", "bee", "cat"]
    (place / "config.json").write_text(json.dumps(config))
    return place


@pytest.mark.medium
def test_from_a_folder_to_a_classifier_and_back_to_timm(
    pictures: DataOptions, folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    options = replace(pictures, image_size=72)
    result = fit(options, run, start=str(folder), transfer="logistic", labels=8)
    skipped = {row["name"] for row in result["tensors"] if row["fate"] == "skipped"}
    assert skipped == {"net.fc.weight", "net.fc.bias"}
    assert (result["carried"]["reshaped"], result["carried"]["new"]) == (0, 4)
    assert any("does not tell which images" in text for text in result["warnings"])
    saved = load_model(run / "model")
    assert (saved.pictures.crop, saved.pictures.mean) == (0.875, (0.4, 0.5, 0.6))
    assert evaluate(run, reporter=QUIET)["n"] > 0

    out = tmp_path / "out"
    told = export(run, out=out)
    assert told["bytes"] == sum(path.stat().st_size for path in out.iterdir())
    assert told["max_abs_difference"] < 1e-4
    net = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    x = torch.randn(4, 3, 72, 72)
    with torch.no_grad():
        torch.testing.assert_close(net(x), saved.classifier.eval()(x), atol=1e-4, rtol=0)
    assert net.pretrained_cfg["crop_pct"] == 0.875
    assert list(net.pretrained_cfg["mean"]) == [0.4, 0.5, 0.6]
    file = Path(pictures.data) / "a/000.png"
    ours, theirs = load(run).predict_proba(file), load(out).predict_proba(file)
    assert load(out).classes_.tolist() == ["a", "b"]
    np.testing.assert_allclose(ours, theirs, atol=0.05)  # shrunk to other sizes on the way
    with pytest.raises(UsageError, match="is there already"):
        export(run, out=out)


@pytest.mark.medium
def test_grey_images_sum_the_first_kernels(
    pictures: DataOptions, folder: Path, tmp_path: Path
) -> None:
    for path in Path(pictures.data).glob("*/*.png"):
        target = tmp_path / "grey" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).convert("L").save(target)
    grey = DataOptions(str(tmp_path / "grey"), image_size=72)
    result = fit(grey, tmp_path / "run", start=str(folder), transfer="centroid")
    reshaped = [row for row in result["tensors"] if row["fate"] == "reshaped"]
    assert [row["before"][1] for row in reshaped] == [3]
    assert [row["shape"][1] for row in reshaped] == [1]
    assert load_model(tmp_path / "run/model").pictures.mean == (0.5,)


def test_the_weights_as_they_are(folder: Path, tmp_path: Path) -> None:
    """The same pixels as timm's own evaluation transform, and the same logits."""
    rng = np.random.default_rng(0)
    soft = Image.fromarray(rng.integers(0, 256, (16, 12, 3), dtype=np.uint8))
    soft.resize((384, 512), Image.Resampling.BICUBIC).save(tmp_path / "photo.png")
    predictor = load(str(folder))
    assert isinstance(predictor, Predictor)
    assert predictor.classes_.tolist() == ["ant", "bee", "cat"]
    predictor._bf16 = False
    found = predictor.predict_proba([tmp_path / "photo.png"])
    net: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    view = timm.data.create_transform(**timm.data.resolve_model_data_config(net))
    with torch.no_grad():
        x = view(Image.open(tmp_path / "photo.png"))[None]
        expected = net(x).softmax(1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    (row,) = predict_table(folder, [tmp_path / "photo.png"])
    assert row["label"] in ("ant", "bee", "cat")


def test_what_cannot_predict(classifier: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a tiny, and cannot become a resnet18"):
        load(classifier[0], backbone="resnet18")
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=0)
    torch.save(net.state_dict(), tmp_path / "w.pth")
    with pytest.raises(ModelError, match="no classifier of its own"):
        load(tmp_path / "w.pth", backbone="test_resnet")
    with pytest.raises(ModelError, match="nobody published"):
        load("rnu")
    torch.save(timm.create_model("test_resnet", num_classes=4).state_dict(), tmp_path / "w.pth")
    assert load(tmp_path / "w.pth", backbone="test_resnet").classes_.tolist() == list("0123")


@pytest.mark.parametrize("verb", ["finetune", "predict"])
def test_a_file_with_code_in_it_runs_nothing(
    pictures: DataOptions, tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {mark}",)

    evil = tmp_path / "evil.pth"
    torch.save({"fc.weight": torch.ones(2, 2), "x": Evil()}, evil)
    words = {
        "finetune": ["finetune", pictures.data, "--from", str(evil), "--image-size", "72"],
        "predict": ["predict", str(evil), f"{pictures.data}/a/000.png"],
    }[verb]
    out = ["--out", str(tmp_path / "out")]
    assert main([*words, "--backbone", "test_resnet", *out]) == 4
    assert "error[model.unsafe]" in capsys.readouterr().err
    assert not mark.exists()
    assert not (tmp_path / "out").exists()


def model_folder(place: Path, name: str, size: int, head: Any = None, **options: Any) -> Path:
    torch.manual_seed(0)
    backbone = create_backbone(name, in_chans=1, image_size=size, options=options)
    pictures = Pictures(size, 1, (0.5,), (0.2,), 0.9)
    classes = ("a", "b", "c") if head else ()
    if head == "linear":
        head = LinearHead(backbone.num_features, 3)
        head.mean.normal_()
        head.scale.uniform_(0.5, 2)
    save_model(place, backbone, name, pictures, short_side=size, head=head, classes=classes)
    return place


@pytest.mark.medium
@pytest.mark.parametrize(
    ("name", "head", "options"),
    [
        ("test_vit", "linear", {}),
        ("test_convnext", "linear", {}),
        ("test_resnet.r160_in1k", None, {"layers": [2, 1, 1, 1], "act_layer": "gelu"}),
    ],
)
def test_export_of_other_networks(
    tmp_path: Path, name: str, head: str | None, options: dict[str, Any]
) -> None:
    place = model_folder(tmp_path / "model", name, 96, head, **options)
    told = export(place, out=tmp_path / "out")
    assert told["max_abs_difference"] < 1e-4
    net = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    saved = load_model(place)
    x = torch.randn(2, 1, 96, 96)
    with torch.no_grad():
        expected = saved.classifier(x) if head else saved.backbone(x)
        torch.testing.assert_close(net(x), expected, atol=1e-4, rtol=0)


def test_what_cannot_be_exported(classifier: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tiny is no network of timm's"):
        export(classifier[0], out=tmp_path / "out")
    with pytest.raises(UsageError, match="unknown format"):
        export(classifier[0], format="onyx", out=tmp_path / "out")
    stem = model_folder(tmp_path / "stem", "resnet18", 32, "linear")
    with pytest.raises(UsageError, match="its stem is ours"):
        export(stem, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.medium
def test_a_declared_change_of_structure(
    pictures: DataOptions, encoder: Run, folder: Path, tmp_path: Path
) -> None:
    change = {"channels": [32, 64, 96, 128, 160], "activation": "gelu", "pooling": "avg"}
    settings = {"transfer": "structure", "change": change}
    result = fit(pictures, tmp_path / "small", start=str(encoder[0]), **settings)
    fates = {row["name"]: row["fate"] for row in result["tensors"]}
    assert fates["blocks.0.0.weight"] == "carried"
    assert fates["blocks.2.1.weight"] == "reshaped"
    assert fates["blocks.4.0.weight"] == "new"
    options = load_model(tmp_path / "small/model").backbone.options
    assert options == change
    again = fit(
        pictures,
        tmp_path / "again",
        start=str(tmp_path / "small"),
        transfer="structure",
        change={"activation": "tanh"},
    )
    assert (again["carried"]["reshaped"], again["carried"]["skipped"]) == (0, 0)
    assert load_model(tmp_path / "again/model").backbone.options == change | {"activation": "tanh"}

    deeper = {"transfer": "structure", "change": {"layers": [2, 1, 1, 1]}}
    result = fit(pictures, tmp_path / "timm", start=str(folder), **deeper)
    assert result["backbone"] == "test_resnet"
    fates = {row["name"]: row["fate"] for row in result["tensors"]}
    assert fates["net.layer1.0.conv1.weight"] == "carried"
    assert fates["net.layer1.1.conv1.weight"] == "new"
    assert fates["net.fc.weight"] == "skipped"
    scratch = {"start": "scratch", "backbone": "conv-32-64-64", "change": {"channels": [8]}}
    assert fit(pictures, tmp_path / "scratch", **scratch)["parameters"] < 1000


@pytest.mark.medium
def test_scores_of_what_is_here(
    pictures: DataOptions, encoder: Run, folder: Path, tmp_path: Path
) -> None:
    starts = [str(encoder[0]), str(folder)]
    settings = {"available": True, "fit": pictures, "labels": 4, "device": "cpu"}
    rows = models("conv-32-64-64", starts=starts, reporter=QUIET, **settings)
    scored = [row for row in rows if row["fit"]]
    assert {row["name"] for row in scored} >= {*starts[:2], "conv-32-64-64"}
    values = [row["fit"]["logme"] for row in scored]
    assert values == sorted(values, reverse=True)
    assert all(row["fit"]["labels"] == 8 for row in scored)
    run = next(row for row in rows if row["name"] == starts[0])
    assert run["input_size"] == [3, 16, 16]
    assert run["parameters"] > 0
    with pytest.raises(UsageError, match="--fit names no data"):
        models(starts=starts)


def test_a_start_that_is_named_and_not_there(pictures: DataOptions, tmp_path: Path) -> None:
    """Refused before anything is scored, and not listed as if it were there."""
    said: list[str] = []
    reporter = Reporter(quiet=True)
    reporter.say = said.append  # type: ignore[method-assign]
    for start in (str(tmp_path / "gone.pth"), "nothere"):
        with pytest.raises(FewlabelsError):
            models("tiny", starts=[start], fit=pictures, device="cpu", reporter=reporter)
    assert not said


def test_a_bare_file_is_scored_as_what_it_is_said_to_be(
    pictures: DataOptions, tmp_path: Path
) -> None:
    file = tmp_path / "w.pth"
    torch.save(timm.create_model("test_resnet", num_classes=4).state_dict(), file)
    settings = {"available": True, "fit": replace(pictures, image_size=72), "device": "cpu"}
    settings |= {"starts": [str(file)], "labels": 4, "reporter": QUIET}
    with pytest.raises(UsageError, match="does not say what it holds"):
        models("pixels", **settings)
    rows = models("pixels", backbone="test_resnet", **settings)
    (row,) = (row for row in rows if row["name"] == str(file))
    assert row["fit"]["labels"] == 8


@pytest.mark.parametrize(
    ("pattern", "available", "told"),
    [
        ("nosuchthing", False, "no name has 'nosuchthing' in it"),
        ("resnt18", False, "did you mean resnet18"),
        ("resnet18.a1", True, "without --available"),
    ],
)
def test_an_empty_list_says_why(pattern: str, available: bool, told: str) -> None:
    said: list[str] = []
    reporter = Reporter(quiet=True)
    reporter.say = said.append  # type: ignore[method-assign]
    assert models(pattern, available=available, reporter=reporter) == []
    assert len(said) == 1
    assert told in said[0]


@pytest.mark.medium
def test_the_score_reads_no_hidden_label(
    pictures: DataOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the visible ones are drawn, the others may say what they like."""
    settings: dict[str, Any] = {"fit": pictures, "labels": 6, "device": "cpu", "reporter": QUIET}
    first = models("conv-32-64-64", available=True, **settings)

    def spoiled(task: Task, labels: int | None, seed: int) -> np.ndarray:
        rows = learned_rows(task, labels, seed)
        hidden = ~np.isin(np.arange(len(task.dataset.labels)), rows)
        changed = np.where(hidden, 1 - task.dataset.labels, task.dataset.labels)
        object.__setattr__(task.dataset, "labels", changed)
        return rows

    monkeypatch.setattr("fewlabels.pipeline.choosing.learned_rows", spoiled)
    assert models("conv-32-64-64", available=True, **settings) == first
    assert all(row["fit"]["labels"] == 12 for row in first)


def test_from_python(folder: Path) -> None:
    assert fewlabels.load(folder).classes_.tolist() == ["ant", "bee", "cat"]


def noise(place: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (240, 260, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(place)
    return place


def test_explaining_published_weights(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Maps of the images that are named, in a folder of their own; no neighbours."""
    monkeypatch.chdir(tmp_path)
    picture = str(noise(tmp_path / "a.png"))
    words = ["explain", str(folder), picture, "--class", "bee", "--maps", "grad_cam"]
    assert main([*words, "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["looks_at_test"], found["embedding"]) == (None, None)
    assert found["weights"] == str(folder)
    (row,) = found["images"]
    assert (row["explained"], row["neighbours"]) == ("bee", [])
    assert row["predicted"] in ("ant", "bee", "cat")
    reasons = {check["map"]: check["reason"] for check in found["maps"]}
    assert not any("not possible" in reason for reason in reasons.values())
    shown = {check["map"] for check in found["maps"] if check["shown"]}
    with np.load(found["arrays"]) as arrays:
        assert shown <= set(arrays.files)
        assert arrays["views"].shape == (1, 224, 224, 3)
        assert arrays["filters"].ndim == 4
    place = Path(found["run"])
    assert place == Path("runs/explain-net-1")
    assert RunFolder(place).verify() == []
    assert main(["explain", str(folder)]) == 2
    assert "knows no images" in capsys.readouterr().err
    assert main([*words, "--split", "val"]) == 2
    assert main(["explain", "runs/none", picture]) == 4
    assert main(["explain", "rnu", picture]) == 4
    assert [one.name for one in Path("runs").iterdir()] == ["explain-net-1"]


@pytest.mark.parametrize(
    ("name", "cells"), [("test_resnet", 5), ("test_convnext", 5), ("test_efficientnet", 5)]
)
def test_grad_cam_of_weights_as_they_are_is_captums_own(
    tmp_path: Path, name: str, cells: int
) -> None:
    """Against LayerGradCam on the plain network, watched at the layer that gives its last map."""
    torch.manual_seed(0)
    net: Any = timm.create_model(name, num_classes=3).eval()
    torch.save(net.state_dict(), tmp_path / "w.pth")
    model = load(tmp_path / "w.pth", backbone=name, device="cpu")
    file = noise(tmp_path / "a.png")
    found = model.saliency(file, "grad_cam", label="1")
    x = plain(as_batch([model._picture(file)], 3, model.device), model.pictures)
    features = net.forward_features(x).detach().requires_grad_(True)
    assert features.shape[2:] == (cells, cells)
    net.forward_head(features)[0, 1].backward()
    weights = features.grad.mean((2, 3), keepdim=True)
    small = (weights * features).sum(1, keepdim=True).relu()
    size = model.pictures.size
    wide = torch.nn.functional.interpolate(small, size=(size, size), mode="bilinear")[0, 0]
    expected = (wide / wide.max()).detach().numpy()
    np.testing.assert_allclose(found[0], expected, atol=1e-4)


@pytest.mark.parametrize("name", ["alexnet", "squeezenet1_1", "mobilenet_v3_small"])
def test_grad_cam_of_torchvisions_weights(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    net = get_model(name, weights=None, num_classes=4).eval()
    torch.save(net.state_dict(), tmp_path / "w.pth")
    model = load(tmp_path / "w.pth", backbone=f"torchvision:{name}", device="cpu")
    file = noise(tmp_path / "a.png")
    found = model.saliency(file, "grad_cam", label="2")
    assert found.shape == (1, 224, 224)
    assert np.isfinite(found).all()
    x = plain(as_batch([model._picture(file)], 3, model.device), model.pictures)
    model._bf16 = False
    with torch.no_grad():
        expected = net(x).softmax(1).numpy()
    np.testing.assert_allclose(model.predict_proba(file), expected, atol=1e-5)


def test_tokens_have_no_map_and_that_is_said(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit", num_classes=3).state_dict(), tmp_path / "w.pth")
    model = load(tmp_path / "w.pth", backbone="test_vit", device="cpu")
    file = noise(tmp_path / "a.png")
    with pytest.raises(ModelError, match="tokens or numbers"):
        model.saliency(file, "grad_cam")
    assert np.isfinite(model.saliency(file, "integrated_gradients")).all()
