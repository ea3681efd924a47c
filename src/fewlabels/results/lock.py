"""A lock file that says who holds it, and that a dead process does not hold for ever."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any, TextIO

from fewlabels.core.errors import LockedError
from fewlabels.results.files import disk_errors

_YOUNG_SECONDS = 2.0  # an empty lock file this young is being written at this moment
_GUARD_SECONDS = 10.0


class Lock:
    """A lock held by one process through a file, on any platform.

    A lock whose process is gone from this machine is taken over. A lock from
    another machine is respected, since nothing can be known about its process,
    unless both sides agreed on signs of life.

    Parameters
    ----------
    path : Path
        The lock file. Its folder must exist.
    wait : float
        Seconds to wait for another holder before giving up.
    silence : float, optional
        The holder touches the file ten times in so many seconds; one from another machine
        that has not done so once in that time is taken for dead. Only the change of the
        file's time is looked at, so that clocks need not agree.
    """

    def __init__(self, path: Path, *, wait: float = 0.0, silence: float | None = None) -> None:
        self.path = path
        self.wait = wait
        self.silence = silence
        self._text = ""
        self._seen: tuple[str, float | None] = ("", None)
        self._since = 0.0
        self._over = threading.Event()

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        LockedError
            Another live process holds it.
        DiskError
            The folder is not writable.
        """
        deadline = time.monotonic() + self.wait
        while not self._try():
            if time.monotonic() >= deadline:
                raise self._locked()
            time.sleep(0.02)

    def release(self) -> None:
        """Give the lock back; a lock taken over by another process is left alone."""
        self._over.set()
        if self._text and _read(self.path) == self._text:
            self.path.unlink(missing_ok=True)
        self._text = ""

    def abandoned(self) -> bool:
        """Say whether the lock is there, and the process that held it is gone."""
        seen = _read(self.path)
        return seen is not None and seen != self._text and self._dead(seen)

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return bool(self._text)

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _try(self) -> bool:
        if self._create():
            return True
        seen = _read(self.path)
        if seen is None:
            return self._create()
        return self._dead(seen) and self._remove(seen) and self._create()

    def _dead(self, seen: str) -> bool:
        return _stale(seen, self.path) or self._silent(seen)

    def _silent(self, seen: str) -> bool:
        """Say whether a holder on another machine has shown no sign of life for too long."""
        if self.silence is None or _owner(seen).get("host") == platform.node():
            return False
        sign = (seen, _touched(self.path))
        if sign != self._seen:
            self._seen, self._since = sign, time.monotonic()
        return time.monotonic() - self._since > self.silence

    def _live(self, silence: float, over: threading.Event) -> None:
        """Touch the file now and then, until the lock is given back."""
        while not over.wait(silence / 10):
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def _create(self) -> bool:
        text = json.dumps(_myself())
        with disk_errors(self.path):
            try:
                file = self.path.open("x")
            except FileExistsError:
                return False
            self._fill(file, text)
        self._text = text
        if self.silence is not None:
            self._over = threading.Event()
            about = (self.silence, self._over)
            threading.Thread(target=self._live, args=about, daemon=True).start()
        return True

    def _fill(self, file: TextIO, text: str) -> None:
        try:
            with file:
                file.write(text)
        except OSError:
            self.path.unlink(missing_ok=True)
            raise

    def _remove(self, seen: str) -> bool:
        """Remove a stale lock, one process at a time, so that no live one is ever removed."""
        guard = self.path.with_name(f"{self.path.name}.taking")
        try:
            guard.open("x").close()
        except FileExistsError:
            # Held for well under a millisecond, so an old guard belongs to a killed process.
            if _age(guard) > _GUARD_SECONDS:
                guard.unlink(missing_ok=True)
            return False
        try:
            if _read(self.path) == seen:
                self.path.unlink(missing_ok=True)
            return True
        finally:
            guard.unlink(missing_ok=True)

    def _locked(self) -> LockedError:
        owner = _owner(_read(self.path) or "")
        who = f"process {owner.get('pid', '?')} on {owner.get('host', 'an unknown machine')}"
        # A folder's lock lies in it, any other beside what it is of.
        of = self.path.parent if self.path.name == ".lock" else self.path.with_suffix("")
        return LockedError(
            "run.locked",
            f"{of} is in use by {who} since {owner.get('started', '?')}",
            f"wait for it, choose another --out, or, if it is gone for sure, delete {self.path}",
        )


def _myself() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": platform.node(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "born": _born(os.getpid()),
        "token": uuid.uuid4().hex,
    }


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _owner(text: str) -> dict[str, Any]:
    try:
        owner = json.loads(text)
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _stale(text: str, path: Path) -> bool:
    owner = _owner(text)
    if not isinstance(owner.get("pid"), int):
        return _age(path) > _YOUNG_SECONDS
    if owner.get("host") != platform.node():
        return False
    if not alive(owner["pid"]):
        return True
    # A process number is used again after a while: the time of birth tells them apart.
    born = owner.get("born")
    return bool(born) and born != _born(owner["pid"])


def _age(path: Path) -> float:
    touched = _touched(path)
    return 0.0 if touched is None else time.time() - touched


def _touched(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _born(pid: int) -> str:
    """Return what identifies a process over time, or nothing where it cannot be read."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return ""
    return f"{boot}/{fields[19]}"


if sys.platform == "win32":

    def alive(pid: int) -> bool:
        """Return whether a process with this number runs on this machine."""
        # os.kill(pid, 0) would send Ctrl-C here, so ask the system instead.
        import ctypes

        query_limited_information, still_active = 0x1000, 259
        kernel = ctypes.windll.kernel32
        handle = kernel.OpenProcess(query_limited_information, False, pid)
        if not handle:
            return False
        code = ctypes.c_ulong()
        kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        kernel.CloseHandle(handle)
        return code.value == still_active

else:

    def alive(pid: int) -> bool:
        """Return whether a process with this number runs on this machine."""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except (PermissionError, OverflowError):
            return True
        return True
