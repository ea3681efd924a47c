"""Damage that decoders pass over in silence, and files that would keep one busy for hours.

A decoder that shows pictures to people makes the best of a damaged file; one that feeds a
training must not. What Pillow and libjpeg would let pass:

- PNG: the checksums of its pixel chunks are not looked at.
- JPEG that ends too early but has its end mark, as repaired downloads and lost network packets
  leave it: what is missing becomes mid-grey, without an error.
- JPEG in several scans of which some are missing: the picture is blurred, or lacks a colour.
- JPEG with thousands of scans: 14 bytes each, and each costs a pass over all pixels.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import NamedTuple

from PIL import Image

MAX_SCANS = 100  # encoders write about 10
_CHECKED = frozenset({b"IHDR", b"PLTE", b"IDAT", b"tRNS"})  # what pixels are made of
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xCA})
_START_OF_IMAGE, _END_OF_IMAGE, _SCAN = 0xD8, 0xD9, 0xDA
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # what can end the data of a scan
_LOOKAHEAD = bytes(16)  # libjpeg asks for up to 8 bytes more than it decodes


class _Segment(NamedTuple):
    marker: int
    body: bytes
    end: int


def refuse_damage(data: bytes, kind: str | None) -> None:
    """Refuse a PNG or JPEG file that shows damage before its pixels are decoded.

    Parameters
    ----------
    data : bytes
        The whole file.
    kind : str or None
        Pillow's name of the format.

    Raises
    ------
    ValueError
        With the reason in words.
    """
    if kind == "PNG":
        _check_chunks(data)
    elif kind in ("JPEG", "MPO"):
        _check_scans(data)


def refuse_grey(data: bytes, image: Image.Image) -> None:
    """Refuse a decoded JPEG whose end libjpeg had to fill with grey.

    Where data is missing, the last pixel is mid-grey. It may be so in a whole picture, too: then
    the scan is decoded once more without its end mark. libjpeg waits for more data if it lacks
    any, and Pillow says so.

    Parameters
    ----------
    data : bytes
        The whole file.
    image : Image
        As Pillow decoded it, not yet turned.

    Raises
    ------
    ValueError
        If data is missing.
    """
    last = image.getpixel((image.width - 1, image.height - 1))
    if any(value not in (127, 128) for value in (last if isinstance(last, tuple) else (last,))):
        return
    frame, scan = _first_scan(data)
    if not _is_whole(frame, scan):
        return  # of several scans the number has been looked at
    ended = _MARKER.search(data, scan.end)
    cut = data[: ended.start() if ended else len(data)]
    with Image.open(BytesIO(cut + _LOOKAHEAD), formats=("JPEG",)) as again:
        try:
            again.load()
        except OSError as error:
            raise ValueError("truncated or damaged (data of the JPEG is missing)") from error


def _check_chunks(data: bytes) -> None:
    place = 8
    while place + 8 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        name = data[place + 4 : place + 8]
        if name in _CHECKED:
            check = zlib.crc32(data[place + 4 : end]).to_bytes(4, "big")
            if data[end : end + 4] != check:
                raise ValueError(f"truncated or damaged (wrong checksum in {name.decode()})")
        elif name == b"IEND":
            return
        place = end + 4


def _check_scans(data: bytes) -> None:
    """Refuse a JPEG with too many scans, or without some that its picture needs."""
    lowest: dict[tuple[int, int], int] = {}  # the last bit sent, by component and coefficient
    frame, count = None, 0
    for segment in _segments(data):
        if segment.marker != _SCAN:
            frame = segment
            continue
        if frame is None:
            return
        if count == 0 and _is_whole(frame, segment):
            return
        count += 1
        if count > MAX_SCANS:
            raise ValueError(f"more than {MAX_SCANS} scans in a JPEG")
        lowest.update(_sent(segment))
    if frame is None or not count:
        return  # the decoder says what is wrong with it
    if any(lowest.get((one, k), 1) for one in _components(frame) for k in range(64)):
        raise ValueError("truncated or damaged (scans of the JPEG are missing)")


def _segments(data: bytes) -> Iterator[_Segment]:
    """Yield the frame and the scans of a JPEG up to its end mark."""
    place = 2
    while found := _MARKER.search(data, place):
        place = found.end()
        marker = data[place - 1]
        if marker == _END_OF_IMAGE:
            return
        if marker == _START_OF_IMAGE:
            continue
        start, length = place + 2, int.from_bytes(data[place : place + 2], "big")
        place += max(2, length)
        if marker == _SCAN or marker in _FRAMES:
            yield _Segment(marker, data[start:place], place)


def _first_scan(data: bytes) -> tuple[_Segment, _Segment]:
    frame = None
    for segment in _segments(data):
        if segment.marker == _SCAN and frame is not None:
            return frame, segment
        frame = segment
    raise ValueError("truncated or damaged (a JPEG without a scan)")


def _is_whole(frame: _Segment, scan: _Segment) -> bool:
    """Tell whether one scan is all there is: all components, in full."""
    return frame.marker not in _PROGRESSIVE and scan.body[:1] == frame.body[5:6]


def _components(frame: _Segment) -> bytes:
    return frame.body[6::3]


def _sent(scan: _Segment) -> dict[tuple[int, int], int]:
    """Return what a scan sends: the lowest bit of each coefficient of its components."""
    count = scan.body[0] if scan.body else 0
    components = scan.body[1 : 1 + 2 * count : 2]
    if len(scan.body) < 4 + 2 * count:
        return {}
    first, last, bits = scan.body[1 + 2 * count : 4 + 2 * count]
    return {(one, k): bits & 15 for one in components for k in range(first, min(last, 63) + 1)}
