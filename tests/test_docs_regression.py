"""The example of docs/regression.md, as a reader would run it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fewlabels

PAGE = Path(__file__).parents[1] / "docs" / "regression.md"


@pytest.mark.medium
def test_the_example_makes_a_table_of_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = re.search(
        r"<!-- executed by the tests -->\n```python\n(.*?)```", PAGE.read_text(), re.S
    )
    assert found is not None
    monkeypatch.chdir(tmp_path)
    exec(compile(found[1], str(PAGE), "exec"), {})
    report = fewlabels.inspect(fewlabels.DataOptions("turned", target="angle (deg)"))
    assert report["labelled"] == report["images"] == 600
    assert report["target"]["unit"] == "deg"
    assert -45 <= report["target"]["min"] < -40 < 40 < report["target"]["max"] <= 45
    assert report["warnings"] == []
