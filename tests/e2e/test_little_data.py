"""Little and missing data, each through the verbs: handled on purpose, and said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fewlabels
from fewlabels.core.errors import DataError
from fewlabels.data.sources import read_source
from fewlabels.results.files import read_json

CLASSES = 3


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEWLABELS_CACHE", str(tmp_path / "cache"))


def picture(path: str, code: int, seed: int) -> None:
    """Draw noise in which a class shows as a brighter third of the picture."""
    pixels = np.random.default_rng(seed).integers(0, 60, (12, 12), dtype=np.uint8)
    pixels[:, 4 * (code % CLASSES) : 4 * (code % CLASSES) + 4] += 150
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def unlabelled(count: int) -> None:
    for seed in range(count):
        picture(f"data/unlabelled/{seed}.png", seed, 1000 + seed)


def travel(data: str = "data") -> dict[str, Any]:
    """Go through the verbs of single stages; return what each said."""
    few = {"budget": "3steps", "device": "cpu"}
    said = {"inspect": fewlabels.inspect(data)}
    said["pretrain"] = fewlabels.pretrain(data, out=Path("encoder"), method="autoencoder", **few)
    for transfer in ("features", "parameters"):
        said[transfer] = fewlabels.finetune(
            data, start="encoder", transfer=transfer, out=Path(transfer), **few
        )
    return said


def compare(data: str = "data", **settings: Any) -> dict[str, Any]:
    return fewlabels.compare(
        data, arms=["pixels", "random"], baseline="pixels", seeds=2, device="cpu", budget="2steps",
        out=Path("comparison"), **settings,
    )  # fmt: skip


@pytest.mark.medium
def test_one_label_per_class_with_a_test_set_of_its_own() -> None:
    for code in range(CLASSES):
        picture(f"data/train/{code}/only.png", code, code)
        for seed in range(4):
            picture(f"data/test/{code}/{seed}.png", code, 100 + 10 * code + seed)
    unlabelled(30)
    said = travel()
    assert said["inspect"]["splits"] == {"train": 33, "val": 0, "test": 12, "out": 0}
    for transfer in ("features", "parameters"):
        assert said[transfer]["labels"] == {"0": 1, "1": 1, "2": 1}
        assert said[transfer]["val"] is None  # nothing is left to validate on
    scored = fewlabels.evaluate("features", device="cpu")
    assert scored["accuracy"]["value"] == 1.0  # three stripes and one example of each
    with pytest.raises(DataError, match="no labelled image of data lies in val"):
        fewlabels.evaluate("features", split="val", device="cpu")
    found = compare()
    assert not any(cell["failed"] for cell in found["cells"])
    assert found["primary"]["sentence"].startswith(("Undecided", "random"))
    assert Path("comparison/report.html").exists()


@pytest.mark.medium
def test_one_label_per_class_and_no_test_set() -> None:
    for code in range(12):
        picture(f"data/{code:02d}/only.png", code, code)
    unlabelled(30)
    said = travel()
    warnings = " ".join(said["inspect"]["warnings"])
    assert "12 classes" in warnings
    assert "with a single image: it cannot be learned and tested" in warnings
    # A class whose only label fell to test has none to learn from: it stays known, and is named.
    for transfer in ("features", "parameters"):
        labels = said[transfer]["labels"]
        assert len(labels) == 12
        lost = [name for name, count in labels.items() if not count]
        assert 0 < len(lost) < 12
        (told,) = (w for w in said[transfer]["warnings"] if "training labels" in w)
        assert f"{lost[0]}: 0" in told


@pytest.mark.medium
def test_without_a_labelled_test_image_nothing_is_proved() -> None:
    picture("data/a/1.png", 0, 0)
    picture("data/b/1.png", 1, 2)
    unlabelled(20)
    if fewlabels.inspect("data")["splits"]["test"]:
        pytest.fail("choose other seeds: a label fell to test")
    for verb in (fewlabels.run, fewlabels.compare):
        with pytest.raises(DataError) as caught:
            verb("data", budget="5s", device="cpu")
        assert caught.value.code == "data.test"
        assert "finetune" in caught.value.hint


def write_table(rows: list[str]) -> None:
    Path("data").mkdir(exist_ok=True)
    Path("data/labels.csv").write_text("\n".join(["path,label", *rows]))


@pytest.mark.medium
def test_blank_labels_and_missing_files() -> None:
    for seed in range(60):
        picture(f"data/{seed}.png", seed, seed)
    rows = [f"{seed}.png,{'  ' if seed % 4 else seed % CLASSES}" for seed in range(60)]
    write_table(rows + [f"gone{seed}.png,{seed % CLASSES}" for seed in range(5)])
    said = travel()
    seen = said["inspect"]
    assert (seen["labelled"], seen["unlabelled"], seen["unreadable"]) == (15, 45, 5)
    assert seen["classes"] == {"0": 5, "1": 5, "2": 5}
    reasons = {row["path"]: row["reason"] for row in seen["quarantine"]}
    assert reasons["gone0.png"] == "named in labels.csv but not found"
    assert any(w.startswith("5 of 65 images (8%) cannot be read") for w in seen["warnings"])
    assert "gone0.png" in Path("encoder/quarantine.csv").read_text()
    held = seen["splits"]["val"] + seen["splits"]["test"]
    assert sum(said["features"]["labels"].values()) == 15 - held
    assert not any(cell["failed"] for cell in compare()["cells"])


@pytest.mark.medium
def test_a_missing_file_that_comes_back_is_read() -> None:
    for seed in range(8):
        picture(f"data/{seed}.png", seed, seed)
    write_table([f"{seed}.png,{seed % 2}" for seed in range(8)])
    Path("data/3.png").rename("3.png")
    assert fewlabels.inspect("data")["unreadable"] == 1
    Path("3.png").rename("data/3.png")
    assert fewlabels.inspect("data")["unreadable"] == 0


@pytest.mark.medium
def test_all_labels_blank_is_pre_training_data() -> None:
    for seed in range(20):
        picture(f"data/{seed}.png", seed, seed)
    write_table([f"{seed}.png," for seed in range(20)])
    said = fewlabels.inspect("data")
    assert said["warnings"][0] == "no image has a label: these images serve for pre-training only"
    done = fewlabels.pretrain(
        "data", out=Path("encoder"), method="autoencoder", budget="3steps", device="cpu"
    )
    assert (done["steps"], done["probe"]) == (3, None)
    with pytest.raises(DataError, match="no image in data has a label"):
        fewlabels.finetune("data", start="encoder", budget="3steps", device="cpu")


@pytest.mark.parametrize("gone", [5, 6])
def test_when_most_files_are_missing_the_table_is_not_what_was_meant(gone: int) -> None:
    for seed in range(10 - gone):
        picture(f"data/{seed}.png", seed, seed)
    write_table([f"{seed}.png,{seed % 2}" for seed in range(10)])
    if gone <= 5:
        assert fewlabels.inspect("data")["unreadable"] == 5
        return
    with pytest.raises(DataError, match="6 of 10 images cannot be read") as caught:
        fewlabels.inspect("data")
    assert "not found" in caught.value.message
    assert caught.value.exit_code == 3


@pytest.mark.medium
def test_an_empty_class_folder_is_no_class() -> None:
    for code in range(2):
        for seed in range(15):
            picture(f"data/{code}/{seed}.png", code, 100 * code + seed)
    Path("data/2").mkdir()
    Path("data/unlabelled").mkdir()
    said = travel()
    assert said["inspect"]["classes"] == {"0": 15, "1": 15}
    assert "the folder 2 holds no images" in said["inspect"]["warnings"]
    assert "the folder unlabelled holds no images" in said["inspect"]["warnings"]
    assert set(said["features"]["labels"]) == {"0", "1"}
    assert read_json(Path("features/model/config.json"))["classes"] == ["0", "1"]
    assert not any(cell["failed"] for cell in compare()["cells"])


@pytest.mark.medium
def test_a_class_that_train_lacks_is_known_and_cannot_be_right() -> None:
    for code in range(CLASSES):
        for seed in range(6):
            if code < 2:
                picture(f"data/train/{code}/{seed}.png", code, 100 * code + seed)
            picture(f"data/test/{code}/{seed}.png", code, 1000 + 100 * code + seed)
    Path("data/train/2").mkdir()
    said = travel()
    assert "the folder train/2 holds no images" in said["inspect"]["warnings"]
    assert "1 class ('2') without a labelled image in train" in said["inspect"]["warnings"]
    assert said["features"]["labels"]["2"] == 0
    scored = fewlabels.evaluate("features", device="cpu")
    assert scored["per_class"][2]["recall"] == 0
    assert scored["accuracy"]["value"] <= 2 / 3


def test_the_same_holds_for_an_archive(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile("data.zip", "w") as archive:
        archive.writestr("0/1.png", b"x")
        archive.writestr("1/", b"")
        archive.writestr("unlabelled/2.png", b"x")
    source = read_source(tmp_path / "data.zip")
    assert source.labels == ["0", None]
    assert source.warnings == ("the folder 1 holds no images",)
