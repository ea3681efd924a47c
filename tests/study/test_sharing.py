"""One comparison by many: its cells by name, computed anywhere, collected into the same result."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fewlabels.core.errors import (
    DataError,
    DiskError,
    DivergedError,
    FewlabelsError,
    LockedError,
    ModelError,
    OutOfMemoryError,
    UsageError,
)
from fewlabels.pipeline.task import DataOptions
from fewlabels.results.files import read_json
from fewlabels.results.ledger import looks
from fewlabels.results.lock import Lock
from fewlabels.results.runfolder import RunFolder
from fewlabels.results.schema import validate
from fewlabels.results.seals import read_sealed, write_sealed
from fewlabels.study import encoders, jobs, settings, sharing, work, workers
from fewlabels.study.compare import compare
from fewlabels.training.progress import Reporter

pytestmark = pytest.mark.medium

Ask = Callable[..., dict[str, Any]]
ABOUT: dict[str, Any] = {
    "arms": ["pixels", "autoencoder+features"],
    "baseline": "pixels",
    "labels": [1, 4],
    "seeds": 2,
    "pretraining_seeds": 2,
    "budget": "20 steps",
    "device": "cpu",
}
# What a comparison took, and where and when it was made.
APART = {"run", "command", "seconds", "looks_at_test", "time_to_baseline"}
COST = {"seconds", "pretrain_seconds", "transfer_seconds", "peak_memory_mb", "energy_joules"}


def found(result: dict[str, Any]) -> dict[str, Any]:
    """Return a comparison without its times."""
    kept = {key: value for key, value in result.items() if key not in APART}
    kept["config"] = {key: value for key, value in kept["config"].items() if key != "plan"}
    # Whoever edits a file while tests run changes that.
    kept["environment"] = {k: v for k, v in kept["environment"].items() if k != "commit"}
    kept["cells"] = [{k: v for k, v in row.items() if k not in COST} for row in kept["cells"]]
    return kept


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute by one thread, as workers do that share two cores: sums keep their order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def ask(table: Path) -> Ask:
    """Return a function that asks for a comparison, or a part of it, in a folder."""

    def compare_here(out: Path, **changes: Any) -> dict[str, Any]:
        return compare(
            DataOptions(str(table)), **ABOUT | changes, out=out, reporter=Reporter(quiet=True)
        )

    return compare_here


@pytest.fixture(scope="module")
def alone(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison that one process made from beginning to end; not to be changed."""
    out = tmp_path_factory.mktemp("alone") / "run"
    compare(DataOptions(str(table)), **ABOUT, out=out, reporter=Reporter(quiet=True))
    return out


