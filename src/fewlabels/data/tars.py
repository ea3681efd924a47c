"""Tar archives: listed once, and single members by one seek.

A tar has no directory, so its headers are read from front to back; what they say is kept in the
cache, and the next opening reads only that. A compressed tar cannot be entered in the middle:
in the same pass its images and tables are laid end to end into one file of the cache, as many
bytes as they have unpacked.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from fewlabels.core.errors import DataError, DiskError
from fewlabels.data import cache, planning
from fewlabels.data.listing import SUFFIXES, TABLES, Strings, escape, suffix
from fewlabels.data.members import FILE, FOLDER, LINK, MAX_BYTES, Member, damaged
from fewlabels.data.tarstream import TarStream, unreadable
from fewlabels.results.files import disk_errors

_VERSION = 1
_CHUNK = 1 << 20
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TarReader:
    """Reads members by number out of one file, which is the tar or lies in the cache.

    16 bytes a member.
    """

    path: Path
    offsets: np.ndarray
    sizes: np.ndarray

    def read(self, place: int, count: int = -1) -> bytes:
        """Return member `place`, or its first `count` bytes; see `members.Reader`."""
        offset, size = int(self.offsets[place]), int(self.sizes[place])
        if offset < 0 or size > MAX_BYTES:
            raise damaged("too large, or not an image")
        wanted = size if count < 0 else min(size, count)
        with io.FileIO(self.path) as file:
            file.seek(offset)
            content = file.read(wanted)
        if len(content) < wanted:
            raise damaged("cut short in the archive")
        return content


@dataclass(frozen=True)
class Tar:
    """What is known of a tar.

    Attributes
    ----------
    members : list of Member
    reader : TarReader
    key : str
        Where the cache keeps it.
    cut : bool
        The archive ends without the mark that should end it.
    """

    members: list[Member]
    reader: TarReader
    key: str
    cut: bool


def open_tar(path: Path, progress: Progress | None = None) -> Tar:
    """List the members of a tar, from the cache where it knows them.

    Raises
    ------
    DataError
        If it is no tar, or damaged.
    DiskError
        If the cache cannot be written, or has no room for the images.
    """
    packed = not path.name.lower().endswith(".tar")
    try:
        about = path.stat()
        what = (_VERSION, os.path.realpath(path), about.st_size, about.st_mtime_ns, packed)
        key = hashlib.blake2b(repr(what).encode(), digest_size=16).hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error
    with disk_errors(cache.stores_folder() / key):
        found = _reopen(path, key)
        if found is None:
            cache.sweep()
            with cache.lock(key):
                found = _reopen(path, key) or _index(path, key, packed, progress)
    return found


def _reopen(path: Path, key: str) -> Tar | None:
    """Return what the cache knows of a tar; None if it knows nothing, or not all."""
    folder = cache.stores_folder() / key
    try:
        meta = json.loads((folder / cache.META).read_text(encoding="utf-8"))
        table = pyarrow.parquet.ParquetFile(folder / cache.MEMBER_INDEX).read(use_threads=False)
        held = folder / cache.MEMBERS
        whole = meta["key"] == key and (
            meta["bytes"] is None or held.stat().st_size == meta["bytes"]
        )
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None
    if not whole:
        return None
    with contextlib.suppress(OSError):
        os.utime(folder / cache.META)  # when it was last used
    sizes, times, offsets = (table[name].to_numpy() for name in ("size", "time", "offset"))
    names = Strings(table["name"].combine_chunks())
    rows = zip(names, table["kind"].to_pylist(), sizes.tolist(), times.tolist(), strict=True)
    source = path.resolve() if meta["bytes"] is None else held
    members = [Member(*row) for row in rows]
    return Tar(members, TarReader(source, offsets, sizes), key, bool(meta["cut"]))


def _index(path: Path, key: str, packed: bool, progress: Progress | None) -> Tar:
    """Read a tar from front to back and keep what it holds."""
    temporary, place = cache.building(key), cache.stores_folder() / key
    if place.exists():
        cache.discard(place)
    if packed:
        cache.make_room(path.stat().st_size, planning.disk_cap(None), {key})
    try:
        temporary.mkdir()
        _write(path, temporary, key, packed, progress)
        temporary.replace(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    found = _reopen(path, key)
    if found is None:
        raise DiskError("disk.cache", f"the index written to {place} cannot be read back")
    return found


def _write(path: Path, folder: Path, key: str, packed: bool, progress: Progress | None) -> None:
    columns: dict[str, list[Any]] = {
        name: [] for name in ("name", "kind", "size", "time", "offset")
    }
    limit = planning.disk_cap(None)
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(TarStream(path))
        out = stack.enter_context((folder / cache.MEMBERS).open("xb")) if packed else None
        for info in stream.headers():
            member = _member(info)
            offset = info.offset_data
            if out is not None:
                offset = _copy(stream, info, out) if _wanted(member) else -1
                if out.tell() > limit:
                    raise _too_much(path, limit)
            for name, value in zip(columns, (*member, offset), strict=True):
                columns[name].append(value)
            if out is not None and progress is not None:
                progress("unpack", *stream.progress())
        held = out.tell() if out is not None else None
    columns["name"] = [name.encode("utf-8", "surrogateescape") for name in columns["name"]]
    table = pa.table({**columns, "name": pa.array(columns["name"], pa.large_binary())})
    pyarrow.parquet.write_table(table, folder / cache.MEMBER_INDEX)
    meta = {"kind": "fewlabels-archive", "key": key, "bytes": held, "cut": stream.cut}
    (folder / cache.META).write_text(json.dumps(meta), encoding="utf-8")


def _member(info: tarfile.TarInfo) -> Member:
    time = info.mtime if 0 <= info.mtime < 2**33 else 0
    return Member(info.name, _kind(info), info.size, int(time * 10**9))


def _kind(info: tarfile.TarInfo) -> str:
    if info.issparse():
        return "sparse files"
    if info.isdir():
        return FOLDER
    if info.issym():
        return LINK
    if info.islnk():
        return "hard links"
    return FILE if info.isreg() else "devices or pipes"


def _wanted(member: Member) -> bool:
    ending = suffix(member.name.rpartition("/")[2])
    return (
        member.kind == FILE
        and member.size <= MAX_BYTES
        and (ending in SUFFIXES or ending in TABLES)
    )


def _copy(stream: TarStream, info: tarfile.TarInfo, out: BinaryIO) -> int:
    """Append the bytes of a member to `out`; return where they begin."""
    begin, left = out.tell(), info.size
    stream.seek(info.offset_data)
    while left:
        content = stream.content(min(left, _CHUNK))
        out.write(content)
        left -= len(content)
    return begin


def _too_much(path: Path, limit: int) -> DataError:
    return DataError(
        "data.archive",
        f"the images in {escape(str(path))} unpack to more than the {limit / 1e9:,.1f} GB that the "
        "cache may take",
        "unpack it yourself, or make a .zip or a plain .tar of it: those are read as they lie",
    )
