"""The labelling study: what strategies may know, how they are scored, and how it goes on."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fewlabels
from fewlabels.cli import main
from fewlabels.core.errors import DataError, UsageError
from fewlabels.data.dataset import open_dataset
from fewlabels.pipeline.frozen import fit_head
from fewlabels.pipeline.task import DataOptions
from fewlabels.results import ledger
from fewlabels.results.runfolder import RunFolder
from fewlabels.study import label_cells
from fewlabels.study.labelling import label_study
from fewlabels.training.progress import Reporter
from fewlabels.transfer import picks
from fewlabels.transfer.pool import Pick, Pool

pytestmark = pytest.mark.medium
QUIET = Reporter(quiet=True)
ARMS = ("coverage", "margin", "uniform", "class_balanced")
SETTINGS: dict[str, Any] = {"start": "pixels", "arms": ARMS, "labels": (10, 30), "seeds": 3}
SETTINGS |= {"device": "cpu", "budget": "20 steps", "reporter": QUIET}


@pytest.fixture(scope="module")
def studied(table: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("study") / "run"
    return label_study(DataOptions(str(table)), out=out, **SETTINGS)


def told(studied: dict[str, Any], cell: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        (Path(studied["run"]) / "picks" / f"{cell['id']}.json").read_text()
    )
    return found


def cells(studied: dict[str, Any], arm: str, labels: int) -> list[dict[str, Any]]:
    return [c for c in studied["cells"] if (c["arm"], c["shots"]) == (arm, labels)]


def test_every_strategy_at_every_budget_and_draw(studied: dict[str, Any]) -> None:
    keys = [(c["arm"], c["shots"], c["seed"]) for c in studied["cells"]]
    assert sorted(keys) == sorted((a, n, s) for a in ARMS for n in (10, 30) for s in range(3))
    assert all(c["labels"] == c["shots"] for c in studied["cells"])
    assert {c["streams"]["split"] for c in studied["cells"]} == {0}
    assert studied["labels_counted"] == "in all"
    assert studied["declared"]["arm"] == "coverage"
    assert RunFolder(studied["run"]).verify() == []


def test_picks_are_training_images_and_go_on_from_budget_to_budget(
    studied: dict[str, Any], table: Path
) -> None:
    dataset = open_dataset(table)
    train = set(dataset.rows("train").tolist())
    for arm in ARMS:
        for few, more in zip(cells(studied, arm, 10), cells(studied, arm, 30), strict=True):
            first, then = told(studied, few), told(studied, more)
            rows = [one["row"] for one in [*first, *then]]
            assert (len(first), len(then), len(set(rows))) == (10, 20, 30)
            assert set(rows) <= train
            named = [dataset.classes[code] for code in dataset.labels[rows]]
            assert [one["label"] for one in [*first, *then]] == named
            assert more["classes_found"] == len(set(named))


def test_doubt_begins_with_the_draw_of_chance(studied: dict[str, Any]) -> None:
    for one, other in zip(cells(studied, "margin", 10), cells(studied, "uniform", 10), strict=True):
        assert [p["row"] for p in told(studied, one)] == [p["row"] for p in told(studied, other)]
        assert one["accuracy"] == other["accuracy"]
    later = [told(studied, c) for c in cells(studied, "margin", 30)]
    assert all(one["reason"].startswith("either") for picked in later for one in picked)


def test_balanced_is_balanced_and_random_is_not(studied: dict[str, Any]) -> None:
    assert {c["classes_found"] for c in cells(studied, "class_balanced", 10)} == {10}
    assert min(c["classes_found"] for c in cells(studied, "uniform", 10)) < 10


def test_classes_never_picked_count_as_errors(studied: dict[str, Any], table: Path) -> None:
    dataset = open_dataset(table)
    test = dataset.rows("test")
    cell = min(cells(studied, "uniform", 10), key=lambda c: c["classes_found"])
    known = {one["label"] for one in told(studied, cell)}
    with np.load(Path(studied["run"]) / "cells" / f"{cell['id']}.npz") as kept:
        predicted = kept["predicted"]
    right = predicted == dataset.labels[test]
    assert cell["accuracy"] == pytest.approx(right.mean())  # over all test images
    unknown = ~np.isin([dataset.classes[code] for code in dataset.labels[test]], list(known))
    assert unknown.any()
    assert not right[unknown].any()


def test_no_label_is_read_that_was_not_picked(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads are fitted on as many labels as the budget allows, and strategies see none other."""
    seen: list[int] = []

    def fit(space: Any, rows: np.ndarray, labels: np.ndarray, *rest: Any) -> Any:
        seen.append(len(rows))
        return fit_head(space, rows, labels, *rest)

    shown: list[bool] = []

    def spy(pool: Pool, count: int, rng: np.random.Generator) -> list[Pick]:
        shown.append(hasattr(pool, "truth") or pool.shares is not None)
        return picks.uniform(pool, count, rng)

    monkeypatch.setattr(label_cells, "fit_head", fit)
    monkeypatch.setitem(label_cells.STRATEGIES, "coverage", spy)
    settings = {**SETTINGS, "arms": ("coverage", "uniform"), "seeds": 1}
    label_study(DataOptions(str(table)), out=tmp_path / "run", **settings)
    assert sorted(seen) == [10, 10, 30, 30]
    assert not any(shown)


