"""One comparison on the command line: declared in a file, listed, computed, collected, stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fewlabels.cli import main
from fewlabels.results.runfolder import RunFolder

GRID = """
data: digits
arms: [pixels, random+features, pixels+spreading]
baseline: pixels
labels: [1, 4]
seeds: 3
pretraining_seeds: 2
budget: 20 steps
device: cpu
"""


def call(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(list(words)) == 0, capsys.readouterr().err
    return capsys.readouterr().out


@pytest.mark.medium
def test_a_grid_in_a_file_cell_by_cell(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.yaml").write_text(GRID)
    compare = ["compare", "--config", "grid.yaml", "--out", "shared"]
    printed = call(capsys, *compare, "--list-cells").splitlines()
    listed = json.loads(call(capsys, *compare, "--list-cells", "--json"))["cells"]
    assert printed == [cell["id"] for cell in listed]
    # Two splits: three draws are dealt out among them, and every draw meets every arm.
    assert len(printed) == 3 * 2 * 3
    assert {(cell["arm"], cell["shots"]) for cell in listed} == {
        (arm, shots)
        for arm in ("pixels", "random+features", "pixels+spreading")
        for shots in (1, 4)
    }
    assert main([*compare, "--collect"]) == 4  # nothing is there yet
    some = ",".join(printed[::3])
    assert call(capsys, *compare, "--cell", some).count(": done") == 6
    assert call(capsys, *compare, "--cell", printed[0]).count(": already done") == 1
    assert main([*compare, "--cell", "nonsense"]) == 2
    assert "--list-cells" in capsys.readouterr().err
    shown = call(capsys, *compare, "--collect")
    assert "warning: 12 of 18 cells are missing: " in shown
    page = Path("shared/report.html").read_text(encoding="utf-8")
    assert "12 of 18 cells are missing" in page
    call(capsys, *compare, "--cell", ",".join(printed))
    result = json.loads(call(capsys, *compare, "--collect", "--json"))
    assert result["missing"] == []
    assert [cell["id"] for cell in result["cells"]] == printed
    assert "cells are missing" not in Path("shared/report.html").read_text(encoding="utf-8")
    ended = json.loads(call(capsys, *compare, "--json"))
    assert ended["verdicts"] == result["verdicts"]
    assert RunFolder("shared").verify() == []


@pytest.mark.slow
def test_two_machines_and_one_process_come_to_the_same(tmp_path: Path) -> None:
    """Real processes: half of the cells in each of two folders, then two collectors at once."""
    (tmp_path / "grid.yaml").write_text(GRID.replace("random+features", "autoencoder+features"))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def begin(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "fewlabels", "compare", "--config", "grid.yaml", "--json"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [*command, *words], cwd=tmp_path, env=environment, text=True, **pipes
        )

    def end(*running: subprocess.Popen[str]) -> list[dict[str, Any]]:
        said = [process.communicate() for process in running]
        assert [process.returncode for process in running] == [0] * len(running), said
        return [json.loads(out) for out, _ in said]

    (listed,) = end(begin("--out", "here", "--list-cells"))
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    every = [cell["id"] for cell in listed["cells"]]
    end(
        begin("--out", "here", "--cell", ",".join(every[::2])),
        begin("--out", "there", "--cell", ",".join(every[1::2])),
    )
    collect = ("--out", "here", "--collect", "--also", "there")
    first, second = end(begin(*collect), begin(*collect))
    (alone,) = end(begin("--out", "alone"))
    assert first == second
    assert first["missing"] == []
    apart = {"seconds", "pretrain_seconds", "transfer_seconds", "peak_memory_mb", "energy_joules"}
    for result in (first, alone):
        for row in result["cells"]:
            for name in apart:
                row.pop(name)
        for name in ("run", "command", "seconds", "looks_at_test", "time_to_baseline"):
            result.pop(name)
        result["config"].pop("plan")  # with the seconds that a calibration took
    assert first == alone


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="who runs is read from /proc")
@pytest.mark.slow
def test_ctrl_c_stops_every_worker_with_everything_saved(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "fewlabels",
        "compare",
        "digits",
        "--out",
        str(tmp_path / "run"),
    ]
    command += ["--arms", "pixels,simclr+features", "--baseline", "pixels", "--labels", "4"]
    command += ["--seeds", "2", "--budget", "200 steps", "--device", "cpu", "--workers", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    owners = _owners(tmp_path / "run" / "encoders", 2)
    time.sleep(1)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 130, said
    assert "stopping 2 workers" in said
    assert not any(map(_runs, owners))
    assert not list((tmp_path / "run").rglob("*.lock"))
    assert len(list((tmp_path / "run").rglob("checkpoints/step-*.json"))) == 2
    done = subprocess.run(
        [*command, "--json"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (len(result["cells"]), result["missing"]) == (4, [])
    assert RunFolder(tmp_path / "run").verify() == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="who runs is read from /proc")
@pytest.mark.slow
def test_workers_end_with_the_command_that_is_killed(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "fewlabels",
        "compare",
        "digits",
        "--out",
        str(tmp_path / "run"),
    ]
    command += ["--arms", "pixels,simclr+features", "--baseline", "pixels", "--labels", "4"]
    command += ["--seeds", "2", "--budget", "1000 steps", "--device", "cpu", "--workers", "2"]
    running = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    owners = _owners(tmp_path / "run" / "encoders", 2)
    running.kill()
    running.wait()
    deadline = time.monotonic() + 60
    while list((tmp_path / "run" / "encoders").glob("*.lock")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    deadline = time.monotonic() + 60
    while any(map(_runs, owners)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _runs(owner: dict[str, Any]) -> bool:
    try:
        # A process that ended stays as a zombie where nobody asks after it.
        stat = Path(f"/proc/{owner['pid']}/stat").read_text().rsplit(")", 1)[1]
    except OSError:
        return False
    return stat.split()[0] != "Z"


def _owners(place: Path, count: int) -> list[dict[str, Any]]:
    """Wait until so many encoders are being pre-trained; return who does it."""
    deadline = time.monotonic() + 120
    while len(list(place.glob("*/metrics.jsonl"))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return [json.loads(path.read_text()) for path in place.glob("*.lock")]
