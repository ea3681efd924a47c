"""The script for one GPU, on a CPU: what minutes there depend on must not fail there first."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fewlabels.core.errors import DivergedError

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.medium


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module("gpu")
    finally:
        sys.path.pop(0)


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def begun(gpu: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The command, and its folder; the fine-tune on 40 labels was lost."""
    place = tmp_path_factory.mktemp("gpu")
    command = ["--dry-run", "--out", str(place), "--table", str(place / "kept" / "gpu.csv")]
    command += ["--commit", "abc"]
    tuned = gpu.finetune
    taken: list[int] = []

    def failing(*stage: Any, **settings: Any) -> Any:
        taken.append(len(stage[2]))
        if taken[-1] == 40:
            raise DivergedError("training.diverged", "no number")
        return tuned(*stage, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "finetune", failing)
        gpu.main(command)
    assert taken == [10, 40, 250, 1000]
    return command, place


def test_every_row_says_what_it_is(begun: tuple[list[str], Path]) -> None:
    _, place = begun
    rows = {int(row["shots"]): row for row in rows_of(place / "kept" / "gpu.csv")}
    assert set(rows) == {10, 250, 1000}  # what fails takes nothing else along
    picks = json.loads((place / "picks-simclr-0-0.json").read_text())
    assert [len(picks[key]) for key in ("10", "40", "250", "1000")] == [10, 40, 250, 1000]
    assert set(picks["10"]) < set(picks["40"]) < set(picks["250"]) < set(picks["1000"])
    for row in rows.values():
        assert float(row["low"]) <= float(row["accuracy"]) <= float(row["high"])
        assert float(row["frozen"]) > 0.5  # digits are told apart by untrained features
        assert row["commit"] == "abc"
        assert int(row["seconds"]) >= int(row["pretrain_seconds"]) + int(row["finetune_seconds"])
        seen = int(row["pretrain_steps"]) * 32 + int(row["finetune_steps"]) * 4 * (1 + 2)
        assert int(row["images_seen"]) == seen


def test_the_same_command_measures_what_is_missing(
    begun: tuple[list[str], Path],
    gpu: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command, place = begun
    table = place / "kept" / "gpu.csv"
    before = {row["shots"]: row for row in rows_of(table)}
    monkeypatch.setattr(gpu, "train", None)  # no encoder is trained again
    gpu.main(command)
    after = {row["shots"]: row for row in rows_of(table)}
    assert set(after) == {"10", "40", "250", "1000"}
    assert {shots: after[shots] for shots in before} == before
    assert "wanted 80%" in capsys.readouterr().out
    monkeypatch.setattr(gpu, "measure", None)  # nothing is left to do
    gpu.main(command)


def test_the_time_that_is_left_is_shared(gpu: ModuleType, tmp_path: Path) -> None:
    chosen = gpu.options(["--out", str(tmp_path), "--limit", "9m"])
    clock = gpu.Clock()
    bench = gpu.Bench(None, chosen, clock, 0.0)
    assert gpu.steps_of(bench, 0.02, 4) in range(6_300, 6_351)  # 540 s / 4 less 8, of 20 ms
    assert gpu.steps_of(bench, 600.0, 4) == 1  # never none
    chosen.tune = "7 steps"
    assert gpu.steps_of(bench, 0.02, 4) == 7
