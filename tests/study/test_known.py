"""What is kept of an encoder, and the reason that comes of it: encoders that are really bad."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewlabels.models.classifier import load_model, save_model
from fewlabels.pipeline.pretrain import pretrain
from fewlabels.pipeline.stages import new_backbone
from fewlabels.pipeline.task import DataOptions
from fewlabels.results.files import to_json, write_atomic
from fewlabels.results.runfolder import RunFolder
from fewlabels.results.seals import read_sealed
from fewlabels.study.collect import gather
from fewlabels.study.conclusion import conclude
from fewlabels.study.grid import Comparison
from fewlabels.study.known import of_pretrained
from fewlabels.study.plan import Steps
from fewlabels.study.settings import Settings, prepare
from fewlabels.training.progress import Reporter

pytestmark = pytest.mark.medium

QUIET = Reporter(quiet=True)
STEPS = Steps({"autoencoder:tiny": 2, "simclr:tiny": 8}, {"40": 4}, {"40": 4}, {})


@pytest.fixture(scope="module")
def digits(write_digits: Callable[..., Path]) -> Path:
    """1,000 real digits, 600 of them to test on, so that harm is seen."""
    return write_digits(1_000, seed=1, splits=[360, 40, 600])


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of images on which every pixel is drawn by itself."""
    place = tmp_path_factory.mktemp("noise")
    images = np.random.default_rng(2).integers(0, 256, (300, 8, 8), dtype=np.uint8)
    np.savez(place / "noise.npz", images=images)
    return trained(place / "noise.npz", place / "run")


def trained(data: Path, out: Path) -> Path:
    options = DataOptions(str(data))
    pretrain(
        options, method="autoencoder", budget="30 steps", device="cpu", out=out, reporter=QUIET
    )
    return out


@pytest.fixture(scope="module")
def constant(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder that says nearly the same of every image."""
    place = trained(digits, tmp_path_factory.mktemp("constant") / "run")
    saved = load_model(place / "model")
    for weight in list(saved.backbone.parameters())[-2:]:
        weight.data.fill_(0.0)
    changed = place.parent / "changed"
    about = {"short_side": saved.short_side}
    save_model(changed / "model", saved.backbone, "tiny", saved.pictures, **about)
    return changed


@pytest.fixture(scope="module")
def comparison(
    start: Callable[..., Comparison],
    digits: Path,
    constant: Path,
    noise: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Comparison:
    """Five arms that lose to pixels: one collapsed, one of noise, one of 2 steps, and two more."""
    trained = (f"{constant}+logistic", f"{noise}+logistic", "autoencoder+centroid")
    arms = ("pixels+spreading", *trained, "simclr+centroid", "random+centroid")
    settings = Settings(arms, arms[0], (4,), 5, 3, 0, "30 steps")
    folder = tmp_path_factory.mktemp("compared") / "run"
    return start(folder, with_settings=settings, data=digits, steps=STEPS)


def verdicts(comparison: Comparison) -> dict[str, dict[str, Any]]:
    with RunFolder(comparison.folder) as run:
        found = conclude(run, comparison, "")
    rows = [row for row in found["verdicts"] if row["baseline"] == "pixels+spreading"]
    assert {row["verdict"] for row in rows} == {"hurts"}
    return {Path(row["arm"]).parent.name[:-1] or row["arm"]: row for row in rows}


def test_the_reason_is_what_was_done(comparison: Comparison) -> None:
    found = {arm: row["reason"] for arm, row in verdicts(comparison).items()}
    codes = {arm: reason and reason["code"] for arm, reason in found.items()}
    assert codes == {
        "constant": "collapsed",
        "noise": "far",
        "autoencoder+centroid": "short",
        "simclr+centroid": None,  # 8 steps, 5 times over the images, better than untrained
        "random+centroid": None,  # nothing was pre-trained
    }
    assert found["constant"]["measured"]["rank"] < found["constant"]["measured"]["least_rank"]
    assert found["noise"]["measured"]["auc"] > 0.95
    assert found["autoencoder+centroid"]["measured"]["passes"] == pytest.approx(2 * 64 / 360)
    assert [one["code"] for one in found["autoencoder+centroid"]["also"]] == ["untrained"]


def test_every_cell_keeps_what_is_known_of_its_encoder(comparison: Comparison) -> None:
    by_arm = {cell["arm"]: cell["encoder"] for cell in comparison.cells}
    plain = {arm for arm, known in by_arm.items() if known is None}
    assert plain == {"pixels+spreading", "random+centroid"}
    known = by_arm["simclr+centroid"]
    assert known["passes"] == 8 * 256 / 360
    assert known["rank"] > known["least_rank"] == 3.0
    assert known["auc"] is None  # all training images carry a label
    copied = next(known for arm, known in by_arm.items() if "constant" in arm)
    assert (copied["passes"], copied["auc"]) == (None, None)  # a model alone does not tell


def test_cells_of_an_older_version_tell_less(comparison: Comparison, tmp_path: Path) -> None:
    shutil.copytree(comparison.folder, tmp_path / "run")
    older = replace(comparison, folder=tmp_path / "run", cells=[], missing=[], choices=[])
    for path in (older.folder / "cells").glob("*.json"):
        row = read_sealed(path)
        del row["encoder"]
        write_atomic(path, to_json(row))
    gather(older)
    assert len(older.cells) == len(comparison.cells)
    found = {arm: row["reason"] for arm, row in verdicts(older).items()}
    # What rests on the scores of cells is still found.
    assert found.pop("autoencoder+centroid")["code"] == "untrained"
    assert set(found.values()) == {None}


def test_unlabelled_images_of_another_world_count_where_they_are_most(digits: Path) -> None:
    found = {"auc": 0.98, "p": 0.005, "farthest": []}
    settings = Settings(("pixels", "simclr+features"), "pixels", (4,), 2, 1, 0, "30 steps")
    task, _ = prepare(DataOptions(str(digits)), settings, QUIET)
    backbone = new_backbone(task, "tiny", 0)
    labels = task.dataset.labels.copy()
    told = []
    for share in (0.25, 0.75):
        labels[task.dataset.rows("train")[: int(360 * share)]] = -1
        changed = replace(task.dataset, labels=labels.copy())
        vars(changed)["report"] = {"likeness": found}
        told.append(of_pretrained(replace(task, dataset=changed), backbone, 40.0, 720))
    assert [known.auc for known in told] == [None, 0.98]
    assert told[0].passes == 2.0
