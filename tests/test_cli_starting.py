"""The words of `models`, `export`, `predict --backbone` and `finetune --change`."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from fewlabels.cli import main

ROW = {
    **{"name": "torchvision:alexnet.imagenet1k_v1", "library": "torchvision"},
    **{"parameters": 61_100_840, "macs": 714_000_000, "published_accuracy": 0.56522},
    **{"available": True, "input_size": [3, 224, 224], "licence": None, "fit": None},
    "warning": None,
}
FITTED = ROW | {
    "fit": {"logme": -0.25, "knn": {"value": 0.5, "low": 0.4, "high": 0.6}, "labels": 40},
    "warning": "suits these images badly: raw pixels fit the labels as well or better",
}
EXPORTED = {"path": "out", "format": "timm", "max_abs_difference": 1e-7, "bytes": 2_000_000}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """Put stand-ins in the verbs' places and return what they are called with."""
    made: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def stand_in(module: str, verb: str, answer: Any) -> None:
        def call(*given: Any, **settings: Any) -> Any:
            made.append((verb, given, settings))
            return answer

        fake = types.ModuleType(module)
        vars(fake)[verb] = call
        monkeypatch.setitem(sys.modules, module, fake)

    stand_in("fewlabels.pipeline.choosing", "models", [FITTED, ROW | {"parameters": None}])
    stand_in("fewlabels.pipeline.export", "export", EXPORTED)
    stand_in("fewlabels.pipeline.predict", "predict_table", [])
    stand_in("fewlabels.pipeline.verbs", "finetune", {"plan": [], "seconds": 0.0})
    return made


def test_models(calls: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["models", "alex", "--available", "--fit", "photos", "--labels", "4"]
    assert main([*words, "--from", "runs/a", "--from", "w.pth", "--image-size", "96"]) == 0
    ((_, given, settings),) = calls
    assert given == ("alex",)
    assert (settings["available"], settings["labels"]) == (True, 4)
    assert (settings["fit"].data, settings["fit"].image_size) == ("photos", 96)
    assert settings["starts"] == ["runs/a", "w.pth"]
    assert settings["backbone"] == "auto"
    assert main([*words, "--from", "w.pth", "--backbone", "resnet10t"]) == 0
    assert calls.pop()[2]["backbone"] == "resnet10t"
    shown = capsys.readouterr().out
    assert "61.1 M" in shown
    assert "56.5 %" in shown
    assert "-0.250" in shown
    assert "warning: torchvision:alexnet.imagenet1k_v1 suits these images badly" in shown


@pytest.mark.parametrize("terminal", [True, False])
def test_a_pipe_gets_every_row_and_a_terminal_the_first(
    terminal: bool,
    calls: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [ROW | {"name": f"network{i:03d}-{'x' * 90}"} for i in range(90)]
    choosing = sys.modules["fewlabels.pipeline.choosing"]
    monkeypatch.setattr(choosing, "models", lambda *_, **__: rows)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    assert "network019" in shown
    assert ("network089" in shown) == (not terminal)
    assert (rows[0]["name"] in shown) == (not terminal)  # on one line, to be searched for
    assert ("... and 70 more; --json shows all, and so does a pipe" in shown) == terminal


def test_models_on_a_number(
    calls: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    r2 = {"value": 0.4375, "low": 0.2, "high": 0.6}
    fit = {"logme": -1.25, "knn": None, "knn_r2": r2, "labels": 40}
    row = FITTED | {"fit": fit, "warning": None}
    monkeypatch.setattr(
        sys.modules["fewlabels.pipeline.choosing"], "models", lambda *_, **__: [row]
    )
    assert main(["models", "--fit", "leaves.csv", "--target", "area"]) == 0
    shown = capsys.readouterr().out
    for text in ("neighbours R2", "0.438", "-1.250"):
        assert text in shown


def test_models_is_told_the_target(calls: Any) -> None:
    assert main(["models", "--fit", "leaves.csv", "--target", "area"]) == 0
    assert calls[0][2]["fit"].target == "area"


def test_models_as_json_is_an_array(calls: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    assert calls[0][2]["fit"] is None
    rows = json.loads(capsys.readouterr().out)
    assert [row["published_accuracy"] for row in rows] == [0.56522, 0.56522]


def test_export(calls: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "runs/a", "--format", "timm", "--out", "out"]) == 0
    verb, given, settings = calls[0]
    assert (verb, given) == ("export", (Path("runs/a"),))
    assert (settings["format"], settings["out"]) == ("timm", Path("out"))
    assert "outputs differ by at most 1e-07" in capsys.readouterr().out
    assert main(["export", "runs/a", "--format", "onyx"]) == 2


def test_predict_takes_the_backbone_of_a_file(calls: Any) -> None:
    assert main(["predict", "w.pth", "a.jpg", "--backbone", "resnet18"]) == 0
    assert calls[0][1:] == ((Path("w.pth"), [Path("a.jpg")]), {"backbone": "resnet18"})


def test_a_declared_change(calls: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["finetune", "photos", "--from", "runs/a", "--transfer", "structure", "--dry-run"]
    assert main([*words, "--change", "{channels: [8, 16], pooling: avg}"]) == 0
    config = tmp_path / "change.yaml"
    config.write_text("change:\n  channels: [8, 16]\n  pooling: avg\n")
    assert main([*words, "--config", str(config)]) == 0
    asked = [call[2]["change"] for call in calls]
    assert asked == [{"channels": [8, 16], "pooling": "avg"}] * 2
    capsys.readouterr()
    for wrong in ("[8, 16]", "{channels: [8", "8"):
        assert main([*words, "--change", wrong]) == 2
        assert "error[usage.change]" in capsys.readouterr().err
    config.write_text("budget:\n  minutes: 5\n")
    assert main([*words, "--config", str(config)]) == 2
    assert len(calls) == 2