def test_verdicts_are_paired_against_chance(studied: dict[str, Any]) -> None:
    rows = {(row["arm"], row["shots"]): row for row in studied["verdicts"]}
    assert set(rows) == {(a, n) for a in ("coverage", "margin", "class_balanced") for n in (10, 30)}
    for (arm, labels), row in rows.items():
        pairs = zip(cells(studied, arm, labels), cells(studied, "uniform", labels), strict=True)
        differences = [one["accuracy"] - other["accuracy"] for one, other in pairs]
        assert row["difference"] == pytest.approx(np.mean(differences))
        assert row["baseline"] == "uniform"
    assert rows["margin", 10]["verdict"] == "undecided"
    assert studied["primary"]["sentence"].endswith(("10 labels.", "labels in all.")) or (
        "at 10 labels" in studied["primary"]["sentence"]
    )
    assert "per class" not in studied["primary"]["sentence"]


def test_a_table_and_a_page(studied: dict[str, Any]) -> None:
    with (Path(studied["run"]) / "table.csv").open(newline="") as file:
        table = {(row["strategy"], int(row["labels"])): row for row in csv.DictReader(file)}
    mean = np.mean([c["accuracy"] for c in cells(studied, "coverage", 30)])
    assert float(table["coverage", 30]["accuracy"]) == pytest.approx(mean)
    assert table["uniform", 10]["verdict"] == ""
    assert float(table["class_balanced", 10]["classes_found"]) == 10
    page = fewlabels.report(studied["run"]).read_text()
    assert "30 labels" in page
    assert "per class" not in page.partition("</h1>")[2].partition("Cost")[0].replace(
        "labels per class it", ""
    )


def test_one_look_at_test_and_a_finished_study_takes_none(
    studied: dict[str, Any], table: Path
) -> None:
    again = label_study(DataOptions(str(table)), out=Path(studied["run"]), **SETTINGS)
    assert again["already_done"]
    assert again["looks_at_test"] == studied["looks_at_test"]


def test_an_interrupted_study_ends_the_same(
    studied: dict[str, Any], table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def stop(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        return fit_head(*given)

    with monkeypatch.context() as patch:
        patch.setattr(label_cells, "fit_head", stop)
        with pytest.raises(KeyboardInterrupt):
            label_study(DataOptions(str(table)), out=tmp_path / "run", **SETTINGS)
    looks = ledger.looks  # nothing was concluded, so nothing was looked at
    assert callable(looks)
    left = len(list((tmp_path / "run" / "cells").glob("*.json")))
    assert 0 < left < len(studied["cells"])
    resumed = label_study(DataOptions(str(table)), out=tmp_path / "run", **SETTINGS)
    scores = [
        {(c["arm"], c["shots"], c["seed"]): c["accuracy"] for c in one["cells"]}
        for one in (resumed, studied)
    ]
    assert scores[0] == scores[1]


def test_a_pre_trained_encoder_on_splits_of_its_own(tmp_path: Path) -> None:
    found = label_study(
        DataOptions("digits"),
        start="autoencoder",
        arms=("typicality", "uniform"),
        labels=(10,),
        seeds=2,
        budget="2 steps",
        backbone="tiny",
        device="cpu",
        out=tmp_path / "run",
        reporter=QUIET,
    )
    streams = {(c["streams"]["split"], c["streams"]["pretraining"]) for c in found["cells"]}
    assert streams == {(0, 0), (1, 1)}
    assert found["design"]["splits"] == 2
    assert len(list((tmp_path / "run" / "encoders").iterdir())) >= 2


def test_a_run_folder_as_the_encoder(table: Path, tmp_path: Path) -> None:
    fewlabels.pretrain(
        str(table),
        method="autoencoder",
        backbone="tiny",
        budget="2 steps",
        device="cpu",
        out=tmp_path / "encoder",
        reporter=QUIET,
    )
    settings = {**SETTINGS, "start": str(tmp_path / "encoder"), "labels": (10,), "seeds": 2}
    found = label_study(DataOptions(str(table)), out=tmp_path / "run", **settings)
    assert len(found["cells"]) == 2 * len(ARMS)
    assert found["encoder"]["source"] == str(tmp_path / "encoder")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"arms": ("coverage", "chance")}, "chance"),
        ({"arms": ("coverage", "margin")}, "baseline"),
        ({"arms": ("uniform",)}, "two strategies"),
        ({"labels": ()}, "in all"),
        ({"labels": (10, 500)}, "200 training images"),
        ({"start": "simclrr"}, "simclrr"),
    ],
)
def test_settings_that_cannot_be_used(
    table: Path, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises((UsageError, DataError)) as caught:
        label_study(DataOptions(str(table)), out=tmp_path / "run", **{**SETTINGS, **changed})
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_on_the_command_line(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["study", "label", str(table), "--from", "pixels", "--arms", "coverage,uniform"]
    words += ["--labels", "10", "--seeds", "2", "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [arm["name"] for arm in found["arms"]] == ["coverage", "uniform"]
    assert (tmp_path / "run" / "report.html").exists()
    assert main(words) == 0
    assert "already done" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "run")
    assert main(words) == 0
    assert "10 labels" in capsys.readouterr().out
