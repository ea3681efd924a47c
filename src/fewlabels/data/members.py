"""What an archive says of its members, before anything of it is believed."""

from __future__ import annotations

import errno
import zlib
from typing import NamedTuple, Protocol

from fewlabels.data.decode import MAX_PIXELS

MAX_BYTES = 4 * MAX_PIXELS  # of one file: what the largest picture takes without compression
TOO_LARGE = f"more than {MAX_BYTES // 10**6} MB"

FILE, FOLDER, LINK = "file", "folder", "link"
ENCRYPTED = "encrypted"


class Member(NamedTuple):
    """One member of an archive; its place among all is its number.

    Attributes
    ----------
    name : str
        As it is written in the archive.
    kind : str
        `FILE`, `FOLDER`, `LINK`, `ENCRYPTED`, or the kind of thing that is left alone.
    size, time : int
        Bytes, and modification time in nanoseconds.
    """

    name: str
    kind: str
    size: int
    time: int


class Reader(Protocol):
    """Reads members by their number, from any thread."""

    def read(self, place: int, count: int = -1) -> bytes:
        """Return member `place`, or its first `count` bytes.

        Raises
        ------
        OSError
            If it is damaged, too large, or packed in a way that is not read.
        """
        ...


def damaged(why: str) -> OSError:
    """Return the error for a member that cannot be read."""
    return OSError(errno.EIO, why)


def checked(content: bytes, size: int, crc: int) -> bytes:
    """Return `content` if it has the length and the checksum that the archive states.

    Raises
    ------
    OSError
        If it has not.
    """
    if len(content) != size or zlib.crc32(content) != crc:
        raise damaged("damaged in the archive: its checksum or length is wrong")
    return content
