"""The page of a number: less error is better, units are told, and nothing speaks of classes."""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path
from typing import Any

import pytest

from fewlabels.report import write_report
from fewlabels.report.findings import Comparison, headline
from fewlabels.report.measures import measure_of
from fewlabels.report.numbers import histogram, scatter
from fewlabels.report.tables import all_series, arms_table
from fewlabels.report.words import DASH, MINUS

pytestmark = pytest.mark.medium


@pytest.fixture
def page(number_folder: Path) -> str:
    return write_report(number_folder).read_text(encoding="utf-8")


@pytest.fixture
def compared(number_folder: Path) -> Comparison:
    return Comparison(json.loads((number_folder / "comparison.json").read_text()))


def test_the_headline_says_that_the_error_falls(page: str, compared: Comparison) -> None:
    top = headline(compared)
    assert "Fall in mean squared error: +400 m/s² (95 % interval +310 to +490)." in page
    assert "could have seen is 150 m/s²" in page
    assert top["sentence"].startswith("With 10 labels, SimCLR + frozen features beats training")
    assert top["strip"]["at"] > 50  # on the side of the arm
    assert "points" not in top["seen"] + top["detail"]


def test_the_least_error_is_the_best(compared: Comparison) -> None:
    table = arms_table(compared)
    assert table is not None
    assert [row["name"] for row in table["rows"]] == ["simclr+features", "scratch", "mean"]
    bold = {row["name"]: [best for _, _, best in row["scores"]] for row in table["rows"]}
    assert bold == {"simclr+features": [True, True], "scratch": [False] * 2, "mean": [False] * 2}
    assert table["headings"] == ["10 labels", "40 labels"]
    assert table["rows"][0]["scores"][0][:2] == ("500", f"(410{DASH}590)")
    assert {row["name"]: row["title"] for row in table["rows"]}["mean"] == "Mean of the labels"
    assert all(one.plain for one in all_series(compared) if "Mean" in one.title)


def test_the_page_speaks_of_numbers(page: str) -> None:
    for text in (
        "How good the regressor is",
        "How near the numbers are",
        "Its largest errors",
        "Numbers of the labelled images",
        "How mean squared error changes with labels",
        "Lower and further left is better",
        "in m/s²",
        f"12 m/s <small>(10.5{DASH}13.5)</small>",
        "Colours are ranges of the number",
        "49.5 m/s too low",
        "2000 m/s",
    ):
        assert text in page, text
    for text in ("per class", "What it takes for what", "most confident mistakes", "Recall"):
        assert text not in page, text


def test_the_chosen_and_the_baseline_are_in_units(page: str) -> None:
    tiles = re.findall(r"<dt>(.*?)</dt><dd><b>(.*?)</b>", page)
    shown = dict(tiles)
    assert shown["Chosen approach"] == "220<small>m/s²</small>"
    assert shown["Baseline"] == "310<small>m/s²</small>"


def test_the_name_of_the_number_is_escaped(page: str, hostile: str) -> None:
    assert hostile not in page
    assert escape(hostile, quote=False)[:20] in page


def test_dots_lie_where_the_numbers_are() -> None:
    """Three images: one right, one above, one below the line."""
    pairs = [[0.0, 0.0], [10.0, 12.0], [20.0, 17.0]]
    found = scatter({"pairs": pairs, "n": 3, "target": {"name": "age", "unit": ""}})
    assert found is not None
    left, right = (str(picture) for picture in found["pictures"])
    dots = [tuple(map(float, m)) for m in re.findall(r"M([\d.]+) ([\d.]+)h0", left)]
    line = re.search(
        r'<line x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)" class="id', left
    )
    assert line is not None
    x1, y1, x2, y2 = map(float, line.groups())
    on_line = [y1 + (x - x1) / (x2 - x1) * (y2 - y1) for x, _ in dots]
    assert dots[0][1] == pytest.approx(on_line[0], abs=0.2)
    assert dots[1][1] < on_line[1] - 1  # higher on the page: predicted too high
    assert dots[2][1] > on_line[2] + 1
    errors = [float(y) for _, y in re.findall(r"M([\d.]+) ([\d.]+)h0", right)]
    assert errors[1] < errors[0] < errors[2]
    assert "predicted age" in left
    assert "error: predicted less true" in right


