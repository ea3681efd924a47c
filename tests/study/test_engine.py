"""A comparison on real digits: resumable to the bit, honest about labels and test images."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewlabels.core.errors import DataError, DivergedError, UsageError
from fewlabels.pipeline.task import DataOptions, Task, measure_pictures
from fewlabels.results.runfolder import RunFolder
from fewlabels.results.seals import read_sealed
from fewlabels.study import jobs
from fewlabels.study.collect import gather
from fewlabels.study.encoders import open_encoder
from fewlabels.study.engine import compute_all
from fewlabels.study.grid import Comparison
from fewlabels.study.main_job import run
from fewlabels.study.parsing import parse_arms
from fewlabels.study.plan import Steps, Unit
from fewlabels.study.settings import Settings, lay_out, prepare
from fewlabels.training import loop
from fewlabels.training.progress import Reporter

Start = Callable[..., Comparison]
COST = {"seconds", "pretrain_seconds", "transfer_seconds", "peak_memory_mb", "energy_joules"}
FEW = Steps(
    pretrain={"autoencoder:tiny": 6},
    finetune={"10": 3, "40": 3},
    scratch={"10": 3, "40": 3},
    seconds={},
)
EVERY_TRANSFER = (
    "scratch",
    "pixels",
    "pixels+spreading",
    "random+features",
    "autoencoder+knn",
    "autoencoder+features",
    "autoencoder+parameters",
)


pytestmark = pytest.mark.medium


class Killed(BaseException):
    """Stands for the end of the process."""


def results(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the cells without what they cost."""
    return [{k: v for k, v in row.items() if k not in COST} for row in comparison.cells]


def counted(monkeypatch: pytest.MonkeyPatch, *, dies_after: int | None = None) -> list[str]:
    """Note which cells are computed; the process ends when it has computed so many."""
    real, computed = jobs.score_cell, []

    def score(task: Task, arm: Any, shots: int, streams: Any, *rest: Any) -> Any:
        if len(computed) == dies_after:
            raise Killed
        computed.append(f"{arm.name} {shots} {streams.labels} {streams.pretraining}")
        return real(task, arm, shots, streams, *rest)

    monkeypatch.setattr(jobs, "score_cell", score)
    return computed


# ---- what comes out --------------------------------------------------------------------------


def test_every_cell_is_there_once(whole: Comparison) -> None:
    rows = whole.cells
    assert len({row["id"] for row in rows}) == len(rows) == 12
    pixels = [row for row in rows if row["arm"] == "pixels"]
    trained = [row for row in rows if row["arm"] == "autoencoder+features"]
    # Pixels know no pre-training seed: 2 shots x 2 draws, against 2 x 2 x 2 of the encoder.
    assert [len(pixels), len(trained)] == [4, 8]
    assert all(row["streams"]["pretraining"] is None for row in pixels)
    assert {row["streams"]["pretraining"] for row in trained} == {0, 1}
    assert all(0 <= row["accuracy"] <= 1 and row["failed"] is None for row in rows)
    assert all(row["labels"] == row["shots"] * 10 for row in rows)
    for row in rows:
        assert read_sealed(whole.folder / "cells" / f"{row['id']}.json") == row


def test_cells_agree_with_what_they_say_of_each_image(whole: Comparison) -> None:
    truth = whole.task.dataset.labels[whole.task.dataset.rows("test")]
    for row in whole.cells:
        with np.load(whole.folder / "cells" / f"{row['id']}.npz") as file:
            assert (file["predicted"] == truth).mean() == pytest.approx(row["accuracy"])
            assert file["scores"].mean() == pytest.approx(row["accuracy"], abs=1e-6)


def test_more_labels_help(whole: Comparison) -> None:
    means = {
        shots: np.mean([row["accuracy"] for row in whole.cells if row["shots"] == shots])
        for shots in (1, 4)
    }
    assert 0.2 < means[1] < means[4] < 1


def test_the_verdict_is_declared_before_the_run(whole: Comparison) -> None:
    assert whole.declared == {
        "arm": "autoencoder+features",
        "baseline": "pixels",
        "shots": 1,
        "metric": "accuracy",
    }


