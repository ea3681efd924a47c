"""Near-copies of test images in train, as a user meets them on the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fewlabels
from fewlabels.cli import main
from fewlabels.data.manifest import Manifest

COPIES = {"train/a/jpeg.png": "test/a/0.png", "train/b/crop.png": "test/b/1.png"}
Said = Callable[..., Any]


@pytest.fixture
def data(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    photo: Callable[[int], Image.Image],
    altered: Callable[[Image.Image, str], Image.Image],
) -> Path:
    """Return data of 60 training and 12 test images, two of which have near-copies in train."""
    monkeypatch.chdir(tmp_path)

    def save(image: Image.Image, path: str) -> None:
        place = tmp_path / "data" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        image.save(place)

    for number in range(60):
        save(photo(100 + number), f"train/{'ab'[number % 2]}/{number}.png")
        if number < 12:
            save(photo(number), f"test/{'ab'[number % 2]}/{number}.png")
    save(altered(photo(0), "jpeg50"), "train/a/jpeg.png")
    save(altered(photo(1), "crop"), "train/b/crop.png")
    return tmp_path / "data"


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Return a function that gives a command and returns its JSON, or what it says on stderr."""

    def give(*words: str, code: int = 0) -> Any:
        capsys.readouterr()
        try:
            ended: Any = main([*words, "--json"])
        except SystemExit as end:
            ended = end.code
        found = capsys.readouterr()
        assert (ended or 0) == code, found.err
        return json.loads(found.out) if code == 0 else found.err

    return give


def test_inspect_lists_them_and_stop_ends_with_3(data: Path, said: Said) -> None:
    found = said("inspect", str(data))
    assert {row["path_a"]: row["path_b"] for row in found["leaks"]} == COPIES
    assert [row["kind"] for row in found["leaks"]] == ["near", "near"]
    fewlabels.inspect(str(data), out=Path("health"))
    with Path("health/leaks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["path_a"]: row["path_b"] for row in rows} == COPIES
    assert all(0.95 <= float(row["likeness"]) <= 1 for row in rows)
    assert "data.leak" in said("inspect", str(data), "--leaks", "stop", code=3)


FEW = ("--from", "random", "--transfer", "features", "--device", "cpu")


def test_training_copies_are_dropped(data: Path, said: Said) -> None:
    found = said("finetune", str(data), *FEW, "--out", "run")
    manifest = Manifest.load("run/manifest.parquet")
    split = dict(zip(manifest.column("path"), manifest.column("split"), strict=True))
    assert {path for path, name in split.items() if name is None} == set(COPIES)
    assert all(split[path] == "test" for path in COPIES.values())
    assert sum(found["labels"].values()) == sum(name == "train" for name in split.values())
    assert len(Path("run/leaks.csv").read_text().splitlines()) == 3
    assert said("evaluate", "run")["without_near_duplicates"] is None


def test_scores_without_them_are_those_of_the_other_images(data: Path, said: Said) -> None:
    said("finetune", str(data), *FEW, "--leaks", "keep", "--out", "run")
    found = said("evaluate", "run")
    paths = [str(path) for path in sorted((data / "test").rglob("*.png"))]
    rows = said("predict", "run", *paths)
    right = {row["path"]: row["label"] == Path(row["path"]).parent.name for row in rows}
    assert found["accuracy"]["value"] == pytest.approx(np.mean(list(right.values())))
    copied = tuple(COPIES.values())
    others = [hit for path, hit in right.items() if not path.endswith(copied)]
    without = found["without_near_duplicates"]
    assert (without["left_out"], without["n"], len(others)) == (2, 10, 10)
    assert without["accuracy"]["value"] == pytest.approx(np.mean(others))
    assert without["accuracy"]["low"] < without["accuracy"]["value"] < without["accuracy"]["high"]
    assert "confusion" not in without
    said("report", "run")
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert "Of 2 of the 12 images a copy lies in training; on the others accuracy is" in page


def test_a_comparison_tells_both_scores(data: Path, said: Said) -> None:
    few = ("--arms", "pixels,random", "--baseline", "pixels", "--seeds", "2", "--device", "cpu")
    few = (*few, "--labels", "4", "--budget", "2steps")
    assert said("compare", str(data), *few, "--out", "c")["without_near_duplicates"] is None
    found = said("compare", str(data), *few, "--leaks", "keep", "--out", "k")
    without = found["without_near_duplicates"]
    assert (without["left_out"], without["n"]) == (2, 10)
    # Test rows are sorted by path: a/0, a/10, a/2, ..., b/1, b/11, ...
    clean = np.array([number not in (0, 6) for number in range(12)])
    truth = np.repeat([0, 1], 6)
    for row in without["rows"]:
        cells = [cell for cell in found["cells"] if cell["arm"] == row["arm"]]
        assert row["all_images"] == pytest.approx(np.mean([cell["accuracy"] for cell in cells]))
        hits = [
            np.load(f"k/cells/{cell['id']}.npz")["predicted"][clean] == truth[clean]
            for cell in cells
        ]
        assert row["mean"] == pytest.approx(np.mean(hits))
    assert {row["arm"] for row in without["rows"]} == {"pixels", "random"}
    said("report", "k")
    page = Path("k/report.html").read_text(encoding="utf-8")
    assert "Of 2 test images a copy lies in training; on the other 10" in page
