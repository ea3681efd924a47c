"""What cells cost: counted with the plan, added up by stage, and changing no result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fewlabels.results.files import read_json
from fewlabels.results.schema import validate
from fewlabels.study import settings

pytestmark = pytest.mark.medium

ARMS = ("scratch", "pixels", "autoencoder+features", "autoencoder+parameters")
STRUCTURE = "autoencoder+structure:conv-32-64-64"
TIMES = ("seconds", "pretrain_seconds", "transfer_seconds", "peak_memory_mb", "energy_joules")


ASKED = {"baseline": "pixels", "budget": "1280images", "select": "none"}


@pytest.fixture(scope="module")
def found(
    compare_shortly: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("counted") / "run"
    return compare_shortly(out, steps=5, arms=(*ARMS, STRUCTURE), **ASKED)


def test_cells_add_up_what_the_plan_counted(found: dict[str, Any]) -> None:
    cells = {cell["arm"]: cell for cell in found["cells"]}
    adds = read_json(Path(found["run"]) / "plan.json")["multiply_adds"]
    forward, step = adds["image:scratch"], adds["step:scratch"]
    before, features = adds["pretrain:autoencoder:tiny"], 200 * forward
    assert forward > 1e6
    assert 2 * 64 * forward < step < 3 * 64 * (forward + 10_000)
    assert adds["step:autoencoder+parameters"] == step
    assert {arm: cell["multiply_adds"] for arm, cell in cells.items()} == {
        "scratch": 5 * step,
        "pixels": 0,
        "autoencoder+features": before + features,
        "autoencoder+parameters": before + features + 5 * step,
        STRUCTURE: before + 5 * adds[f"step:{STRUCTURE}"],
    }
    assert adds[f"step:{STRUCTURE}"] != step


def test_a_budget_in_images_is_that_of_a_cell(found: dict[str, Any]) -> None:
    seen = {cell["arm"]: (cell["steps"], cell["images_seen"]) for cell in found["cells"]}
    assert seen == {
        "scratch": (5, 320),
        "pixels": (0, 0),
        "autoencoder+features": (15, 960),
        "autoencoder+parameters": (20, 1_280),
        STRUCTURE: (20, 1_280),
    }
    assert (found["design"]["budget"], found["design"]["budget_seconds"]) == ("1280images", None)


def test_costs_are_in_the_schema(found: dict[str, Any]) -> None:
    for cell in validate("compare", found)["cells"]:
        assert cell["peak_memory_mb"] > 50
        assert cell["energy_joules"] is None or cell["energy_joules"] > 0
        assert cell["seconds"] == cell["pretrain_seconds"] + cell["transfer_seconds"]


def test_counting_changes_no_result(
    compare_shortly: Callable[..., dict[str, Any]],
    found: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settings, "with_multiply_adds", lambda _task, _arms, steps: steps)
    other = compare_shortly(tmp_path / "run", steps=5, arms=ARMS, **ASKED)
    assert {cell["multiply_adds"] for cell in other["cells"]} == {None}
    kept = [
        [
            {k: v for k, v in cell.items() if k not in (*TIMES, "multiply_adds")}
            for cell in result["cells"]
            if cell["arm"] != STRUCTURE
        ]
        for result in (found, other)
    ]
    assert kept[0] == kept[1]
    for path in Path(found["run"]).glob("encoders/*/model/model.safetensors"):
        twin = tmp_path / "run" / path.relative_to(found["run"])
        assert twin.read_bytes() == path.read_bytes()
