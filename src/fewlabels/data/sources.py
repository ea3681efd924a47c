"""The one door to data on disk: folders, tables, arrays and the built-in digits."""

from __future__ import annotations

from pathlib import Path

from fewlabels.core.errors import DataError
from fewlabels.data import arrays, tables
from fewlabels.data.folders import read_folders
from fewlabels.data.listing import TABLES, escape, walk
from fewlabels.data.source import Columns, Source

__all__ = ["Source", "read_source"]


def read_source(
    data: str | Path,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    target: str | None = None,
    group_by: str | None = None,
) -> Source:
    """Find the images and labels of `data` without decoding any.

    Parameters
    ----------
    data : str or Path
        A folder (class folders; ``train/``, ``val/``, ``test/`` folders; images
        with a table of labels), a CSV, TSV or Parquet table, an ``.npz`` file, or
        ``"digits"``.
    image_column, label_column : str, optional
        Columns of the table, where their names do not show it.
    target : str, optional
        Numeric column to predict (regression).
    group_by : str, optional
        Column whose equal values never straddle two splits.

    Raises
    ------
    DataError
        If nothing is there, or it is ambiguous.
    """
    asked = Columns(image_column, label_column, target, group_by)
    if isinstance(data, str) and data == "digits":
        asked.refuse("the built-in digits")
        return arrays.read_digits()
    path = Path(data).expanduser()
    if path.is_dir():
        listing = walk(path)
        table = tables.find(listing, asked)
        if table is not None:
            return table
        asked.refuse(f"{escape(str(path))}, which holds no table of its images")
        return read_folders(listing)
    if not path.exists():
        raise DataError("data.missing", f"{escape(str(path))} does not exist", "check the path")
    if path.suffix.lower() == ".npz":
        asked.refuse("an .npz file")
        return arrays.read_npz(path)
    if path.suffix.lower() in TABLES:
        return tables.read(path, asked)
    raise DataError(
        "data.kind",
        f"{escape(str(path))} is neither a folder, a table (.csv, .tsv, .parquet) nor an .npz file",
        "unpack archives first; put single images into a folder",
    )
