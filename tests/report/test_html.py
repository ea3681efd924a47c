"""The page says what was found, escapes what it shows, and needs no part but one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fewlabels.core.errors import DataError
from fewlabels.report import write_report


class Tags(HTMLParser):
    """Collect tags and attributes; check that what opens is closed."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def edit_inspect(folder: Path, found: dict[str, Any]) -> None:
    place = folder / "results.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"inspect": found}))


def edit(folder: Path, **changes: Any) -> None:
    file = folder / "comparison.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_headline_states_verdict_and_smallest_difference(folder: Path, sentence: str) -> None:
    page = page_of(folder)
    assert f">{sentence}</h1>" in page
    assert "smallest difference this design could have seen is 3.1 points" in page
    assert "+9.1 percentage points (95 % interval +6.3 to +11.9)" in page
    assert "81.2" in page and "fewlabels run synthetic-clothes" in page


def test_what_would_decide_it_stands_beside_the_verdict(folder: Path) -> None:
    primary = json.loads((folder / "comparison.json").read_text())["primary"]
    said = "About 12 more draws of labels would probably decide it."
    assert said not in page_of(folder)
    edit(folder, primary=primary | {"verdict": "undecided", "outlook": said})
    assert said in page_of(folder)


def test_the_curve_goes_on_as_forecast(folder: Path) -> None:
    assert "Dotted ends" not in page_of(folder)
    rows = [
        {"arm": arm, "shots": n, "value": 0.83, "low": 0.8, "high": 0.86, "level": 0.8}
        for arm in ("simclr+features", "pixels")
        for n in (400, 100)
    ]
    edit(folder, forecast=rows)
    page = page_of(folder)
    assert "Dotted ends are forecasts, with 80 % intervals." in page
    notes = [note for note in re.findall("<title>([^<]*)</title>", page) if "forecast" in note]
    assert set(notes) == {
        "SimCLR + frozen features, 100 labels per class: forecast 83.0 (80.0\N{EN DASH}86.0)"
    }
    Tags(page)


def test_all_tags_close_and_ids_are_unique(folder: Path) -> None:
    tags = Tags(page_of(folder)).seen
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {a["href"][1:] for t, a in tags if t == "a" and a["href"]}
    assert links and links <= set(ids)


def test_nothing_is_fetched_and_nothing_runs(folder: Path) -> None:
    page = page_of(folder)
    assert "default-src 'none'" in page
    for tag, attributes in Tags(page).seen:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href", "action"):
            target = attributes.get(name)
            assert target is None or target.startswith(("data:", "#"))
    assert not re.search(r"url\(|@import", page)


def test_hostile_names_are_inert(folder: Path, hostile: str) -> None:
    page = page_of(folder)
    assert hostile not in page
    assert "&lt;script&gt;" in page


def test_odd_characters_and_thumbnails_survive(folder: Path) -> None:
    rows = [
        {
            "path": "bad\udcff\x00.jpg",
            "label": "\u202egnp",
            "predicted": None,
            "probability": None,
            "thumbnail": "https://example.com/x.png",
        },
        {
            "path": "b.jpg",
            "label": "b",
            "predicted": "c",
            "thumbnail": 'data:image/png;base64,AAAA" onerror="x',
        },
    ]
    (folder / "mistakes.json").write_text(json.dumps(rows))
    page = page_of(folder)
    assert "example.com" not in page and "onerror" not in page
    assert "bad\\udcff\N{REPLACEMENT CHARACTER}.jpg" in page


def test_comparison_alone_is_enough(folder: Path, tmp_path: Path, sentence: str) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "comparison.json").write_bytes((folder / "comparison.json").read_bytes())
    assert sentence in page_of(alone)


@pytest.mark.parametrize(
    "value",
    [
        {"schema": 1},
        {
            "arms": None,
            "curves": [None],
            "cells": 3,
            "verdicts": [{}],
            "primary": None,
            "inspect": [],
            "best": None,
        },
    ],
)
def test_nearly_empty_comparison_renders(tmp_path: Path, value: dict[str, Any]) -> None:
    (tmp_path / "comparison.json").write_text(json.dumps(value))
    assert "No verdict yet" in page_of(tmp_path)


