"""The verb `suspects`: planted errors among digits; what is read, said and left."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import fewlabels
from fewlabels.cli import main
from fewlabels.core.errors import DataError, UsageError
from fewlabels.pipeline.suspects import suspects
from fewlabels.pipeline.task import DataOptions
from fewlabels.pipeline.verbs import finetune, pretrain
from fewlabels.results.runfolder import RunFolder
from fewlabels.results.schema import validate
from fewlabels.training.progress import Reporter

pytestmark = pytest.mark.medium
QUIET = Reporter(quiet=True)
TRAINED = 250


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 400 digits, the first 250 for training; the first 30 labels are wrong."""
    x, y = load_digits(return_X_y=True)
    chosen = np.random.default_rng(0).permutation(len(x))[:400]
    labels = y[chosen]
    labels[:30] = (labels[:30] + 3) % 10
    place = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(
        place,
        images=np.round(x[chosen] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8),
        labels=labels.astype(str),
        splits=np.repeat(["train", "val", "test"], [TRAINED, 50, 100]),
    )
    return place


@pytest.fixture(scope="module")
def encoder(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "encoder"
    settings: dict[str, Any] = {"method": "kmeans", "budget": "5 steps"}
    pretrain(DataOptions(str(planted)), **settings, device="cpu", out=out, reporter=QUIET)
    return out


def doubted(run: Path, **settings: Any) -> list[dict[str, Any]]:
    return suspects(run, device="cpu", reporter=QUIET, **settings)


def number(row: dict[str, Any]) -> int:
    return int(Path(row["path"]).stem)


def test_planted_errors_come_first(encoder: Path) -> None:
    found = doubted(encoder)
    assert [validate("suspects", row) for row in found] == found
    scores = [row["score"] for row in found]
    assert scores == sorted(scores, reverse=True)
    wrong = [number(row) < 30 for row in found]
    assert sum(wrong) >= 18
    assert np.mean(wrong[:15]) >= 0.8
    assert all(row["label"] != row["suggested"] for row in found)
    x, y = load_digits(return_X_y=True)
    true = y[np.random.default_rng(0).permutation(len(x))[:400]]
    right = [int(row["suggested"]) == true[number(row)] for row in found if number(row) < 30]
    assert np.mean(right) > 0.7


def test_labels_of_test_are_not_read(encoder: Path) -> None:
    assert max(number(row) for row in doubted(encoder)) < TRAINED + 50


def test_a_record_a_table_and_a_picture_are_left(encoder: Path) -> None:
    found = doubted(encoder, seed=5)
    kept = RunFolder(encoder).records("suspects")[-1]
    assert (kept["images"], kept["judged"], kept["seed"]) == (found, TRAINED + 50, 5)
    with Path(kept["table"]).open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [(row["path"], row["label"], row["suggested"]) for row in table] == [
        (row["path"], row["label"], row["suggested"]) for row in found
    ]
    with Image.open(kept["picture"]) as picture:
        assert picture.width > 8 * 120
    assert RunFolder(encoder).verify() == []


def test_hidden_labels_stay_hidden(
    planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = DataOptions(str(planted)), tmp_path / "run"
    settings: dict[str, Any] = {"start": "random", "backbone": "tiny", "transfer": "logistic"}
    finetune(data, **settings, labels=4, device="cpu", out=out, reporter=QUIET)
    suspects(out, device="cpu", reporter=Reporter())
    assert "of 40 labels are suspect" in capsys.readouterr().err
    few = tmp_path / "few"
    finetune(data, **settings, labels=2, device="cpu", out=few, reporter=QUIET)
    with pytest.raises(DataError, match="none can be judged"):
        doubted(few)


def test_a_network_that_was_trained_on_the_labels_is_told_of(
    planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = DataOptions(str(planted)), tmp_path / "run"
    settings: dict[str, Any] = {"start": "scratch", "backbone": "tiny", "budget": "2 steps"}
    finetune(data, **settings, labels=5, device="cpu", out=out, reporter=QUIET)
    suspects(out, device="cpu", reporter=Reporter())
    assert "may have learned the wrong ones by heart" in capsys.readouterr().err


def test_numbers_cannot_be_judged(bars: Path, tmp_path: Path) -> None:
    data, out = DataOptions(str(bars), target="tilt (deg)"), tmp_path / "run"
    settings: dict[str, Any] = {"method": "autoencoder", "backbone": "tiny", "budget": "2 steps"}
    pretrain(data, **settings, device="cpu", out=out, reporter=QUIET)
    with pytest.raises(UsageError, match="only class labels"):
        doubted(out)


def test_on_the_command_line(encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suspects", str(encoder), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [set(row) for row in rows] == [{"path", "label", "suggested", "score"}] * len(rows)
    assert rows == fewlabels.suspects(encoder, reporter=QUIET)
    assert main(["suspects", str(encoder)]) == 0
    assert f"labelled {rows[0]['label']}, may be {rows[0]['suggested']}" in capsys.readouterr().out
