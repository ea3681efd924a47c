"""What people and scripts read of predicted numbers, from results alone."""

from __future__ import annotations

import pytest

from fewlabels.cli import output
from fewlabels.report.words import DASH, MINUS

TARGET = {"name": "height (cm)", "unit": "cm"}
SCORED = {
    **{"schema": 1, "run": "runs/x", "split": "val", "n": 40, "looks_at_test": 0},
    **{"mse": {"value": 25.5, "low": 20.0, "high": 31.0}, "target": TARGET},
    **{"mae": {"value": 4.0, "low": 3.5, "high": None}, "spearman": None},
    "r2": {"value": -0.25, "low": -0.5, "high": 0.125},
}
INSPECTED = {
    **{"images": 60, "labelled": 50, "unlabelled": 10, "classes": {}, "unreadable": 0},
    **{"splits": {"train": 40, "val": 5, "test": 5}, "quarantine": [], "duplicates": []},
    **{"leaks": [], "imbalance": None, "warnings": ["5 test images have a number"]},
    "target": {
        **TARGET,
        **{"count": 50, "missing": 10, "min": 150.0, "max": 199.5, "mean": 171.25, "std": 9.5},
        **{"quantiles": {"0.5": 170.75}, "histogram": {"edges": [0.0, 1.0], "counts": [50]}},
    },
}


def test_people_read_errors_in_units(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_scores(SCORED)
    shown = capsys.readouterr().out
    ends = f"{MINUS}0.25 ({MINUS}0.5 to 0.125)"
    for text in (f"25.5 cm² (20{DASH}31)", "mean absolute error", "4 cm", "R²", ends):
        assert text in shown
    assert "rank correlation" not in shown
    assert "%" not in shown.replace("95 %", "")


def test_people_read_the_spread_of_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_inspect(INSPECTED)
    shown = capsys.readouterr().out
    for text in ("50 with a number in 'height (cm)'", "170.8", "199.5", "9.5", "50%", "5 test"):
        assert text in shown
    assert "classes" not in shown


def test_an_empty_column_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    empty = {**INSPECTED["target"], "count": 0, "quantiles": {}}  # type: ignore[dict-item]
    output.show_inspect({**INSPECTED, "labelled": 0, "target": empty})
    assert "0 with a number" in capsys.readouterr().out


def test_predicted_numbers_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"path": "a.jpg", "value": 171.123456}, {"path": "b.jpg", "value": None, "issue": "no"}]
    assert output.predictions_csv(rows) == "path,value\na.jpg,171.123456\nb.jpg,\n"
    output.show_predictions(rows)
    assert capsys.readouterr().out == "image  value\na.jpg  171.123\nb.jpg  (no)\n"


def test_the_probe_is_no_percentage(capsys: pytest.CaptureFixture[str]) -> None:
    trained = {
        **{"run": "runs/x", "backbone": "tiny", "parameters": 1, "steps": 1, "seconds": 1.0},
        **{"final": {}, "probe_score": "r2", "probe": {"value": 0.5, "low": 0.25, "high": 0.75}},
    }
    output.show_training(trained)
    assert f"R2 0.5 (0.25{DASH}0.75) leave-one-out neighbours" in capsys.readouterr().out
