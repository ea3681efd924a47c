"""How a store will be built: its expected size, whether it fits, how many threads."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewlabels.core.cache import cache_folder
from fewlabels.core.errors import DiskError
from fewlabels.data import cache, codes, decode
from fewlabels.data.source import Source

DEFAULT_CAP = 20 * 10**9
ROW_BYTES = 1 + 32 + 4 + 4 + 8 + 8 + codes.WIDTH
_SMALL = 128 * 128


@dataclass(frozen=True, slots=True)
class Plan:
    """What to build.

    Attributes
    ----------
    key : str
        Name of the store.
    channels, short_side : int
        As in `decode.load`.
    limit : int
        Bytes of pixels to keep at most; 0 builds a store without pixels.
    need : int
        Bytes the store is expected to take.
    threads : int
        Decoding threads; 1 decodes in the calling thread.
    """

    key: str
    channels: int
    short_side: int
    limit: int
    need: int
    threads: int


def make_plan(
    source: Source, key: str, channels: int, short_side: int, cap_bytes: int | None
) -> Plan:
    """Estimate the size from some headers, make room, and choose the threads."""
    count = len(source)
    shapes = np.array(
        list(_shapes(source, source.sample(128))) or [(short_side, short_side)], np.int64
    )
    stored = [decode.stored_size(w, h, short_side) for w, h in shapes.tolist()]
    mean = float(np.prod(stored, 1).mean()) * channels
    need = int(count * mean)
    cap = disk_cap(cap_bytes)
    limit = cap if need <= cap else 0
    if limit:
        cache.make_room(need, cap, {key, source.files.rests_on if source.files else None})
    need = (need if limit else 0) + count * ROW_BYTES
    if need > _free():
        raise disk_full(need)
    # Decoding small images is mostly Python, where two threads are slower than one.
    small = shapes.prod(1).mean() <= _SMALL
    return Plan(key, channels, short_side, limit, need, 1 if small else cores())


def _shapes(source: Source, rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    for row in rows.tolist():
        if row in source.issues:
            continue
        with contextlib.suppress(OSError, ValueError), decode.Quiet():
            if source.pictures is not None:
                height, width = np.shape(source.read(row))[:2]
                yield width, height
                continue
            yield _header_size(source, row)


def _header_size(source: Source, row: int) -> tuple[int, int]:
    try:
        header = decode.probe(source.head(row, 1 << 16))
    except ValueError:  # TIFF and some others need more than the beginning
        content = source.read(row)
        header = decode.probe(content if isinstance(content, bytes) else b"")
    return header.width, header.height


def disk_cap(cap_bytes: int | None) -> int:
    """Return the bytes that all stores together may take."""
    return min(DEFAULT_CAP, _free() // 10) if cap_bytes is None else cap_bytes


def _free() -> int:
    return shutil.disk_usage(cache.stores_folder()).free


def cores() -> int:
    """Return how many threads this process may run at once."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def disk_full(need: int) -> DiskError:
    """Return the error for a store of `need` bytes that does not fit the disk."""
    return DiskError(
        "disk.full",
        f"decoded images need about {need / 1e6:,.0f} MB, "
        f"{_free() / 1e6:,.0f} MB free in {cache_folder()}",
        "free some space, or set FEWLABELS_CACHE to a folder on a larger disk",
    )
