"""The scripts that flip bits and fuzz: small, and whether they would see a defect."""

from __future__ import annotations

import csv
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fewlabels.core.errors import DataError

ROOT = Path(__file__).parents[1]


def script(name: str) -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def flips() -> ModuleType:
    return script("flips")


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    return script("fuzz")


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        ((0, {"n": 1}, ""), "harmless"),
        ((0, {"n": 2}, ""), "silent"),
        ((0, {"n": 2}, "warning: something"), "silent"),
        ((4, None, "error[run.damaged]: x"), "detected"),
        ((1, None, "error[defect]: KeyError"), "crash"),
        ((5, None, "error[diverged]: x"), "crash"),
    ],
)
def test_outcomes_are_told_apart(flips: ModuleType, found: Any, kind: str) -> None:
    assert flips.judged([found], [(0, {"n": 1}, "")])[0] == kind


def test_a_page_must_name_the_damage(flips: ModuleType) -> None:
    before = [(0, "<p>0.75</p>", "")]
    assert flips.judged([(0, "<p>0.85</p>", "")], before)[0] == "silent"
    assert flips.judged([(0, "<p>results.json is damaged</p>", "")], before)[0] == "detected"


def test_times_and_places_do_not_count(flips: ModuleType) -> None:
    row = {"seconds": 1.5, "run": "a", "cells": [{"accuracy": 0.5, "transfer_seconds": 2}]}
    assert flips.plain(row) == {"cells": [{"accuracy": 0.5}]}


@pytest.mark.slow
def test_a_few_flips(flips: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWLABELS_CACHE", str(tmp_path / "cache"))
    first = flips.trials(tmp_path, 2, 0)
    rows = flips.trials(tmp_path, 3, 0)
    assert [row["trial"] for row in rows] == [0, 1, 2]
    assert rows[:2] == first, "begun again it goes on"
    assert {row["outcome"] for row in rows} <= {"detected", "made again", "harmless"}


# ---- fuzzing -----------------------------------------------------------------------------------


def test_a_case_is_the_same_each_time(fuzz: ModuleType) -> None:
    seeds = [("a.csv", fuzz.TABLE), ("b.png", fuzz.picture())]
    cases = [fuzz.case(seeds, number) for number in range(200)]
    assert cases == [fuzz.case(seeds, number) for number in range(200)]
    assert len({data for _, data in cases}) > 150


def test_what_is_not_ours_is_kept_and_cut_down(
    fuzz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_: str, data: bytes) -> None:
        if b"," not in data:
            raise DataError("data.table", "no columns")
        if b"\n" in data:
            raise ZeroDivisionError("a defect")

    entry = {"table": lambda: ([("t.csv", fuzz.TABLE)], read)}
    monkeypatch.setattr(fuzz, "ENTRIES", entry)
    begun = fuzz.fuzz("table", tmp_path, 0.3)
    (told,) = tmp_path.glob("findings/*.txt")
    assert "ZeroDivisionError" in told.read_text()
    assert sorted(told.with_suffix("").read_bytes()) == sorted(b",\n")
    assert fuzz.fuzz("table", tmp_path, 0.1) > begun
    assert len(list(tmp_path.glob("findings/*.txt"))) == 1, "one defect is one finding"


def test_a_case_that_ended_the_process_is_kept(
    fuzz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"table": lambda: ([("t.csv", fuzz.TABLE)], lambda *_: None)}
    monkeypatch.setattr(fuzz, "ENTRIES", entry)
    fuzz.fuzz("table", tmp_path, 0.05)
    (tmp_path / "next").write_text("7")
    (tmp_path / "running").touch()
    fuzz.fuzz("table", tmp_path, 0.05)
    (kept,) = tmp_path.glob("findings/7-t.csv")
    assert kept.read_bytes() == fuzz.case([("t.csv", fuzz.TABLE)], 7)[1]


@pytest.mark.medium
@pytest.mark.parametrize("name", ["manifest", "config", "model", "json", "image", "archive"])
def test_valid_files_are_read(fuzz: ModuleType, name: str) -> None:
    seeds, read = fuzz.ENTRIES[name]()
    for file, data in seeds:
        read(file, data)


@pytest.mark.parametrize("name", ["flips", "fuzz"])
def test_the_tables_name_no_silent_case(name: str) -> None:
    with (ROOT / "benchmarks" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["figure"]: float(row["value"]) for row in csv.DictReader(file)}
    bad = [figure for figure in rows if figure.endswith(("silent", "crash", "findings"))]
    assert bad
    assert all(rows[figure] == 0 for figure in bad)