@pytest.mark.parametrize("pairs", [None, [], [[1.0]], "x", [[None, None]], [["a", "b"]]])
def test_pairs_that_are_none_draw_nothing(pairs: Any) -> None:
    assert scatter({"pairs": pairs, "n": 3}) is None


@pytest.mark.parametrize("pairs", [[[1.0, 1.0]], [[5.0, 5.0], [5.0, 5.0]]])
def test_a_single_number_is_drawn(pairs: Any) -> None:
    assert scatter({"pairs": pairs, "n": len(pairs)}) is not None


def test_a_histogram_needs_counts() -> None:
    assert histogram({}) is None
    assert histogram({"histogram": {"edges": [0, 1], "counts": [0]}}) is None
    assert histogram({"histogram": {"edges": [0], "counts": [3]}}) is None
    drawn = str(histogram({"histogram": {"edges": [0, 1, 2], "counts": [1, 4]}}))
    assert "1 to 2: 4 images" in drawn


@pytest.mark.parametrize(
    ("metric", "falls", "share", "value"),
    [
        ("accuracy", False, True, "50.0"),
        ("mse", True, False, "0.5"),
        ("mae", True, False, "0.5"),
        ("r2", False, False, "0.5"),
        ("nll", True, False, "0.5"),
    ],
)
def test_measures(metric: str, falls: bool, share: bool, value: str) -> None:
    measure = measure_of(metric, {"unit": "cm"})
    assert (measure.falls, measure.share, measure.value(0.5)) == (falls, share, value)
    best = measure.best([0.2, None, 0.7])
    assert best == (0.2 if falls else 0.7)
    assert min([0.2, 0.7, None], key=measure.rank) == best
    assert measure.shots(4) == (
        "4 labels per class" if metric in ("accuracy", "nll") else "4 labels"
    )


def test_units_are_squared_where_errors_are() -> None:
    assert measure_of("mse", {"unit": "cm"}).axis == "mean squared error, cm²"
    assert measure_of("mse").axis == "mean squared error"
    assert measure_of("r2", {"unit": "cm"}).axis == "R²"


def test_axes_end_where_a_score_does() -> None:
    assert measure_of("mse").ends(-1.0, 90.0) == (0.0, 90.0)
    assert measure_of("r2").ends(-1.5, 1.2) == (-1.5, 1.0)
    assert measure_of("accuracy").ends(-0.1, 1.2) == (0.0, 1.0)


def test_negative_scores_are_told_apart_from_ranges() -> None:
    assert measure_of("r2").bounds(-0.5, 0.25) == f"({MINUS}0.5 to 0.25)"


def test_a_run_of_one_stage_says_how_far_off_it_is(tmp_path: Path, number_folder: Path) -> None:
    test = json.loads((number_folder / "results.json").read_text())["test"]
    folder = tmp_path / "single"
    folder.mkdir()
    result = {"kind": "finetune", "name": "cars", "start": "scratch", "val": test}
    (folder / "results.json").write_text(json.dumps(result))
    page = write_report(folder).read_text(encoding="utf-8")
    assert "The regressor started from training from scratch is off by 12 m/s on average" in page
    assert f"95 % interval 10.5{DASH}13.5 m/s." in page
    pretrained = {"kind": "pretrain", "method": "simclr", "probe_score": "r2"}
    probe = {"value": 0.25, "low": -0.1, "high": 0.5}
    (folder / "results.json").write_text(json.dumps({**pretrained, "probe": probe}))
    page = write_report(folder).read_text(encoding="utf-8")
    assert "R² of its nearest neighbours is 0.25" in page
    assert f"95 % interval {MINUS}0.1 to 0.5." in page