def test_every_null_is_handled(folder: Path) -> None:
    def blank(value: Any) -> Any:
        if isinstance(value, dict):
            names = ("name", "arm", "baseline", "arms", "verdict")
            return {
                k: v if k in names and isinstance(v, str) else blank(v) for k, v in value.items()
            }
        return [blank(v) for v in value] if isinstance(value, list) else None

    for name in ("comparison.json", "results.json", "mistakes.json"):
        file = folder / name
        file.write_text(json.dumps(blank(json.loads(file.read_text()))))
    page = page_of(folder)
    text = re.sub(r"<style.*?</style>|base64,[^\"]*", "", page, flags=re.S)
    assert ">None<" not in text and "nan" not in text


def test_damaged_parts_are_named(folder: Path, sentence: str) -> None:
    (folder / "results.json").write_text("{")
    (folder / "figures" / "embedding.npz").write_bytes(b"PK\x03\x04 torn")
    page = page_of(folder)
    assert sentence in page
    assert "results.json: " in page and "figures/embedding.npz: " in page


def test_nothing_to_report_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither a comparison\.json nor a results\.json"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_losses_are_said_plainly(folder: Path) -> None:
    page = page_of(folder)
    assert "Autoencoder + frozen features loses to training from scratch with 25" in page
    edit(
        folder,
        primary={
            "arm": "autoencoder+features",
            "baseline": "random",
            "shots": 25,
            "difference": 0.03,
            "low": 0.0,
            "high": 0.06,
            "verdict": "undecided",
            "detectable": 0.05,
        },
        verdicts=[],
    )
    page = page_of(folder)
    assert "it stays undecided whether autoencoder + frozen features beats untrained enc" in page
    assert "scored below raw pixels with 25 labels per class: 69.0 against 70.0 %" in page


COLLAPSED = {
    "code": "collapsed",
    "sentence": "The encoder has collapsed: its features span about 1.2 directions, not 3 or more.",
    "measured": {"encoders": 1, "collapsed": 1, "rank": 1.2, "least_rank": 3.0},
    "also": [{"code": "short", "sentence": "Pre-training was short.", "measured": {}}],
}


def test_the_likely_reason_stands_beside_the_harm(folder: Path) -> None:
    primary = json.loads((folder / "comparison.json").read_text())["primary"]
    lost = primary | {"verdict": "hurts", "difference": -0.09, "low": -0.12, "high": -0.06}
    edit(folder, primary=lost | {"reason": COLLAPSED})
    why = page_of(folder).partition('<p class="why">')[2].partition("</p>")[0]
    assert why == (
        "Likely reason: the encoder has collapsed: its features span about 1.2 directions, not 3 "
        "or more. Pre-training was short."
    )
    edit(folder, primary=lost | {"reason": None})
    assert '<p class="why">Nothing measured explains it.</p>' in page_of(folder)
    edit(folder, primary=lost)  # written before reasons were looked for
    assert 'class="why"' not in page_of(folder)
    edit(folder, primary=primary | {"reason": None})  # no harm
    assert 'class="why"' not in page_of(folder)
    edit(folder, primary=lost | {"arm": "pixels", "reason": None})  # nothing was pre-trained
    assert 'class="why"' not in page_of(folder)


def test_a_reason_tells_the_labels_that_it_is_of(folder: Path) -> None:
    row = {"arm": "autoencoder+features", "baseline": "scratch", "verdict": "hurts"}
    row |= {"difference": -0.05, "low": -0.08, "high": -0.02, "detectable": 0.03}
    rows = [row | {"shots": 4, "reason": COLLAPSED | {"also": []}}, row | {"shots": 25}]
    edit(folder, verdicts=[rows[0], rows[1] | {"reason": None}])
    page = page_of(folder)
    assert "not 3 or more (with 4 labels per class)." in page
    edit(folder, verdicts=[rows[0], rows[1] | {"reason": COLLAPSED | {"also": []}}])
    page = page_of(folder)
    assert page.count("not 3 or more.") == 1
    edit(folder, verdicts=[one | {"reason": None} for one in rows])
    assert "5.0 points. Nothing measured explains it." in page_of(folder)


