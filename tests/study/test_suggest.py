"""The verb `suggest`: whom it picks from, what it says and leaves, on the command line too."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import fewlabels
from fewlabels.cli import main
from fewlabels.core.errors import DataError, UsageError
from fewlabels.pipeline.task import DataOptions
from fewlabels.pipeline.verbs import finetune, pretrain
from fewlabels.results.runfolder import RunFolder
from fewlabels.results.schema import validate
from fewlabels.study import suggest as module
from fewlabels.study.suggest import suggest
from fewlabels.training.progress import Reporter

pytestmark = pytest.mark.medium
QUIET = Reporter(quiet=True)


def write(path: Path, code: int, number: int) -> None:
    """Write a picture of stripes across or along, in noise."""
    pixels = np.random.default_rng([code, number]).integers(0, 120, (16, 16, 3))
    pixels[(slice(None, None, 3),) if code % 2 else (slice(None), slice(None, None, 3))] += 110
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 6 labelled images, 44 without a label, of which 4 are copies, and 10 of test."""
    folder = tmp_path_factory.mktemp("photos")
    for code, name in enumerate("ab"):
        for number in range(3):
            write(folder / "train" / name / f"{number}.png", code, number)
        for number in range(5):
            write(folder / "test" / name / f"{number}.png", code, 100 + number)
            write(folder / "validation" / name / f"{number}.png", code, 200 + number)
        for number in range(20):
            write(folder / "unlabelled" / f"{name}{number}.png", code, 300 + number)
    for name, copy in (("train/a/0", "x"), ("unlabelled/a3", "y"), ("unlabelled/a3", "z")):
        shutil.copy(folder / f"{name}.png", folder / "unlabelled" / f"{copy}.png")
    return folder


