"""The run folder: locked while written, checked when read, sealed when done.

A run folder is finished when ``checksums.json`` lies in it, which is written
last. Later verbs add sealed records and change nothing that stands.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from fewlabels.core.errors import ModelError, UsageError
from fewlabels.results.files import (
    TEMPORARY,
    append_line,
    disk_errors,
    drop_torn_line,
    plain,
    read_json,
    read_lines,
    replacing,
    to_json,
    write_atomic,
)
from fewlabels.results.lock import Lock
from fewlabels.results.seals import read_sealed, sealed
from fewlabels.results.settings import load_yaml

__all__ = ["RunFolder", "read_json", "read_lines", "replacing", "write_atomic"]

CHECKSUMS = "checksums.json"
CONFIG = "config.yaml"
RECORDS = "records"
_LOCK = ".lock"
_MARK = ".fewlabels"
_ABANDONED_SECONDS = 3600.0  # a half-written file this old belongs to nobody any more
# The page holds nothing that is not in the other files, and may be made anew from them.
_APART = (CHECKSUMS, RECORDS, "report.html")


class RunFolder:
    """A run folder: a handle for reading, and, once opened, the only writer.

    Parameters
    ----------
    path : str or Path
        The folder. Nothing is touched before `open`.
    wait : float
        Seconds to wait for another process that works in it.

    Examples
    --------
    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "run"
    >>> with RunFolder(place) as run:
    ...     _ = run.write_config({"method": "simclr"})
    ...     run.append_jsonl("metrics.jsonl", {"step": 1, "loss": 0.5})
    ...     run.finish()
    >>> RunFolder(place).is_finished(), RunFolder(place).verify()
    (True, [])
    """

    def __init__(self, path: str | Path, *, wait: float = 0.0) -> None:
        self.path = Path(path)
        self._lock = Lock(self.path / _LOCK, wait=wait)
        self._lines_checked: set[str] = set()
        self._standing: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    # ---- writing -------------------------------------------------------------------------

    def open(self) -> RunFolder:
        """Make the folder if need be and lock it.

        Raises
        ------
        LockedError
            Another process is working in it.
        UsageError
            The folder holds files and is not a run folder.
        DiskError
            It cannot be written.
        """
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self._refuse_foreign()
        self._lock.acquire()
        write_atomic(self.path / _MARK, "A fewlabels run folder.\n")
        # Cells of a comparison are written by others meanwhile, so what is new stays.
        self._sweep(older_than=time.time() - _ABANDONED_SECONDS)
        self._standing = self._listed()
        return self

    def close(self) -> None:
        """Give the lock back."""
        self._lock.release()

    def __enter__(self) -> RunFolder:
        return self if self._lock.held else self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def write_bytes(self, name: str, data: bytes | str) -> Path:
        """Write a file of the run, whole or not at all, and return its path."""
        path = self._writable(name)
        write_atomic(path, data)
        return path

    def write_json(self, name: str, value: Any) -> Path:
        """Write a JSON file of the run; NaN and infinity become null."""
        return self.write_bytes(name, to_json(value) + "\n")

    def write_sealed(self, name: str, value: Mapping[str, Any]) -> Path:
        """Write a JSON file of the run that is read again before the run is finished."""
        return self.write_json(name, sealed(value))

    def write_config(self, config: Mapping[str, Any]) -> Path:
        """Write the resolved configuration, which `same_config` reads."""
        text = yaml.safe_dump(plain(dict(config)), sort_keys=False, allow_unicode=True)
        return self.write_bytes(CONFIG, text)

    def append_jsonl(self, name: str, row: Mapping[str, Any], *, flush: bool = False) -> None:
        """Append one JSON line; a torn last line of a killed process is dropped first."""
        path = self._writable(name)
        if name not in self._lines_checked:
            with disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            drop_torn_line(path)
            self._lines_checked.add(name)
        append_line(path, dict(row), flush=flush)

    def finish(self) -> None:
        """Write the checksum list: from here on nothing that stands may change."""
        self._sweep()
        files = {name: _digest(self.path / name) for name in self._names()}
        self.write_json(CHECKSUMS, {"schema": 1, "files": files})
        self._standing = self._listed()

    def add_record(self, kind: str, value: Mapping[str, Any]) -> Path:
        """Add ``records/<kind>-<n>.json`` with its own checksum; what stands stays.

        Parameters
        ----------
        kind : str
            Such as ``evaluate``.
        value : mapping
            What `plain` takes.
        """
        body = dict(value)
        name = f"{RECORDS}/{kind}-{self.next_record(kind)}.json"
        return self.write_json(name, sealed(body))

    def next_record(self, kind: str) -> int:
        """Return the number that the next record of a kind gets."""
        return 1 + max((n for n, _ in self._numbered(kind)), default=0)

    # ---- reading -------------------------------------------------------------------------

    def is_finished(self) -> bool:
        """Whether the checksum list, written last, is there and whole."""
        return bool(self._listed())

    def verify(self, prefix: str = "") -> list[str]:
        """Return what is missing or damaged, one text a file; empty when all is well.

        Parameters
        ----------
        prefix : str
            Look only at files whose name begins with it, such as ``model/``.
        """
        if not self.is_finished():
            return [f"{CHECKSUMS} is missing or damaged: the run is not finished"]
        listed: dict[str, Any] = read_json(self.path / CHECKSUMS)["files"]
        names = [name for name in listed if name.startswith(prefix)]
        found = [problem for name in names if (problem := self._check(name, listed[name]))]
        unsealed = [
            f"{path.relative_to(self.path).as_posix()} is damaged"
            for path in sorted((self.path / RECORDS).glob("*.json"))
            if f"{RECORDS}/{path.name}".startswith(prefix) and not _is_sealed(path)
        ]
        return found + unsealed

    def damage(self, name: str) -> str:
        """Return what is wrong with a file of a finished run; empty where nothing is known."""
        if not (self.path / CHECKSUMS).exists():
            return ""
        if not self.is_finished():
            return f"{CHECKSUMS} is damaged, so nothing tells whether {name} is whole"
        entry = read_json(self.path / CHECKSUMS)["files"].get(name)
        return self._check(name, entry) if entry is not None else ""

    def require(self, *names: str) -> None:
        """Refuse to go on where one of these files of a finished run is not as it was.

        Raises
        ------
        ModelError
        """
        for name in names:
            if why := self.damage(name):
                raise ModelError("run.damaged", f"{self.path}: {why}", "a whole copy of the folder")

    def read_json(self, name: str) -> dict[str, Any]:
        """Return a JSON file of the run without its seal, checked by all there is to check it.

        Raises
        ------
        ModelError
            It is missing or damaged.
        """
        self.require(name)
        return read_sealed(self.path / name)

    def records(self, kind: str) -> list[dict[str, Any]]:
        """Return the whole records of one kind, oldest first, without their seals."""
        paths = [path for _, path in sorted(self._numbered(kind)) if _is_sealed(path)]
        return [read_sealed(path) for path in paths]

    def config(self) -> dict[str, Any]:
        """Return the stored configuration.

        Raises
        ------
        ModelError
            There is none, or it is damaged.
        """
        path = self.path / CONFIG
        self.require(CONFIG)
        try:
            value = load_yaml(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            hint = "name a folder that a fewlabels command has written"
            raise ModelError("run.missing", f"{self.path} is not a run folder", hint) from error
        except (OSError, ValueError) as error:
            raise ModelError("run.damaged", f"cannot read {path}: {error}") from error
        if not isinstance(value, dict):
            raise ModelError("run.damaged", f"{path} holds no configuration")
        return value

    def same_config(self, config: Mapping[str, Any], *, ignore: Iterable[str] = ()) -> bool:
        """Whether the stored configuration equals `config`, top-level keys in `ignore` apart."""
        try:
            stored = self.config()
        except ModelError:
            return False
        left_out = set(ignore)
        mine, theirs = (
            {key: value for key, value in plain(dict(side)).items() if key not in left_out}
            for side in (config, stored)
        )
        return bool(mine == theirs)

    # ---- inside --------------------------------------------------------------------------

    def _refuse_foreign(self) -> None:
        if (self.path / _MARK).exists() or not any(self.path.iterdir()):
            return
        if any((self.path / name).exists() for name in (_LOCK, CONFIG, CHECKSUMS)):
            return
        raise UsageError(
            "run.foreign",
            f"{self.path} holds files and is not a run folder; nothing is written there",
            "name a new or an empty folder by --out",
        )

    def _listed(self) -> frozenset[str]:
        try:
            files = read_json(self.path / CHECKSUMS)["files"]
        except (ModelError, KeyError, TypeError):
            return frozenset()
        return frozenset(files) | {CHECKSUMS} if isinstance(files, dict) else frozenset()

    def _writable(self, name: str) -> Path:
        if not self._lock.held:
            raise RuntimeError(f"{self!r} is not open: use it in a with statement to write")
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts:
            raise ValueError(f"{name!r} is not a name inside the run folder")
        if relative.as_posix() in self._standing:
            raise RuntimeError(f"{self!r} is finished: {name} stands and may not change")
        return self.path / relative

    def _sweep(self, older_than: float = float("inf")) -> None:
        """Remove what killed processes have left half-written."""
        for leftover in self.path.rglob(f"{TEMPORARY}*"):
            with contextlib.suppress(OSError):
                if leftover.stat().st_mtime < older_than:
                    leftover.unlink()

    def _names(self) -> Iterator[str]:
        for path in sorted(self.path.rglob("*")):
            name = path.relative_to(self.path).as_posix()
            lock = path.name.endswith((_LOCK, f"{_LOCK}.taking"))
            apart = lock or path.name == _MARK or path.name.startswith(TEMPORARY)
            if path.is_file() and not apart and name.split("/")[0] not in _APART:
                yield name

    def _check(self, name: str, entry: Any) -> str:
        path = self.path / name
        try:
            return "" if _digest(path) == entry else f"{name} is damaged"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"

    def _numbered(self, kind: str) -> Iterator[tuple[int, Path]]:
        for path in (self.path / RECORDS).glob(f"{kind}-*.json"):
            number = path.stem.removeprefix(f"{kind}-")
            if number.isdigit():
                yield int(number), path


def _digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
            "bytes": path.stat().st_size,
        }


def _is_sealed(path: Path) -> bool:
    try:
        return bool(read_sealed(path).keys() != read_json(path).keys())  # a record has a seal
    except ModelError:
        return False
