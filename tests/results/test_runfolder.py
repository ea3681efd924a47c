from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from fewlabels.core.errors import DiskError, LockedError, ModelError, UsageError
from fewlabels.results.runfolder import RunFolder, read_json, read_lines

CONFIG = {"method": "simclr", "lr": 1e-05, "labels": (1, 4), "names": {"ä": None}}


@pytest.fixture
def finished(tmp_path: Path) -> RunFolder:
    with RunFolder(tmp_path / "run") as run:
        run.write_config(CONFIG)
        run.write_bytes("model/model.safetensors", b"weights")
        run.write_json("results.json", {"accuracy": float("nan")})
        run.append_jsonl("metrics.jsonl", {"step": 1})
        run.write_bytes("report.html", "<p>1")
        run.finish()
    return RunFolder(tmp_path / "run")


def test_finished_run_verifies(finished: RunFolder) -> None:
    assert finished.is_finished()
    assert finished.verify() == []
    listed = read_json(finished.path / "checksums.json")["files"]
    assert set(listed) == {
        "config.yaml",
        "model/model.safetensors",
        "results.json",
        "metrics.jsonl",
    }
    weights = listed["model/model.safetensors"]
    assert weights == {"sha256": hashlib.sha256(b"weights").hexdigest(), "bytes": 7}
    assert read_json(finished.path / "results.json") == {"accuracy": None}
    assert not (finished.path / ".lock").exists()


def test_verify_names_what_is_damaged_and_what_is_missing(finished: RunFolder) -> None:
    (finished.path / "model" / "model.safetensors").write_bytes(b"weighty")
    (finished.path / "metrics.jsonl").unlink()
    assert finished.verify() == ["metrics.jsonl is missing", "model/model.safetensors is damaged"]


def test_unfinished_run_says_so(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        run.write_config(CONFIG)
    assert not run.is_finished()
    assert run.verify() == ["checksums.json is missing or damaged: the run is not finished"]
    (tmp_path / "checksums.json").write_text('{"files": {"config.yaml"')
    assert not run.is_finished()


def test_what_stands_may_not_change(finished: RunFolder) -> None:
    with finished as run:
        for change in (
            lambda: run.write_bytes("model/model.safetensors", b"other"),
            lambda: run.append_jsonl("metrics.jsonl", {"step": 2}),
            lambda: run.write_bytes("checksums.json", b"{}"),
        ):
            with pytest.raises(RuntimeError, match="finished"):
                change()
        run.write_bytes("report.html", "<p>made anew")
    assert finished.verify() == []


def test_records_are_added_and_sealed(finished: RunFolder) -> None:
    with finished as run:
        run.add_record("evaluate", {"n": 1, "low": float("inf")})
        path = run.add_record("evaluate", {"n": 2})
        run.add_record("explain", {"n": 3})
    assert path.name == "evaluate-2.json"
    assert finished.records("evaluate") == [{"n": 1, "low": None}, {"n": 2}]
    assert finished.verify() == []
    path.write_text(path.read_text().replace("2", "3", 1))
    assert finished.verify() == ["records/evaluate-2.json is damaged"]
    assert finished.records("evaluate") == [{"n": 1, "low": None}]
    with finished as run:
        assert run.add_record("evaluate", {"n": 4}).name == "evaluate-3.json"


def test_same_config(finished: RunFolder) -> None:
    assert finished.same_config(CONFIG)
    assert finished.same_config(CONFIG | {"out": "x"}, ignore=["out"])
    assert not finished.same_config(CONFIG | {"lr": 1e-4})
    assert not finished.same_config({})
    assert not RunFolder(finished.path / "none").same_config(CONFIG)


def test_names_that_are_not_unicode_survive_the_configuration(tmp_path: Path) -> None:
    config = {"data": "caf\udce9/\u0001 #\n: x"}
    with RunFolder(tmp_path) as run:
        run.write_config(config)
    assert run.same_config(config)


def test_config_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a run folder"):
        RunFolder(tmp_path / "none").config()
    for text in ("a: [1", "- 1", "\x00"):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(ModelError) as caught:
            RunFolder(tmp_path).config()
        assert caught.value.code == "run.damaged"


def test_second_writer_is_refused_at_once(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        run.write_config(CONFIG)
        start = time.perf_counter()
        with pytest.raises(LockedError):
            RunFolder(tmp_path / "run").open()
        assert time.perf_counter() - start < 1
    RunFolder(tmp_path / "run").open().close()


def test_users_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="not a run folder"):
        RunFolder(tmp_path).open()
    assert [p.name for p in tmp_path.iterdir()] == ["photo.jpg"]


def test_interrupted_run_goes_on(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        run.append_jsonl("metrics.jsonl", {"step": 1})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / ".tmp-0123-model.safetensors").write_bytes(b"half")
    with RunFolder(tmp_path) as run:
        run.append_jsonl("metrics.jsonl", {"step": 2})
        run.finish()
    assert read_lines(tmp_path / "metrics.jsonl") == [{"step": 1}, {"step": 2}]
    assert list((tmp_path / "model").iterdir()) == []
    assert run.verify() == []


def test_what_others_are_writing_is_left_alone(tmp_path: Path) -> None:
    with RunFolder(tmp_path):
        pass
    fresh, old = tmp_path / ".tmp-1-a.npz", tmp_path / ".tmp-2-b.npz"
    for path in (fresh, old):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    with RunFolder(tmp_path):
        assert fresh.exists()
        assert not old.exists()


def test_locks_of_cells_are_not_part_of_a_run(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        run.write_json("cells/a.json", 1)
        (tmp_path / "cells" / "a.lock").write_text("{}")
        run.finish()
    (tmp_path / "cells" / "a.lock").unlink()
    assert run.verify() == []


def test_a_second_writer_may_wait(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as first:
        timer = threading.Timer(0.1, first.close)
        timer.start()
        with RunFolder(tmp_path, wait=10) as second:
            second.write_json("a.json", 1)
        timer.join()


def test_writing_needs_the_lock_and_a_name_inside(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="not open"):
        RunFolder(tmp_path).write_json("a.json", 1)
    with RunFolder(tmp_path) as run:
        for name in ("../a.json", "/a.json", "b/../../a.json"):
            with pytest.raises(ValueError, match="inside"):
                run.write_json(name, 1)


def test_out_that_is_a_file_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(DiskError, match="run"):
        RunFolder(tmp_path / "run").open()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DiskError, match="Permission"):
        RunFolder(tmp_path / "run").open()


def test_full_disk_keeps_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with RunFolder(tmp_path) as run:
        run.write_json("results.json", {"a": 1})
        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", full)
            with pytest.raises(DiskError, match=r"results\.json.*MB free"):
                run.write_json("results.json", {"a": 2})
    assert read_json(tmp_path / "results.json") == {"a": 1}
