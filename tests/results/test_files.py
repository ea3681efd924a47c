from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewlabels.core.errors import DiskError, ModelError
from fewlabels.results import files


def test_write_atomic_replaces_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    files.write_atomic(path, "one")
    files.write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    files.write_atomic(path, b"old")
    with pytest.raises(ZeroDivisionError), files.replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_keeps_the_suffix(tmp_path: Path) -> None:
    with files.replacing(tmp_path / "a.npz") as temporary:
        np.savez(temporary, x=np.arange(3))
    with np.load(tmp_path / "a.npz") as stored:
        assert stored["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "disk.full"),
        (errno.EDQUOT, "disk.full"),
        (errno.EFBIG, "disk.full"),
        (errno.EROFS, "disk.readonly"),
        (errno.EACCES, "disk.readonly"),
        (errno.EIO, "disk.write"),
    ],
)
def test_disk_errors_name_the_path(tmp_path: Path, number: int, code: str) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(DiskError, match=r"model\.safetensors") as caught, files.disk_errors(path):
        raise OSError(number, os.strerror(number))
    assert caught.value.code == code
    assert caught.value.exit_code == 7
    assert ("MB free" in str(caught.value)) == (code == "disk.full")


def test_full_disk_told_in_words_is_seen(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="free"), files.replacing(tmp_path / "a") as temporary:
        temporary.touch()
        raise ValueError("I/O error: No space left on device (os error 28)")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limits on Windows")
def test_file_size_limit_is_a_disk_error(tmp_path: Path) -> None:
    script = (
        "import resource, sys\n"
        "from fewlabels.results.files import write_atomic\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_atomic(sys.argv[1], b'x' * 5000)\n"
    )
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
    )
    assert "disk.full" in done.stderr
    assert "MB free" in done.stderr
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="no kill -9 on Windows")
def test_kill_while_writing_leaves_a_whole_file(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from fewlabels.results.files import write_atomic\n"
        "print('go', flush=True)\n"
        "i = 0\n"
        "while True:\n"
        "    write_atomic(sys.argv[1], bytes([i % 256]) * 300_000)\n"
        "    i += 1\n"
    )
    path = tmp_path / "a.bin"
    for delay in (0.05, 0.12, 0.21):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
        )
        with process:
            assert process.stdout is not None
            process.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(delay)
            process.kill()
        data = path.read_bytes()
        assert len(data) == 300_000
        assert len(set(data)) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_plain_survives_json(value: Any) -> None:
    whole = files.plain(value)
    assert files.plain(json.loads(files.to_json(value))) == whole
    files.to_json(value).encode("ascii")


def test_plain_refuses_what_has_no_form() -> None:
    with pytest.raises(TypeError, match="set"):
        files.plain({"a": {1, 2}})


def test_plain_unwraps_numpy_and_paths() -> None:
    value = {1: np.int64(3), "x": np.array([1.5, np.nan, np.inf]), "p": Path("a/b"), "b": np.True_}
    assert files.plain(value) == {"1": 3, "x": [1.5, None, None], "p": "a/b", "b": True}


def test_read_json_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        files.read_json(tmp_path / "none.json")
    (tmp_path / "torn.json").write_text('{"a": 1')
    with pytest.raises(ModelError, match="not valid JSON"):
        files.read_json(tmp_path / "torn.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe{\x80")
    with pytest.raises(ModelError, match="not valid JSON"):
        files.read_json(tmp_path / "bytes.json")
    with pytest.raises(ModelError, match="cannot read"):
        files.read_json(tmp_path)


@given(rows=st.lists(st.dictionaries(st.text(), st.integers(), max_size=3), max_size=5), cut=...)
def test_torn_last_line_is_dropped(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, int]], cut: bool
) -> None:
    path = tmp_path_factory.mktemp("lines") / "metrics.jsonl"
    for row in rows:
        files.append_line(path, row)
    if cut and rows:
        path.write_bytes(path.read_bytes()[:-1])
    files.drop_torn_line(path)
    kept = rows[:-1] if cut else rows
    assert files.read_lines(path) == kept
    files.append_line(path, {"step": 7}, flush=True)
    assert files.read_lines(path) == [*kept, {"step": 7}]


def test_short_write_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.jsonl"
    files.append_line(path, {"step": 1})

    opened = Path.open

    def short(self: Path, *args: Any, **options: Any) -> Any:
        file = opened(self, *args, **options)
        if args == ("ab",):
            return _ShortFile(file)
        return file

    monkeypatch.setattr(Path, "open", short)
    with pytest.raises(DiskError, match="free"):
        files.append_line(path, {"step": 2})
    assert files.read_lines(path) == [{"step": 1}]
    assert path.read_bytes().endswith(b"\n")


class _ShortFile:
    """A file on a disk that takes five more bytes."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __enter__(self) -> _ShortFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> int:
        return int(self.file.write(data[:5]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)
