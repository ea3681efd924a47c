"""The page tells what became of the weights of a start: all that was not carried whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fewlabels.report import write_report
from fewlabels.report.words import TIMES


def page_of(folder: Path, tensors: Any) -> str:
    """Return the section on weights of a run that tells this of its tensors."""
    result = {"schema": 1, "kind": "finetune", "name": "photos", "start": "resnet18"}
    (folder / "results.json").write_text(json.dumps(result | {"tensors": tensors}))
    page = write_report(folder).read_text(encoding="utf-8")
    return page.partition('id="tensors"')[2].partition("</section>")[0]


def row(name: str, fate: str, before: list[int], now: list[int]) -> dict[str, Any]:
    return {"name": name, "fate": fate, "before": before, "shape": now}


def test_what_was_not_carried_whole(tmp_path: Path, hostile: str) -> None:
    kept = [row(f"net.{i}", "carried", [4], [4]) for i in range(60)]
    changed = [
        row("net.conv1.weight", "reshaped", [64, 3, 7, 7], [64, 1, 7, 7]),
        row(hostile, "skipped", [1000, 512], []),
    ]
    page = page_of(tmp_path, kept + changed)
    assert "carried over as they were: 60; not whole: 2." in page
    assert page.count("<tr><th scope") == 2
    shapes = [text.replace("x", TIMES) for text in ("64x3x7x7", "64x1x7x7", "1000x512")]
    for text in ("net.conv1.weight", "skipped", *shapes):
        assert text in page
    assert hostile not in page
    assert "<details>" not in page
    assert "Reshaped tensors have" in page and "new ones were drawn" not in page


@pytest.mark.parametrize(("count", "left"), [(13, None), (500, "100 more are in results.json")])
def test_a_long_table_is_folded(tmp_path: Path, count: int, left: str | None) -> None:
    page = page_of(tmp_path, [row(f"net.{i}", "new", [], [8]) for i in range(count)])
    assert f"<summary>The {count} tensors" in page
    assert page.count("<tr><th scope") == min(count, 400)
    assert (left or "") in page
    assert ("more are in" in page) == bool(left)


@pytest.mark.parametrize("tensors", [[], None, "odd", [{"fate": "new"}]])
def test_where_nothing_is_told_there_is_no_table(tmp_path: Path, tensors: Any) -> None:
    assert page_of(tmp_path, tensors) == ""


def test_odd_shapes_do_no_harm(tmp_path: Path) -> None:
    odd = {"name": 7, "fate": None, "before": "x", "shape": [None, "a"]}
    assert page_of(tmp_path, [odd]).count("<tr><th scope") == 1
