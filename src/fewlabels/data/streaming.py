"""What is known of every image of a store, and the store that decodes on demand."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewlabels.core.errors import DataError
from fewlabels.data import cache, decode
from fewlabels.data.listing import escape
from fewlabels.data.source import Source


def content_hash(content: bytes | np.ndarray) -> bytes:
    """Return the SHA-256 of a file's bytes, or of an array's type, shape and bytes."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).digest()
    digest = hashlib.sha256(f"{content.dtype.str}{content.shape}".encode())
    digest.update(np.ascontiguousarray(content).data)
    return digest.digest()


def picture(content: bytes | np.ndarray, channels: int, short_side: int) -> decode.Picture:
    """Decode and shrink what a source gives.

    Raises
    ------
    ValueError
        With the reason in words.
    """
    if isinstance(content, bytes):
        return decode.load(content, channels, short_side)
    return decode.from_array(content, channels, short_side)


@dataclass(frozen=True)
class Index:
    """What a store knows of its images without their pixels; every array is mapped.

    Attributes
    ----------
    folder : Path
        Where the store lies.
    meta : dict
        What ``meta.json`` says.
    ok : ndarray
        ``(N,)`` bool: the image decoded.
    sha256 : ndarray
        ``(N, 32)`` uint8 of the content; zeros where it could not be read.
    widths, heights : ndarray
        ``(N,)`` int32 of the files, after orientation; 0 where they did not decode.
    sizes : ndarray
        ``(N, 2)`` int32 height and width as stored.
    offsets : ndarray
        ``(N,)`` int64 first byte in the pixel file.
    codes : ndarray
        ``(N, 47)`` int8 of `fewlabels.data.codes`; zeros where there is nothing to go by.
    """

    folder: Path
    meta: dict[str, Any]
    ok: NDArray[np.bool_]
    sha256: NDArray[np.uint8]
    widths: NDArray[np.int32]
    heights: NDArray[np.int32]
    sizes: NDArray[np.int32]
    offsets: NDArray[np.int64]
    codes: NDArray[np.int8]

    @classmethod
    def open(cls, folder: Path) -> Index | None:
        """Open a finished store; None if there is none or it is not whole."""
        try:
            meta = json.loads((folder / cache.META).read_text(encoding="utf-8"))
            columns = {
                name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                for name in cache.COLUMNS
            }
            pixels = (folder / cache.PIXELS).stat().st_size if meta["pixels"] else 0
            whole = meta["key"] == folder.name and pixels == (meta["pixels"] or 0)
            whole = whole and all(len(column) == meta["count"] for column in columns.values())
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return cls(folder, meta, **columns) if whole else None

    @cached_property
    def issues(self) -> dict[int, str]:
        """Reasons, by row, of the images that did not decode."""
        return {int(row): str(reason) for row, reason in self.meta["issues"].items()}

    @property
    def notes(self) -> dict[str, int]:
        """How many images were treated in a special way, by `decode.Picture.notes`."""
        return dict(self.meta["notes"])

    def require(self, rows: np.ndarray) -> NDArray[np.int64]:
        """Return `rows` as int64.

        Raises
        ------
        IndexError
            If a row is outside the store.
        ValueError
            If one did not decode; asking for it is a defect of the caller.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self.ok)):
            raise IndexError(f"rows must lie in 0..{len(self.ok) - 1}")
        if not self.ok[rows].all():
            bad = int(rows[~self.ok[rows]][0])
            raise ValueError(f"row {bad} is unreadable: {self.issues.get(bad, 'unknown')}")
        return rows


def assemble(
    pictures: list[NDArray[np.uint8]], channels: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    """Lay pictures into the top left corners of one zero-padded canvas.

    Returns
    -------
    canvas : ndarray
        ``(B, H, W, C)`` uint8, H and W the largest of the batch.
    sizes : ndarray or None
        ``(B, 2)`` int64 heights and widths; None when every picture fills the canvas.
    """
    if not pictures:
        return np.zeros((0, 0, 0, channels), np.uint8), None
    sizes = np.array([picture.shape[:2] for picture in pictures], dtype=np.int64)
    height, width = sizes.max(0)
    if (sizes == (height, width)).all():
        return np.stack(pictures), None
    canvas = np.zeros((len(pictures), height, width, channels), np.uint8)
    for place, pixels in zip(canvas, pictures, strict=True):
        place[: pixels.shape[0], : pixels.shape[1]] = pixels
    return canvas, sizes


@dataclass(frozen=True, slots=True, eq=False)
class _Decoding:
    """A batch that is being decoded, and Pillow's silence while it is."""

    rows: NDArray[np.int64]
    coming: list[Future[NDArray[np.uint8]]]
    quiet: decode.Quiet

    def end(self) -> None:
        """Drop what has not begun, and let Pillow speak again."""
        for one in self.coming:
            one.cancel()
        self.quiet.__exit__(None, None, None)


class StreamingStore:
    """Decodes images when they are asked for: the same batches, without the disk space.

    It keeps no pixels and about as many bytes of anonymous memory as two batches: the one
    asked for and, where it was told by `ahead`, the next. Each file is checked against the
    SHA-256 it had when the data was opened.

    Parameters
    ----------
    index : Index
    source : Source
        Where the images come from.
    """

    def __init__(self, index: Index, source: Source) -> None:
        self._index = index
        self._source = source
        self._pool: ThreadPoolExecutor | None = None
        self._next: _Decoding | None = None
        self._lock = threading.Lock()
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

    def read(self, rows: np.ndarray) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
        """Decode the images of `rows`, in their order; see `Store.read`.

        Raises
        ------
        DataError
            If a file is gone or has other content than when the data was opened.
        """
        rows = self._index.require(rows)
        batch = self._swap(None)
        if batch is None or not np.array_equal(rows, batch.rows):
            if batch is not None:
                batch.end()
            batch = self._begin(rows)
        try:
            return assemble([one.result() for one in batch.coming], self.channels)
        finally:
            batch.end()

    def ahead(self, rows: np.ndarray) -> None:
        """Begin to decode the images of `rows`, which `read` will be asked for next."""
        before = self._swap(self._begin(self._index.require(rows)))
        if before is not None:
            before.end()

    def _swap(self, batch: _Decoding | None) -> _Decoding | None:
        """Put a batch in the place of the one begun ahead, whose caller then owns it alone."""
        with self._lock:
            before, self._next = self._next, batch
        return before

    def _begin(self, rows: NDArray[np.int64]) -> _Decoding:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(os.cpu_count() or 1, "fewlabels-decode")
        quiet = decode.Quiet()
        quiet.__enter__()
        return _Decoding(rows, [self._pool.submit(self._decode, r) for r in rows.tolist()], quiet)

    def _decode(self, row: int) -> NDArray[np.uint8]:
        try:
            content = self._source.read(row)
        except OSError as error:
            raise self._changed(row, f"can no longer be read ({error.strerror})") from error
        if content_hash(content) != self.sha256[row].tobytes():
            raise self._changed(row, "has changed since the data was opened")
        return picture(content, self.channels, self.short_side).pixels

    def _changed(self, row: int, how: str) -> DataError:
        hint = "run the command again: it then starts from the files as they are"
        return DataError("data.changed", f"{escape(self._source.paths[row])} {how}", hint)