@pytest.mark.medium
@pytest.mark.parametrize("count", [2, 13, 41, 200])
def test_any_number_of_classes(make_folder: Callable[..., Path], count: int) -> None:
    folder = make_folder([f"species {i:03d}" for i in range(count)])
    page = page_of(folder)
    Tags(page)
    assert ('class="matrix' in page) == (count <= 40)
    assert "Most frequent confusions" in page
    assert len(page) < 1_500_000


def test_one_number_of_labels_shows_rows_and_failed_cells(make_folder: Callable[..., Path]) -> None:
    page = page_of(make_folder(shots=(1,)))
    assert "Which approach did best" in page
    assert "This training failed and is in no average" in page


def test_pretraining_alone(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(
        json.dumps(
            {
                "schema": 1,
                "kind": "pretrain",
                "run": "r",
                "method": "simclr",
                "backbone": "tiny",
                "parameters": 400_000,
                "steps": 900,
                "images_seen": 1e5,
                "seconds": 61.0,
                "images_per_second": 1700.0,
                "peak_memory_mb": 2048,
                "final": {"loss": 3.2, "x": None},
                "probe": {"value": 0.6, "low": 0.5, "high": 0.7},
            }
        )
    )
    rows = [{"step": i, "seconds": i / 10, "loss": 1 / (i + 1)} for i in range(2000)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    page = page_of(tmp_path)
    said = "SimCLR (tiny) was trained for 1 min 01 s; its nearest neighbours get 60.0 %"
    assert said in page and "How the training went" in page and "2.0 GB" in page


def test_a_watched_fine_tune_shows_its_gap_and_the_weights_kept(tmp_path: Path) -> None:
    said = "the validation loss was lowest at step 300 of 1,000 (0.9; 1.4 at step 600)"
    stopping = {"kept": "best", "best_step": 300, "said": said}
    results = {"schema": 1, "kind": "finetune", "start": "scratch", "stopping": stopping}
    (tmp_path / "results.json").write_text(json.dumps(results | {"warnings": ["overfit: beware"]}))
    rows = []
    for step in range(10, 610, 10):
        row = {"step": step, "seconds": step / 10, "loss": 1 / step}
        if step % 100 == 0:
            row |= {"val_loss": 1.0, "val_accuracy": 0.55, "plain_train_accuracy": 1.0}
        rows.append(row)
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    page = page_of(tmp_path)
    assert said in page and "overfit: beware" in page
    assert page.count("(training solid, validation dashed)") == 2
    assert "the upright line marks the weights that were kept, step 300" in page
    upright = re.findall(r'<line x1="([\d.]+)" y1="10" x2="([\d.]+)" y2="142" class="chance"', page)
    # One line a panel, at the share of the axis that step 300 lies at: 10 to 600, 100 to 600.
    assert [float(a) for a, _ in upright] == pytest.approx(
        [46 + 264 * 290 / 590, 46 + 264 * 200 / 500], abs=0.06
    )
    assert all(a == b for a, b in upright)


def test_how_near_unlabelled_images_are_is_told(folder: Path) -> None:
    inspected = json.loads((folder / "results.json").read_text())["inspect"]
    found = {"auc": 0.97, "p": 0.005, "variety": {"labelled": 41.2, "unlabelled": 12.0}}
    edit_inspect(folder, inspected | {"likeness": found})
    page = page_of(folder)
    assert "in 97 of 100 pairs (50 by guessing)" in page
    assert "12 and 41" in page


def test_classifier_alone_with_a_later_evaluation(folder: Path, tmp_path: Path) -> None:
    from fewlabels.results.runfolder import RunFolder

    test = json.loads((folder / "results.json").read_text())["test"]
    results = {
        "schema": 1,
        "kind": "finetune",
        "run": "r",
        "method": None,
        "start": "simclr",
        "transfer": "features",
        "val": {**test, "split": "val"},
        "seconds": 5.0,
        "carried": {"carried": 12, "reshaped": 1, "new": 2},
    }
    place = tmp_path / "classifier"
    with RunFolder(place) as run:
        run.write_json("results.json", results)
        run.finish()
    assert "Measured on the val images" in page_of(place)
    with RunFolder(place) as run:
        run.add_record("evaluate", test)
    page = page_of(place)
    assert "Measured on the test images" in page
    assert "started from SimCLR gets 80.7 % of" in page
    assert RunFolder(place).verify() == []


def test_regression_shows_errors_not_accuracy(tmp_path: Path) -> None:
    interval = {"value": 2.5, "low": 2.0, "high": 3.0}
    (tmp_path / "results.json").write_text(
        json.dumps(
            {"run": "r", "split": "test", "n": 90, "mse": interval, "mae": interval, "r2": interval}
        )
    )
    assert "is off by 2.5 on average over 90" in page_of(tmp_path)


def test_same_folder_gives_same_page(folder: Path) -> None:
    assert page_of(folder) == page_of(folder)


def test_names_are_escaped_in_the_title_too(folder: Path, hostile: str) -> None:
    edit(folder, name=hostile)
    assert f"<title>{escape(hostile).replace('&#x27;', '&#39;')}: " in page_of(folder)


def cost_of(page: str) -> str:
    """Return the section on cost."""
    return page[page.index('<section id="cost">') : page.index('<section id="again">')]


def test_scores_are_drawn_against_time(folder: Path) -> None:
    section = cost_of(page_of(folder))
    pictures = re.findall(r"<svg[^>]*accuracy against time, (.*?)\"", section)
    assert pictures == ["1 label per class", "4 labels per class", "25 labels per class"]
    notes = re.findall(r"<title>(.*?)</title>", section)
    assert len(notes) == 3 * 8
    # The mean of its cells, and the seconds of one training, pre-training included.
    said = (
        "SimCLR + frozen features, 25 labels per class: 81.2 % (78.7-83.7), 8 repeats, 1 min 25 s"
    )
    assert said in [note.replace("\N{EN DASH}", "-") for note in notes]
    assert [note.rpartition(", ")[2] for note in notes if "SimCLR + frozen" in note] == [
        "1 min 25 s"
    ] * 3


def test_costs_are_told_where_they_are_known(folder: Path) -> None:
    section = cost_of(page_of(folder))
    for heading in ("Multiply-adds", "Energy", "Peak memory", "Baseline reached"):
        assert heading in section
    assert "3.5 T" in section and "3.52 kJ" in section
    assert "≤ 1 min 25 s" in section and ">no<" in section
    found = json.loads((folder / "comparison.json").read_text())
    older = ("multiply_adds", "energy_joules")
    cells = [{k: v for k, v in cell.items() if k not in older} for cell in found["cells"]]
    edit(folder, cells=cells, time_to_baseline=[])
    section = cost_of(page_of(folder))
    for heading in ("Multiply-adds", "Energy", "Baseline reached"):
        assert heading not in section


def test_without_seconds_there_is_no_figure_of_them(folder: Path) -> None:
    edit(folder, cells=[])
    page = page_of(folder)
    assert "against time" not in page
    assert "The whole comparison took" in cost_of(page)


@pytest.mark.parametrize(
    ("design", "said"),
    [
        ({"budget": "450s", "budget_seconds": 450.0}, "7 min 30 s"),
        ({"budget": "2000000images", "budget_seconds": None}, "2,000,000 images"),
    ],
)
def test_the_budget_is_told_in_its_unit(folder: Path, design: dict[str, Any], said: str) -> None:
    edit(folder, design=design)
    page = page_of(folder)
    assert f"<dt>budget of each arm and draw</dt><dd>{said}</dd>" in page
