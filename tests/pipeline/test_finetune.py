"""`finetune` and `evaluate`: what is started from, what is read, what is counted."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fewlabels.core.errors import DataError, ModelError, UsageError
from fewlabels.models.classifier import load_model
from fewlabels.pipeline import counting, stages
from fewlabels.pipeline.task import DataOptions, open_task
from fewlabels.pipeline.verbs import evaluate, finetune
from fewlabels.report import write_report
from fewlabels.results.files import read_json
from fewlabels.results.runfolder import RunFolder
from fewlabels.training.progress import Reporter

QUIET = Reporter(quiet=True)
Run = tuple[Path, dict[str, Any]]


def fit(data: DataOptions, out: Path, **settings: Any) -> dict[str, Any]:
    return finetune(
        data,
        **{"budget": "4 steps", "device": "cpu", "out": out, "reporter": QUIET} | settings,
    )


def test_features_of_a_run(encoder: Run, classifier: Run) -> None:
    out, result = classifier
    assert (result["transfer"], result["start"]) == ("logistic", str(encoder[0]))
    assert result["labels"] == {"a": 8, "b": 8}
    assert result["method"] == "autoencoder"
    tensors = len(load_model(out / "model").backbone.state_dict())
    assert result["carried"] == {"carried": tensors, "reshaped": 0, "new": 4, "skipped": 0}
    assert result["val"]["split"] == "val"
    assert result["val"]["accuracy"]["value"] > 0.8
    saved, start = load_model(out / "model"), load_model(encoder[0] / "model")
    assert saved.classes == ("a", "b")
    assert saved.pictures == start.pictures
    assert RunFolder(out).verify() == []


@pytest.mark.parametrize("start", ["run", "scratch", "random"])
def test_parameters(pictures: DataOptions, encoder: Run, tmp_path: Path, start: str) -> None:
    name = str(encoder[0]) if start == "run" else start
    backbone = "auto" if start == "run" else "tiny"
    result = fit(pictures, tmp_path / "run", start=name, backbone=backbone, labels=8)
    assert (result["steps"], result["images_seen"]) == (4, 256)
    task = open_task(pictures, policy="auto", device="cpu", reporter=QUIET)
    net = stages.new_backbone(task, "tiny", 0)
    forward, head = counting.feature_adds(task, net), net.num_features * 2
    extracted = 0 if start == "scratch" else len(task.dataset.rows("train")) * forward
    trained = result["multiply_adds"] - extracted
    # Forward, and back for weights and for inputs, of which images need none.
    assert 256 * 2 * forward < trained < 256 * 3 * (forward + head)
    assert (result["carried"]["carried"] > 0) == (start == "run")
    assert result["final"].keys() == {"loss", "train_accuracy"}
    assert not list((tmp_path / "run/checkpoints").glob("step-*"))
    again = fit(pictures, tmp_path / "run", start=name, backbone=backbone, labels=8)
    assert again["already_done"] is True


def test_the_head_alone(pictures: DataOptions, encoder: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    fit(pictures, out, start=str(encoder[0]), labels=8, tune="head")
    saved, start = load_model(out / "model"), load_model(encoder[0] / "model")
    other = start.backbone.state_dict()
    assert all(torch.equal(v, other[k]) for k, v in saved.backbone.state_dict().items())
    with pytest.raises(UsageError):
        fit(pictures, out, start=str(encoder[0]), labels=8, tune="all")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tune": "heads"}, "head"),
        ({"layer_decay": 0.0}, "layer-decay"),
        ({"layer_weight_decay": 1.5}, "layer-weight-decay"),
        ({"l2_sp": -1.0}, "l2-sp"),
        ({"stages": [1]}, "frozen features"),
        ({"stages": [9], "transfer": "logistic"}, "has . stages"),
        ({"tune": "head", "start": "scratch"}, "--tune"),
        ({"tune": "last", "transfer": "features"}, "--tune"),
    ],
)
def test_settings_of_a_tuning_that_make_no_sense(
    pictures: DataOptions, encoder: Run, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        fit(pictures, tmp_path / "run", **{"start": str(encoder[0]), "labels": 8} | changes)
    assert not (tmp_path / "run").exists()


def test_all_training_labels_and_none_of_validation(pictures: DataOptions, tmp_path: Path) -> None:
    result = fit(pictures, tmp_path / "run", start="random", transfer="features", backbone="pixels")
    splits = result["inspect"]["splits"]
    assert sum(result["labels"].values()) == splits["train"]
    assert result["val"]["n"] == splits["val"]


def test_what_cannot_be_started_from(pictures: DataOptions, encoder: Run, tmp_path: Path) -> None:
    run, out = str(encoder[0]), tmp_path / "run"
    with pytest.raises(UsageError, match="no weights to carry over"):
        fit(pictures, out, start="random", transfer="structure")
    with pytest.raises(UsageError, match="nothing of"):
        fit(pictures, out, start=run, transfer="structure", backbone="dense")
    with pytest.raises(UsageError, match="--change makes another architecture"):
        fit(pictures, out, start=run, change={"channels": [8]})
    with pytest.raises(UsageError, match="unknown transfer"):
        fit(pictures, out, start=run, transfer="featurs")
    with pytest.raises(UsageError, match="no features"):
        fit(pictures, out, start="scratch", transfer="features")
    with pytest.raises(UsageError, match="unknown start"):
        fit(pictures, out, start="resnet81")
    with pytest.raises(UsageError, match="no published weights"):
        fit(pictures, out, start="tiny")
    with pytest.raises(UsageError, match="takes 16"):
        fit(replace(pictures, image_size=32), out, start=run)
    with pytest.raises(UsageError, match="cannot become"):
        fit(pictures, out, start=run, backbone="resnet18")
    with pytest.raises(ModelError, match="no run folder"):
        fit(pictures, out, start="runs/none")
    with pytest.raises(DataError, match="--labels 500"):
        fit(pictures, out, start=run, labels=500)
    with pytest.raises(DataError, match="no image"):
        fit(replace(pictures, data=str(Path(pictures.data) / "a")), out, start=run)
    assert not out.exists()


def test_the_structure_of_a_run_becomes_another(
    pictures: DataOptions, encoder: Run, tmp_path: Path
) -> None:
    """Other channels, another size and another depth, with what fits carried over."""
    from PIL import Image

    for path in Path(pictures.data).glob("*/*.png"):
        target = tmp_path / "grey" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).convert("L").save(target)
    grey = DataOptions(str(tmp_path / "grey"), image_size=32)
    run = str(encoder[0])
    result = fit(grey, tmp_path / "same", start=run, transfer="structure", labels=8)
    assert result["backbone"] == "tiny"
    assert result["carried"]["carried"] > 0
    first = next(row for row in result["tensors"] if row["name"] == "blocks.0.0.weight")
    assert (first["fate"], first["shape"][1], first["before"][1]) == ("reshaped", 1, 3)
    saved = load_model(tmp_path / "same/model")
    assert (saved.pictures.channels, saved.pictures.size) == (1, 32)
    other = fit(
        grey,
        tmp_path / "other",
        start=run,
        transfer="structure",
        backbone="conv-32-64-64",
        labels=8,
    )
    assert other["backbone"] == "conv-32-64-64"
    assert other["carried"]["new"] > 0
    assert load_model(tmp_path / "other/model").classifier.head is not None


def test_a_colour_encoder_takes_grey_images(
    pictures: DataOptions, encoder: Run, tmp_path: Path
) -> None:
    from PIL import Image

    for path in Path(pictures.data).glob("*/*.png"):
        target = tmp_path / "grey" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).convert("L").save(target)
    found = fit(DataOptions(str(tmp_path / "grey")), tmp_path / "run", start=str(encoder[0]))
    changed = [row for row in found["tensors"] if row["fate"] != "carried"]
    assert [(row["before"][1], row["shape"][1]) for row in changed] == [(3, 1)]
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    table = page.partition('id="tensors"')[2].partition("</section>")[0]
    assert f"<bdi>{changed[0]['name']}</bdi>" in table and "reshaped" in table
    assert found["carried"]["reshaped"] == 1
    mine, theirs = load_model(tmp_path / "run/model"), load_model(encoder[0] / "model")
    assert (mine.pictures.channels, theirs.pictures.channels) == (1, 3)
    grey = sum(theirs.pictures.mean) / 3
    assert mine.pictures.mean == pytest.approx((grey,), abs=1e-4)


def test_a_damaged_start_is_refused(pictures: DataOptions, encoder: Run, tmp_path: Path) -> None:
    start = shutil.copytree(encoder[0], tmp_path / "start")
    weights = start / "model/model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    with pytest.raises(ModelError, match="damaged"):
        fit(pictures, tmp_path / "run", start=str(start))
    shutil.rmtree(start / "model")
    (start / "checksums.json").unlink()
    with pytest.raises(ModelError, match="has not ended"):
        fit(pictures, tmp_path / "run", start=str(start))


def test_a_start_that_has_seen_the_test_images_is_told(
    pictures: DataOptions, encoder: Run, tmp_path: Path
) -> None:
    moved = tmp_path / "data"
    for place, path in enumerate(sorted(Path(pictures.data).glob("*/*.png"))):
        part = moved / ("test" if place % 2 else "train") / path.parent.name
        part.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, part / path.name)
    result = fit(DataOptions(str(moved)), tmp_path / "run", start=str(encoder[0]), transfer="knn")
    assert any("test images are among those" in text for text in result["warnings"])


@pytest.mark.medium
def test_published_weights(
    pictures: DataOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm

    options, published = replace(pictures, image_size=72), timm.create_model
    settings = {"start": "resnet10t", "transfer": "logistic", "labels": 4}
    with pytest.raises(UsageError, match="published weights cannot take 32x32"):
        fit(replace(pictures, image_size=32), tmp_path / "run", **settings)

    def offline(*given: Any, **asked: Any) -> Any:
        assert asked.pop("pretrained")
        raise OSError("Network is unreachable")

    monkeypatch.setattr("fewlabels.models.loading.refuse_silence", lambda name: None)
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ModelError, match="cannot be had: Network is unreachable"):
        fit(options, tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()

    def cached(*given: Any, **asked: Any) -> Any:
        """Draw what would be fetched; weights that are handed over are taken."""
        if "pretrained_cfg_overlay" not in asked:
            asked.pop("pretrained", None)
        return published(*given, **asked)

    monkeypatch.setattr(timm, "create_model", cached)
    result = fit(options, tmp_path / "run", **settings)
    assert result["carried"]["carried"] > 30
    assert (result["carried"]["reshaped"], result["carried"]["skipped"]) == (0, 2)
    skipped = [row["name"] for row in result["tensors"] if row["fate"] == "skipped"]
    assert skipped == ["net.fc.weight", "net.fc.bias"]
    saved = load_model(tmp_path / "run/model")
    assert (saved.pictures.size, saved.pictures.mean) == (72, (0.485, 0.456, 0.406))
    assert (saved.pictures.crop, saved.pictures.interpolation) == (0.875, "bicubic")


@pytest.mark.medium
def test_a_dry_run_writes_nothing(pictures: DataOptions, encoder: Run, tmp_path: Path) -> None:
    plan = fit(pictures, tmp_path / "run", start=str(encoder[0]), labels=4, dry_run=True)
    assert [row["stage"] for row in plan["plan"]] == ["head", "finetune"]
    assert plan["plan"][1]["steps"] == 4
    assert not (tmp_path / "run").exists()


def test_evaluate_adds_a_record_and_counts_the_look(classifier: Run) -> None:
    out, _ = classifier
    stood = read_json(out / "checksums.json")
    first = evaluate(out, reporter=QUIET)
    assert (first["split"], first["n"]) == ("test", sum(map(sum, first["confusion"])))
    assert first["accuracy"]["value"] > 0.8
    val = evaluate(out, split="val", reporter=QUIET)
    second = evaluate(out, reporter=QUIET)
    assert second["looks_at_test"] == first["looks_at_test"] + 1
    assert second["accuracy"] == first["accuracy"]
    run = RunFolder(out)
    assert [r["split"] for r in run.records("evaluate")] == ["test", "val", "test"]
    assert read_json(out / "checksums.json") == stood
    assert run.verify() == []
    assert val["accuracy"] == read_json(out / "results.json")["val"]["accuracy"]


def test_evaluate_on_other_data(
    classifier: Run, encoder: Run, pictures: DataOptions, tmp_path: Path
) -> None:
    moved = shutil.copytree(pictures.data, tmp_path / "data")
    there = evaluate(classifier[0], data=str(moved), reporter=QUIET)
    assert there["n"] == evaluate(classifier[0], reporter=QUIET)["n"]
    (moved / "b").rename(moved / "zebra")
    with pytest.raises(ModelError, match=r"\(a, b\), and the data has \(a, zebra\)"):
        evaluate(classifier[0], data=str(moved), reporter=QUIET)
    with pytest.raises(ModelError, match="without a classifier"):
        evaluate(encoder[0], reporter=QUIET)
    with pytest.raises(ModelError, match="not a run folder"):
        evaluate(tmp_path, reporter=QUIET)
    with pytest.raises(UsageError, match="unknown split"):
        evaluate(classifier[0], split="train", reporter=QUIET)


def test_evaluate_says_where_to_name_images_that_moved(classifier: Run, tmp_path: Path) -> None:
    import yaml

    run = shutil.copytree(classifier[0], tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["data"] = str(tmp_path / "gone")
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "checksums.json").unlink()
    with pytest.raises(DataError) as caught:
        evaluate(run, reporter=QUIET)
    assert "--data" in caught.value.hint


def test_features_of_stages(pictures: DataOptions, encoder: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    start = str(encoder[0])
    result = fit(pictures, out, start=start, transfer="logistic", stages=[2, 3], labels=8)
    assert result["val"]["accuracy"]["value"] > 0.7
    saved = load_model(out / "model")
    assert saved.config["stages"] == [2, 3]
    assert saved.backbone.num_features == saved.config["head"]["features"]
    judged = evaluate(out, split="val", reporter=QUIET)
    assert judged["accuracy"] == result["val"]["accuracy"]
    # From there on the whole network is trained again, by its own features.
    again = fit(pictures, tmp_path / "again", start=str(out), labels=8)
    tensors = len(load_model(encoder[0] / "model").backbone.state_dict())
    assert again["carried"]["carried"] == tensors
