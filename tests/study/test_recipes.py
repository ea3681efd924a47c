"""The rules of auto: what they choose, what they rest on, what they lose on committed tables."""

from __future__ import annotations

import csv
import importlib
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fewlabels.study.parsing import parse_arm
from fewlabels.study.recipes import (
    COVERED,
    PRETRAINED,
    RULES,
    UNTRAINED,
    Conditions,
    choose,
    uncovered,
)

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DIGITS = Conditions(8, 1, 1_425, 40, 4, "cpu", pretrain_steps=245, scratch_steps=340)
PHOTOS = Conditions(32, 3, 45_000, 40, 4, "cpu", pretrain_steps=2_104, scratch_steps=380)


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """The benchmark that scores the rules."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("auto")
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def tables(script: ModuleType) -> list[Any]:
    """The committed tables."""
    found: list[Any] = script.read()
    return found


@pytest.fixture(scope="module")
def rows(script: ModuleType, tables: list[Any]) -> list[dict[str, Any]]:
    """What every recipe lost on them."""
    return [row for table in tables for row in script.scored(table, tables)]


# ---- the table of rules ----------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.recipe)
def test_a_rule_names_an_arm_conditions_that_exist_and_files_that_are_committed(rule: Any) -> None:
    assert parse_arm(rule.recipe).name == rule.recipe
    assert set(rule.bounds) <= {field.name for field in fields(Conditions)}
    assert rule.evidence
    assert all((BENCHMARKS / name).exists() for name in rule.evidence)
    assert rule.reason


def test_some_rule_holds_whatever_the_conditions() -> None:
    assert not RULES[-1].bounds
    assert choose(Conditions(8, 1, 0, 0, 0, "cpu", 0, 10_000)).recipe


def test_what_the_rules_hope_for_is_among_them() -> None:
    assert {PRETRAINED, UNTRAINED} <= {rule.recipe for rule in RULES}


@pytest.mark.parametrize(
    ("start", "changes", "recipe"),
    [
        (DIGITS, {}, "simclr+features"),
        (PHOTOS, {}, "simclr+features"),
        (PHOTOS, {"per_class": 1}, "simclr+features"),
        (DIGITS, {"pretrain_steps": 0}, "pixels+spreading"),
        (DIGITS, {"pretrain_steps": 0, "per_class": 25}, "scratch"),
        (DIGITS, {"pretrain_steps": 0, "per_class": 25, "scratch_steps": 20}, "pixels+spreading"),
        (DIGITS, {"images": 200}, "pixels+spreading"),
        (PHOTOS, {"pretrain_steps": 228}, "scratch"),
        (PHOTOS, {"images": 300}, "scratch"),
        (PHOTOS, {"pretrain_steps": 0, "scratch_steps": 20}, "random+features"),
    ],
)
def test_short_budgets_and_few_images_fall_back(
    start: Conditions, changes: dict[str, Any], recipe: str
) -> None:
    assert choose(replace(start, **changes)).recipe == recipe


def test_what_no_table_covers_is_said() -> None:
    assert uncovered(DIGITS) == uncovered(PHOTOS) == ""
    far = replace(PHOTOS, size=224, per_class=1_000, device="cuda")
    assert uncovered(far) == (
        "no committed table covers images of 224 pixels, 1,000 labels per class, cuda"
    )


# ---- against the committed tables --------------------------------------------------------------


def test_the_rules_are_those_that_the_tables_give(script: ModuleType, tables: list[Any]) -> None:
    """If new tables say otherwise: ``python benchmarks/auto.py`` shows where, and RULES follow."""
    assert {table.data for table in tables} >= {"digits", "cifar10"}
    for table in tables:
        assert script.committed(table) == script.fitted(tables, table), table.name


def test_covered_is_what_the_tables_have(script: ModuleType, tables: list[Any]) -> None:
    shots = [n for table in tables for n in table.shots]
    assert COVERED["per_class"] == (min(shots), max(shots))
    sizes = [script.SETS[table.data][0] for table in tables]
    assert COVERED["size"] == (min(sizes), max(sizes))


def test_auto_loses_nothing_to_scratch_and_little_to_the_best(
    script: ModuleType, rows: list[dict[str, Any]]
) -> None:
    auto = [row for row in rows if row["rules"] == "committed"]
    assert auto
    assert all(float(row["high"]) >= 0 for row in auto)
    mean = [row for row in script.averages(rows) if row["recipe"] == "auto"]
    regret = {(row["pretraining"], row["rules"]): float(row["regret"]) for row in mean}
    assert max(regret["yes", name] for name in ("committed", "fitted", "left out")) < 0.02


def test_the_committed_scores_are_those_of_the_rules(rows: list[dict[str, Any]]) -> None:
    """If they are not: ``python benchmarks/auto.py`` writes them anew."""
    with (BENCHMARKS / "auto.csv").open(newline="", encoding="utf-8") as file:
        kept = [row for row in csv.DictReader(file) if row["table"]]
    names = ("data", "table", "pretraining", "shots", "recipe", "rules", "chosen", "regret")
    told = [tuple(str(row.get(name, "")) for name in names) for row in rows]
    assert told == [tuple(row[name] for name in names) for row in kept]


# ---- how it is scored ----------------------------------------------------------------------------


def table_of(script: ModuleType, data: str, scores: dict[str, dict[int, float]]) -> Any:
    """Return a table of four draws in which an arm has nearly the same score everywhere."""
    streams = [{"split": 0, "labels": draw, "pretraining": None} for draw in range(4)]
    cells = [
        {
            "arm": arm,
            "shots": shots,
            "accuracy": score + 0.001 * ((place + number) % 2),
            "steps": 300,
            "failed": None,
            "streams": one,
        }
        for number, (arm, by_shots) in enumerate(scores.items())
        for shots, score in by_shots.items()
        for place, one in enumerate(streams)
    ]
    return script.Table(data, data, "accuracy", True, cells)


def test_the_least_regret_wins_and_a_sure_rival_replaces_it_where_it_is_better(
    script: ModuleType,
) -> None:
    one = table_of(
        script,
        "cifar10",
        {"scratch": {4: 0.5, 25: 0.9}, "pixels": {4: 0.7, 25: 0.8}, "random": {4: 0.7, 25: 0.3}},
    )
    assert script.fitted([one], one) == {4: "pixels", 25: "scratch"}


def test_rules_for_a_set_left_out_never_see_its_scores(script: ModuleType) -> None:
    likes = {"scratch": {4: 0.9, 25: 0.9}, "pixels": {4: 0.5, 25: 0.5}}
    other = {"scratch": {4: 0.5}, "pixels": {4: 0.9}}
    cifar, clothing = (
        table_of(script, *about) for about in (("cifar10", likes), ("clothing", other))
    )
    both = [cifar, clothing]
    assert script.fitted(both, cifar, without="cifar10") == {4: "pixels", 25: "pixels"}
    assert script.fitted(both, clothing, without="clothing") == {4: "scratch"}
    rows = script.scored(cifar, both)
    left = [row for row in rows if row["rules"] == "left out"]
    assert [float(row["regret"]) for row in left] == pytest.approx([0.4, 0.4], abs=0.002)
    assert all(float(row["high"]) < 0 for row in left)


def test_without_another_set_there_is_no_rule(script: ModuleType) -> None:
    one = table_of(script, "cifar10", {"scratch": {4: 0.5}, "pixels": {4: 0.7}})
    assert script.fitted([one], one, without="cifar10") == {}


def test_sets_count_alike_however_many_tables_they_have(script: ModuleType) -> None:
    def row(data: str, table: str, regret: float) -> dict[str, Any]:
        about = {"data": data, "table": table, "pretraining": "yes"}
        return {**about, "recipe": "a", "rules": "", "regret": regret}

    made = [row("x", "x1", 0.1), row("x", "x2", 0.3), row("y", "y", 0.6)]
    assert [float(one["regret"]) for one in script.averages(made)] == pytest.approx([0.4])
