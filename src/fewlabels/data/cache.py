"""The place where decoded images are kept: its folder, its locks, its size, its end.

A store is a folder named by its key. It is built under another name and renamed when it
is whole, so a folder named by a bare key is always a finished store.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from fewlabels.core.cache import cache_folder
from fewlabels.core.errors import LockedError
from fewlabels.results.lock import Lock

META = "meta.json"
PIXELS = "pixels.u8"
COLUMNS = ("ok", "sha256", "widths", "heights", "sizes", "offsets", "codes")
NEAR = "near-"  # begins the names of files with the near-copies of a split
MEMBERS = "members.bin"  # images out of a compressed archive
MEMBER_INDEX = "members.parquet"
_FILES = frozenset({META, PIXELS, MEMBERS, MEMBER_INDEX, *(f"{name}.npy" for name in COLUMNS)})
_NEAR_FILE = re.compile(rf"(\.tmp-[0-9a-f]+-)?{NEAR}[0-9a-f]{{16}}\.npy")
_KEY = re.compile(r"[0-9a-f]{32}")
_BUILDING = re.compile(r"([0-9a-f]{32})\.([A-Za-z0-9_-]+)\.[0-9a-f]+\.building")
_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n# Decoded images of fewlabels; safe to delete.\n"
)


def stores_folder() -> Path:
    """Return the folder of the stores, making it where it is missing.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    folder = cache_folder() / "stores"
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "CACHEDIR.TAG").write_text(_TAG)  # bford.info/cachedir: backups skip it
    return folder


def cache_size() -> int:
    """Return the bytes that finished and unfinished stores take on disk."""
    return sum(_bytes(folder) for folder in _own_folders())


def clear_cache() -> int:
    """Remove all stores but those being built now; return the bytes freed.

    Only folders that carry a store's name and hold nothing but a store's files are
    removed, so a ``FEWLABELS_CACHE`` set to a wrong place costs nothing.
    """
    freed = 0
    for folder in _own_folders():
        with lock(_key_of(folder), wait=False) as held:
            if held:
                freed += discard(folder)
    return freed


def make_room(need: int, cap: int, keep: Collection[str | None]) -> None:
    """Remove the stores used longest ago, but those of `keep`, until `need` fits within `cap`."""
    stores = [f for f in _own_folders() if _KEY.fullmatch(f.name) and f.name not in keep]
    sizes = {folder: _bytes(folder) for folder in stores}
    total = sum(sizes.values())
    for folder in sorted(stores, key=_last_use):
        if total + need <= cap:
            return
        with lock(folder.name, wait=False) as held:
            if held:
                discard(folder)
                total -= sizes[folder]


def building(key: str) -> Path:
    """Return a fresh name for a folder that is no finished store `key` yet, or no longer."""
    return stores_folder() / f"{key}.{_host()}.{secrets.token_hex(4)}.building"


def sweep() -> None:
    """Remove what builds on this machine left behind when they were killed."""
    for folder in _own_folders():
        match = _BUILDING.fullmatch(folder.name)
        if match and match[2] == _host():
            with lock(match[1], wait=False) as held:
                if held:
                    discard(folder)


def discard(folder: Path) -> int:
    """Remove one of our folders; return its bytes, 0 if it is still in use (Windows)."""
    size = _bytes(folder)
    doomed = folder
    if _KEY.fullmatch(folder.name):
        doomed = building(folder.name)
        try:
            folder.replace(doomed)
        except OSError:
            return 0
    shutil.rmtree(doomed, ignore_errors=True)
    return size


@contextlib.contextmanager
def lock(
    key: str, *, wait: bool = True, waiting: Callable[[str], None] | None = None
) -> Iterator[bool]:
    """Hold the lock of the store `key`.

    Parameters
    ----------
    key : str
    wait : bool
        Wait for another holder to finish, however long a build takes; otherwise
        yield False.
    waiting : callable, optional
        Told once who holds the lock, when there is a wait.

    Yields
    ------
    bool
        Whether the lock is held.
    """
    held = Lock(stores_folder() / f"{key}.lock")
    while not _taken(held, waiting) and wait:
        waiting = None
        time.sleep(0.05)
    try:
        yield held.held
    finally:
        held.release()


def _taken(held: Lock, waiting: Callable[[str], None] | None) -> bool:
    try:
        held.acquire()
    except LockedError as error:
        if waiting is not None:
            waiting(error.message)
        return False
    return True


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname()) or "host"


def _key_of(folder: Path) -> str:
    return folder.name.split(".")[0]


def _own_folders() -> list[Path]:
    """Return finished and unfinished stores: right name, no link, only our files inside."""
    root = cache_folder() / "stores"
    if not root.is_dir():
        return []
    return [folder for folder in sorted(root.iterdir()) if _is_own(folder)]


def _is_own(folder: Path) -> bool:
    named = _KEY.fullmatch(folder.name) or _BUILDING.fullmatch(folder.name)
    if not named or folder.is_symlink() or not folder.is_dir():
        return False
    return all(e.name in _FILES or _NEAR_FILE.fullmatch(e.name) for e in folder.iterdir())


def _bytes(folder: Path) -> int:
    total = 0
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):
            total += entry.stat().st_size
    return total


def _last_use(folder: Path) -> float:
    try:
        return (folder / META).stat().st_mtime
    except OSError:
        return 0.0
