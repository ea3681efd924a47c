"""The columns of a table: which is which, and what each row says of an image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from fewlabels.core.errors import DataError
from fewlabels.data.listing import Tree, escape
from fewlabels.data.source import SPLITS, Columns

IMAGE_NAMES = (
    *("path", "image", "file", "filename", "file_name", "image_path", "file_path", "filepath"),
    *("img", "img_path", "image_name", "image_id", "image_file"),
)
LABEL_NAMES = ("label", "labels", "class", "class_name", "category", "species", "diagnosis", "y")
SPLIT_NAMES = {**SPLITS, "training": "train", "testing": "test"}


@dataclass(slots=True)
class Entry:
    """One row of a table: what it says of one file."""

    path: str
    label: str | None
    target: float
    split: str | None
    group: str | None

    def says(self) -> tuple[str, ...]:
        """Return what two rows for one file must agree on."""
        return (self.label or "", repr(self.target), self.split or "", self.group or "")


def load(path: Path, tree: Tree) -> pa.Table:
    """Read a table at the root of a tree; CSV columns stay text: the class ``01`` keeps its nought.

    Raises
    ------
    DataError
        If it is damaged, or holds the images themselves.
    """
    try:
        content = tree.load(path.name)
        if path.suffix.lower() == ".parquet":
            return _without_images(pyarrow.parquet.ParquetFile(_stream(content)), path)
        text = content.decode("utf-8-sig")
        first = text.partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
        parse = pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
        names = pyarrow.csv.read_csv(
            _stream(f"{first}\n".encode()), parse_options=parse
        ).column_names
        convert = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
        return pyarrow.csv.read_csv(
            _stream(text.encode()), parse_options=parse, convert_options=convert
        )
    except (OSError, ValueError, pa.ArrowException) as error:
        message = f"cannot read the table {escape(str(path))}: {error}"
        raise DataError("data.table", message, "save it as UTF-8 CSV with a header line") from error


def _without_images(file: pyarrow.parquet.ParquetFile, path: Path) -> pa.Table:
    if byte_columns(file.schema_arrow):
        raise DataError(
            "data.table",
            f"{escape(path.name)} holds the images themselves, beside images or in an archive",
            "give this file alone, or the folder in which there are only such files",
        )
    return file.read(use_threads=False)


def byte_columns(schema: pa.Schema) -> dict[str, str]:
    """Return the columns that hold files: {column: leaf with the bytes}.

    Hugging Face keeps an image as a struct of ``bytes`` and ``path``; others as plain binary,
    which beside a column of file names is something else.
    """
    found = {}
    named = pick([field.name for field in schema if is_text(field.type)], IMAGE_NAMES)
    for field in schema:
        if is_bytes(field.type) and named is None:
            found[field.name] = field.name
        elif pa.types.is_struct(field.type):
            place = field.type.get_field_index("bytes")
            if place >= 0 and is_bytes(field.type.field(place).type):
                found[field.name] = f"{field.name}.bytes"
    return found


def is_text(kind: pa.DataType) -> bool:
    """Tell whether a column of this type holds text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_bytes(kind: pa.DataType) -> bool:
    """Tell whether a column of this type holds bytes."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _stream(content: bytes) -> pa.BufferReader:
    """Return content as a file of Arrow's own.

    Its threads may outlive the reading; one that lets go of an object of Python's while Python
    ends aborts the process.
    """
    own = pa.BufferOutputStream()
    own.write(content)
    return pa.BufferReader(own.getvalue())


def pick(found: Sequence[str], names: Iterable[str]) -> str | None:
    """Return the first of the columns `found` with one of the usual names."""
    columns = {column.strip().casefold(): column for column in reversed(found)}
    return next((columns[name] for name in names if name in columns), None)


def texts(table: pa.Table, column: str) -> list[str | None]:
    """Return a column as stripped text; blank is None, and 3.0 is the class 3."""
    values = table[column]
    if pa.types.is_nested(values.type) or pa.types.is_binary(values.type):
        raise DataError(
            "data.column",
            f"the column {column!r} holds {values.type}, not text or numbers",
            "name a column of text or numbers",
        )
    if pa.types.is_floating(values.type) and _all_whole(values):
        values = values.cast(pa.int64())
    shared: dict[str, str] = {}
    stripped = (str(text or "").strip() for text in _listed(values.cast(pa.string()), column))
    return [shared.setdefault(text, text) if text else None for text in stripped]


def _listed(values: pa.ChunkedArray, column: str) -> list[str | None]:
    """Return text; a damaged Parquet file may hold bytes there that are none."""
    try:
        found: list[str | None] = values.to_pylist()
    except UnicodeDecodeError as error:
        raise DataError(
            "data.table",
            f"the column {escape(column)!r} holds text that is not UTF-8: {error}",
            "check that the file is whole, and save it as UTF-8",
        ) from error
    return found


def _all_whole(values: pa.ChunkedArray) -> bool:
    rest = values.drop_null()
    return bool(pc.all(pc.equal(pc.round(rest), rest)).as_py()) if len(rest) else True


def entries_of(table: pa.Table, path: Path, asked: Columns) -> list[Entry]:
    """Return what the rows say, with the columns the user named or the usual ones."""
    image = _column(table, path, asked.image, IMAGE_NAMES, "--image-column")
    label = asked.label or pick(table.column_names, LABEL_NAMES)
    if label is None and asked.target is None:
        _column(table, path, None, LABEL_NAMES, "--label-column")
    names = texts(table, _known(table, path, image))
    blank: list[str | None] = [None] * len(names)
    labels = texts(table, _known(table, path, label)) if label else blank
    groups = texts(table, _known(table, path, asked.group)) if asked.group else blank
    split = pick(table.column_names, ("split",))
    splits = _splits(texts(table, split), path) if split else blank
    targets = _numbers(table, path, asked.target) if asked.target else [float("nan")] * len(names)
    rows = zip(names, labels, targets, splits, groups, strict=True)
    found = [Entry(name, *rest) for name, *rest in rows if name]  # type: ignore[arg-type]
    if len(found) < len(names):
        raise DataError(
            "data.table",
            f"{names.count(None)} rows of {escape(path.name)} name no image",
            "fill or drop them",
        )
    return found


def _column(table: pa.Table, path: Path, asked: str | None, usual: Iterable[str], flag: str) -> str:
    name = asked or pick(table.column_names, usual)
    if name is None:
        raise DataError(
            "data.column",
            f"{escape(path.name)} has the columns {', '.join(table.column_names)}: none is named "
            f"{', '.join(list(usual)[:4])} or the like",
            f"name it with {flag}",
        )
    return name


def _known(table: pa.Table, path: Path, name: str) -> str:
    if table.column_names.count(name) != 1:
        found = table.column_names.count(name)
        raise DataError(
            "data.column",
            f"{escape(path.name)} has {'no' if not found else str(found)} column {name!r}",
            f"it has: {', '.join(table.column_names)}",
        )
    return name


def _splits(texts: list[str | None], path: Path) -> list[str | None]:
    odd = sorted({text for text in texts if text and text.casefold() not in SPLIT_NAMES})
    if odd:
        raise DataError(
            "data.splits",
            f"{escape(path.name)} names the split {odd[0]!r}",
            "use train, val and test; blank where it is open",
        )
    return [SPLIT_NAMES[text.casefold()] if text else None for text in texts]


def _numbers(table: pa.Table, path: Path, column: str) -> list[float]:
    """Return the target column as numbers; blank is NaN."""
    values = table[_known(table, path, column)]
    if pa.types.is_string(values.type):
        texts = [str(text or "").strip() for text in _listed(values, column)]
    else:
        texts = ["" if value is None else str(value) for value in values.to_pylist()]
    numbers = []
    for row, text in enumerate(texts):
        try:
            numbers.append(float(text) if text else float("nan"))
        except ValueError:
            raise DataError(
                "data.target",
                f"{escape(path.name)}, row {row + 2}: {column} is {text!r}, not a number",
                "leave it blank where it is unknown",
            ) from None
    return numbers
