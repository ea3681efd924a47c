"""The manifest: one row an image, saved with every run so that it can be traced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from fewlabels.core.errors import DataError
from fewlabels.data.listing import escape
from fewlabels.data.source import Source
from fewlabels.data.splits import NAMES, OUT
from fewlabels.results.files import replacing

COLUMNS = pa.schema(
    [
        ("path", pa.large_string()),
        ("label", pa.large_string()),
        ("target", pa.float64()),
        ("split", pa.large_string()),
        ("group", pa.large_string()),
        ("sha256", pa.large_string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("issue", pa.large_string()),
    ]
)


class Digests(Sequence[str]):
    """SHA-256 digests shown as hexadecimal text, without a copy of their bytes.

    Parameters
    ----------
    raw : ndarray
        ``(N, 32)`` uint8.
    """

    def __init__(self, raw: np.ndarray) -> None:
        self._raw = np.asarray(raw)  # indexing a memory map by the row is slow

    def __len__(self) -> int:
        return len(self._raw)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Digests: ...
    def __getitem__(self, index: int | slice) -> str | Digests:
        if isinstance(index, slice):
            return Digests(self._raw[index])
        return str(self._raw[index].tobytes().hex())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self._raw), 4096):
            text = self._raw[start : start + 4096].tobytes().hex()
            yield from (text[i : i + 64] for i in range(0, len(text), 64))


@dataclass(frozen=True)
class Manifest:
    """A table with one row an image.

    Attributes
    ----------
    table : pyarrow.Table
        Columns ``path``, ``label``, ``target``, ``split`` (as assigned), ``group``,
        ``sha256``, ``width``, ``height`` and ``issue``; null where unknown.
    """

    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> list[object]:
        """Return a column as Python values; null is None."""
        values: list[object] = self.table[name].to_pylist()
        return values

    def save(self, path: str | Path) -> None:
        """Write the table as Parquet, whole or not at all.

        Raises
        ------
        DiskError
            If the file cannot be written.
        """
        with replacing(path) as temporary:
            pyarrow.parquet.write_table(self.table, temporary, compression="zstd")

    @classmethod
    def load(cls, path: str | Path) -> Manifest:
        """Read a saved manifest.

        Raises
        ------
        DataError
            If the file is missing, damaged, or no manifest.
        """
        try:
            table = pyarrow.parquet.ParquetFile(path).read(use_threads=False)
            return cls(table.select(COLUMNS.names).cast(COLUMNS))
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            message = f"cannot read the manifest {escape(str(path))}: {error}"
            raise DataError("data.manifest", message) from error


def assemble(
    source: Source,
    split: np.ndarray,
    sha256: np.ndarray,
    sizes: tuple[np.ndarray, np.ndarray],
    issues: dict[int, str],
) -> Manifest:
    """Put together what is known of every image.

    Parameters
    ----------
    source : Source
    split : ndarray
        ``(N,)`` int8 as `splits.assign` gives it; -1 becomes null.
    sha256 : ndarray
        ``(N, 32)`` uint8, zeros where the file could not be read.
    sizes : tuple of ndarray
        Widths and heights, ``(N,)`` each.
    issues : dict
        Reasons of unreadable rows.
    """
    width, height = (np.asarray(size, np.int32) for size in sizes)
    blank = pa.nulls(len(source), pa.large_string())
    columns = {
        "path": source.paths.printable(),
        "label": _text(source.labels),
        "target": _target(source.targets, len(source)),
        "split": pa.array(NAMES, pa.large_string()).take(pa.array(split, mask=split == OUT)),
        "group": blank if source.groups is None else _text(source.groups),
        "sha256": _hex(sha256),
        "width": pa.array(width, mask=width == 0),
        "height": pa.array(height, mask=height == 0),
        "issue": _text([issues.get(row) for row in range(len(source))]) if issues else blank,
    }
    return Manifest(pa.table(columns, schema=COLUMNS))


def _text(values: Sequence[str | None]) -> pa.Array:
    return pa.array([None if v is None else escape(v) for v in values], pa.large_string())


def _target(targets: np.ndarray | None, count: int) -> pa.Array:
    if targets is None:
        return pa.nulls(count, pa.float64())
    return pa.array(targets, mask=np.isnan(targets))


def _hex(sha256: np.ndarray) -> pa.Array:
    """Return digests as text without a Python object for each."""
    text = sha256.tobytes().hex().encode()
    ends = np.arange(0, 64 * len(sha256) + 1, 64, dtype=np.int64)
    known = np.packbits(sha256.any(1), bitorder="little").tobytes()
    buffers = [pa.py_buffer(known), pa.py_buffer(ends), pa.py_buffer(text)]
    return pa.Array.from_buffers(pa.large_string(), len(sha256), buffers)
