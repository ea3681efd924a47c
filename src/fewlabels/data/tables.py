"""Labels from a CSV, TSV or Parquet table whose rows name image files."""

from __future__ import annotations

import posixpath
from functools import cached_property
from pathlib import Path, PureWindowsPath

import numpy as np

from fewlabels.core.errors import DataError
from fewlabels.data import columns
from fewlabels.data.columns import Entry
from fewlabels.data.listing import Disk, Listing, Strings, Tree, arrange, escape
from fewlabels.data.source import Columns, Source, name_of, refuse_clashes


class Finder:
    """Finds the files that a table names.

    A name is taken relative to the root; failing that, it is looked for among all
    images below the root, by file name and then without its suffix, and taken if
    there is one only.
    """

    def __init__(self, tree: Tree, listing: Listing | None = None) -> None:
        self.tree = tree
        self._listing = listing

    @cached_property
    def listing(self) -> Listing:
        """Everything below the root; listed only when it is first needed."""
        return self._listing or arrange(self.tree)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for path in self.listing.paths:
            name = posixpath.basename(path)
            names.setdefault(name, []).append(path)
            names.setdefault(posixpath.splitext(name)[0], []).append(path)
        return names

    def resolve(self, name: str) -> tuple[str, int, int]:
        """Return path, size and time of the file a table calls `name`; size -1 if missing."""
        path = posixpath.normpath(name)
        found = self.tree.stat(path)
        if found is None:
            near = self._by_name.get(PureWindowsPath(name).name, [])  # either kind of slash
            path = near[0] if len(near) == 1 else path
            found = self.tree.stat(path) if len(near) == 1 else None
        return (path, *(found or (-1, -1)))


def find(listing: Listing, asked: Columns) -> Source | None:
    """Return the source that a table in a listed folder describes; None if there is none.

    Raises
    ------
    DataError
        If several tables could be meant.
    """
    finder = Finder(listing.tree, listing)
    fitting = [name for name in listing.tables if _fits(listing.root / name, asked, finder)]
    if len(fitting) > 1:
        raise DataError(
            "data.layout",
            f"{escape(str(listing.root))} holds several tables of images: "
            + ", ".join(escape(name) for name in fitting[:5]),
            "give the table to use instead of the folder",
        )
    if not fitting and not _only_hope(listing, asked):
        return None
    return read(listing.root / (fitting or listing.tables)[0], asked, finder)


def _only_hope(listing: Listing, asked: Columns) -> bool:
    """Return whether a table that fits badly must still be read, to say what is wrong with it."""
    full = sum(len(folder.sizes) > 0 for folder in listing.folders)
    return len(listing.tables) == 1 and (bool(asked.named) or full == 1)


def _fits(path: Path, asked: Columns, finder: Finder) -> bool:
    """Return whether a table names images of the folder it lies in."""
    try:
        table = columns.load(path, finder.tree)
        image = asked.image or columns.pick(table.column_names, columns.IMAGE_NAMES)
        if image is None or image not in table.column_names:
            return False
        names = [name for name in columns.texts(table, image)[:100] if name]
    except DataError:
        return False
    return any(finder.resolve(name)[1] >= 0 for name in names)


def read(path: Path, asked: Columns, finder: Finder | None = None) -> Source:
    """Return the source a table describes; its paths are relative to its folder.

    With a `finder` that has listed the folder, images the table does not name are
    added as unlabelled.

    Raises
    ------
    DataError
        If columns are missing, or one file is given two labels.
    """
    whole_folder = finder is not None
    finder = finder or Finder(Disk(path.parent))
    table = columns.load(path, finder.tree)
    entries, files = _resolve(columns.entries_of(table, path, asked), finder, path)
    warnings = list(finder.listing.warnings()) if whole_folder else []
    if whole_folder:
        warnings += _add_unlisted(entries, files, finder.listing, path)
    if not entries:
        raise DataError("data.empty", f"{escape(str(path))} names no images")
    order = sorted(entries)
    refuse_clashes(entry.label for entry in entries.values() if entry.label is not None)
    missing = f"named in {escape(path.name)} but not found"
    return Source(
        name=name_of(path.parent) if whole_folder else name_of(path),
        root=finder.tree.root,
        paths=Strings.of(order),
        labels=[entries[name].label for name in order],
        splits=[entries[name].split for name in order],
        sizes=np.array([files[name][0] for name in order], np.int64),
        times=np.array([files[name][1] for name in order], np.int64),
        targets=np.array([entries[name].target for name in order]) if asked.target else None,
        groups=[entries[name].group for name in order] if asked.group else None,
        issues={i: missing for i, name in enumerate(order) if files[name][0] < 0},
        warnings=tuple(warnings),
    )


Files = dict[str, tuple[int, int]]


def _resolve(entries: list[Entry], finder: Finder, path: Path) -> tuple[dict[str, Entry], Files]:
    """Key the entries by file; refuse two rows that say different things of one file."""
    known: dict[str, Entry] = {}
    files: Files = {}
    for entry in entries:
        name, size, time = finder.resolve(entry.path)
        first = known.setdefault(name, entry)
        if first.says() != entry.says():
            what = "labels" if first.label != entry.label else "rows"
            raise DataError(
                "data.labels",
                f"{escape(path.name)} holds two {what} for {escape(name)}: "
                f"{_shown(first)} and {_shown(entry)}",
                "keep one row for an image; several labels for one image are not supported",
            )
        files[name] = (size, time)
    return known, files


def _shown(entry: Entry) -> str:
    said = [text for text in entry.says() if text and text != "nan"]
    return escape(", ".join(said)) or "(blank)"


def _add_unlisted(
    entries: dict[str, Entry], files: Files, listing: Listing, path: Path
) -> list[str]:
    """Add the images that the table does not name, without labels."""
    before = len(entries)
    numbers = zip(listing.sizes.tolist(), listing.times.tolist(), strict=True)
    for name, number in zip(listing.paths, numbers, strict=True):
        if name not in entries:
            entries[name] = Entry(name, None, float("nan"), None, None)
            files[name] = number
    added = len(entries) - before
    said = f"{added} images are not in {escape(path.name)}: taken as unlabelled"
    return [said] if added else []
