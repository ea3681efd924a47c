"""Archives read as if they were folders; nothing is unpacked to a name that they choose.

Python's own unpacking can be led outside its folder (CVE-2025-4517), so it is not used: members
are read by their place in the archive, and names serve as labels and splits only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fewlabels.core.errors import DataError
from fewlabels.data.folders import UNLABELLED
from fewlabels.data.listing import SUFFIXES, TABLES, Scan, escape, hidden, suffix
from fewlabels.data.members import (
    ENCRYPTED,
    FILE,
    FOLDER,
    LINK,
    MAX_BYTES,
    TOO_LARGE,
    Member,
    Reader,
    damaged,
)
from fewlabels.data.source import SPLITS, Source
from fewlabels.data.tars import open_tar
from fewlabels.data.tarstream import ENDINGS
from fewlabels.data.zips import open_zip

ARCHIVES = (".zip", *ENDINGS)
_UNSAFE = "with unsafe names (absolute, with .., or too deep)"
_DEEP = 100  # folders in folders; without a bound a single name of 64 KB could fill the memory


def is_archive(path: Path) -> bool:
    """Tell by its name whether a file is an archive that is read."""
    return path.name.lower().endswith(ARCHIVES)


def stem(path: Path) -> str:
    """Return the name of an archive without its ending, as in ``photos`` of ``photos.tar.gz``."""
    ending = max((e for e in ARCHIVES if path.name.lower().endswith(e)), key=len)
    return path.name[: -len(ending)]


@dataclass(frozen=True)
class Members:
    """The image files of an archive, row by row; see `fewlabels.data.source.Files`."""

    path: Path
    stamp: tuple[int, ...]
    rests_on: str | None
    reader: Reader
    places: np.ndarray
    block: int = 1

    def __call__(self, index: int, count: int = -1) -> bytes:
        """Return file `index`, or its first `count` bytes."""
        place = int(self.places[index])
        if place < 0:
            raise damaged("not in the archive")
        return self.reader.read(place, count)


class Archive:
    """The files of an archive as a `fewlabels.data.listing.Tree`.

    Where everything lies in one folder, as in ``photos/cat/1.jpg``, that folder is the root.

    Parameters
    ----------
    path : Path
    members : iterable of Member
    reader : Reader
    rests_on : str or None
        As in `fewlabels.data.source.Files`.

    Attributes
    ----------
    skipped : Counter
        How many members of each kind were left alone.
    warnings : list of str
        What else the user should know.

    Raises
    ------
    DataError
        If two images or tables have one name, or one is encrypted.
    """

    def __init__(
        self, path: Path, members: Iterable[Member], reader: Reader, rests_on: str | None
    ) -> None:
        self.root = path
        self.skipped: Counter[str] = Counter()
        self.warnings: list[str] = []
        self._reader = reader
        self._rests_on = rests_on
        self._scans: dict[tuple[str, ...], Scan] = {(): Scan()}
        self._files: dict[str, tuple[int, int, int]] = {}
        for place, member in enumerate(members):
            self._add(member, place)
        self._base = _base(self._scans)
        self._head = "".join(f"{part}/" for part in self._base)

    def scan(self, parts: tuple[str, ...]) -> Scan:
        """Return what lies in a folder."""
        return self._scans[(*self._base, *parts)]

    def stat(self, path: str) -> tuple[int, int] | None:
        """Return bytes and modification time of an image or table; None if there is none."""
        found = self._files.get(self._head + path)
        return found and found[:2]

    def load(self, path: str) -> bytes:
        """Return an image or table whole."""
        return self._reader.read(self._files[self._head + path][2])

    def adopt(self, found: Source) -> Source:
        """Return the source that was found in this tree, with its images read from the archive."""
        about = self.root.stat()
        nothing = (-1, -1, -1)
        places = [self._files.get(self._head + path, nothing)[2] for path in found.paths]
        large = {int(row): TOO_LARGE for row in np.flatnonzero(found.sizes > MAX_BYTES)}
        skipped = [f"{n} members were skipped: {kind}" for kind, n in sorted(self.skipped.items())]
        return replace(
            found,
            name=escape(stem(self.root)) or "data",
            root=None,
            issues={**large, **found.issues},
            warnings=(*found.warnings, *skipped, *self.warnings),
            files=Members(
                path=self.root.resolve(),
                stamp=(about.st_size, about.st_mtime_ns),
                rests_on=self._rests_on,
                reader=self._reader,
                places=np.array(places, np.int64),
            ),
        )

    def _add(self, member: Member, place: int) -> None:
        parts = _parts(member.name)
        if parts is None:
            self.skipped[_UNSAFE] += 1
        elif not parts or any(map(hidden, parts)):
            return
        elif member.kind == FOLDER:
            self._folder(parts)
        elif member.kind == LINK:
            self._folder(parts[:-1]).links += 1
        elif member.kind in (FILE, ENCRYPTED):
            self._file(parts, member, place)
        else:
            self.skipped[member.kind] += 1

    def _folder(self, parts: tuple[str, ...]) -> Scan:
        """Return the scan of a folder, entering it and its parents where they are new."""
        depth = len(parts)
        while parts[:depth] not in self._scans:
            depth -= 1
        for end in range(depth, len(parts)):
            self._scans[parts[:end]].folders.append(parts[end])
            self._scans[parts[: end + 1]] = Scan()
        return self._scans[parts]

    def _file(self, parts: tuple[str, ...], member: Member, place: int) -> None:
        scan, ending = self._folder(parts[:-1]), suffix(parts[-1])
        if ending not in SUFFIXES and ending not in TABLES:
            scan.others.append(parts[-1])
            return
        path = "/".join(parts)
        if member.kind == ENCRYPTED:
            raise self._refused(f"{escape(path)} is encrypted", "unpack it with its password first")
        if path in self._files:
            raise self._refused(
                f"it holds two files named {escape(path)}", "unpack it, and see which is meant"
            )
        self._files[path] = (member.size, member.time, place)
        if ending in SUFFIXES:
            scan.images.append((parts[-1], member.size, member.time))
        else:
            scan.others.append(parts[-1])

    def _refused(self, why: str, hint: str) -> DataError:
        return DataError("data.archive", f"cannot use {escape(str(self.root))}: {why}", hint)


def open_archive(path: Path, progress: Callable[[str, int, int], None] | None = None) -> Archive:
    """List the members of an archive.

    Parameters
    ----------
    path : Path
    progress : callable, optional
        Told ("unpack", bytes read, bytes in all) while a compressed tar is read.

    Raises
    ------
    DataError
        If it is damaged, encrypted, or holds one name twice.
    DiskError
        If the images of a compressed tar do not fit the cache.
    """
    if path.name.lower().endswith(".zip"):
        members, zipped = open_zip(path)
        return Archive(path, members, zipped, None)
    found = open_tar(path, progress)
    archive = Archive(path, found.members, found.reader, found.key)
    if found.cut:
        archive.warnings.append(f"{escape(path.name)} has no end mark: it may have been cut short")
    return archive


def _parts(name: str) -> tuple[str, ...] | None:
    """Return the folders and the name of a member; None if it leads outside the archive."""
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    drive = bool(parts) and len(parts[0]) == 2 and parts[0][1] == ":"
    unsafe = name.startswith("/") or drive or ".." in parts or len(parts) > _DEEP
    return None if unsafe else parts


def _base(scans: dict[tuple[str, ...], Scan]) -> tuple[str, ...]:
    """Return the folder in which everything lies.

    One folder that holds images itself stays a class, unless a table lies beside them.
    """
    base: tuple[str, ...] = ()
    while True:
        outer = scans[base]
        if outer.images or _has_table(outer) or len(outer.folders) != 1:
            return base
        name = outer.folders[0]
        inner = scans[(*base, name)]
        if name.casefold() in SPLITS or name.casefold() in UNLABELLED:
            return base
        if not _has_table(inner) and (inner.images or not inner.folders):
            return base
        base = (*base, name)


def _has_table(scan: Scan) -> bool:
    return any(suffix(name) in TABLES for name in scan.others)
