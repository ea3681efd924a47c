"""The benchmarks of few labels, on digits and with trainings of a few steps."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fewlabels.study import paces, plan

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.medium
PARTS: dict[str, dict[str, Any]] = {
    "random": {
        "arms": ["simclr+logistic", "pixels", "scratch"],
        "labels": [1, 4],
        "seeds": 2,
        "pretraining_seeds": 2,
        "budget": "2 steps",
        "select": "none",
    },
    "suggested": {
        "start": "pixels",
        "arms": ["coverage", "margin", "uniform"],
        "labels": [10, 40],
        "seeds": 3,
        "pretraining_seeds": 1,
        "budget": "5 steps",
    },
}


@pytest.fixture(scope="module")
def few() -> Iterator[ModuleType]:
    """The script, with parts that take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        module = importlib.import_module("few_labels")
        patch.setitem(module.PARTS, "digits", PARTS)
        for place in (plan, paces):
            patch.setattr(place, "finetune_steps", lambda *_a, **_k: 3)
        patch.setattr(paces, "_finetune_pace", lambda *_: 0.001)
        yield module


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def where(tmp: Path, part: str) -> list[str]:
    return ["digits", "--only", part, "--out", str(tmp / "runs"), "--tables", str(tmp)]


def test_every_part_is_whole(few: ModuleType) -> None:
    """What is declared is what was asked for: draws, pre-trainings, arms against a baseline."""
    for data in ("cifar10", "clothing"):
        for part, settings in few.PARTS[data].items():
            assert settings["seeds"] >= 5 and settings["pretraining_seeds"] >= 2
            assert settings.get("select", "none") == "none"
            asked = few.parse_duration(settings["budget"])
            assert asked.unit == "seconds" and asked.value < few.LIMIT[data]
            default = "uniform" if part == "suggested" else "scratch"
            assert settings.get("baseline", default) in settings["arms"]


def test_a_row_is_there_as_soon_as_its_cell_has_ended(
    few: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "few_labels.csv"
    monkeypatch.setenv("FEWLABELS_CACHE", str(tmp_path / "cache"))  # with looks of its own
    told: list[int] = []
    write = few.Clerk.write

    def cut(clerk: Any, *about: Any) -> None:
        write(clerk, *about)
        told.append(len(rows_of(table)))
        if told[-1] == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(few.Clerk, "write", cut)
    with pytest.raises(KeyboardInterrupt):
        few.main(where(tmp_path, "random"))
    assert told == [1, 2, 3, 4]
    first = {row["id"]: row for row in rows_of(table)}
    assert {row["looks_at_test"] for row in first.values()} == {""}

    monkeypatch.setattr(few.Clerk, "write", write)
    monkeypatch.setattr(few, "made", lambda command: {"commit": "later", "command": command})
    few.main(where(tmp_path, "random"))
    rows = rows_of(table)
    # Two splits with a draw each: three arms at two numbers of labels.
    assert len(rows) == 12 == len({row["id"] for row in rows})
    for row in rows:
        assert (row["data"], row["part"], row["looks_at_test"]) == ("digits", "random", "1")
        assert 0 < float(row["accuracy"]) < 1 and float(row["seconds"]) > 0
        if row["id"] in first:
            assert row == {**first[row["id"]], "looks_at_test": "1"}
        else:
            assert row["commit"] == "later"
    verdicts = rows_of(tmp_path / "few_labels_verdicts.csv")
    assert {(row["arm"], row["baseline"]) for row in verdicts if row["primary"] == "True"} == {
        ("simclr+logistic", "scratch")
    }
    assert len(rows_of(tmp_path / "few_labels_curves.csv")) == 6
    few.main(where(tmp_path, "random"))  # done: no further look
    assert rows_of(table) == rows
    table.unlink()
    few.main(where(tmp_path, "random"))  # it says what they were made on, not what is there now
    result = json.loads((tmp_path / "runs/digits/random/comparison.json").read_text())
    assert {row["commit"] for row in rows_of(table)} == {result["environment"].get("commit", "")}
    assert {row["id"] for row in rows_of(table)} == {row["id"] for row in rows}


def test_suggested_labels_against_random_ones(
    few: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few.main(where(tmp_path, "suggested"))
    rows = rows_of(tmp_path / "few_labels.csv")
    assert len(rows) == 18
    assert all(1 <= int(row["classes_found"]) <= 10 for row in rows)
    declared = [r for r in rows_of(tmp_path / "few_labels_verdicts.csv") if r["primary"] == "True"]
    assert [(r["arm"], r["baseline"], r["shots"]) for r in declared] == [
        ("coverage", "uniform", "10")
    ]
    said = capsys.readouterr().out
    assert "declared: " in said and "hoped for 82.0%" in said


def test_a_plan_writes_nothing(
    few: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few.main(["digits", "--dry-run", "--out", str(tmp_path / "runs"), "--tables", str(tmp_path)])
    said = capsys.readouterr().out
    assert "scratch at 4 labels" in said and "coverage" in said
    assert not list(tmp_path.iterdir())
