"""Building a store: read, hash, decode and shrink every image once, in order.

Results are written as they come, by plain writes: a full disk then is an error message,
where writing through a memory map would kill the process.
"""

from __future__ import annotations

import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fewlabels.data import cache, codes, decode
from fewlabels.data.pixels import MAX_ASPECT
from fewlabels.data.planning import Plan
from fewlabels.data.source import Source
from fewlabels.data.streaming import content_hash, picture

Progress = Callable[[str, int, int], None]
CHUNK = 64
_COLUMNS: dict[str, tuple[DTypeLike, tuple[int, ...]]] = {
    "ok": (np.bool_, ()),
    "sha256": (np.uint8, (32,)),
    "widths": (np.int32, ()),
    "heights": (np.int32, ()),
    "sizes": (np.int32, (2,)),
    "offsets": (np.int64, ()),
    "codes": (np.int8, (codes.WIDTH,)),
}
_NOTHING = bytes(32)


@dataclass(frozen=True, slots=True)
class Row:
    """One image on its way into the store; without pixels it could not be decoded."""

    sha256: bytes = _NOTHING
    width: int = 0
    height: int = 0
    pixels: NDArray[np.uint8] | None = None
    thumbnail: NDArray[np.uint8] | None = None
    notes: tuple[str, ...] = ()
    issue: str = ""
    retry: bool = False


def build(source: Source, plan: Plan, folder: Path, progress: Progress | None) -> None:
    """Decode `source` into `folder`, which becomes a whole store with its last file.

    Raises
    ------
    OSError
        If the disk is full or cannot be written.
    """
    folder.mkdir()
    with ExitStack() as stack:
        stack.enter_context(decode.Quiet())
        writer = Writer(folder, len(source), plan, stack)
        for rows in _rows(source, plan):
            writer.write(rows)
            if progress is not None:
                progress("decode", writer.done, len(source))
        writer.sync()
    _write_meta(folder, writer.meta())


class Writer:
    """Appends rows to the files of a store.

    Parameters
    ----------
    folder : Path
    count : int
        Rows to come.
    plan : Plan
    stack : ExitStack
        Closes the files.
    """

    def __init__(self, folder: Path, count: int, plan: Plan, stack: ExitStack) -> None:
        self._plan = plan
        self._count = count
        self._files = {
            name: stack.enter_context(_column(folder / f"{name}.npy", dtype, (count, *shape)))
            for name, (dtype, shape) in _COLUMNS.items()
        }
        self._pixels = stack.enter_context((folder / cache.PIXELS).open("xb", 1 << 20))
        self._keep = plan.limit > 0
        self._shapes: set[tuple[int, int]] = set()
        self._notes: Counter[str] = Counter()
        self._issues: dict[int, str] = {}
        self._retry: list[int] = []
        self._need = 0
        self.done = 0

    def write(self, rows: list[Row]) -> None:
        """Append rows, in order."""
        sizes = np.zeros((len(rows), 2), np.int32)
        for place, row in enumerate(rows):
            if row.pixels is None:
                self._note_issue(self.done + place, row)
                continue
            sizes[place] = row.pixels.shape[:2]
            self._notes.update(row.notes)
            if self._keep:
                self._pixels.write(row.pixels.data)
        lengths = sizes.prod(1, dtype=np.int64) * self._plan.channels
        ends = self._need + np.cumsum(lengths)
        self._append("ok", [row.pixels is not None for row in rows])
        self._append("sha256", np.frombuffer(b"".join(r.sha256 for r in rows), np.uint8))
        self._append("widths", [row.width for row in rows])
        self._append("heights", [row.height for row in rows])
        self._append("sizes", sizes)
        self._append("offsets", ends - lengths)
        self._append("codes", self._codes(rows))
        self._advance(sizes, int(ends[-1]))

    def _codes(self, rows: list[Row]) -> NDArray[np.int8]:
        found = np.zeros((len(rows), codes.WIDTH), np.int8)
        seen = {p: row.thumbnail for p, row in enumerate(rows) if row.thumbnail is not None}
        if seen:
            found[list(seen)] = codes.encode(np.stack(list(seen.values())))
        return found

    def _advance(self, sizes: NDArray[np.int32], end: int) -> None:
        if len(self._shapes) < 2:
            self._shapes |= {(h, w) for h, w in sizes.tolist() if h}
        self._need = end
        self.done += len(sizes)
        if self._keep and self._need > self._plan.limit:  # the estimate was too low
            self._keep = False
            self._pixels.seek(0)
            self._pixels.truncate()

    def _note_issue(self, row: int, found: Row) -> None:
        self._issues[row] = found.issue
        if found.retry:
            self._retry.append(row)

    def _append(self, name: str, values: Any) -> None:
        self._files[name].write(np.asarray(values, _COLUMNS[name][0]).tobytes())

    def sync(self) -> None:
        """Bring everything to the disk."""
        for file in (*self._files.values(), self._pixels):
            file.flush()
            os.fsync(file.fileno())

    def meta(self) -> dict[str, Any]:
        """Return what ``meta.json`` holds."""
        block = next(iter(self._shapes)) if len(self._shapes) == 1 else None
        return {
            "kind": "fewlabels-store",
            "key": self._plan.key,
            "count": self._count,
            "channels": self._plan.channels,
            "short_side": self._plan.short_side,
            "block": block,
            "pixels": self._need if self._keep else None,
            "need": self._need,
            "notes": dict(sorted(self._notes.items())),
            "issues": self._issues,
            "retry": self._retry,
        }


def _column(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> BinaryIO:
    file = path.open("xb", 1 << 16)
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file


def _write_meta(folder: Path, meta: dict[str, Any]) -> None:
    with (folder / cache.META).open("x", encoding="utf-8") as file:
        json.dump(meta, file)
        file.flush()
        os.fsync(file.fileno())


def _rows(source: Source, plan: Plan) -> Iterator[list[Row]]:
    """Decode all rows in order, holding a few chunks at a time."""
    most = plan.short_side**2 * plan.channels * MAX_ASPECT
    size = max(1, min(CHUNK, (16 << 20) // most))
    chunks = (range(a, min(a + size, len(source))) for a in range(0, len(source), size))
    if plan.threads == 1:
        yield from (_chunk(source, plan, chunk) for chunk in chunks)
        return
    waiting: deque[Future[list[Row]]] = deque()
    with ThreadPoolExecutor(plan.threads, "fewlabels-decode") as pool:
        try:
            for chunk in chunks:
                waiting.append(pool.submit(_chunk, source, plan, chunk))
                if len(waiting) > 2 * plan.threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _chunk(source: Source, plan: Plan, rows: range) -> list[Row]:
    return [_row(source, plan, row) for row in rows]


def _row(source: Source, plan: Plan, row: int) -> Row:
    if row in source.issues:
        return Row(issue=source.issues[row])
    try:
        content = source.read(row)
    except OSError as error:
        return Row(issue=f"cannot be read ({error.strerror or error})", retry=True)
    sha256 = content_hash(content)
    try:
        found = picture(content, plan.channels, plan.short_side)
    except ValueError as error:
        return Row(sha256, issue=str(error))
    small = codes.thumbnail(found.pixels)
    return Row(sha256, found.width, found.height, found.pixels, small, found.notes)
