"""Travel every road of ``recipes/`` and print what came of it.

    FEWLABELS_DATA=... python benchmarks/roads.py              # small budgets: does each road hold?
    FEWLABELS_DATA=... python benchmarks/roads.py --full       # the budgets of the recipes
    FEWLABELS_DATA=... python benchmarks/roads.py --only R5,R9

Ends with a table: road, seconds, result, verdict, and with exit code 1 where a road failed. A road
whose data are not there is skipped, and the table says so. Writes ``benchmarks/roads.csv``, or
``roads_full.csv``; a road that is travelled again replaces its row.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from record import replace

from fewlabels.results.environment import describe

HERE = Path(__file__).parent
RECIPES = HERE.parent / "recipes"
COLUMNS = ("road", "title", "seconds", "result", "verdict", "machine", "commit", "command")
PROGRAMS = {
    "fewlabels": [sys.executable, "-m", "fewlabels"],
    "torchrun": [sys.executable, "-m", "torch.distributed.run"],
    "python": [sys.executable],
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """A road as its file describes it.

    Attributes
    ----------
    road, title : str
    needs : tuple of str
        Data sets, by the name of their folder.
    values : dict
        What stands in braces in the commands: ``full`` and ``small`` of each.
    commands : tuple of str
    shows : tuple of str
        Which numbers of the last command's JSON are the result, with dots between names.
    """

    road: str
    title: str
    needs: tuple[str, ...]
    values: dict[str, dict[str, str]]
    commands: tuple[str, ...]
    shows: tuple[str, ...]

    def filled(self, size: str, places: dict[str, str]) -> list[list[str]]:
        """Return the commands as words, with budgets of a size."""
        values = {name: str(both[size]) for name, both in self.values.items()}
        return [
            [word.format(**values, **places) for word in shlex.split(command)]
            for command in self.commands
        ]


def read_recipe(path: Path) -> Recipe:
    """Read one recipe."""
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Recipe(
        found["road"],
        found["title"],
        tuple(found["needs"]),
        found["values"],
        tuple(found["commands"]),
        tuple(found["shows"]),
    )


def main() -> int:
    """Travel the roads asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="the budgets of the recipes")
    parser.add_argument("--only", default="", help="roads, as in R1,R5")
    parser.add_argument("--out", type=Path, help="keep the run folders here")
    chosen = parser.parse_args()
    size = "full" if chosen.full else "small"
    wanted = {name for name in chosen.only.split(",") if name}
    recipes = [read_recipe(path) for path in sorted(RECIPES.glob("*.yaml"))]
    recipes = [recipe for recipe in recipes if not wanted or recipe.road in wanted]
    rows = []
    with tempfile.TemporaryDirectory() as spare:
        for recipe in recipes:
            rows.append(travel(recipe, size, chosen.out or Path(spare)))
            sys.stdout.write(line(rows[-1]) + "\n")
            sys.stdout.flush()
    path = HERE / ("roads_full.csv" if chosen.full else "roads.csv")
    replace(path, COLUMNS, rows, ("road",), order=lambda row: int(str(row["road"])[1:]))
    sys.stdout.write("\n" + "\n".join(line(row) for row in rows) + "\n")
    return int(any(row["verdict"] == "failed" for row in rows))


def travel(recipe: Recipe, size: str, out: Path) -> dict[str, Any]:
    """Run the commands of one road and return its row."""
    about = describe("cpu")
    tail = "--full " if size == "full" else ""
    row: dict[str, Any] = {
        "road": recipe.road,
        "title": recipe.title,
        "seconds": "",
        "machine": about["machine"],
        "commit": about.get("commit", ""),
        "command": f"python benchmarks/roads.py {tail}--only {recipe.road}",
    }
    data = Path(os.environ.get("FEWLABELS_DATA", ""))
    missing = [name for name in recipe.needs if not (data / name).is_dir()]
    if missing:
        return row | {
            "result": f"no {', '.join(missing)}: set FEWLABELS_DATA",
            "verdict": "skipped",
        }
    places = {name: str(data / name) for name in recipe.needs}
    places |= {"out": str(out / recipe.road.lower()), "recipes": str(RECIPES)}
    Path(places["out"]).mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    said: Any = {}
    for words in recipe.filled(size, places):
        sys.stderr.write(f"{recipe.road}: {shlex.join(words)}\n")
        found = run(words)
        if isinstance(found, str):
            return row | {"result": within(found, out), "verdict": "failed"}
        said = found or said
    row["seconds"] = round(time.perf_counter() - began, 1)
    return row | {"result": within(result(said, recipe.shows), out), "verdict": verdict(said)}


def within(said: str, out: Path) -> str:
    """Return what was said with paths of runs as they are below the folder of all."""
    return said.replace(f"{out}{os.sep}", "")


def run(words: list[str]) -> Any:
    """Run one command; return its JSON, or the reason why it failed."""
    ours = words[0] == "fewlabels" or "fewlabels" in words
    command = [*PROGRAMS[words[0]], *words[1:], *(["--json"] if ours else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = [text for text in done.stderr.splitlines() if text.strip()][-3:]
        return f"exit {done.returncode}: {' '.join(last)}"
    return json.loads(done.stdout) if ours else None


def result(said: Any, shows: tuple[str, ...]) -> str:
    """Return the numbers to show, in words."""
    return "; ".join(f"{name.split('.')[-1]} {pick(said, name)}" for name in shows)


def pick(said: Any, name: str) -> str:
    """Return one number or text of a JSON value; an interval as ``value (low to high)``."""
    for part in name.split("."):
        said = said[int(part) if isinstance(said, list) else part]
    if isinstance(said, dict) and {"value", "low", "high"} <= said.keys():
        return f"{said['value']:.3f} ({said['low']:.3f} to {said['high']:.3f})"
    return f"{said:.3g}" if isinstance(said, float) else str(said)


def verdict(said: Any) -> str:
    """Return the verdict of a comparison; of anything else that it is done."""
    primary = said.get("primary") if isinstance(said, dict) else None
    return str(primary["verdict"]) if primary else "done"


def line(row: dict[str, Any]) -> str:
    """Return a row of the table that is printed."""
    head = f"{row['road']:>4}  {row['title']:<44} {row['seconds']!s:>7} s"
    return f"{head}  {row['verdict']:<9}  {row['result']}"


if __name__ == "__main__":
    sys.exit(main())
