"""What lies in a folder: names, sizes and times, in an order no file system can change."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute

from fewlabels.core.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
TABLES = frozenset({".csv", ".tsv", ".parquet"})
# What macOS, Windows, Linux and network drives keep beside pictures, some of it pictures too.
SYSTEM = frozenset(
    {"__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found", "@eaDir", "#recycle"}
)
# Controls can rule a terminal or feign a line of ours; marks of direction hide an ending.
_UNSEEN = r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]"
_UNSEEN_RE2 = r"[\x00-\x1f\x7f-\x{9f}\x{2028}-\x{202e}\x{2066}-\x{2069}]"


class Strings(Sequence[str]):
    """An immutable list of strings in one block: their bytes, and 8 bytes a string.

    File names that are not UTF-8 keep their bytes (``surrogateescape``), so that
    the file can be opened; `printable` escapes them.

    Examples
    --------
    >>> names = Strings.of(["cat/1.jpg", "cat/2.jpg"])
    >>> len(names), names[1], list(names[:1])
    (2, 'cat/2.jpg', ['cat/1.jpg'])
    """

    def __init__(self, array: pa.Array) -> None:
        self._array = array

    @classmethod
    def of(cls, values: Iterable[str]) -> Strings:
        """Pack strings."""
        encoded = [value.encode("utf-8", "surrogateescape") for value in values]
        return cls(pa.array(encoded, pa.large_binary()))

    def printable(self) -> pa.Array:
        """Return the strings as Arrow text, escaped as by `escape`."""
        try:
            text = self._array.cast(pa.large_string())
        except pa.ArrowInvalid:
            text = None
        if text is None or pa.compute.any(pa.compute.match_substring_regex(text, _UNSEEN_RE2)):
            return pa.array([escape(value) for value in self], pa.large_string())
        return text

    def __len__(self) -> int:
        return len(self._array)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Strings: ...
    def __getitem__(self, index: int | slice) -> str | Strings:
        if isinstance(index, slice):
            return Strings(self._array[index])
        return _decode(self._array[int(index)].as_py())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), 4096):
            yield from map(_decode, self._array.slice(start, 4096).to_pylist())


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def escape(text: str) -> str:
    r"""Return `text` on one line: what is not UTF-8 or cannot be seen becomes an escape.

    Examples
    --------
    >>> escape("cat\n\x1b[2Jdog")
    'cat\\n\\x1b[2Jdog'
    """
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return re.sub(_UNSEEN, lambda found: found[0].encode("unicode_escape").decode(), text)


@dataclass(slots=True)
class Scan:
    """What lies directly in one folder, sorted by kind.

    Attributes
    ----------
    images : list of (str, int, int)
        Name, bytes, and modification time in nanoseconds.
    folders, others : list of str
        Names of sub-folders, and of files that are no images.
    links, pipes : int
        How many symbolic links there are, and how many pipes, sockets and devices.
    """

    images: list[tuple[str, int, int]] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    links: int = 0
    pipes: int = 0


class Tree(Protocol):
    """Files below one root: a folder on disk, or an archive."""

    @property
    def root(self) -> Path:
        """The folder, or the archive."""
        ...

    def scan(self, parts: tuple[str, ...]) -> Scan:
        """Return what lies in a folder, hidden things left out; raise `DataError` if it cannot."""
        ...

    def stat(self, path: str) -> tuple[int, int] | None:
        """Return bytes and modification time of a regular file; None if it is none."""
        ...

    def load(self, path: str) -> bytes:
        """Return a file whole; raise `OSError` if it cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class Folder:
    """The images that lie directly in one folder.

    Attributes
    ----------
    parts : tuple of str
        The folder, relative to the root.
    paths : pyarrow.Array
        Paths relative to the root, as bytes, sorted.
    sizes, times : ndarray
        int64 bytes and modification times in nanoseconds.
    """

    parts: tuple[str, ...]
    paths: pa.Array
    sizes: np.ndarray
    times: np.ndarray