@pytest.fixture(scope="module")
def _planned(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("planned") / "run"
    about = {**ABOUT, "out": out, "reporter": Reporter(quiet=True)}
    compare(DataOptions(str(table)), **about, list_cells=True)
    return out


@pytest.fixture
def planned(_planned: Path, tmp_path: Path) -> Path:
    """A folder with a plan and nothing else."""
    return Path(shutil.copytree(_planned, tmp_path / "planned"))


@pytest.fixture
def half(alone: Path, planned: Path) -> Path:
    """A folder in which every other cell is there, with the encoders."""
    cells = read_json(alone / "comparison.json")["cells"]
    for row in cells[::2]:
        for suffix in (".npz", ".json"):
            (planned / "cells").mkdir(exist_ok=True)
            shutil.copy(alone / "cells" / f"{row['id']}{suffix}", planned / "cells")
    shutil.copytree(alone / "encoders", planned / "encoders")
    return planned


def names(result: dict[str, Any]) -> list[str]:
    return [cell["id"] for cell in result["cells"]]


def cells_of(result: dict[str, Any], arm: str) -> list[str]:
    return [cell["id"] for cell in result["cells"] if cell["arm"] == arm]


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("this is not to be done")


# ---- the plan --------------------------------------------------------------------------------


def test_listing_settles_the_plan_and_computes_nothing(
    ask: Ask, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "score_cell", never)
    monkeypatch.setattr(encoders, "pretrain_in", never)
    out = tmp_path / "run"
    listed = ask(out, list_cells=True)
    assert validate("cells", listed) == listed
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {
        *("config.yaml", "plan.json", "data.json", "manifest.parquet")
    }
    # The names are those of the plain command.
    assert names(listed) == names(read_json(alone / "comparison.json"))
    assert not any(cell["done"] for cell in listed["cells"])
    first = listed["cells"][0]
    assert (first["arm"], first["shots"]) == ("pixels", 1)
    assert first["streams"].keys() == {"split", "labels", "pretraining", "training"}
    monkeypatch.setattr(settings, "measure_costs", never)
    monkeypatch.setattr(settings, "settle_steps", never)
    assert ask(out, list_cells=True) == listed


def test_listing_tells_what_is_done(ask: Ask, half: Path, alone: Path) -> None:
    done = [cell["done"] for cell in ask(half, list_cells=True)["cells"]]
    # Four labels choose the best arm as well, which is part of the cells of the first draw.
    assert sum(done) == 4
    assert all(cell["done"] for cell in ask(alone, list_cells=True)["cells"])
    assert RunFolder(alone).verify() == []


def test_the_folder_may_be_in_use(ask: Ask, planned: Path) -> None:
    """A process with single cells does not hold the folder; who collects waits a moment."""
    with RunFolder(planned):
        cells = names(ask(planned, list_cells=True))
        assert ask(planned, cells=cells[:1])["cells"][0]["done"]


# ---- single cells ----------------------------------------------------------------------------


def test_two_folders_and_one_come_to_the_same(
    ask: Ask, planned: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copytree(planned, tmp_path / "other"))
    every = names(ask(planned, list_cells=True))
    mine, theirs = every[::2], every[1::2]
    for out, share in ((planned, mine), (other, theirs)):
        for name in share:
            result = ask(out, cells=[name])
            assert [cell["done"] for cell in result["cells"]] == [True]
            assert not result["already_done"]
    monkeypatch.setattr(jobs, "score_cell", never)
    monkeypatch.setattr(jobs, "fold_scores", never)
    monkeypatch.setattr(encoders, "pretrain_in", never)
    part = ask(planned, collect=True)
    assert names(part) == mine
    assert [row["id"] for row in part["missing"]] == theirs
    assert part["missing"][0].keys() == {"id", "arm", "shots", "streams"}
    assert "6 of 12 cells are missing" in " ".join(part["warnings"])
    result = ask(planned, collect=True, also=[other])
    assert found(result) == found(read_json(alone / "comparison.json"))
    assert result == read_json(planned / "comparison.json")
    assert not RunFolder(planned).is_finished()
    # The plain command has the chosen model left to do, and no cell.
    monkeypatch.undo()
    monkeypatch.setattr(jobs, "score_cell", never)
    assert found(ask(planned)) == found(result)
    assert RunFolder(planned).verify() == []
    mine, theirs = (out / "model" / "model.safetensors" for out in (planned, alone))
    assert mine.read_bytes() == theirs.read_bytes()


def test_a_cell_is_computed_once(
    ask: Ask, half: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "score_cell", never)
    name = names(read_json(alone / "comparison.json"))[0]
    before = (half / "cells" / f"{name}.json").read_bytes()
    result = ask(half, cells=[name])
    assert result["already_done"] is True
    assert result["cells"][0]["done"] is True
    assert (half / "cells" / f"{name}.json").read_bytes() == before


def test_cells_of_a_closed_folder_are_done(ask: Ask, alone: Path) -> None:
    every = names(read_json(alone / "comparison.json"))
    assert ask(alone, cells=every)["already_done"] is True
    assert ask(alone, collect=True)["already_done"] is True
    assert RunFolder(alone).verify() == []


def test_an_unknown_cell_is_refused_with_the_way_to_list_them(ask: Ask, planned: Path) -> None:
    with pytest.raises(UsageError, match="nonsense") as caught:
        ask(planned, cells=["nonsense"])
    assert f"--out {planned} --list-cells" in caught.value.hint


def test_without_a_plan_there_are_no_cells(ask: Ask, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no plan") as caught:
        ask(tmp_path / "run", cells=["a"])
    assert "--list-cells" in caught.value.hint
    with pytest.raises(UsageError, match="in the folder"):
        ask(None, collect=True)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_other_settings_and_other_data_are_refused(
    ask: Ask, planned: Path, table: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="another configuration"):
        ask(planned, cells=["a"], metric="nll")
    other = tmp_path / "other.npz"
    shutil.copy(table, other)
    about = {**ABOUT, "out": planned, "reporter": Reporter(quiet=True)}
    # The same images elsewhere are the same data.
    assert len(compare(DataOptions(str(other)), **about, list_cells=True)["cells"]) == 12
    changed = DataOptions(str(other), image_size=16)
    with pytest.raises(DataError, match="not those"):
        compare(changed, **about, list_cells=True)


def test_only_one_thing_is_asked_at_a_time(ask: Ask, planned: Path) -> None:
    with pytest.raises(UsageError, match="--collect and --workers"):
        ask(planned, collect=True, workers=2)
    with pytest.raises(UsageError, match="--list-cells and --collect"):
        ask(planned, list_cells=True, collect=True)
    with pytest.raises(UsageError, match="--also"):
        ask(planned, also=[planned])


# ---- beside others ---------------------------------------------------------------------------


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


def in_background(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    came: list[Any] = []

    def run() -> None:
        try:
            came.append(call())
        except BaseException as error:
            came.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, came


def test_what_others_are_busy_with_is_left_for_later(
    ask: Ask, planned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell and an encoder are held elsewhere: the rest is done meanwhile, then they."""
    monkeypatch.setattr(work, "POLL_SECONDS", 0.02)
    listed = ask(planned, list_cells=True)
    pixels, coded = cells_of(listed, "pixels"), cells_of(listed, "autoencoder+features")
    for folder in ("cells", "encoders"):
        (planned / folder).mkdir()
    busy = Lock(planned / "cells" / f"{pixels[0]}.lock")
    training = Lock(planned / "encoders" / "autoencoder-tiny-0-0.lock")
    busy.acquire()
    training.acquire()
    chosen = [pixels[0], coded[0], pixels[1]]
    thread, came = in_background(lambda: ask(planned, cells=chosen))
    wait_for(planned / "cells" / f"{pixels[1]}.json")
    time.sleep(0.1)
    assert not (planned / "cells" / f"{pixels[0]}.json").exists()
    assert not (planned / "cells" / f"{coded[0]}.json").exists()
    assert not list((planned / "encoders").glob("*/result.json"))
    training.release()
    wait_for(planned / "cells" / f"{coded[0]}.json")
    assert not (planned / "cells" / f"{pixels[0]}.json").exists()
    busy.release()
    thread.join()
    assert [cell["done"] for cell in came[0]["cells"]] == [True] * 3
    assert not list(planned.rglob("*.lock"))


def test_many_at_once_compute_each_cell_once(
    ask: Ask, planned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "POLL_SECONDS", 0.02)
    real, computed, trained = jobs.score_cell, [], []
    pretrain = encoders.pretrain_in

    def score(task: Any, arm: Any, shots: int, streams: Any, *rest: Any) -> Any:
        computed.append((arm.name, shots, streams))
        return real(task, arm, shots, streams, *rest)

    def train(place: Path, *rest: Any, **more: Any) -> Any:
        trained.append(place.name)
        return pretrain(place, *rest, **more)

    monkeypatch.setattr(jobs, "score_cell", score)
    monkeypatch.setattr(encoders, "pretrain_in", train)
    every = names(ask(planned, list_cells=True))
    running = [in_background(lambda: ask(planned, cells=every)) for _ in range(3)]
    for thread, _ in running:
        thread.join()
    for _, (result,) in running:
        assert all(cell["done"] for cell in result["cells"])
    assert len(computed) == len(set(computed)) == 12
    assert sorted(trained) == ["autoencoder-tiny-0-0", "autoencoder-tiny-0-1"]


def test_two_collectors_at_once_write_the_same(ask: Ask, half: Path) -> None:
    running = [in_background(lambda: ask(half, collect=True)) for _ in range(2)]
    for thread, _ in running:
        thread.join()
    (_, (first,)), (_, (second,)) = running
    assert first == second == read_json(half / "comparison.json")
    assert ask(half, collect=True) == first  # and the same cells are one look at the test set


def test_more_cells_are_another_look_at_the_test_set(ask: Ask, half: Path) -> None:
    first = ask(half, collect=True)
    missing = [cell["id"] for cell in first["missing"]]
    ask(half, cells=missing[:1])
    second = ask(half, collect=True)
    assert second["looks_at_test"] == first["looks_at_test"] + 1


def test_who_collects_does_not_wait_for_ever(
    ask: Ask, half: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "PATIENCE", 0.1)
    with RunFolder(half), pytest.raises(LockedError, match="in use by"):
        ask(half, collect=True)


# ---- what goes wrong -------------------------------------------------------------------------


def leave_lock(path: Path) -> None:
    """Write the lock of a process that is gone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = {"host": platform.node(), "pid": os.getpid(), "born": "another boot/1"}
    path.write_text(json.dumps(owner))


def test_a_dead_process_is_followed_by_who_is_asked_but_not_by_a_worker(
    ask: Ask, planned: Path, table: Path
) -> None:
    listed = ask(planned, list_cells=True)
    pixels, coded = cells_of(listed, "pixels"), cells_of(listed, "autoencoder+features")
    leave_lock(planned / "cells" / f"{pixels[0]}.lock")
    leave_lock(planned / "encoders" / "autoencoder-tiny-0-0.lock")
    request = sharing.Request(
        DataOptions(str(table)),
        settings.Settings(
            tuple(ABOUT["arms"]), "pixels", (1, 4), 2, 2, budget="20 steps", device="cpu"
        ),
        planned,
        "auto",
        "",
        Reporter(quiet=True),
    )
    comparison = request.reopened(computing=True)
    some = comparison.grid.named([pixels[0], coded[0], pixels[1]], planned)
    work.compute(comparison, some, leave_abandoned=True)
    assert [path.stem for path in (planned / "cells").glob("*.json")] == [pixels[1]]
    assert not list((planned / "encoders").glob("*/metrics.jsonl"))
    result = ask(planned, cells=[pixels[0], coded[0]])
    assert [cell["done"] for cell in result["cells"]] == [True, True]
    assert not list(planned.rglob("*.lock"))


@pytest.mark.parametrize(
    ("error", "said", "kind"),
    [
        (DivergedError("training.diverged", "the loss is nan"), "the loss is nan", DivergedError),
        (MemoryError(), "out of memory", OutOfMemoryError),
        (torch.OutOfMemoryError("CUDA out of memory."), "CUDA out of memory.", OutOfMemoryError),
        (RuntimeError("shapes differ"), "RuntimeError: shapes differ", FewlabelsError),
    ],
    ids=["diverged", "memory", "cuda", "runtime"],
)
def test_one_failed_cell_does_not_end_the_rest(
    error: Exception,
    said: str,
    kind: type[FewlabelsError],
    ask: Ask,
    half: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = jobs.score_cell
    missing = [cell["id"] for cell in ask(half, collect=True)["missing"]]

    def score(task: Any, arm: Any, shots: int, streams: Any, *rest: Any) -> Any:
        if (arm.name, shots) == ("pixels", 4):
            raise error
        return real(task, arm, shots, streams, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "score_cell", score)
        with pytest.raises(kind, match="1 of 6 cells failed") as caught:
            ask(half, cells=missing)
    assert said in caught.value.message
    part = ask(half, collect=True)
    assert part["missing"] == []
    (failed,) = [row for row in part["cells"] if row["failed"]]
    assert (failed["arm"], failed["shots"]) == ("pixels", 4)
    assert said in failed["failed"]
    assert "1 of 12 cells failed: pixels at 4 labels per class (1)" in part["warnings"]
    listed = {cell["id"]: cell for cell in ask(half, list_cells=True)["cells"]}
    assert said in listed[failed["id"]]["failed"]
    assert not listed[failed["id"]]["done"]
    assert ask(half, cells=[failed["id"]])["cells"][0]["done"]  # it is tried again when asked for


def test_a_full_disk_is_no_fault_of_a_cell(
    ask: Ask, planned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise DiskError("disk.full", "full")

    monkeypatch.setattr(jobs, "score_cell", full)
    listed = ask(planned, list_cells=True)
    with pytest.raises(DiskError):
        ask(planned, cells=names(listed))
    assert not list((planned / "cells").iterdir())


def test_a_failed_pretraining_fails_its_own_cells_alone(
    ask: Ask, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tried = encoders.pretrain_in, []

    def train(place: Path, *rest: Any, **more: Any) -> Any:
        tried.append(place.name)
        if place.name.endswith("-0-0"):
            raise DivergedError("training.diverged", "the loss is nan at step 3")
        return real(place, *rest, **more)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(encoders, "pretrain_in", train)
        ask(out, list_cells=True)
        result = ask(out, workers=1)
    assert tried == ["autoencoder-tiny-0-0", "autoencoder-tiny-0-1"]
    failed = [row for row in result["cells"] if row["failed"]]
    assert {(row["arm"], row["streams"]["pretraining"]) for row in failed} == {
        ("autoencoder+features", 0)
    }
    assert len(failed) == 4
    assert result["best"]["name"] == "pixels"  # what could not be made is not chosen


# ---- workers ---------------------------------------------------------------------------------


def test_workers_come_to_the_same_as_one_process(
    ask: Ask, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "score_cell", never)  # here; the workers do it
    result = ask(tmp_path / "run", workers=2)
    assert found(result) == found(read_json(alone / "comparison.json"))
    run = RunFolder(tmp_path / "run")
    assert run.is_finished()
    assert run.verify() == []
    assert not list(run.path.rglob("*.lock"))
    again = ask(tmp_path / "run", workers=2)
    assert again["already_done"] is True


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="who lives is read from /proc")
def test_a_worker_that_dies_does_not_end_the_rest(ask: Ask, tmp_path: Path) -> None:
    out = tmp_path / "run"
    about = {"budget": "80 steps", "labels": [4]}
    thread, came = in_background(lambda: ask(out, workers=2, **about))
    training = out / "encoders" / "autoencoder-tiny-0-1"
    wait_for(training / "metrics.jsonl")
    owner = read_json(training.with_name(f"{training.name}.lock"))
    os.kill(owner["pid"], signal.SIGKILL)
    thread.join()
    (result,) = came
    (died,) = [text for text in result["warnings"] if "worker" in text]
    assert died.endswith("was ended by signal 9")
    gone = {(cell["arm"], cell["streams"]["pretraining"]) for cell in result["missing"]}
    assert gone == {("autoencoder+features", 1)}
    assert len(result["cells"]) == 4
    assert result["best"] is not None  # all of the unit that chooses is there
    assert not RunFolder(out).is_finished()
    # The same command goes on with what is missing.
    whole = ask(out, **about)
    assert whole["missing"] == []
    assert [row for row in whole["cells"] if row in result["cells"]] == result["cells"]
    assert not any("worker" in text for text in whole["warnings"])
    assert RunFolder(out).verify() == []


@pytest.mark.slow
def test_where_every_worker_fails_the_command_fails(
    ask: Ask, planned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = workers._start

    def start(*about: Any) -> Any:
        (planned / "plan.json").unlink(missing_ok=True)
        return real(*about)

    monkeypatch.setattr(workers, "_start", start)
    with pytest.raises(FewlabelsError, match=r"every worker failed: worker 1 ended.*no plan") as e:
        ask(planned, workers=2)
    assert e.value.exit_code == 2


def test_workers_share_threads_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    threads = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    assert workers._environment(3, 4) == threads
    assert workers._environment(0, 20)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    shown = [workers._environment(n, 4)["CUDA_VISIBLE_DEVICES"] for n in range(4)]
    assert shown == ["0", "1", "0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7")
    assert workers._environment(1, 4)["CUDA_VISIBLE_DEVICES"] == "GPU-7"


# ---- taking in -------------------------------------------------------------------------------


def test_cells_of_another_plan_are_counted_and_left(
    ask: Ask, half: Path, alone: Path, tmp_path: Path
) -> None:
    other = tmp_path / "more steps"
    ask(other, budget="21 steps", select="none", arms=["pixels", "autoencoder+features"])
    before = names(ask(half, collect=True))
    result = ask(half, collect=True, also=[other])
    # Pixels have no steps to differ in, and are the same cells.
    assert set(names(result)) - set(before) == set(cells_of(result, "pixels")) - set(before)
    assert f"{other}: 8 cells are of another plan" in result["warnings"]
    strange = Path(shutil.copytree(alone, tmp_path / "by nll"))
    config = (strange / "config.yaml").read_text().replace("metric: accuracy", "metric: nll")
    (strange / "config.yaml").write_text(config)
    result = ask(half, collect=True, also=[strange])
    assert f"{strange}: 12 cells are of another plan" in result["warnings"]


def test_where_nothing_is_to_be_collected(ask: Ask, planned: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no cell"):
        ask(planned, collect=True)
    with pytest.raises(UsageError, match="no cells of a comparison"):
        ask(planned, collect=True, also=[tmp_path])


def test_damaged_cells_are_not_taken(ask: Ask, half: Path, alone: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(alone, tmp_path / "other"))
    missing = [cell["id"] for cell in ask(half, collect=True)["missing"]]
    (other / "cells" / f"{missing[0]}.npz").write_bytes(b"PK\x03\x04 torn")
    result = ask(half, collect=True, also=[other])
    assert [cell["id"] for cell in result["missing"]] == missing[:1]


# ---- before and elsewhere --------------------------------------------------------------------


def test_a_comparison_of_the_version_before_goes_on(
    ask: Ask, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its choices are whole files, without the folds, and it knows nothing of devices."""
    old = Path(shutil.copytree(alone, tmp_path / "old"))
    (old / "checksums.json").unlink()
    (old / "comparison.json").unlink()
    for path in old.glob("choices/*.npz"):
        path.unlink()
    data = read_json(old / "data.json")
    (old / "data.json").write_text(json.dumps({key: data[key] for key in ("key", "name")}))
    monkeypatch.setattr(jobs, "score_cell", never)
    monkeypatch.setattr(jobs, "fold_scores", never)
    monkeypatch.setattr(encoders, "pretrain_in", never)
    assert all(cell["done"] for cell in ask(old, list_cells=True)["cells"])
    assert found(ask(old)) == found(read_json(alone / "comparison.json"))


def test_a_plan_for_another_device_is_collected_but_not_computed_here(
    table: Path, planned: Path
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is such a device here")
    config = (planned / "config.yaml").read_text().replace("device: cpu", "device: auto")
    (planned / "config.yaml").write_text(config)
    data = read_sealed(planned / "data.json")
    write_sealed(planned / "data.json", {**data, "device": "cuda"})
    about = {**ABOUT, "device": "auto", "out": planned, "reporter": Reporter(quiet=True)}
    options = DataOptions(str(table))
    listed = compare(options, **about, list_cells=True)
    with pytest.raises(UsageError, match="was begun on cuda"):
        compare(options, **about, cells=names(listed)[:1])
    write_sealed(planned / "data.json", data)
    here = compare(options, **about, list_cells=True)
    assert not set(names(here)) & set(names(listed))  # a device is part of a cell's name


def test_the_ledger_counts_by_test_set(ask: Ask, half: Path, table: Path) -> None:
    from fewlabels.pipeline.keys import test_key
    from fewlabels.pipeline.task import open_task

    task = open_task(
        DataOptions(str(table)), policy="auto", device="cpu", reporter=Reporter(quiet=True)
    )
    result = ask(half, collect=True)
    assert result["looks_at_test"] == looks(test_key(task))
