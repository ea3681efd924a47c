"""Classifiers and their folders: what was saved comes back, and what is damaged is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fewlabels.core.errors import ModelError
from fewlabels.core.types import Batch, Pictures
from fewlabels.models.backbones import create_backbone
from fewlabels.models.classifier import Classifier, load_model, save_model
from fewlabels.models.heads import LinearHead, MixtureHead, NeighbourHead
from fewlabels.results.seals import read_sealed, write_sealed

PICTURES = Pictures(16, 3, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
CLASSES = ("cat", "dog", "über-owl")


def batch(height: int = 20, width: int = 18) -> Batch:
    key = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 3, height, width), dtype=torch.uint8, generator=key)
    rows = torch.arange(5)
    return Batch(images, None, rows, rows * 0)


def linear(features: int) -> LinearHead:
    head = LinearHead(features, 3)
    head.mean.normal_()
    head.scale.uniform_(0.5, 2)
    return head


def neighbours(features: int) -> NeighbourHead:
    head = NeighbourHead(12, features, 5, 3, k=4, temperature=0.2)
    head.mean.normal_()
    head.turn.normal_()
    head.bank.copy_(nn.functional.normalize(torch.randn(12, 5), dim=1))
    head.votes.copy_(torch.rand(12, 3))
    return head


def mixture(features: int) -> MixtureHead:
    return MixtureHead(linear(features), neighbours(features))


HEADS: dict[str, Callable[[int], nn.Module]] = {
    "linear": linear,
    "neighbours": neighbours,
    "mixture": mixture,
}


def trained(name: str = "tiny", head: str = "linear", grid: int = 1) -> Classifier:
    torch.manual_seed(0)
    backbone = create_backbone(name, in_chans=3, image_size=16)
    with torch.no_grad():
        backbone(torch.randn(8, 3, 16, 16))  # batch statistics that are not the defaults
        width = backbone.num_features if grid == 1 else backbone.num_channels * grid**2
    return Classifier(backbone, HEADS[head](int(width)), grid=grid)


def saved(folder: Path, classifier: Classifier, name: str = "tiny") -> Path:
    save_model(
        folder,
        classifier.backbone,
        name,
        PICTURES,
        short_side=19,
        head=classifier.head,
        classes=CLASSES,
        grid=classifier.grid,
    )
    return folder


@pytest.mark.parametrize("grid", [1, 2])
@pytest.mark.parametrize("head", sorted(HEADS))
def test_what_was_saved_predicts_the_same(head: str, grid: int, tmp_path: Path) -> None:
    classifier = trained(head=head, grid=grid)
    before = classifier.probabilities(batch(), PICTURES)
    found = load_model(saved(tmp_path, classifier))
    assert found.pictures == PICTURES
    assert found.classes == CLASSES
    assert found.short_side == 19
    assert np.array_equal(found.classifier.probabilities(batch(), PICTURES), before)
    assert before.shape == (5, 3)
    assert np.allclose(before.sum(1), 1, atol=1e-5)
    assert len(np.unique(before.round(6), axis=0)) > 1


@pytest.mark.medium
@pytest.mark.parametrize("name", ["conv-32-64-128", "pixels", "mobilenetv3_small_050"])
def test_every_kind_of_backbone_comes_back(name: str, tmp_path: Path) -> None:
    classifier = trained(name)
    before = classifier.probabilities(batch(), PICTURES)
    found = load_model(saved(tmp_path, classifier, name)).classifier
    assert np.abs(found.probabilities(batch(), PICTURES) - before).max() < 1e-6


def test_saving_a_linear_head_on_a_trained_network_changes_nothing(tmp_path: Path) -> None:
    classifier = trained()
    before = {k: v.clone() for k, v in classifier.state_dict().items()}
    saved(tmp_path, classifier)
    assert all(torch.equal(v, before[k]) for k, v in classifier.state_dict().items())


def test_predicting_does_not_change_the_network() -> None:
    classifier = trained().train()
    before = {k: v.clone() for k, v in classifier.state_dict().items()}
    first = classifier.probabilities(batch(), PICTURES)
    assert np.array_equal(classifier.probabilities(batch(), PICTURES), first)
    assert all(torch.equal(v, before[k]) for k, v in classifier.state_dict().items())


def test_an_encoder_without_a_head_is_no_classifier(tmp_path: Path) -> None:
    backbone = create_backbone("tiny", in_chans=3, image_size=16)
    save_model(tmp_path, backbone, "tiny", PICTURES, short_side=16)
    found = load_model(tmp_path)
    assert found.head is None
    with pytest.raises(ModelError, match="without a classifier") as caught:
        _ = found.classifier
    assert "finetune" in caught.value.hint


def _change(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    write_sealed(path, read_sealed(path) | values)


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _garbage(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x00" * 64)


def _spoil(folder: Path, odd: float) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name, value in tensors.items() if value.ndim == 4)
    tensors[name][0, 0, 0, 0] = odd
    save_file(tensors, path)
    _change(folder, weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest())


DAMAGE: dict[str, Callable[[Path], None]] = {
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no config": lambda folder: (folder / "config.json").unlink(),
    "cut weights": _cut,
    "garbage weights": _garbage,
    "config is no JSON": lambda folder: (folder / "config.json").write_text("{", encoding="utf-8"),
    "another backbone": lambda folder: _change(folder, backbone="conv-32-64-128"),
    "unknown backbone": lambda folder: _change(folder, backbone="resnet99"),
    "other channels": lambda folder: _change(
        folder, pictures={"size": 16, "channels": 1, "mean": [0.5], "std": [0.2]}
    ),
    "other classes": lambda folder: _change(
        folder, head={"kind": "linear", "features": 192, "num_classes": 7}
    ),
    "unknown head": lambda folder: _change(folder, head={"kind": "tree"}),
    "head without weights": lambda folder: _change(
        folder,
        head={
            "kind": "neighbours",
            "entries": 2,
            "features": 192,
            "num_classes": 3,
            "k": 1,
            "temperature": 0.1,
        },
    ),
    "no pictures": lambda folder: _change(folder, pictures=None),
    "no spread": lambda folder: _change(
        folder, pictures={"size": 8, "channels": 1, "mean": [0.5], "std": [0.0]}
    ),
    "too large": lambda folder: _change(
        folder, pictures={"size": 100_000, "channels": 1, "mean": [0.5], "std": [0.2]}
    ),
    "a list for a name": lambda folder: _change(folder, backbone=[1]),
    "no numbers": lambda folder: _spoil(folder, float("nan")),
    "nothing at all": lambda folder: _change(folder, head=3),
}


@pytest.mark.parametrize("what", sorted(DAMAGE))
def test_a_damaged_model_is_refused(what: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, trained())
    load_model(folder)
    DAMAGE[what](folder)
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert caught.value.exit_code == 4


def test_nothing_is_pickled(tmp_path: Path) -> None:
    folder = saved(tmp_path, trained())
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "config.json"}
    header = (folder / "model.safetensors").read_bytes()[8:9]
    assert header == b"{"
