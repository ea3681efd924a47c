"""The journey verb by verb on the command line: pretrain, finetune, evaluate, predict, report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fewlabels.cli import main


def call(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    try:
        code: Any = main([*words, "--json"])
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr()
    assert code in (0, None), said.err
    return json.loads(said.out)


@pytest.mark.medium
def test_digits(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    budget = ("--device", "cpu", "--budget", "20steps")
    first = call(capsys, "pretrain", "digits", "--out", "encoder", *budget)
    assert first["steps"] == 20
    tuned = call(
        capsys,
        "finetune",
        "digits",
        "--from",
        "encoder",
        "--out",
        "model",
        "--labels",
        "4",
        *budget,
    )
    assert sum(tuned["labels"].values()) == 40
    scored = call(capsys, "evaluate", "model")
    assert scored["accuracy"]["value"] > 0.3
    assert call(capsys, "pretrain", "digits", "--out", "encoder", *budget)["already_done"]
    for folder in ("encoder", "model"):
        assert Path(call(capsys, "report", folder)["report"]).exists()
