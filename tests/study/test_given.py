"""Arms that start from a run folder: a format of their own, and everything else shared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from fewlabels.core.errors import ModelError, UsageError
from fewlabels.models.classifier import load_model, save_model
from fewlabels.pipeline.pretrain import pretrain
from fewlabels.pipeline.task import DataOptions
from fewlabels.results.files import read_json
from fewlabels.study.grid import Comparison
from fewlabels.study.plan import Steps
from fewlabels.study.settings import Settings, lay_out, prepare
from fewlabels.training.progress import Reporter

pytestmark = pytest.mark.medium

QUIET = Reporter(quiet=True)


@pytest.fixture(scope="module")
def source(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short supervised pre-training at twice the size of the comparison's images."""
    place = tmp_path_factory.mktemp("source") / "run"
    pretrain(
        DataOptions(str(table), image_size=16),
        method="supervised",
        budget="30 steps",
        device="cpu",
        out=place,
        reporter=QUIET,
    )
    return place


def with_source(settings: Settings, source: Path) -> Settings:
    arms = ("pixels", *(f"{source}+{kind}" for kind in ("features", "parameters", "structure")))
    return replace(settings, arms=arms, labels=(4,))


def rows_of(comparison: Comparison, arm: str) -> list[dict[str, Any]]:
    return [row for row in comparison.cells if row["arm"] == arm]


def test_a_run_competes_in_its_own_format(
    start: Any, settings: Settings, source: Path, tmp_path: Path
) -> None:
    chosen = with_source(settings, source)
    comparison = start(tmp_path / "run", with_settings=chosen)
    assert all(row["failed"] is None for row in comparison.cells)
    plain, frozen, tuned, changed = (rows_of(comparison, arm) for arm in chosen.arms)
    # No pre-training of this comparison touches them: one cell a draw, shared by both units.
    assert len(plain) == len(frozen) == len(tuned) == len(changed) == 2
    assert [row["streams"]["labels"] for row in frozen] == [0, 1]
    assert all(row["streams"]["pretraining"] is None for row in frozen + tuned)
    cost = read_json(source / "results.json")
    assert all(row["pretrain_seconds"] == cost["seconds"] for row in frozen + tuned)
    assert all(row["steps"] == cost["steps"] for row in frozen)
    assert {row["steps"] for row in tuned} == {cost["steps"] + 4}
    assert {row["steps"] for row in changed} == {cost["steps"] + 4}
    given = comparison.arms[1].given
    assert given is not None
    assert (given.task.pictures.size, comparison.task.pictures.size) == (16, 8)
    assert given.task.pictures == load_model(source / "model").pictures
    for split in ("train", "val", "test"):
        theirs, ours = given.task_of(0).dataset.rows(split), comparison.task.dataset.rows(split)
        assert np.array_equal(theirs, ours)
    assert np.array_equal(given.task.dataset.visible(4, 1), comparison.task.dataset.visible(4, 1))


def test_a_finished_cell_is_kept_until_the_weights_change(
    start: Any, settings: Settings, source: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "source"
    (copy / "model").mkdir(parents=True)
    for name in ("model.safetensors", "config.json"):
        (copy / "model" / name).write_bytes((source / "model" / name).read_bytes())
    chosen = replace(with_source(settings, copy), arms=("pixels", f"{copy}+features"))
    ids = [{row["id"] for row in start(tmp_path / "run", with_settings=chosen).cells}]
    ids.append({row["id"] for row in start(tmp_path / "run", with_settings=chosen).cells})
    saved = load_model(copy / "model")
    with_noise = saved.backbone
    next(iter(with_noise.parameters())).data.mul_(1.01)
    save_model(copy / "model", with_noise, "tiny", saved.pictures, short_side=saved.short_side)
    ids.append({row["id"] for row in start(tmp_path / "again", with_settings=chosen).cells})
    assert ids[0] == ids[1]
    assert len(ids[0] & ids[2]) == 2  # the pixels


def test_cells_of_given_starts_have_names_where_their_device_is_not(
    table: Path, source: Path, settings: Settings, tmp_path: Path
) -> None:
    chosen = with_source(settings, source)
    task, arms = prepare(DataOptions(str(table)), chosen, QUIET)
    gpu = torch.device("cuda")
    moved = [
        replace(arm, given=replace(arm.given, task=replace(arm.given.task, device=gpu)))
        if arm.given
        else arm
        for arm in arms
    ]
    steps = Steps({}, {"40": 4}, {"40": 4}, {})
    about = (lay_out(task, chosen), steps, tmp_path, QUIET)
    here = Comparison(task, chosen, arms, *about).grid
    there = Comparison(replace(task, device=gpu), chosen, moved, *about).grid
    assert len(here.cells) == len(there.cells) == 8
    assert not {cell.id for cell in here.cells} & {cell.id for cell in there.cells}


def test_a_run_that_saw_the_test_images_is_named(
    table: Path, source: Path, settings: Settings, tmp_path: Path
) -> None:
    with np.load(table) as file:
        arrays = {name: file[name].copy() for name in file.files}
    arrays["splits"] = np.roll(arrays["splits"], 100)
    np.savez(tmp_path / "turned.npz", **arrays)
    _, arms = prepare(
        DataOptions(str(tmp_path / "turned.npz")), with_source(settings, source), QUIET
    )
    assert arms[1].given is not None
    assert "test images are among those" in arms[1].given.warning(0)


def test_a_start_that_is_not_there_is_refused_before_anything_runs(
    table: Path, settings: Settings, tmp_path: Path
) -> None:
    chosen = replace(settings, arms=("pixels", f"{tmp_path}/nothing+features"))
    with pytest.raises(ModelError, match="nothing"):
        prepare(DataOptions(str(table)), chosen, QUIET)


@pytest.mark.parametrize("of", ["test_resnet", ""])
def test_a_bare_file_competes_as_what_it_is_said_to_be(
    table: Path, settings: Settings, tmp_path: Path, of: str
) -> None:
    """By the arm, or by what is said for all arms that do not say theirs."""
    file = tmp_path / "w.pth"
    torch.save(timm.create_model("test_resnet", num_classes=4).state_dict(), file)
    options = DataOptions(str(table))
    arm = f"{file}:{of}+features" if of else f"{file}+features"
    chosen = replace(settings, arms=("pixels", arm))
    if not of:
        with pytest.raises(UsageError, match="does not say what it holds"):
            prepare(options, chosen, QUIET)
        chosen = replace(chosen, backbone="test_resnet")
    given = prepare(options, chosen, QUIET)[1][1].given
    assert given is not None
    assert given.backbone()[0] == "test_resnet"
    assert given.task.pictures.size == 160
