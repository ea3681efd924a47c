from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fewlabels.core.errors import LockedError
from fewlabels.results import lock
from fewlabels.results.lock import Lock


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return process.pid


def write_owner(path: Path, **owner: object) -> None:
    path.write_text(json.dumps({"host": platform.node(), "pid": os.getpid()} | owner))


def test_live_lock_is_refused_at_once(tmp_path: Path) -> None:
    with Lock(tmp_path / "l"):
        start = time.perf_counter()
        with pytest.raises(LockedError, match=f"process {os.getpid()} on") as caught:
            Lock(tmp_path / "l").acquire()
        assert time.perf_counter() - start < 1
    assert caught.value.exit_code == 8
    assert list(tmp_path.iterdir()) == []


def test_lock_of_another_process_is_refused_until_it_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path\n"
        "from fewlabels.results.lock import Lock\n"
        "Lock(Path(sys.argv[1])).acquire(); print('held', flush=True); time.sleep(60)\n"
    )
    path = tmp_path / "l"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=str(process.pid)):
            Lock(path).acquire()
        process.kill()
    with Lock(path) as mine:
        assert mine.held


def test_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    write_owner(tmp_path / "l", pid=dead_pid())
    with Lock(tmp_path / "l") as mine:
        assert mine.held
    assert list(tmp_path.iterdir()) == []


def test_lock_of_another_machine_is_respected(tmp_path: Path) -> None:
    write_owner(tmp_path / "l", pid=dead_pid(), host="elsewhere")
    with pytest.raises(LockedError, match="elsewhere"):
        Lock(tmp_path / "l").acquire()


def test_lock_of_another_machine_is_taken_over_once_it_is_silent(tmp_path: Path) -> None:
    path = tmp_path / "l"
    write_owner(path, host="elsewhere")
    os.utime(path, (0, 0))  # how long ago by its own clock does not count
    mine = Lock(path, silence=0.3)
    with pytest.raises(LockedError):
        mine.acquire()
    time.sleep(0.2)
    os.utime(path, (1, 1))  # a sign of life
    assert not mine.abandoned()
    time.sleep(0.2)
    assert not mine.abandoned()
    time.sleep(0.2)
    assert mine.abandoned()
    mine.acquire()
    assert mine.held
    mine.release()


def test_a_holder_shows_that_it_lives(tmp_path: Path) -> None:
    path = tmp_path / "l"
    with Lock(path, silence=0.1):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 5
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 0
    with Lock(path):
        os.utime(path, (0, 0))
        time.sleep(0.1)
        assert path.stat().st_mtime == 0  # nobody asked for signs, and the first holder is gone


def test_abandoned_is_what_a_dead_process_held(tmp_path: Path) -> None:
    path = tmp_path / "l"
    lock_of = Lock(path)
    assert not lock_of.abandoned()
    with Lock(path):
        assert not lock_of.abandoned()
    write_owner(path, pid=dead_pid())
    assert lock_of.abandoned()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="birth is read from /proc")
def test_number_used_again_by_another_process_is_told_apart(tmp_path: Path) -> None:
    write_owner(tmp_path / "l", born="another boot/1")
    with Lock(tmp_path / "l") as mine:
        assert mine.held


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}'])
def test_damaged_lock_is_taken_over_once_old(tmp_path: Path, text: str) -> None:
    path = tmp_path / "l"
    path.write_text(text)
    with pytest.raises(LockedError):
        Lock(path).acquire()
    os.utime(path, (0, 0))
    with Lock(path) as mine:
        assert mine.held


def test_live_lock_is_not_removed_by_a_late_taker(tmp_path: Path) -> None:
    path = tmp_path / "l"
    with Lock(path) as live:
        Lock(path)._remove("what a stale lock said")
        with pytest.raises(LockedError):
            Lock(path).acquire()
        assert live.held
        assert [p.name for p in tmp_path.iterdir()] == ["l"]


def test_taker_killed_while_taking_does_not_block_for_ever(tmp_path: Path) -> None:
    path, guard = tmp_path / "l", tmp_path / "l.taking"
    write_owner(path, pid=dead_pid())
    guard.touch()
    with pytest.raises(LockedError):
        Lock(path).acquire()
    os.utime(guard, (0, 0))
    with Lock(path, wait=1) as mine:
        assert mine.held


def test_release_leaves_a_lock_taken_over_alone(tmp_path: Path) -> None:
    path = tmp_path / "l"
    mine = Lock(path)
    mine.acquire()
    path.write_text("another's")
    mine.release()
    assert path.read_text() == "another's"


def test_waiting_gets_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "l"
    first = Lock(path)
    first.acquire()
    timer = threading.Timer(0.1, first.release)
    timer.start()
    with Lock(path, wait=10) as second:
        assert second.held
    timer.join()


def test_many_takers_of_a_stale_lock_never_hold_it_together(tmp_path: Path) -> None:
    path = tmp_path / "l"
    write_owner(path, pid=dead_pid())
    inside: list[int] = []
    most: list[int] = []

    def take(number: int) -> None:
        with Lock(path, wait=20):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.005)
            inside.remove(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


def test_alive() -> None:
    assert lock.alive(os.getpid())
    assert not lock.alive(dead_pid())