def test_the_best_arm_is_chosen_on_the_first_draw(whole: Comparison) -> None:
    assert [choice["shots"] for choice in whole.choices] == [1, 4]
    assert whole.choices[0]["candidates"] == []
    assert {row["arm"] for row in whole.choices[1]["candidates"]} == {
        "pixels",
        "autoencoder+features",
    }


# ---- going on --------------------------------------------------------------------------------


def test_a_second_start_computes_nothing(
    start: Start, whole: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start(tmp_path / "run")
    computed = counted(monkeypatch)
    again = start(tmp_path / "run")
    assert computed == []
    assert again.cells == first.cells
    assert again.choices == first.choices
    assert results(first) == results(whole)  # another folder, the same numbers


def test_only_what_is_lost_is_computed_again(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start(tmp_path / "run")
    cells = tmp_path / "run" / "cells"
    lost = [first.cells[place] for place in (0, 5, 7)]
    (cells / f"{lost[0]['id']}.json").unlink()
    (cells / f"{lost[1]['id']}.npz").unlink()
    (cells / f"{lost[2]['id']}.npz").write_bytes(b"PK\x03\x04 torn")
    computed = counted(monkeypatch)
    again = start(tmp_path / "run")
    assert computed == [
        f"{r['arm']} {r['shots']} {r['seed']} {r['streams']['pretraining']}" for r in lost
    ]
    assert results(again) == results(first)


@pytest.mark.parametrize("after", [0, 5, 11])
def test_killed_between_cells_it_goes_on_with_the_same_numbers(
    after: int,
    start: Start,
    whole: Comparison,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        counted(patch, dies_after=after)
        with pytest.raises(Killed):
            start(tmp_path / "run")
    assert len(list((tmp_path / "run" / "cells").glob("*.json"))) == after
    computed = counted(monkeypatch)
    again = start(tmp_path / "run")
    assert len(computed) == 12 - after
    assert results(again) == results(whole)
    assert again.choices == whole.choices


@pytest.mark.parametrize("at", [1, 13, 27])
def test_killed_while_pretraining_it_ends_in_the_same_weights(
    at: int,
    start: Start,
    whole: Comparison,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "SAVE_SECONDS", -1.0)
    real, seen = loop._schedule, [0]

    def schedule(method: Any, share: float) -> None:
        seen[0] += 1
        if seen[0] == at:
            raise Killed
        real(method, share)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_schedule", schedule)
        with pytest.raises(Killed):
            start(tmp_path / "run")
    again = start(tmp_path / "run")
    assert results(again) == results(whole)
    weights = sorted(whole.folder.glob("encoders/*/model/model.safetensors"))
    assert len(weights) == 2
    for path in weights:
        other = tmp_path / "run" / path.relative_to(whole.folder)
        assert other.read_bytes() == path.read_bytes()
    for log in (tmp_path / "run").glob("encoders/*/metrics.jsonl"):
        steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
        assert steps == list(range(1, 21))


def test_a_damaged_encoder_is_trained_again(start: Start, tmp_path: Path) -> None:
    first = start(tmp_path / "run")
    (path,) = (tmp_path / "run").glob("encoders/*-0-1/model/model.safetensors")
    sound = path.read_bytes()
    path.write_bytes(sound[:200])
    (tmp_path / "run" / "cells" / f"{first.cells[-1]['id']}.json").unlink()
    assert results(start(tmp_path / "run")) == results(first)
    assert path.read_bytes() == sound


def test_other_settings_are_refused(start: Start, settings: Settings, tmp_path: Path) -> None:
    start(tmp_path / "run")
    with pytest.raises(UsageError, match="another configuration"):
        start(tmp_path / "run", with_settings=replace(settings, seeds=3))


def test_other_data_are_refused(
    start: Start, settings: Settings, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "digits.npz"
    data.write_bytes(table.read_bytes())
    start(tmp_path / "run", data=data)
    with np.load(table) as file:
        arrays = {name: file[name].copy() for name in file.files}
    arrays["labels"][0] = "3" if arrays["labels"][0] != "3" else "4"
    np.savez(data, **arrays)
    with pytest.raises(DataError, match="not those"):
        start(tmp_path / "run", data=data)


def test_a_cell_that_fails_is_told_and_tried_again(
    start: Start, whole: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = jobs.score_cell

    def score(task: Task, arm: Any, shots: int, *rest: Any) -> Any:
        if arm.name == "pixels" and shots == 4:
            raise DivergedError("training.diverged", "the loss is nan at step 3")
        return real(task, arm, shots, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "score_cell", score)
        first = start(tmp_path / "run")
    failed = [row for row in first.cells if row["failed"]]
    assert [(row["arm"], row["shots"]) for row in failed] == [("pixels", 4)] * 2
    assert failed[0]["failed"] == "the loss is nan at step 3"
    assert failed[0]["accuracy"] is None
    assert results(start(tmp_path / "run")) == results(whole)


# ---- honesty ---------------------------------------------------------------------------------


def outcome(task: Task, settings: Settings, folder: Path) -> dict[str, Any]:
    """Return what every cell predicts, every choice, and the weights of the encoders."""
    arms = parse_arms(list(settings.arms))
    comparison = Comparison(
        task, settings, arms, lay_out(task, settings), FEW, folder, Reporter(quiet=True)
    )
    compute_all(comparison)
    gather(comparison)
    found: dict[str, Any] = {"choices": comparison.choices}
    for row in comparison.cells:
        key = f"{row['arm']} {row['shots']} {row['seed']} {row['streams']['pretraining']}"
        assert row["failed"] is None
        with np.load(folder / "cells" / f"{row['id']}.npz") as file:
            found[key] = file["predicted"].tolist()
    for path in sorted(folder.glob("encoders/*/model/model.safetensors")):
        found[path.parts[-3]] = path.read_bytes()
    found["accuracies"] = [row["accuracy"] for row in comparison.cells]
    return found


def test_hidden_labels_are_not_read(
    table: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every label outside the draws exchanged, all predictions and choices stay."""
    settings = replace(settings, arms=EVERY_TRANSFER, pretraining_seeds=1)
    task, _ = prepare(DataOptions(str(table)), settings, Reporter(quiet=True))
    dataset = task.dataset
    visible = {(shots, draw): dataset.visible(shots, draw) for shots in (1, 4) for draw in (0, 1)}
    monkeypatch.setattr(Comparison, "rows", lambda _self, _task, shots, draw: visible[shots, draw])
    seen = np.unique(np.concatenate(list(visible.values())))
    hidden = np.setdiff1d(np.arange(len(dataset)), seen)
    exchanged = dataset.labels.copy()
    exchanged[hidden] = (exchanged[hidden] + 1 + hidden % 9) % 10
    assert len(hidden) > 200
    assert np.all(exchanged[hidden] != dataset.labels[hidden])
    lied = replace(task, dataset=replace(dataset, labels=exchanged))
    honest, other = (
        outcome(which, settings, tmp_path / name) for which, name in ((task, "a"), (lied, "b"))
    )
    assert honest.pop("accuracies") != other.pop("accuracies")  # scored against other test labels
    assert len(honest) > 25
    assert honest == other


class Spy:
    """A store that notes which rows are read."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.seen: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def read(self, rows: np.ndarray) -> Any:
        self.seen |= set(np.asarray(rows).tolist())
        return self.store.read(rows)


@pytest.mark.parametrize("method", ["autoencoder", "simclr"])
def test_test_images_never_enter_pretraining(
    method: str, table: Path, settings: Settings, tmp_path: Path
) -> None:
    settings = replace(settings, arms=("pixels", f"{method}+features"))
    task, arms = prepare(DataOptions(str(table)), settings, Reporter(quiet=True))
    spy = Spy(task.dataset.store)
    watched = replace(task, dataset=replace(task.dataset, store=spy))
    measure_pictures(watched.dataset)
    steps = Steps({f"{method}:tiny": 6}, {}, {}, {})
    labelled = task.dataset.visible(4, 0)
    reporter = Reporter(quiet=True)
    open_encoder(watched, arms[1], Unit(0, 0, (0,)), steps, labelled, tmp_path, reporter)
    assert spy.seen == set(task.dataset.rows("train").tolist())
    held_out = {*task.dataset.rows("test").tolist(), *task.dataset.rows("val").tolist()}
    assert len(held_out) == 100
    assert not spy.seen & held_out


def test_test_images_change_no_weight(
    table: Path, start: Start, whole: Comparison, tmp_path: Path
) -> None:
    with np.load(table) as file:
        arrays = {name: file[name].copy() for name in file.files}
    arrays["images"][-70:] = 255 - arrays["images"][-70:]
    np.savez(tmp_path / "digits.npz", **arrays)
    other = start(tmp_path / "run", data=tmp_path / "digits.npz")
    assert results(other) != results(whole)
    for path in whole.folder.glob("encoders/*/model/model.safetensors"):
        twin = tmp_path / "run" / path.relative_to(whole.folder)
        assert twin.read_bytes() == path.read_bytes()
    assert [c["name"] for c in other.choices] == [c["name"] for c in whole.choices]


# ---- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"baseline": "scratch"}, UsageError, "not among the arms"),
        ({"metric": "acuracy"}, UsageError, "unknown metric"),
        ({"labels": (1, 500)}, DataError, "--labels 500"),
        ({"seeds": 0}, UsageError, "1 or more"),
        ({"policy": "natrual"}, UsageError, "unknown policy"),
        ({"arms": ("pixels",)}, UsageError, "two arms"),
        # Of networks: said before there is a folder.
        ({"arms": ("pixels", "kmeans:tiny+features")}, UsageError, "dictionary of patches"),
        ({"arms": ("pixels", "masked:dense+features")}, UsageError, "masked hides cells"),
        ({"arms": ("pixels", "dino:dense+features")}, UsageError, "crops of half the side"),
        ({"arms": ("pixels", "simclr:nosuch+features")}, UsageError, "unknown backbone"),
        ({"arms": ("pixels", "scratch:resnet18.a1_in1k")}, UsageError, "names the weights"),
        ({"backbone": "resnet18.a1_in1k"}, UsageError, "names the weights"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    changes: dict[str, Any], kind: type[Exception], words: str, table: Path, settings: Settings
) -> None:
    with pytest.raises(kind, match=words):
        changed = replace(settings, **changes)
        lay_out(prepare(DataOptions(str(table)), changed, Reporter(quiet=True))[0], changed)


# ---- the verb --------------------------------------------------------------------------------


def test_a_run_has_no_budget_of_a_cell_for_a_long_scratch() -> None:
    with pytest.raises(UsageError, match="budget of a cell"):
        run(DataOptions("digits"), arms=["scratch", "scratch+long"], labels=4, dry_run=True)


def test_compare_from_beginning_to_end(
    compare_shortly: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arms = ["scratch", "autoencoder+parameters", "scratch+long"]
    about: dict[str, Any] = {"arms": arms, "budget": "20 steps", "seeds": 2}
    plan = compare_shortly(out, steps=5, **about, dry_run=True)
    assert not out.exists()
    assert plan["plan"][0]["stage"] == "pretrain autoencoder:tiny"
    result = compare_shortly(out, steps=5, **about)
    assert result["primary"]["arm"] == "autoencoder+parameters"
    assert len(result["cells"]) == 6
    taken = {cell["arm"]: cell["steps"] for cell in result["cells"]}
    assert taken == {"scratch": 5, "autoencoder+parameters": 20, "scratch+long": 20}
    assert result["best"]["name"] in arms[:2]
    assert result["looks_at_test"] == 1
    run = RunFolder(out)
    assert run.is_finished()
    assert run.verify() == []
    again = compare_shortly(out, steps=5, **about)
    assert again["already_done"] is True
    assert again["cells"] == result["cells"]
    with pytest.raises(UsageError, match="another configuration"):
        compare_shortly(out, steps=5, **(about | {"seeds": 3}))


# ---- classes of unequal size -----------------------------------------------------------------


def test_a_remedy_is_part_of_a_cell(
    whole: Comparison, start: Start, settings: Settings, tmp_path: Path
) -> None:
    """Other results under other names; without one, the names are those from before."""
    adjusted = start(tmp_path / "run", with_settings=replace(settings, imbalance="weights"))
    assert all(arm.imbalance == "weights" for arm in adjusted.arms)
    assert not {row["id"] for row in adjusted.cells} & {row["id"] for row in whole.cells}


def test_an_unknown_remedy_is_refused(table: Path, settings: Settings) -> None:
    with pytest.raises(UsageError, match="unknown imbalance"):
        prepare(DataOptions(str(table)), replace(settings, imbalance="focal"), Reporter(quiet=True))
