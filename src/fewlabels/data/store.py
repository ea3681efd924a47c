"""The decode-once store: every image decoded, shrunk and kept as memory-mapped pixels.

A store is named by what it was made from: the data's folder, its relative paths, sizes
and modification times, the channels and short side, and the version of the
preprocessing. Opening it again costs the hashing of that listing; ``verify=True`` reads
every file again and rebuilds the store if one differs.

Memory: all columns and pixels are mapped from files, so an open store takes no anonymous
memory a row (unreadable images excepted, about 200 bytes each), and building holds a few
chunks of at most 64 images.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import PIL
from numpy.typing import NDArray

from fewlabels.core.cache import cache_folder
from fewlabels.core.errors import DiskError
from fewlabels.data import cache
from fewlabels.data.build import Progress, build
from fewlabels.data.cache import cache_size, clear_cache
from fewlabels.data.planning import Plan, cores, disk_cap, disk_full, make_plan
from fewlabels.data.source import Source
from fewlabels.data.streaming import Index, StreamingStore, assemble, content_hash

__all__ = [
    "MappedStore",
    "Store",
    "StreamingStore",
    "cache_folder",
    "cache_size",
    "clear_cache",
    "open_store",
]

PREPROCESS_VERSION = 2  # raise it when decode.py gives other pixels for the same file


class Store(Protocol):
    """Decoded images, whether kept on disk or decoded on demand.

    Attributes
    ----------
    count, channels, short_side : int
    ok : ndarray
        ``(N,)`` bool: the image decoded.
    sha256 : ndarray
        ``(N, 32)`` uint8 of the content.
    widths, heights : ndarray
        ``(N,)`` int32 of the files, after orientation.
    issues : dict
        Reasons, by row, of the images that did not decode.
    notes : dict
        How many images were 16-bit, had alpha, and so on; see `decode.Picture`.
    codes : ndarray
        ``(N, 47)`` int8: what each picture looks like from afar; see `fewlabels.data.codes`.
    folder : Path
        Where the store lies.
    """

    count: int
    channels: int
    short_side: int
    ok: NDArray[np.bool_]
    sha256: NDArray[np.uint8]
    widths: NDArray[np.int32]
    heights: NDArray[np.int32]
    issues: dict[int, str]
    notes: dict[str, int]
    codes: NDArray[np.int8]
    folder: Path

    def read(self, rows: np.ndarray) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
        """Return the images of `rows`.

        Parameters
        ----------
        rows : ndarray
            ``(B,)`` integers, in any order, repeated or not.

        Returns
        -------
        canvas : ndarray
            ``(B, H, W, C)`` uint8, C-contiguous, H and W the largest of the batch;
            smaller pictures lie in the top left corner, zeros around them.
        sizes : ndarray or None
            ``(B, 2)`` int64 heights and widths; None when every picture fills the canvas.

        Raises
        ------
        ValueError
            If a row did not decode.
        IndexError
            If a row is outside the store.
        """
        ...


class MappedStore:
    """Images decoded once and mapped from disk.

    Parameters
    ----------
    index : Index
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self.count = len(index.ok)
        self.channels: int = index.meta["channels"]
        self.short_side: int = index.meta["short_side"]
        self.ok = index.ok
        self.sha256 = index.sha256
        self.widths = index.widths
        self.heights = index.heights
        self.issues = index.issues
        self.notes = index.notes
        self.codes = index.codes
        self.folder = index.folder
        self._whole = not self.issues
        path, size = index.folder / cache.PIXELS, index.meta["pixels"]
        self._pixels = np.asarray(np.memmap(path, np.uint8, "r", shape=(size,)))
        self._block: NDArray[np.uint8] | None = None
        if index.meta["block"]:
            self._block = self._pixels.reshape(-1, *index.meta["block"], self.channels)

    def read(self, rows: np.ndarray) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
        """Copy the images of `rows` out of the map; see `Store.read`."""
        rows = self._index.require(rows)
        if self._block is None:
            return assemble([self._view(row) for row in rows.tolist()], self.channels)
        if not self._whole:  # unreadable images take no place in the block
            rows = self._index.offsets[rows] // self._block[0].nbytes
        return self._block[rows], None

    @property
    def block(self) -> NDArray[np.uint8] | None:
        """Return all images ``(N, H, W, C)``; None where sizes differ or one did not decode."""
        return self._block if self._whole else None

    def _view(self, row: int) -> NDArray[np.uint8]:
        height, width = self._index.sizes[row].tolist()
        start = int(self._index.offsets[row])
        stop = start + height * width * self.channels
        return self._pixels[start:stop].reshape(height, width, self.channels)


