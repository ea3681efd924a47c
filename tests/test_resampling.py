"""The benchmarks that resample cells: what two sides share, how often they are told apart."""

from __future__ import annotations

import csv
import importlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def scripts() -> Iterator[tuple[ModuleType, ModuleType]]:
    """The resampling of arms against themselves, and the tables of figures."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("aa"), importlib.import_module("record")
    finally:
        sys.path.pop(0)


def write_cells(place: Path, seeds: int, draws: int) -> None:
    """Write cells of two arms with encoders, and of scratch, which has none."""
    rng = np.random.default_rng(0)
    with place.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["arm", "shots", "split", "labels", "pretraining", "accuracy", "failed"])
        luck = 0.02 * rng.normal(size=draws)
        for arm, encoders in (
            ("simclr+features", seeds),
            ("random+features", seeds),
            ("scratch", 0),
        ):
            scores = 0.5 + luck + 0.01 * rng.normal(size=(max(1, encoders), 1))
            scores = scores + 0.01 * rng.normal(size=scores.shape)
            scores += 0.1 * (arm == "simclr+features")
            for (seed, draw), score in np.ndenumerate(scores):
                named = seed if encoders else ""
                table.writerow([arm, 4, 0, draw, named, f"{score:.4f}", ""])


@pytest.fixture
def made(scripts: tuple[ModuleType, ModuleType], tmp_path: Path, monkeypatch: Any) -> ModuleType:
    """The resampling, of cells that were made."""
    aa, _ = scripts
    monkeypatch.setattr(aa, "HERE", tmp_path)
    write_cells(tmp_path / "cifar10_cells.csv", 6, 20)
    return aa


@pytest.mark.parametrize(
    ("apart", "seeds", "draws"), [("seeds", 6, 10), ("draws", 3, 20), ("both", 6, 20)]
)
def test_sides_share_what_they_do_not_differ_in(made, apart, seeds, draws):
    table = np.arange(120.0).reshape(6, 20)
    a, b = made.sides(np.random.default_rng(0), table, "given", (3, 10), apart)
    assert a.shape == b.shape == (3, 10)
    used = [{int(v) // 20 for v in both} for both in (a.ravel(), b.ravel())]
    drawn = [{int(v) % 20 for v in both} for both in (a.ravel(), b.ravel())]
    assert (len(used[0] | used[1]), len(drawn[0] | drawn[1])) == (seeds, draws)


def test_what_a_table_is_large_enough_for(made):
    keys = [key for _, _, key in made.given("cifar10_cells.csv")]
    shapes = {key[4:7] for key in keys if key[0] == "a/a"}
    assert ("seeds", 3, 20) in shapes
    assert ("both", 3, 10) in shapes
    assert ("draws", 5, 10) in shapes
    assert not {("seeds", 5, 10), ("draws", 3, 20)} & shapes
    assert ("pair", "cifar10_cells.csv", 4, "given", "", 3, 10, 1, "none") in keys


@pytest.mark.medium
def test_made_cells_err_no_more_often_than_they_may_and_the_pair_is_decided(made):
    trials = 100
    for task, of, key in made.given("cifar10_cells.csv"):
        about = dict(zip(made.SAME, key, strict=True))
        if (about["pretraining"], about["draws"]) != (3, 10) or "family" in key[0]:
            continue
        rows = task(of, about, trials, np.random.default_rng(0))
        if key[0] == "pair":
            assert float(rows[0]["rate"]) == 1.0
        else:
            assert float(rows[0]["rate"]) <= stats.binom.ppf(0.999, trials, 0.06) / trials, key
            assert [row["kind"] for row in rows] == ["a/a", "power"]


def test_a_table_goes_on_where_it_stopped_and_begins_anew_on_another_commit(
    scripts, tmp_path, monkeypatch
):
    _, record = scripts
    commit = ["first"]
    monkeypatch.setattr(record, "made", lambda command: {"commit": commit[0]})
    calls = []

    def task(name: str, rng: np.random.Generator) -> list[dict[str, Any]]:
        if name == stops:
            raise KeyboardInterrupt
        calls.append(name)
        return [{"name": name, "value": f"{rng.random():.6f}"}]

    tasks = {(name,): partial(task, name) for name in "abc"}
    run = partial(
        record.fill, tmp_path / "t.csv", ("name", "value", "commit"), ("name",), "", tasks
    )
    stops = "c"
    with pytest.raises(KeyboardInterrupt):
        run()
    assert not (tmp_path / "t.csv").exists()
    stops = ""
    run()
    assert calls == ["a", "b", "c"]
    first = (tmp_path / "t.csv").read_text()
    commit[0] = "second"
    run()
    assert calls == ["a", "b", "c"] * 2
    assert (tmp_path / "t.csv").read_text() == first.replace("first", "second")
