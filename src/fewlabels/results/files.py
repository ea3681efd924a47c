"""Files that are either there whole or not there: atomic writes, JSON, JSON lines."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import re
import shutil
import struct
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from fewlabels.core.errors import DiskError, ModelError

TEMPORARY = ".tmp-"
_CHECK = "check"  # of a line of JSON: its CRC-32
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}
# What zipfile, zlib and numpy raise on flipped bytes; an array without its .npz has no `files`.
_DAMAGED_ARRAYS = (
    *(OSError, ValueError, KeyError, EOFError, RuntimeError, OverflowError, MemoryError),
    *(SyntaxError, TypeError, AttributeError, BadZipFile, zlib.error, struct.error),
)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` met while writing `path` into a `DiskError` that names it."""
    try:
        yield
    except OSError as error:
        raise _disk_error(error, path) from error
    except Exception as error:
        # safetensors reports the system's errors in words, under a class of its own.
        told = re.search(r"\(os error (\d+)\)", str(error))
        if told is None:
            raise
        number = int(told[1])
        raise _disk_error(OSError(number, os.strerror(number)), path) from error


def _disk_error(error: OSError, path: Path) -> DiskError:
    why = error.strerror or str(error)
    if error.errno in _FULL:
        return DiskError(
            "disk.full",
            f"cannot write {path}: {why} ({_free(path)} free there); nothing written is lost",
            "free some space, or choose another place by --out or FEWLABELS_CACHE, and run again",
        )
    if error.errno in _REFUSED:
        hint = "choose a place you may write to by --out or FEWLABELS_CACHE"
        return DiskError("disk.readonly", f"cannot write {path}: {why}", hint)
    return DiskError("disk.write", f"cannot write {path}: {why}")


def _free(path: Path) -> str:
    for folder in path.absolute().parents:
        if folder.is_dir():
            return f"{shutil.disk_usage(folder).free / 1e6:.0f} MB"
    return "unknown space"


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Lend a temporary path beside `path`; on success it takes the place of `path`.

    The file is flushed to the disk before it takes its name, and the name is
    flushed after it, so a reader sees the old file or the new one, even after
    power is lost. Folders on the way are made.

    Raises
    ------
    DiskError
        The disk is full, over quota or not writable. `path` stays as it was.
    """
    path = Path(path)
    # The suffix stays last: numpy and others choose the format by it.
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:12]}-{path.name}"[:240])
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _flush(temporary)
            temporary.replace(path)
            _flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open folders; NTFS journals the rename itself
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: str | Path, data: bytes | str) -> None:
    """Write `data` (text as UTF-8) to `path`, whole or not at all.

    Raises
    ------
    DiskError
        The disk is full, over quota or not writable. `path` stays as it was.
    """
    raw = data.encode() if isinstance(data, str) else data
    with replacing(path) as temporary:
        temporary.write_bytes(raw)


def plain(value: Any) -> Any:
    """Return `value` in JSON's types alone: numpy unwrapped, NaN and infinity as None.

    Raises
    ------
    TypeError
        For a value that has no JSON form.

    Examples
    --------
    >>> plain({"accuracy": np.float32(0.5), "rows": np.arange(2), "low": float("nan")})
    {'accuracy': 0.5, 'rows': [0, 1], 'low': None}
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return value.as_posix()
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"no JSON form for {type(value).__name__}: {value!r}")


def to_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    r"""Return rows as CSV with a line of headings.

    Examples
    --------
    >>> to_csv(("path", "reason"), [{"path": "a,b.png", "reason": "empty"}])
    'path,reason\n"a,b.png",empty\n'
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_json(value: Any, *, indent: int | None = 1) -> str:
    """Return `value` as JSON text (ASCII, so that odd file names survive any terminal)."""
    return json.dumps(plain(value), indent=indent, allow_nan=False)


def read_json(path: str | Path) -> Any:
    """Return the JSON value in `path`.

    Raises
    ------
    ModelError
        The file is missing, unreadable or not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelError("run.missing", f"{path} does not exist") from error
    except OSError as error:
        raise ModelError("run.unreadable", f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError("run.damaged", f"{path} is not valid JSON: {error}") from error


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of an ``.npz`` by name; nothing in it is unpickled.

    Raises
    ------
    ModelError
        The file is missing or damaged.
    """
    path = Path(path)
    try:
        # Opened here, because numpy leaves a torn archive open.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError as error:
        raise ModelError("run.missing", f"{path} does not exist") from error
    except _DAMAGED_ARRAYS as error:
        why = str(error) or type(error).__name__
        raise ModelError("run.damaged", f"{path} is damaged: {why}") from error


def checked_line(row: Mapping[str, Any]) -> str:
    """Return a row as one JSON line that carries a checksum of itself, with its newline."""
    text = to_json(row, indent=None)
    whole: dict[str, Any] = json.loads(text)
    return to_json(whole | {_CHECK: _checksum(whole)}, indent=None) + "\n"


def _checksum(row: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(row).encode()):08x}"


def append_line(path: Path, row: Mapping[str, Any], *, flush: bool = False) -> None:
    """Append `row` as one JSON line with a checksum, by a single write.

    Parameters
    ----------
    path : Path
    row : mapping
        What `plain` takes.
    flush : bool
        Wait until the line is on the disk.

    Raises
    ------
    DiskError
        Not all of the line could be written; what was is taken back.
    """
    line = checked_line(row).encode()
    with disk_errors(path), path.open("ab", buffering=0) as file:
        start = file.tell()
        written = file.write(line)
        if written != len(line):
            file.truncate(start)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if flush:
            os.fsync(file.fileno())


def drop_torn_line(path: Path) -> None:
    """Cut off a last line without its newline, as a killed process leaves it."""
    if not path.exists():
        return
    with disk_errors(path), path.open("rb+") as file:
        data = file.read()
        if data and not data.endswith(b"\n"):
            file.truncate(data.rfind(b"\n") + 1)


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON-lines file, leaving out lines that are torn or damaged.

    A line without a checksum, as an earlier version wrote them, is taken as it is.
    """
    path = Path(path)
    if not path.exists():
        return []
    return [row for line in path.read_bytes().splitlines() if (row := _row(line)) is not None]


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    check = row.pop(_CHECK, None)
    return row if check in (None, _checksum(row)) else None
