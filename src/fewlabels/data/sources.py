"""The one door to data: folders, archives, tables, arrays, and data sets by their name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from fewlabels.core.errors import DataError
from fewlabels.data import arrays, hub, parquet, tables, torchvision_sets
from fewlabels.data.archives import ARCHIVES, is_archive, open_archive
from fewlabels.data.folders import read_folders
from fewlabels.data.listing import TABLES, Listing, arrange, escape, walk
from fewlabels.data.members import MAX_BYTES, TOO_LARGE
from fewlabels.data.source import Columns, Source

__all__ = ["Source", "read_source"]

NAMED = {"torchvision:": torchvision_sets.read, "hf:": hub.read}


def read_source(
    data: str | Path,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    target: str | None = None,
    group_by: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Source:
    """Find the images and labels of `data` without decoding any.

    Parameters
    ----------
    data : str or Path
        A folder (class folders; ``train/``, ``val/``, ``test/`` folders; images
        with a table of labels), a zip or tar of such a folder, a CSV, TSV or Parquet
        table, Parquet files that hold the images, an ``.npz`` file, ``"digits"``, or
        the name of a public data set as in ``"torchvision:CIFAR10"`` or
        ``"hf:owner/name"``.
    image_column, label_column : str, optional
        Columns of the table, where their names do not show it.
    target : str, optional
        Numeric column to predict (regression).
    group_by : str, optional
        Column whose equal values never straddle two splits.
    progress : callable, optional
        Told (stage, done, total) while a compressed tar is read for the first time.

    Raises
    ------
    DataError
        If nothing is there, or it is ambiguous.
    UsageError
        If a data set's name is unknown.
    """
    asked = Columns(image_column, label_column, target, group_by)
    if isinstance(data, str) and data == "digits":
        asked.refuse("the built-in digits")
        return arrays.read_digits()
    for prefix, read in NAMED.items():
        if isinstance(data, str) and data.casefold().startswith(prefix):
            return read(data[len(prefix) :], asked)
    path = Path(data).expanduser()
    if path.is_dir():
        listing = walk(path)
        return parquet.find(listing, asked) or _without_giants(_read_listing(listing, asked))
    if not path.exists():
        raise DataError("data.missing", f"{escape(str(path))} does not exist", "check the path")
    return _read_file(path, asked, progress)


def _read_file(
    path: Path, asked: Columns, progress: Callable[[str, int, int], None] | None
) -> Source:
    if is_archive(path):
        archive = open_archive(path, progress)
        return archive.adopt(_read_listing(arrange(archive), asked))
    if path.suffix.lower() == ".npz":
        asked.refuse("an .npz file")
        return arrays.read_npz(path)
    if path.suffix.lower() in TABLES:
        return parquet.read_alone(path, asked) or _without_giants(tables.read(path, asked))
    raise DataError(
        "data.kind",
        f"{escape(str(path))} is neither a folder, an archive ({' '.join(ARCHIVES)}), a table "
        "(.csv, .tsv, .parquet) nor an .npz file",
        "put single images into a folder; unpack archives of other kinds first",
    )


def _read_listing(listing: Listing, asked: Columns) -> Source:
    table = tables.find(listing, asked)
    if table is not None:
        return table
    asked.refuse(f"{escape(str(listing.root))}, which holds no table of its images")
    return read_folders(listing)


def _without_giants(source: Source) -> Source:
    """Enter files that are larger than any picture may be as unreadable, so that none is read."""
    large = {int(row): TOO_LARGE for row in np.flatnonzero(source.sizes > MAX_BYTES)}
    return replace(source, issues={**large, **source.issues}) if large else source