def open_store(
    source: Source,
    *,
    short_side: int,
    channels: int,
    cap_bytes: int | None = None,
    verify: bool = False,
    progress: Progress | None = None,
) -> Store:
    """Open the decoded images of a source, decoding them first if that was not done yet.

    Two processes may open the same data: one builds, the other waits. A build that is
    killed leaves nothing that is taken for a store.

    Parameters
    ----------
    source : Source
    short_side : int
        Images with a longer short side are shrunk to it.
    channels : int
        1 for grey, 3 for colour.
    cap_bytes : int, optional
        Disk space that all stores together may take. Stores used longest ago give way;
        images that do not fit by themselves are decoded on demand. By default 20 GB,
        or a tenth of what is free where that is less.
    verify : bool
        Read every file again and compare it with its SHA-256; rebuild where any differs.
    progress : callable, optional
        Told (stage, done, total), stage being ``decode``, ``verify`` or
        ``waiting: ...`` while another process builds the same store.

    Raises
    ------
    DiskError
        If the store cannot be written.
    """
    try:
        key = _key(source, short_side, channels)
        index = None if verify else _reopen(key, source, cap_bytes)
        if index is None:
            index = _open_locked(source, (key, channels, short_side), cap_bytes, verify, progress)
    except OSError as error:
        message = f"cannot keep decoded images in {cache_folder()}: {error}"
        hint = "set FEWLABELS_CACHE to a folder that can be written"
        raise DiskError("disk.cache", message, hint) from error
    with contextlib.suppress(OSError):
        os.utime(index.folder / cache.META)  # when it was last used
    pixels = index.meta["pixels"]
    if pixels and (cap_bytes is None or pixels <= cap_bytes):
        return MappedStore(index)
    return StreamingStore(index, source)


def _open_locked(
    source: Source,
    what: tuple[str, int, int],
    cap_bytes: int | None,
    verify: bool,
    progress: Progress | None,
) -> Index:
    key, channels, short_side = what

    def waiting(why: str) -> None:
        if progress is not None:
            progress(f"waiting: {why}", 0, len(source))

    cache.sweep()
    with cache.lock(key, waiting=waiting):
        index = _reopen(key, source, cap_bytes)
        if index is not None and not (verify and _differs(index, source, progress)):
            return index
        place = cache.stores_folder() / key
        if place.exists():
            cache.discard(place)
        return _build(source, make_plan(source, key, channels, short_side, cap_bytes), progress)


def _build(source: Source, plan: Plan, progress: Progress | None) -> Index:
    temporary, place = cache.building(plan.key), cache.stores_folder() / plan.key
    try:
        build(source, plan, temporary, progress)
        _publish(temporary, place)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise disk_full(plan.need) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    index = Index.open(place)
    if index is None:
        raise DiskError("disk.cache", f"the store written to {place} cannot be read back")
    return index


def _publish(temporary: Path, place: Path) -> None:
    try:
        temporary.replace(place)
    except OSError:  # where locks do not work, another build may have come first
        if Index.open(place) is None:
            raise


def _key(source: Source, short_side: int, channels: int) -> str:
    """Name the store after its listing; the folder counts, since archives reset times."""
    digest = hashlib.blake2b(digest_size=16)
    held = source.files or source.pictures
    place = getattr(held, "path", "") if source.root is None else source.root
    what = (PREPROCESS_VERSION, PIL.__version__, short_side, channels, len(source))
    digest.update(repr((what, os.path.realpath(place), sorted(source.issues.items()))).encode())
    digest.update(source.sizes.astype("<i8").tobytes() + source.times.astype("<i8").tobytes())
    if source.files is not None:
        digest.update(repr(source.files.stamp).encode())
    for start in range(0, len(source), 4096):
        names = "\0".join(source.paths[start : start + 4096])
        digest.update(names.encode("utf-8", "surrogateescape") + b"\0\0")
    if source.pictures is not None and (source.sizes < 0).all():  # arrays that come from no file
        for row in range(len(source)):
            digest.update(content_hash(source.read(row)))
    return digest.hexdigest()


def _reopen(key: str, source: Source, cap_bytes: int | None) -> Index | None:
    """Open the store `key`; None where it must be built or could now be built better."""
    index = Index.open(cache.stores_folder() / key)
    if index is None or any(_readable(source, row) for row in index.meta["retry"][:100]):
        return None
    if index.meta["pixels"] is None and index.meta["need"] <= disk_cap(cap_bytes):
        return None
    return index


def _readable(source: Source, row: int) -> bool:
    try:
        source.read(row)
    except OSError:
        return False
    return True


def _differs(index: Index, source: Source, progress: Progress | None) -> bool:
    """Read every file again and compare it with what was decoded."""

    def hashed(row: int) -> bytes:
        try:
            return b"" if row in source.issues else content_hash(source.read(row))
        except OSError:
            return b""

    with ThreadPoolExecutor(cores(), "fewlabels-verify") as pool:
        for start in range(0, len(source), 1024):
            rows = range(start, min(start + 1024, len(source)))
            found = b"".join(digest.ljust(32, b"\0") for digest in pool.map(hashed, rows))
            if found != index.sha256[rows.start : rows.stop].tobytes():
                return True
            if progress is not None:
                progress("verify", rows.stop, len(source))
    return False
