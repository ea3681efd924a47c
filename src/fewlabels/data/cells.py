"""Images in the cells of Parquet files, read a row group at a time.

A few row groups are kept, so memory depends on them and not on the number of images.
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from fewlabels.data.listing import escape
from fewlabels.data.members import MAX_BYTES, TOO_LARGE, damaged

KEPT_BYTES = 256 * 10**6  # of row groups, beside the one in use
OPEN_FILES = 16


class Cells:
    """The images of Parquet files by row; see `fewlabels.data.source.Files`.

    A row group is read as a whole. Those used last are kept, up to 256 MB, so that
    rows read in order cost one reading.

    Parameters
    ----------
    root : Path
        What names the data.
    parts : sequence of (Path, str, list of int)
        Each file, its column of bytes, and the rows of its row groups.
    """

    def __init__(self, root: Path, parts: Sequence[tuple[Path, str, list[int]]]) -> None:
        self.path = root.resolve()
        self.stamp: tuple[int, ...] = ()
        self.rests_on: str | None = None
        self._leaves = [(path, leaf) for path, leaf, _ in parts]
        self._places = [(i, g) for i, part in enumerate(parts) for g in range(len(part[2]))]
        rows = [count for _, _, counts in parts for count in counts]
        self._starts = np.concatenate([[0], np.cumsum(np.array(rows, np.int64))])
        self.block = max(1, int(np.median(rows)))
        self._kept: OrderedDict[int, pa.Array] = OrderedDict()
        self._lock = threading.Lock()  # a Parquet file has one reader at a time
        self._open = functools.lru_cache(OPEN_FILES)(pyarrow.parquet.ParquetFile)

    def __call__(self, index: int, count: int = -1) -> bytes:
        """Return the file in row `index`, or its first `count` bytes."""
        group = int(np.searchsorted(self._starts, index, "right")) - 1
        with self._lock:
            cells = self._group(group)
        held = cells[index - int(self._starts[group])].as_buffer()
        if held is None:
            raise damaged("the cell is empty")
        if held.size > MAX_BYTES:
            raise damaged(TOO_LARGE)
        return bytes((held if count < 0 else held.slice(0, min(count, held.size))).to_pybytes())

    def _group(self, group: int) -> pa.Array:
        if group in self._kept:
            self._kept.move_to_end(group)
            return self._kept[group]
        cells = self._read(group)
        while self._kept and cells.nbytes + sum(a.nbytes for a in self._kept.values()) > KEPT_BYTES:
            self._kept.popitem(last=False)
        self._kept[group] = cells
        return cells

    def _read(self, group: int) -> pa.Array:
        part, number = self._places[group]
        path, leaf = self._leaves[part]
        try:
            column = self._open(path).read_row_group(number, columns=[leaf]).column(0)
            cells = column.combine_chunks()
        except (OSError, ValueError, pa.ArrowException) as error:
            raise damaged(f"{escape(path.name)} cannot be read: {error}") from error
        return pc.struct_field(cells, "bytes") if pa.types.is_struct(cells.type) else cells
