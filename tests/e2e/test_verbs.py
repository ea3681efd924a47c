"""The journey verb by verb on the command line: pretrain, finetune, evaluate, predict, report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

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
    shown = call(capsys, "explain", "model", "--count", "2", "--device", "cpu")
    assert [Path(row["picture"]).exists() for row in shown["images"]] == [True, True]
    assert {row["map"] for row in shown["maps"]} == {
        "grad_cam",
        "integrated_gradients",
        "occlusion",
    }
    words = ("images/000012", "--class", "8", "--maps", "occlusion", "--device", "cpu")
    (row,) = call(capsys, "explain", "model", *words)["images"]
    assert (row["path"], row["label"], row["explained"]) == ("images/000012", "2", "8")
    assert call(capsys, "pretrain", "digits", "--out", "encoder", *budget)["already_done"]
    for folder in ("encoder", "model"):
        assert Path(call(capsys, "report", folder)["report"]).exists()


@pytest.mark.medium
def test_the_main_job_without_a_label_pre_trains_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "unlabelled"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(24):
        pixels = rng.integers(0, 256, (12, 12), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    out = tmp_path / "run"
    words = ["run", str(tmp_path / "data"), "--budget", "3s", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "fewlabels", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "pre-trains, and stops there" in done.stderr
    assert "verdict" not in done.stdout.lower()
    assert (out / "model" / "model.safetensors").exists()