@pytest.fixture(scope="module")
def encoder(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "encoder"
    settings: dict[str, Any] = {"method": "autoencoder", "backbone": "tiny", "budget": "4 steps"}
    pretrain(DataOptions(str(photos)), **settings, device="cpu", out=out, reporter=QUIET)
    return out


def suggested(run: Path, **settings: Any) -> list[dict[str, Any]]:
    return suggest(run, device="cpu", reporter=QUIET, **settings)


def names(found: list[dict[str, Any]]) -> list[str]:
    return [Path(row["path"]).name for row in found]


def test_unlabelled_training_images_alone_and_no_copies(encoder: Path) -> None:
    found = suggested(encoder, count=10)
    assert [row["rank"] for row in found] == list(range(1, 11))
    assert all(row["path"].startswith("unlabelled/") for row in found)
    assert all(validate("suggest", row) == row for row in found)
    everything = suggested(encoder, count=100)
    expected = {f"{name}{number}.png" for name in "ab" for number in range(20)} - {"a3.png"}
    assert set(names(everything)) - {"a3.png", "y.png", "z.png"} == expected
    assert len({"a3.png", "y.png", "z.png"} & set(names(everything))) == 1  # one of the three
    assert names(everything)[:10] == names(found)


def test_both_kinds_of_stripes_are_picked_first(encoder: Path) -> None:
    for strategy in ("coverage", "typicality"):
        found = names(suggested(encoder, count=6, strategy=strategy))
        assert {name[0] for name in found} >= {"a", "b"}


def test_a_record_a_table_and_a_picture_are_left(encoder: Path) -> None:
    found = suggested(encoder, count=5, seed=3)
    kept = RunFolder(encoder).records("suggest")[-1]
    assert kept["images"] == found
    assert (kept["labelled"], kept["looked_at"], kept["unlabelled"]) == (6, 40, 40)
    assert (kept["strategy"], kept["seed"]) == ("coverage", 3)
    assert "3.0 labels per class are too few" in kept["because"]
    with Path(kept["table"]).open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [(int(row["rank"]), row["path"], row["reason"]) for row in table] == [
        (row["rank"], row["path"], row["reason"]) for row in found
    ]
    with Image.open(kept["picture"]) as picture:
        assert picture.width > 5 * 120
    assert RunFolder(encoder).verify() == []


def test_a_seed_decides_all_that_is_drawn(encoder: Path) -> None:
    one, same, other = (
        names(suggested(encoder, count=8, strategy="uniform", seed=seed)) for seed in (1, 1, 2)
    )
    assert one == same != other


def test_hidden_labels_are_images_to_pick_from(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "classifier"
    finetune(
        DataOptions("digits"),
        start="random",
        transfer="logistic",
        backbone="tiny",
        labels=2,
        device="cpu",
        out=out,
        reporter=QUIET,
    )
    found = suggested(out, count=15, strategy="margin")
    rows = {row["path"]: row for row in pq.read_table(out / "manifest.parquet").to_pylist()}
    assert {rows[row["path"]]["split"] for row in found} == {"train"}
    assert RunFolder(out).records("suggest")[0]["labelled"] == 20
    assert all("either" in row["reason"] for row in found)


def test_more_images_than_are_looked_at(
    encoder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "UNLABELLED", 12)
    found = suggest(encoder, count=20, device="cpu", reporter=Reporter())
    assert len(found) == 12
    said = capsys.readouterr().err
    assert "picking from 12 of 40 unlabelled images, drawn at random; 6 are labelled" in said
    assert "only 12 suggested" in said


def test_no_label_at_all(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(30):
        write(tmp_path / "flat" / f"{number}.png", number % 2, number)
    settings: dict[str, Any] = {"method": "autoencoder", "backbone": "tiny", "budget": "2 steps"}
    data, out = DataOptions(str(tmp_path / "flat")), tmp_path / "run"
    pretrain(data, **settings, device="cpu", out=out, reporter=QUIET)
    assert len(suggest(out, count=4, device="cpu", reporter=Reporter())) == 4
    said = capsys.readouterr().err
    assert "strategy: coverage, because nothing is labelled yet" in said
    assert "only labels of images drawn at random can measure a classifier" in said
    with pytest.raises(UsageError, match="no labels of two classes"):
        suggested(out, count=4, strategy="margin")


def test_nothing_is_left_to_label(tmp_path: Path) -> None:
    for number in range(40):
        write(tmp_path / "full" / "ab"[number % 2] / f"{number}.png", number % 2, number)
    settings: dict[str, Any] = {"method": "autoencoder", "backbone": "tiny", "budget": "2 steps"}
    data, out = DataOptions(str(tmp_path / "full")), tmp_path / "run"
    pretrain(data, **settings, device="cpu", out=out, reporter=QUIET)
    with pytest.raises(DataError, match="there is none to suggest"):
        suggested(out)


def test_numbers_are_covered(bars: Path, tmp_path: Path) -> None:
    data, out = DataOptions(str(bars), target="tilt (deg)"), tmp_path / "run"
    settings: dict[str, Any] = {"method": "autoencoder", "backbone": "tiny", "budget": "2 steps"}
    pretrain(data, **settings, device="cpu", out=out, reporter=QUIET)
    found = suggested(out, count=7)
    assert {int(name.removesuffix(".png")) for name in names(found)} <= set(range(90, 120))
    assert RunFolder(out).records("suggest")[0]["strategy"] == "coverage"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [([], "coverage"), ([0] * 80, "coverage"), ([0, 1] * 24, "coverage"), ([0, 1] * 25, "spread")],
)
def test_the_rule_of_auto(labels: list[int], expected: str) -> None:
    class Told:
        class dataset:
            targets = None

        truth = np.array(labels, np.int64)

    name, why = module.auto_strategy(Told(), np.arange(len(labels)))  # type: ignore[arg-type]
    assert name.startswith(expected)
    assert why.startswith("because")


@pytest.mark.parametrize(
    ("settings", "said"), [({"strategy": "margn"}, "margin"), ({"count": 0}, "--count 0")]
)
def test_settings_that_cannot_be_used(encoder: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        suggested(encoder, **settings)
    assert said in str(caught.value)


def test_on_the_command_line(encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suggest", str(encoder), "--count", "3", "--json"]) == 0
    shown = capsys.readouterr()
    rows = json.loads(shown.out)
    assert [set(row) for row in rows] == [{"path", "rank", "score", "reason"}] * 3
    assert "strategy: coverage" in shown.err
    assert main(["suggest", str(encoder), "--count", "3"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in told] == [[str(row["rank"]), row["path"]] for row in rows]
    assert all("nearest labelled image" in line for line in told)
    assert main(["suggest", str(encoder.parent / "nowhere")]) == 4
    assert rows == fewlabels.suggest(encoder, count=3, reporter=QUIET)


def test_the_examples_of_the_page_run(
    encoder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = Path(__file__).parents[2] / "docs" / "suggest.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    shutil.copytree(encoder, tmp_path / "runs" / "encoder")
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, str(page), "exec"), {})
    said = capsys.readouterr().out.splitlines()
    assert len(blocks) == 2
    assert said[0].startswith("1 unlabelled/")
    assert "at 10 labels" in said[-2]
    assert said[-1] == "[1, 2]"
