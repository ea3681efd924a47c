"""A tar, compressed or not, from front to back, with bounds on what its headers may ask for.

A header may state any length, and `tarfile` would take as much memory to read it; a negative one
makes it go round for ever (CVE-2025-8194), and a damaged one it takes for the end.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from fewlabels.core.errors import DataError
from fewlabels.data.listing import escape

_OPENERS: dict[str, Callable[[BinaryIO], Any]] = {
    ".tar": lambda file: file,
    **dict.fromkeys((".tar.gz", ".tgz"), gzip.open),
    **dict.fromkeys((".tar.bz2", ".tbz2", ".tbz"), bz2.open),
    **dict.fromkeys((".tar.xz", ".txz"), lzma.open),
}
ENDINGS = tuple(_OPENERS)
_LONGEST_HEADER = 1 << 16
_DAMAGE = (
    *(OSError, EOFError, ValueError, OverflowError, RuntimeError),
    *(zlib.error, lzma.LZMAError, tarfile.TarError),
)


class TarStream:
    """An archive that is read forward only; only headers go through `tarfile`.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    cut : bool
        After `headers`: the archive ends without the mark that should end it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = b""
        self.cut = False

    def __enter__(self) -> TarStream:
        ending = max((e for e in ENDINGS if self._path.name.lower().endswith(e)), key=len)
        try:
            self._file = self._path.open("rb")
            self._raw = _OPENERS[ending](self._file)
        except _DAMAGE as error:
            raise unreadable(self._path, error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()
        self._file.close()

    def headers(self) -> Iterator[tarfile.TarInfo]:
        """Yield what the archive says of each member, in order.

        Raises
        ------
        DataError
            If it is damaged.
        """
        try:
            archive = tarfile.open(fileobj=cast(BinaryIO, self), mode="r:")  # noqa: SIM115
            end = -1
            while (info := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined] # else it keeps them all
                if info.size < 0 or info.offset_data <= end:
                    raise ValueError(f"a header at byte {info.offset} leads back")
                end = info.offset_data
                yield info
        except _DAMAGE as error:
            raise unreadable(self._path, error) from error
        if self._last.strip(b"\0"):
            raise unreadable(self._path, ValueError(f"damaged at byte {archive.offset}"))
        self.cut = not self._last

    def read(self, count: int) -> bytes:
        """Return a piece of a header."""
        if not 0 <= count <= _LONGEST_HEADER:
            raise ValueError(f"a header of {count} bytes")
        self._last = self._raw.read(count)
        return self._last

    def content(self, count: int) -> bytes:
        """Return a piece of a member, at least one byte."""
        try:
            content: bytes = self._raw.read(count)
        except _DAMAGE as error:
            raise unreadable(self._path, error) from error
        if not content:
            raise unreadable(self._path, EOFError("it was cut short"))
        return content

    def seek(self, place: int) -> None:
        """Go forward to `place`."""
        try:
            if place < self.tell():
                raise ValueError("a header leads back")
            self._raw.seek(place)
        except _DAMAGE as error:
            raise unreadable(self._path, error) from error

    def tell(self) -> int:
        """Return the place in the unpacked archive."""
        return int(self._raw.tell())

    def progress(self) -> tuple[int, int]:
        """Return how many bytes of the file were read, and how many it has."""
        return self._file.tell(), os.fstat(self._file.fileno()).st_size


def unreadable(path: Path, error: BaseException) -> DataError:
    """Return the error for a tar that cannot be read."""
    return DataError(
        "data.archive",
        f"cannot read the archive {escape(str(path))}: {str(error) or type(error).__name__}",
        "check that it is whole, for example with tar -tf",
    )
