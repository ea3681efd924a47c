"""Parquet files that hold the images themselves, as Hugging Face lays out its data sets.

Here the other columns are read, file by file; `cells` gives the images.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from fewlabels.core.errors import DataError
from fewlabels.data import columns
from fewlabels.data.cells import Cells
from fewlabels.data.columns import Entry
from fewlabels.data.folders import UNLABELLED
from fewlabels.data.listing import Listing, Strings, escape
from fewlabels.data.source import SPLITS, Columns, Source, name_of, refuse_clashes

LARGE_GROUP = 2**30
_PATH = "path of the row"  # our own column beside those of the file
_DAMAGE = (OSError, ValueError, pa.ArrowException)
_HINT = "write it with pyarrow.parquet.write_table(table, path, row_group_size=100)"


def read_alone(path: Path, asked: Columns) -> Source | None:
    """Return the source of one Parquet file with images; None for any other file.

    Raises
    ------
    DataError
        If it is damaged, or its columns are not as asked.
    """
    if path.suffix.lower() != ".parquet" or not holds_images(path):
        return None
    return read_files([path], path.parent, asked, name_of(path))


def find(listing: Listing, asked: Columns) -> Source | None:
    """Return the source of the Parquet files with images below a folder that holds no others.

    Raises
    ------
    DataError
        If several data sets lie there, or a file is damaged.
    """
    if len(listing.paths):
        return None
    files = [path for path in parquet_files(listing.root) if holds_images(path)]
    return read_files(files, listing.root, asked, name_of(listing.root)) if files else None


def parquet_files(root: Path) -> list[Path]:
    """Return the Parquet files below a folder, hidden ones left out, sorted."""
    found = (path for path in root.rglob("*.parquet") if path.is_file())
    return sorted(p for p in found if not any(q[0] == "." for q in p.relative_to(root).parts))


def holds_images(path: Path) -> bool:
    """Tell whether a Parquet file has a column of bytes.

    Raises
    ------
    DataError
        If it is damaged.
    """
    try:
        return bool(columns.byte_columns(pyarrow.parquet.read_schema(path)))
    except _DAMAGE as error:
        raise _unreadable(path, error) from error


def read_files(files: Sequence[Path], root: Path, asked: Columns, name: str) -> Source:
    """Return the source of Parquet files with images.

    Parameters
    ----------
    files : sequence of Path
        Where one of them stands for train, their names say the split, as in
        ``train-00000-of-00002.parquet`` or ``train/0000.parquet``. A column ``split``
        beats the names.
    root : Path
        What the rows' paths are relative to.
    asked : Columns
    name : str

    Raises
    ------
    DataError
        If a file is damaged, columns are missing, or several data sets lie here.
    """
    names = [path.relative_to(root).as_posix() for path in files]
    _refuse_several(names, root)
    parts = [_read_part(*pair, asked) for pair in zip(files, names, strict=True)]
    by_name = [_split_of(name) for name in names]
    if "train" not in by_name:
        by_name = [None] * len(names)
    entries = [entry for part in parts for entry in part.entries]
    refuse_clashes({entry.label for entry in entries if entry.label is not None})
    rows = [len(part.entries) for part in parts]
    if not sum(rows):
        raise DataError("data.empty", f"the Parquet files in {escape(str(root))} have no rows")
    given = [s for split, n in zip(by_name, rows, strict=True) for s in [split] * n]
    return Source(
        name=name,
        root=None,
        paths=Strings.of(entry.path for entry in entries),
        labels=[
            None if split in UNLABELLED else entry.label
            for split, entry in zip(given, entries, strict=True)
        ],
        splits=[
            entry.split or (None if split in UNLABELLED else split)
            for split, entry in zip(given, entries, strict=True)
        ],
        sizes=np.repeat(np.array([part.about[0] for part in parts], np.int64), rows),
        times=np.repeat(np.array([part.about[1] for part in parts], np.int64), rows),
        targets=np.array([entry.target for entry in entries]) if asked.target else None,
        groups=[entry.group for entry in entries] if asked.group else None,
        warnings=tuple(dict.fromkeys(text for part in parts for text in part.warnings)),
        files=Cells(root, [(part.path, part.leaf, part.rows) for part in parts]),
    )


@dataclass(frozen=True, slots=True)
class Part:
    """One Parquet file: where its images are, and what its other columns say."""

    path: Path
    leaf: str
    rows: list[int]
    about: tuple[int, int]
    entries: list[Entry]
    warnings: list[str]


def _read_part(path: Path, name: str, asked: Columns) -> Part:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema, about = file.schema_arrow, path.stat()
            leaf = _image_leaf(schema, path, asked)
            label = asked.label or _label_column(schema, path)
            split = columns.pick(schema.names, ("split",))
            wanted = {label, split, asked.target, asked.group}
            names = [column for column in schema.names if column in wanted]
            table = file.read(columns=names, use_threads=False)
            groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
            large = _large_groups(groups, leaf, path)
    except _DAMAGE as error:
        raise _unreadable(path, error) from error
    rows = [group.num_rows for group in groups]
    if label is not None and label in table.column_names:
        place = table.column_names.index(label)
        table = table.set_column(place, label, _named(table[label], schema, label, path))
    elif label is None:
        table = table.append_column(columns.LABEL_NAMES[0], pa.nulls(sum(rows), pa.string()))
    table = table.append_column(_PATH, [[f"{name}/{row:06d}" for row in range(sum(rows))]])
    named = Columns(_PATH, label, asked.target, asked.group)
    bare = label is None and asked.target is None
    return Part(
        path=path.resolve(),
        leaf=leaf,
        rows=rows,
        about=(about.st_size, about.st_mtime_ns),
        entries=columns.entries_of(table, path, named),
        warnings=[
            *(["the Parquet files have no column of labels"] if bare else []),
            *large,
        ],
    )


def _image_leaf(schema: pa.Schema, path: Path, asked: Columns) -> str:
    """Return the column with the images' bytes, as `ParquetFile.read` names it."""
    found = columns.byte_columns(schema)
    usual = columns.pick(list(found), columns.IMAGE_NAMES)
    name = asked.image or usual or (next(iter(found)) if len(found) == 1 else None)
    if name in found:
        return found[name]
    what = "several columns" if name is None else f"no column {name!r}"
    raise DataError(
        "data.column",
        f"{escape(path.name)} has {what} of images: {', '.join(map(repr, found))}",
        "name one with --image-column",
    )


