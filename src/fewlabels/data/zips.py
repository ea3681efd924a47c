"""Zip archives: the directory at their end, and single members by one seek.

Nothing is unpacked and nothing stays open: `zipfile` reads the directory once, and each member
is then read like a file of its own, at the offset that the directory gives. So threads and
processes share nothing, where a `ZipFile` of each thread would hold a directory of its own.
"""

from __future__ import annotations

import bz2
import calendar
import io
import stat
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from fewlabels.core.errors import DataError
from fewlabels.data.listing import escape
from fewlabels.data.members import (
    ENCRYPTED,
    FILE,
    FOLDER,
    LINK,
    MAX_BYTES,
    TOO_LARGE,
    Member,
    checked,
    damaged,
)

_DAMAGE = (
    *(zipfile.BadZipFile, OSError, ValueError, OverflowError),
    *(NotImplementedError, struct.error, EOFError),
)
_HEADER = 30  # bytes of a member's own header, before its name
_UNIX = 3
_FLAG_ENCRYPTED, _FLAG_UTF8 = 0x1, 0x800


class ZipReader:
    """Reads members of a zip by number; about 40 bytes a member.

    Parameters
    ----------
    path : Path
    infos : list of ZipInfo
    """

    def __init__(self, path: Path, infos: list[zipfile.ZipInfo]) -> None:
        self._path = path
        rows = [
            (info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC)
            for info in infos
        ]
        self._table = np.array(rows, np.uint64).reshape(-1, 5)

    def read(self, place: int, count: int = -1) -> bytes:
        """Return member `place`, or its first `count` bytes; see `members.Reader`."""
        offset, packed, size, method, crc = self._table[place].tolist()
        if max(packed, size) > MAX_BYTES:
            raise damaged(TOO_LARGE)
        if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
            raise damaged(f"packed by method {method}, which is not read: use deflate or none")
        with io.FileIO(self._path) as file:
            file.seek(offset)
            header = file.read(_HEADER)
            if header[:4] != b"PK\3\4" or len(header) < _HEADER:
                raise damaged("damaged in the archive: it has no header")
            file.seek(sum(struct.unpack("<HH", header[26:])), io.SEEK_CUR)
            # Pictures hardly shrink any further, so twice the bytes asked for hold them.
            part = count >= 0 and method != zipfile.ZIP_BZIP2
            raw = file.read(min(packed, 2 * count + 4096) if part else packed)
        if count >= 0:
            return _inflate(raw, method, count)
        return checked(_inflate(raw, method, size + 1), size, crc)


def _inflate(raw: bytes, method: int, most: int) -> bytes:
    """Return at most `most` bytes, however many a hostile member would expand to."""
    if method == zipfile.ZIP_STORED or most == 0:
        return raw[:most]
    try:
        if method == zipfile.ZIP_DEFLATED:
            return zlib.decompressobj(-15).decompress(raw, most)
        return bz2.BZ2Decompressor().decompress(raw, most)
    except (zlib.error, OSError, EOFError) as error:
        raise damaged(f"damaged in the archive ({error})") from error


def open_zip(path: Path) -> tuple[list[Member], ZipReader]:
    """Read the directory of a zip.

    Raises
    ------
    DataError
        If it is no zip, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
        return [_member(info) for info in infos], ZipReader(path, infos)
    except _DAMAGE as error:
        raise DataError(
            "data.archive",
            f"cannot read the archive {escape(str(path))}: {error}",
            "check that it is whole, for example with unzip -t",
        ) from error


def _member(info: zipfile.ZipInfo) -> Member:
    name = _name(info)
    return Member(name, _kind(info, name), min(info.file_size, 2**62), _time(info))


def _name(info: zipfile.ZipInfo) -> str:
    """Return the name as the system that packed it meant it.

    `zipfile` takes names without the UTF-8 flag for code page 437, which is right for old
    Windows; Unix and macOS write the bytes of the file name. Some Windows tools write
    backslashes.
    """
    name = info.orig_filename.partition("\0")[0]
    if info.create_system != _UNIX:
        return name.replace("\\", "/")
    if info.flag_bits & _FLAG_UTF8:
        return name
    return name.encode("cp437").decode("utf-8", "surrogateescape")


def _kind(info: zipfile.ZipInfo, name: str) -> str:
    mode = info.external_attr >> 16 if info.create_system == _UNIX else 0
    if stat.S_ISLNK(mode):
        return LINK
    if name.endswith("/") or stat.S_ISDIR(mode):
        return FOLDER
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "devices or pipes"
    return ENCRYPTED if info.flag_bits & _FLAG_ENCRYPTED else FILE


def _time(info: zipfile.ZipInfo) -> int:
    """Return the stated time, which has no time zone, as if it were UTC; 0 if it is none."""
    try:
        return calendar.timegm((*info.date_time, 0, 0, 0)) * 10**9
    except ValueError:
        return 0
