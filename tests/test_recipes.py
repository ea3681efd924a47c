"""Recipes say what can be run: every road has one, and every flag in them exists."""

from __future__ import annotations

import importlib
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer

import fewlabels
from fewlabels.cli.commands import build

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.fixture(scope="module")
def roads() -> ModuleType:
    """The script that travels them."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module("roads")
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def flags() -> dict[str, set[str]]:
    """The flags of every verb."""
    commands = typer.main.get_command(build()).commands  # type: ignore[attr-defined]
    return {
        verb: {flag for parameter in command.params for flag in parameter.opts}
        for verb, command in commands.items()
    }


def test_every_road_has_one_recipe(roads: ModuleType) -> None:
    found = [roads.read_recipe(path).road for path in RECIPES]
    assert len(set(found)) == len(found)
    assert [path.name[:3] for path in RECIPES] == [f"r{int(road[1:]):02d}" for road in found]


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
@pytest.mark.parametrize("size", ["full", "small"])
def test_its_commands_exist(
    path: Path, size: str, roads: ModuleType, flags: dict[str, set[str]]
) -> None:
    recipe = roads.read_recipe(path)
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert recipe.shows
    places = {name: f"/data/{name}" for name in recipe.needs}
    commands = recipe.filled(size, places | {"out": "/out", "recipes": str(ROOT / "recipes")})
    assert "{" not in shlex.join(shlex.join(words) for words in commands)
    assert any("fewlabels" in words for words in commands)
    for words in commands:
        assert words[0] in roads.PROGRAMS
        if "fewlabels" not in words:
            continue
        verb, *rest = words[words.index("fewlabels") + 1 :]
        assert {word for word in rest if word.startswith("--")} <= flags[verb], words


def test_a_road_without_its_data_is_skipped_aloud(
    roads: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FEWLABELS_DATA", str(tmp_path))
    recipe = next(r for r in map(roads.read_recipe, RECIPES) if r.needs)
    row = roads.travel(recipe, "small", tmp_path)
    assert row["verdict"] == "skipped"
    assert recipe.needs[0] in row["result"]


@pytest.mark.medium
def test_a_failing_command_fails_its_road(roads: ModuleType, tmp_path: Path) -> None:
    nowhere = roads.Recipe("R0", "nowhere", (), {}, (f"fewlabels inspect {tmp_path}/no",), ("n",))
    row = roads.travel(nowhere, "small", tmp_path)
    assert row["verdict"] == "failed"
    assert "exit 3" in row["result"]


@pytest.mark.medium
def test_turned_digits_are_a_sound_table_of_numbers(tmp_path: Path) -> None:
    """What docs/regression.md sends its readers to."""
    place = ROOT / "recipes/turned_digits.py"
    subprocess.run([sys.executable, str(place), str(tmp_path / "turned")], check=True)
    options = fewlabels.DataOptions(str(tmp_path / "turned"), target="angle (deg)")
    report = fewlabels.inspect(options)
    assert report["labelled"] == report["images"] == 600
    assert -45 <= report["target"]["min"] < -40 < 40 < report["target"]["max"] <= 45
    assert (report["target"]["unit"], report["warnings"]) == ("deg", [])
