"""`inspect` and `pretrain`: what is said, what is kept, and how an interrupted run goes on."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewlabels.core.errors import DataError, UsageError
from fewlabels.pipeline import counting, stages
from fewlabels.pipeline.folders import default_folder
from fewlabels.pipeline.task import DataOptions, open_task
from fewlabels.pipeline.verbs import inspect, pretrain
from fewlabels.results.files import read_json, read_lines
from fewlabels.results.runfolder import RunFolder
from fewlabels.training.loop import Interrupted
from fewlabels.training.progress import Reporter

QUIET = Reporter(quiet=True)
Run = tuple[Path, dict[str, Any]]


def train(data: DataOptions, out: Path, **settings: Any) -> dict[str, Any]:
    return pretrain(
        data,
        **{"method": "autoencoder", "backbone": "tiny", "budget": "16 steps", "device": "cpu"}
        | {"out": out, "reporter": QUIET}
        | settings,
    )


def test_inspect_counts_and_writes_tables(pictures: DataOptions, tmp_path: Path) -> None:
    found = inspect(pictures, reporter=QUIET, out=tmp_path / "health")
    assert (found["schema"], found["images"], found["classes"]) == (1, 140, {"a": 70, "b": 70})
    assert not (tmp_path / "health").exists()  # nothing to tell

    damaged = tmp_path / "data"
    for name in ("a/1.png", "a/2.png", "b/3.png", "b/broken.png"):
        (damaged / name).parent.mkdir(parents=True, exist_ok=True)
        source = next(Path(pictures.data).glob("a/*.png")).read_bytes()
        (damaged / name).write_bytes(source if "broken" not in name else b"no picture")
    found = inspect(DataOptions(str(damaged)), reporter=QUIET, out=tmp_path / "health")
    assert found["unreadable"] == 1
    assert "b/broken.png," in (tmp_path / "health/quarantine.csv").read_text()


def test_what_the_images_look_like_is_kept_with_the_encoder(
    pictures: DataOptions, encoder: Run
) -> None:
    out, result = encoder
    task = open_task(pictures, policy="auto", device="cpu", reporter=QUIET)
    train_rows = task.dataset.rows("train")
    assert result["passes"] == 16 * 64 / len(train_rows)
    with np.load(out / "sample.npz") as kept:
        assert kept["swatches"].dtype == np.uint8
        assert len(kept["swatches"]) == len(train_rows)
    assert "sample.npz" in read_json(out / "checksums.json")["files"]


def test_counting_changes_no_weight(
    pictures: DataOptions, encoder: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, result = encoder
    monkeypatch.setattr(counting, "count_multiply_adds", lambda *_a, **_k: 7)
    uncounted = train(pictures, tmp_path / "run")
    assert uncounted["multiply_adds"] == 7
    # 16 steps of 64 images, each at least once through the encoder and back.
    task = open_task(pictures, policy="auto", device="cpu", reporter=QUIET)
    forward = counting.feature_adds(task, stages.new_backbone(task, "tiny", 0))
    assert 16 * 64 * forward * 2 < result["multiply_adds"] < 16 * 64 * forward * 12
    name = "model/model.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (out / name).read_bytes()


def test_pretrain_leaves_a_run_folder(encoder: Run) -> None:
    out, result = encoder
    assert (result["kind"], result["steps"], result["backbone"]) == ("pretrain", 16, "tiny")
    assert result["final"].keys() == {"loss", "reconstruction_error"}
    assert result["probe"]["low"] <= result["probe"]["value"] <= result["probe"]["high"]
    assert result == read_json(out / "results.json")
    run = RunFolder(out)
    assert run.is_finished()
    assert run.verify() == []
    assert (out / "manifest.parquet").exists()
    assert not (out / "quarantine.csv").exists()
    rows = read_lines(out / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 17))
    probed = [row["step"] for row in rows if "probe" in row and "rank" in row]
    assert probed == [2, 4, 6, 8, 10, 12, 14, 16]


def test_a_finished_run_is_returned_and_not_overwritten(
    pictures: DataOptions, encoder: Run
) -> None:
    assert train(pictures, encoder[0])["already_done"] is True
    with pytest.raises(UsageError, match="another configuration"):
        train(pictures, encoder[0], seed=1)


def test_an_interrupted_run_goes_on_to_the_same_weights(
    pictures: DataOptions, encoder: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(log: Any, step: int, *_: Any) -> bool:
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return True

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("fewlabels.pipeline.pretraining.TrainingLog.due", stop)
        with pytest.raises(Interrupted):
            train(pictures, out)
    assert not RunFolder(out).is_finished()
    assert read_json(out / "plan.json")["steps"] == 16
    with pytest.raises(UsageError, match="unfinished run"):
        train(pictures, out, resume="never")
    with pytest.raises(UsageError, match="another configuration"):
        train(pictures, out, budget="17 steps")

    result = train(pictures, out)
    weights = "model/model.safetensors"
    assert (out / weights).read_bytes() == (encoder[0] / weights).read_bytes()
    assert result["final"] == encoder[1]["final"]
    assert [row["step"] for row in read_lines(out / "metrics.jsonl")] == list(range(1, 17))
    assert not list((out / "checkpoints").glob("step-*"))


def test_a_run_killed_just_before_its_end_is_only_closed(
    pictures: DataOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("fewlabels.pipeline.pretraining.drop_checkpoints", _die)
        with pytest.raises(KeyboardInterrupt):
            train(pictures, out, budget="2 steps")
        (out / "results.json").unlink()
        with pytest.raises(KeyboardInterrupt):  # all steps are done: only the result is missing
            train(pictures, out, budget="2 steps")
    stored = read_json(out / "results.json")
    assert stored["final"].keys() == {"loss", "reconstruction_error"}
    monkeypatch.setattr(stages, "train", _die)
    assert train(pictures, out, budget="2 steps") == stored
    assert RunFolder(out).is_finished()


def _die(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_unlabelled_images_and_hidden_labels(
    pictures: DataOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = replace(pictures, data=str(Path(pictures.data) / "a"))
    result = train(flat, tmp_path / "flat", budget="2 steps", reporter=Reporter())
    assert result["probe"] is None
    assert any("pre-training only" in text for text in result["warnings"])
    assert "no labels are visible" in capsys.readouterr().err


def test_the_probe_reads_no_more_labels_than_allowed(pictures: DataOptions) -> None:
    from fewlabels.pipeline.pretrain import probe_rows
    from fewlabels.pipeline.task import open_data

    dataset = open_data(pictures, QUIET)
    rows = probe_rows(dataset, 3, 0)
    assert np.bincount(dataset.labels[rows]).tolist() == [3, 3]
    assert not np.isin(probe_rows(dataset, None, 0), dataset.rows("test")).any()


@pytest.mark.medium
def test_a_dry_run_writes_nothing(pictures: DataOptions, tmp_path: Path) -> None:
    plan = train(pictures, tmp_path / "run", budget="40 steps", dry_run=True)
    assert plan["plan"][0]["steps"] == 40
    assert plan["seconds"] > 0
    assert plan["disk_mb"] > 1
    assert not (tmp_path / "run").exists()


def test_mistakes_are_refused_before_anything_is_written(
    pictures: DataOptions, tmp_path: Path
) -> None:
    for wrong in ({"method": "simclear"}, {"budget": "5 parsecs"}, {"labels": 0}):
        with pytest.raises(UsageError):
            train(pictures, tmp_path / "run", **wrong)
    with pytest.raises(UsageError, match="backbone"):
        train(pictures, tmp_path / "run", backbone="resnet81")
    with pytest.raises(UsageError, match="names the weights 'r160_in1k'") as caught:
        train(pictures, tmp_path / "run", backbone="test_resnet.r160_in1k")
    assert "--from test_resnet.r160_in1k" in caught.value.hint
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        train(DataOptions(str(tmp_path / "empty")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_a_folder_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = {"verb": "pretrain", "settings": {"seed": 0}}
    first = default_folder("pretrain", "my photos", config)
    assert first == Path("runs/pretrain-my-photos-1")
    with RunFolder(first) as run:
        run.write_config(config)
        assert default_folder("pretrain", "my photos", config) == first
        assert default_folder("pretrain", "my photos", config | {"verb": "x"}).name.endswith("-2")
        run.finish()
    assert default_folder("pretrain", "my photos", config).name.endswith("-2")


def test_supervised_pretraining_reads_the_visible_labels_of_train_alone(
    pictures: DataOptions, tmp_path: Path
) -> None:
    task = open_task(pictures, policy="auto", device="cpu", reporter=QUIET)
    table = stages.visible_labels(task, 3, 0).table.numpy()
    rows = np.flatnonzero(table >= 0)
    assert np.bincount(table[rows]).tolist() == [3, 3]
    assert set(rows) <= set(task.dataset.rows("train"))
    assert (table[rows] == task.dataset.labels[rows]).all()
    batch = stages.pretrain_batches(task, "supervised", 0, 3)[0]
    assert set(batch.indices.tolist()) <= set(rows.tolist())
    every = stages.visible_labels(task, None, 0).table.numpy()
    assert set(np.flatnonzero(every >= 0)) == set(task.dataset.labelled_rows("train"))

    result = train(pictures, tmp_path / "run", method="supervised", labels=3, budget="40 steps")
    assert result["final"]["train_accuracy"] > 0.8  # six pictures, forty times
    assert (tmp_path / "run/model/model.safetensors").exists()


def test_supervised_pretraining_without_labels_is_refused_before_a_folder_is_made(
    pictures: DataOptions, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for source in sorted(Path(pictures.data).glob("a/*.png"))[:20]:
        (folder / source.name).write_bytes(source.read_bytes())
    with pytest.raises(DataError):
        train(DataOptions(str(folder)), tmp_path / "run", method="supervised")
    assert not (tmp_path / "run").exists()