@dataclass(frozen=True, slots=True)
class Listing:
    """A folder or an archive, and all below it."""

    tree: Tree
    folders: tuple[Folder, ...]
    tables: tuple[str, ...]
    others: dict[str, int]
    links: int
    pipes: int = 0

    @property
    def root(self) -> Path:
        """The folder, or the archive."""
        return self.tree.root

    @property
    def paths(self) -> Strings:
        """All image paths, in listing order."""
        return Strings(pa.concat_arrays([folder.paths for folder in self.folders]))

    @property
    def sizes(self) -> np.ndarray:
        """``(N,)`` int64 file sizes in bytes."""
        return np.concatenate([folder.sizes for folder in self.folders])

    @property
    def times(self) -> np.ndarray:
        """``(N,)`` int64 modification times in nanoseconds."""
        return np.concatenate([folder.times for folder in self.folders])

    def warnings(self) -> list[str]:
        """Say what was left alone."""
        said = []
        if self.others:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.others.items())[:6])
            said.append(f"{sum(self.others.values())} files are no images: {kinds}")
        if self.links:
            said.append(f"{self.links} symbolic links were not followed")
        if self.pipes:
            said.append(f"{self.pipes} pipes, sockets or devices were left alone")
        return said


def walk(root: Path) -> Listing:
    """List every image below the folder `root`; see `arrange`."""
    return arrange(Disk(root))


def arrange(tree: Tree) -> Listing:
    """List every image of a tree.

    Symbolic links are not followed; hidden files and folders are skipped. Each
    folder's images come before those of its sub-folders, both sorted by name.

    Raises
    ------
    DataError
        If a folder cannot be read.
    """
    folders: list[Folder] = []
    others: Counter[str] = Counter()
    tables: list[str] = []
    links = pipes = 0
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        parts = waiting.pop()
        scan = tree.scan(parts)
        folders.append(_pack(parts, scan.images))
        waiting.extend((*parts, name) for name in sorted(scan.folders, reverse=True))
        links += scan.links
        pipes += scan.pipes
        if not parts:
            tables = sorted(name for name in scan.others if suffix(name) in TABLES)
        others.update(escape(suffix(name)) or "without a suffix" for name in scan.others)
    for name in tables:
        others[suffix(name)] -= 1
    return Listing(tree, tuple(folders), tuple(tables), dict(+others), links, pipes)


def suffix(name: str) -> str:
    """Return the lower-case ending of a file name, with its dot."""
    head, dot, tail = name.rpartition(".")
    return (dot + tail).lower() if head else ""


def hidden(name: str) -> bool:
    """Tell whether a file or folder is not meant to be seen, or belongs to the system."""
    return name.startswith(".") or name in SYSTEM


@dataclass(frozen=True, slots=True)
class Disk:
    """A folder on disk; see `Tree`."""

    root: Path

    def scan(self, parts: tuple[str, ...]) -> Scan:
        """Sort the entries of one folder by kind."""
        found = Scan()
        path = self.root.joinpath(*parts)
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if not hidden(entry.name):
                        _sort(entry, found)
        except OSError as error:
            message = f"cannot list the folder {escape(str(path))}: {error.strerror}"
            raise DataError("data.folder", message, "check its permissions") from error
        return found

    def stat(self, path: str) -> tuple[int, int] | None:
        """Return bytes and modification time of a regular file, wherever a link leads to it."""
        try:
            status = (self.root / path).stat()
        except (OSError, ValueError):
            return None
        return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None

    def load(self, path: str) -> bytes:
        """Return a file whole."""
        return (self.root / path).read_bytes()


def _sort(entry: os.DirEntry[str], found: Scan) -> None:
    # A pipe or device named like an image would block whoever reads it: files only.
    if suffix(entry.name) in SUFFIXES and entry.is_file(follow_symlinks=False):
        status = entry.stat(follow_symlinks=False)
        found.images.append((entry.name, status.st_size, status.st_mtime_ns))
    elif entry.is_symlink():
        found.links += 1
    elif entry.is_dir(follow_symlinks=False):
        found.folders.append(entry.name)
    elif entry.is_file(follow_symlinks=False):
        found.others.append(entry.name)
    else:
        found.pipes += 1


def _pack(parts: tuple[str, ...], images: list[tuple[str, int, int]]) -> Folder:
    images.sort()
    head = "".join(f"{part}/" for part in parts)
    paths = [(head + name).encode("utf-8", "surrogateescape") for name, _, _ in images]
    numbers = np.array([image[1:] for image in images], np.int64).reshape(-1, 2)
    return Folder(
        parts, pa.array(paths, pa.large_binary()), numbers[:, 0].copy(), numbers[:, 1].copy()
    )
