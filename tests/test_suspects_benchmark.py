"""The benchmark of suspect labels, on digits and on colour images made here."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fewlabels
from fewlabels.pipeline.task import Task

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.medium
SHADES = {"dark": 40, "light": 200}


@pytest.fixture
def suspects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, writing beside the test."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("suspects")
    monkeypatch.setattr(importlib.import_module("record"), "HERE", tmp_path)
    monkeypatch.setenv("FEWLABELS_DATA", str(tmp_path))
    return module


@pytest.fixture
def photos(tmp_path: Path, photo: Callable[..., Image.Image]) -> Path:
    """120 photos of 40 pixels, half of them dark and half light."""
    for place, (name, shade) in enumerate(SHADES.items()):
        folder = tmp_path / "clothing" / "train" / name
        folder.mkdir(parents=True)
        for number in range(60):
            picture = np.asarray(photo(100 * place + number, 40), float)
            pixels = (0.3 * picture + 0.7 * shade).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "clothing"


def medians(folder: Path) -> dict[str, tuple[float, int]]:
    """Return the value of each figure, and over how many it was taken."""
    with (folder / "suspects.csv").open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return {row["figure"]: (float(row["value"]), int(row["repeats"])) for row in rows}


def test_what_is_planted_in_digits_is_found(suspects: ModuleType, tmp_path: Path) -> None:
    suspects.main(["digits", "--seeds", "1"])
    found = medians(tmp_path)
    for noise in ("10%", "20%"):
        value, repeats = found[f"digits, pixels, {noise} wrong: precision at recall 0.5"]
        assert value > 0.9 and repeats == 1


def test_every_kind_of_features(
    suspects: ModuleType, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspects, "LABELS", 60)
    run = tmp_path / "encoder"
    data = fewlabels.DataOptions(str(photos), 40)
    fewlabels.pretrain(data, method="simclr", budget="2 steps", out=run)
    sizes: list[int] = []
    measure = suspects.measure

    def watched(task: Task, *rest: Any) -> Any:
        sizes.append(task.pictures.size)
        return measure(task, *rest)

    monkeypatch.setattr(suspects, "measure", watched)
    for start in ("pixels", "simclr", str(run)):
        suspects.main(["clothing", "--from", start, "--steps", "2", "--seeds", "1"])
    assert sizes == [32, 32, 32, 40]  # a run sees what it was trained on
    found = medians(tmp_path)
    for start, encoders in (("pixels", 1), ("simclr", 2), ("encoder", 1)):
        value, repeats = found[f"clothing, {start}, 20% wrong: precision at recall 0.5"]
        assert value > 0.5 and repeats == encoders  # a fifth of the labels are wrong