def _label_column(schema: pa.Schema, path: Path) -> str | None:
    """Return the column of labels: by its usual name, else the one that has class names."""
    usual = columns.pick(schema.names, columns.LABEL_NAMES)
    named = [name for name in schema.names if _class_names(schema, name) is not None]
    if usual is None and len(named) > 1:
        raise DataError(
            "data.column",
            f"{escape(path.name)} has several columns of labels: {', '.join(map(repr, named))}",
            "name one with --label-column",
        )
    return usual or (named[0] if named else None)


def _class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """Return the class names that Hugging Face keeps beside a column of numbers."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
        if about["_type"] == "ClassLabel" and isinstance(about["names"], list):
            return [str(name) for name in about["names"]]
    except (KeyError, TypeError, ValueError):
        pass
    return None


def _named(values: pa.ChunkedArray, schema: pa.Schema, label: str, path: Path) -> pa.ChunkedArray:
    """Return labels with names for numbers where there are any; -1 is no label."""
    if not pa.types.is_integer(values.type):
        return values
    values = pc.if_else(pc.equal(values, -1), None, values)
    names = _class_names(schema, label)
    if names is None:
        return values
    known = pc.is_in(values, pa.array(range(len(names)), values.type))
    if not pc.all(pc.or_(known, pc.is_null(values))).as_py():
        raise DataError(
            "data.labels",
            f"{escape(path.name)} has a label outside the {len(names)} names of {label!r}",
            "name another column with --label-column",
        )
    return pa.chunked_array([pa.array(names, pa.string())]).take(values)


def _large_groups(
    groups: list[pyarrow.parquet.RowGroupMetaData], leaf: str, path: Path
) -> list[str]:
    """Warn of row groups that take much memory; refuse what takes too much."""
    largest = 0
    for group in groups:
        chunks = [group.column(i) for i in range(group.num_columns)]
        mine = [c.total_uncompressed_size for c in chunks if c.path_in_schema == leaf]
        largest = max(largest, *mine, 0)
    said = f"{escape(path.name)} has row groups of {largest / 1e6:,.0f} MB"
    if largest > LARGE_GROUP:
        raise DataError("data.parquet", f"{said}: one must fit into memory", _HINT)
    return [f"{said}, and takes so much memory: {_HINT}"] if largest > LARGE_GROUP // 4 else []


def _tokens(piece: str) -> set[str]:
    return set(re.split(r"[^a-z]+", piece.casefold())) & {*SPLITS, *UNLABELLED, "unsupervised"}


def _split_of(name: str) -> str | None:
    """Return the split that a file's name or folder stands for, or ``unlabelled``."""
    path = PurePosixPath(name)
    for piece in (path.stem, *reversed(path.parts[:-1])):
        if len(found := _tokens(piece)) == 1:
            return SPLITS.get(found.pop(), "unlabelled")
    return None


def _refuse_several(names: Sequence[str], root: Path) -> None:
    """Refuse folders that are neither splits nor ``data``: they are data sets of their own."""
    folders = {
        tuple(p for p in PurePosixPath(name).parts[:-1] if p != "data" and not _tokens(p))
        for name in names
    }
    if len(folders) > 1:
        shown = ", ".join(escape("/".join(parts) or ".") for parts in sorted(folders)[:8])
        raise DataError(
            "data.layout",
            f"{escape(str(root))} holds several data sets: {shown}",
            "give the folder of one; by name, hf:owner/name/folder",
        )


def _unreadable(path: Path, error: BaseException) -> DataError:
    return DataError(
        "data.parquet",
        f"cannot read {escape(str(path))}: {error}",
        "check that the file is whole",
    )
