"""What the audit finds, and what is done about pictures that lie in two splits."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fewlabels.core.errors import DataError
from fewlabels.data.audit import quarantine_csv
from fewlabels.data.dataset import open_dataset
from fewlabels.data.leaks import content_ids, find_leaks, leaks_csv
from fewlabels.results.schema import InspectResult


def picture(path: Path, seed: int, size: tuple[int, int] = (10, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    for split, seeds in (("train", range(20)), ("test", range(100, 106)), ("val", range(50, 54))):
        for seed in seeds:
            picture(tmp_path / split / ("cat" if seed % 2 else "dog") / f"{seed}.png", seed)
    picture(tmp_path / "train/cat/copy-of-test.png", 101)
    picture(tmp_path / "val/cat/copy-of-test.png", 101)
    picture(tmp_path / "train/dog/copy-of-val.png", 50)
    picture(tmp_path / "unlabelled/copy-of-test.png", 102)
    picture(tmp_path / "train/cat/twin.png", 3)
    picture(tmp_path / "train/dog/twin.png", 3)
    (tmp_path / "train/cat/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    return tmp_path


def test_inspect_of_leaky_data(leaky: Path) -> None:
    report = open_dataset(leaky).report
    InspectResult.model_validate(report)
    json.dumps(report, allow_nan=False)
    assert report["images"] == 37
    assert report["unlabelled"] == 1
    assert report["labelled"] == 35
    assert report["unreadable"] == 1
    assert report["quarantine"][0]["path"] == "train/cat/broken.png"
    assert report["splits"] == {"train": 22, "val": 4, "test": 6, "out": 5}
    assert report["duplicates"] == [
        ["test/cat/101.png", "train/cat/copy-of-test.png", "val/cat/copy-of-test.png"],
        ["test/dog/102.png", "unlabelled/copy-of-test.png"],
        ["train/cat/3.png", "train/cat/twin.png", "train/dog/twin.png"],
        ["train/dog/copy-of-val.png", "val/dog/50.png"],
    ]
    assert {(r["split_a"], r["path_a"], r["split_b"], r["path_b"]) for r in report["leaks"]} == {
        ("train", "train/cat/copy-of-test.png", "test", "test/cat/101.png"),
        ("val", "val/cat/copy-of-test.png", "test", "test/cat/101.png"),
        ("train", "unlabelled/copy-of-test.png", "test", "test/dog/102.png"),
        ("train", "train/dog/copy-of-val.png", "val", "val/dog/50.png"),
    }
    said = "\n".join(report["warnings"])
    assert "1 of 37 images (3%) cannot be read" in said
    assert "4 images lie in two splits: the copies are left out" in said
    assert "1 pictures carry different labels in their copies" in said
    assert "train/cat/3.png (cat)" in said
    assert report["sizes"]["short_side"] == {"min": 10.0, "median": 10.0, "max": 10.0}


def test_what_happens_to_leaks(leaky: Path) -> None:
    dropped, kept = open_dataset(leaky), open_dataset(leaky, leaks="keep")
    np.testing.assert_array_equal(dropped.rows("test"), kept.rows("test"))
    lost = set(kept.rows("train")) - set(dropped.rows("train"))
    assert {dropped.source.paths[row] for row in lost} == {
        "train/cat/copy-of-test.png",
        "train/dog/copy-of-val.png",
        "unlabelled/copy-of-test.png",
    }
    assert kept.report["leaks"] == dropped.report["leaks"]
    with pytest.raises(DataError) as stopped:
        open_dataset(leaky, leaks="stop")
    assert (stopped.value.code, stopped.value.exit_code) == ("data.leak", 3)
    assert "copy-of-test.png" in stopped.value.message


def test_tables_for_the_user(leaky: Path) -> None:
    report = open_dataset(leaky).report
    quarantined = list(csv.DictReader(io.StringIO(quarantine_csv(report))))
    assert quarantined == report["quarantine"]
    listed = list(csv.DictReader(io.StringIO(leaks_csv(report))))
    assert [{**row, "likeness": float(row["likeness"])} for row in listed] == report["leaks"]


def test_labels_worth_a_warning(tmp_path: Path) -> None:
    for name, count in (("many", 12), ("one", 1)):
        for seed in range(count):
            picture(tmp_path / name / f"{seed}.png", seed + 100 * count)
    report = open_dataset(tmp_path).report
    assert report["imbalance"] == 12
    assert report["classes"] == {"many": 12, "one": 1}
    said = "\n".join(report["warnings"])
    assert "1 class ('one') with a single image" in said
    assert "imbalance: 'many' has 12 images, 'one' has 1 (12.0 times fewer)" in said


IDS = st.lists(st.tuples(st.integers(-1, 5), st.integers(-1, 2)), min_size=1, max_size=40)


@given(IDS)
def test_after_dropping_leaks_none_is_left_and_test_is_whole(rows: list[tuple[int, int]]) -> None:
    ids = np.array([picture_id for picture_id, _ in rows], np.int64)
    split = np.array([code for _, code in rows], np.int8)
    leaks = find_leaks(ids, split)
    assert len(set(leaks[:, 0].tolist())) == len(leaks)
    np.testing.assert_array_equal(ids[leaks[:, 0]], ids[leaks[:, 1]])
    assert np.all(split[leaks[:, 0]] < split[leaks[:, 1]])
    settled = split.copy()
    settled[leaks[:, 0]] = -1
    assert not len(find_leaks(ids, settled))
    np.testing.assert_array_equal(settled == 2, split == 2)
    for picture_id in set(ids[(ids >= 0) & (split >= 0)].tolist()):
        assert np.any(settled[ids == picture_id] >= 0)


def test_content_ids() -> None:
    sha256 = np.zeros((5, 32), np.uint8)
    sha256[[1, 3], 31] = 7
    ids = content_ids(sha256, np.array([True, True, True, True, False]))
    assert ids[0] == ids[2] != ids[1] == ids[3]
    assert ids[4] == -1
