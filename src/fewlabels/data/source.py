"""What a source is: images and what is known of them before any pixel is decoded."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from fewlabels.core.errors import DataError
from fewlabels.data.listing import Strings, escape

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class Pictures(Protocol):
    """Images that come as arrays instead of files."""

    def __call__(self, index: int) -> np.ndarray:
        """Return image `index` as ``(H, W, C)`` uint8."""
        ...

    def shape(self, index: int) -> tuple[int, int, int]:
        """Return height, width and channels of image `index` without reading it."""
        ...


class Files(Protocol):
    """Image files that do not lie in a folder: members of an archive, cells of a table.

    Any thread may read.
    """

    @property
    def path(self) -> Path:
        """What holds them."""
        ...

    @property
    def stamp(self) -> tuple[int, ...]:
        """Changes when `path` does, where the rows' own sizes and times would not show it."""
        ...

    @property
    def rests_on(self) -> str | None:
        """Key of the part of the cache that they are read from, if they are."""
        ...

    @property
    def block(self) -> int:
        """How many neighbouring rows come at the price of one."""
        ...

    def __call__(self, index: int, count: int = -1) -> bytes:
        """Return file `index`, or its first `count` bytes; raise `OSError` if it cannot be read."""
        ...


@dataclass(frozen=True)
class Source:
    """Images and what is known of them; row ``i`` is the same everywhere.

    About 32 bytes a row and the paths themselves, plus 8 for each of targets and
    groups where there are any.

    Attributes
    ----------
    name : str
        A short name of the data, for run folders and reports.
    root : Path or None
        The folder that `paths` are relative to; None for images that are no files of their own.
    paths : Sequence of str
        Relative POSIX paths; ``images/000012`` for arrays, ``train.parquet/000012`` for cells.
    labels : list of (str or None)
        Class names; None is unlabelled.
    splits : list of (str or None)
        ``train``, ``val``, ``test`` where the data says so.
    sizes, times : ndarray
        ``(N,)`` int64 bytes and modification time in nanoseconds; for arrays
        those of the file that holds them; -1 where there is no file.
    targets : ndarray or None
        ``(N,)`` float64 for regression, NaN where unknown.
    groups : list of (str or None), optional
        What must stay on one side of a split.
    issues : dict
        Reasons for rows that cannot be read, known before reading.
    warnings : tuple of str
        What the user should know.
    pictures : Pictures, optional
        Gives the images where they are arrays.
    files : Files, optional
        Gives the images where they lie in an archive or a table.
    """

    name: str
    root: Path | None
    paths: Strings
    labels: list[str | None]
    splits: list[str | None]
    sizes: np.ndarray
    times: np.ndarray
    targets: np.ndarray | None = None
    groups: list[str | None] | None = None
    issues: dict[int, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    pictures: Pictures | None = None
    files: Files | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, i: int) -> bytes | np.ndarray:
        """Return the bytes of file `i`, or image `i` as ``(H, W, C)`` uint8.

        Raises
        ------
        OSError
            If the file cannot be read.
        """
        if self.pictures is not None:
            return self.pictures(i)
        if self.files is not None:
            return self.files(i)
        with io.FileIO(f"{self.root}/{self.paths[i]}") as file:
            return file.readall()

    def head(self, i: int, count: int) -> bytes:
        """Return the first `count` bytes of file `i`; all if `count` is -1.

        Raises
        ------
        OSError
            If the file cannot be read.
        """
        if self.files is not None:
            return self.files(i, count)
        with io.FileIO(f"{self.root}/{self.paths[i]}") as file:
            return file.read(count)

    def sample(self, count: int) -> np.ndarray:
        """Return up to `count` rows, sorted and evenly spread.

        Where neighbouring rows are read together they come in runs of that length, at
        least 8 runs, so that a look at the images does not read them all.
        """
        n = len(self)
        if n <= count:
            return np.arange(n)
        run = max(1, min(count // 8, self.files.block if self.files else 1))
        starts = np.linspace(0, n - run, count // run).astype(np.int64)
        return np.unique(starts[:, None] + np.arange(run))


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table that the user named.

    Attributes
    ----------
    image, label : str or None
        Paths and class names; found by their usual names if None.
    target : str or None
        Number to predict.
    group : str or None
        What must stay on one side of a split.
    """

    image: str | None = None
    label: str | None = None
    target: str | None = None
    group: str | None = None

    @property
    def named(self) -> tuple[str, ...]:
        """The columns that were named."""
        return tuple(n for n in (self.image, self.label, self.target, self.group) if n)

    def refuse(self, where: str) -> None:
        """Refuse named columns where the data has none.

        Raises
        ------
        DataError
            If any column was named.
        """
        if self.named:
            raise DataError(
                "data.column",
                f"the column {self.named[0]!r} was asked of {where}: only tables have columns",
                "give a CSV or Parquet table, or put one into the folder",
            )


def name_of(path: Path) -> str:
    """Return a short printable name of a folder or file."""
    return escape(path.resolve().stem if path.is_file() else path.resolve().name) or "data"


def refuse_clashes(names: Iterable[str]) -> None:
    """Refuse class names that differ only in case or in how accents are encoded.

    Raises
    ------
    DataError
        Naming the pair: one system would see one class, another two.
    """
    seen: dict[str, str] = {}
    for name in sorted(set(names)):
        folded = unicodedata.normalize("NFC", escape(name)).casefold()
        if folded in seen:
            raise DataError(
                "data.class_clash",
                f"the classes {escape(seen[folded])!r} and {escape(name)!r} differ only in case "
                "or in how an accent is encoded",
                "rename one, or merge the two",
            )
        seen[folded] = name
