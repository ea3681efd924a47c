"""Public data sets by their name in torchvision, which downloads them and checks their MD5.

torchvision reads the files once. What they hold is then kept beside them: images that came in
one array as ``.npy`` files, mapped from disk; classes and splits as a Parquet table, written
last. Later openings read that table and do not need torchvision. CIFAR comes as pickles, which
torchvision loads only after their MD5 was found to be that of the known files.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from fewlabels.core.errors import unknown
from fewlabels.data import cache
from fewlabels.data.downloads import downloads_folder, failed
from fewlabels.data.listing import Strings
from fewlabels.data.source import Columns, Source
from fewlabels.results.files import disk_errors, replacing

Parts = dict[str, dict[str, Any]]

_TRAIN_FLAG: Parts = {"train": {"train": True}, "test": {"train": False}}
_SPLIT: Parts = {"train": {"split": "train"}, "test": {"split": "test"}}
_SPLITS: Parts = {**_SPLIT, "val": {"split": "val"}}
# What is published for these is the accuracy on their validation images: our test.
_VAL_IS_TEST: Parts = {"train": {"split": "train"}, "test": {"split": "val"}}
UNLABELLED, WHOLE = "unlabelled", "all"
DATASETS: dict[str, Parts] = {
    "CIFAR10": _TRAIN_FLAG,
    "CIFAR100": _TRAIN_FLAG,
    "MNIST": _TRAIN_FLAG,
    "FashionMNIST": _TRAIN_FLAG,
    "KMNIST": _TRAIN_FLAG,
    "USPS": _TRAIN_FLAG,
    "SVHN": _SPLIT,
    "STL10": {**_SPLIT, UNLABELLED: {"split": "unlabeled"}},
    "DTD": _SPLITS,
    "FGVCAircraft": _SPLITS,
    "Flowers102": _SPLITS,
    "Food101": _SPLIT,
    "Country211": {**_SPLIT, "val": {"split": "valid"}},
    "EuroSAT": {WHOLE: {}},
    "Imagenette": _VAL_IS_TEST,
    "ImageNet": _VAL_IS_TEST,
}
_IN_ARRAYS = ("CIFAR10", "CIFAR100", "MNIST", "FashionMNIST", "KMNIST", "USPS", "SVHN", "STL10")
_BY_HAND = ("ImageNet",)  # may not be downloaded without signing for it
ROWS = "rows.parquet"


@dataclass(frozen=True)
class SavedPictures:
    """Images of ``.npy`` files, ``(N, H, W, C)`` uint8 each, one after the other.

    Parameters
    ----------
    path : Path
        Their folder.
    names : tuple of str
    """

    path: Path
    names: tuple[str, ...]

    @cached_property
    def _blocks(self) -> list[np.ndarray]:
        return [np.load(self.path / name, mmap_mode="r") for name in self.names]

    def _place(self, index: int) -> tuple[np.ndarray, int]:
        for block in self._blocks:
            if index < len(block):
                return block, index
            index -= len(block)
        raise IndexError(index)

    def __call__(self, index: int) -> np.ndarray:
        """Return image `index` as ``(H, W, C)`` uint8."""
        block, place = self._place(index)
        return np.array(block[place])

    def shape(self, index: int) -> tuple[int, int, int]:
        """Return height, width and channels of image `index`."""
        height, width, channels = self._place(index)[0].shape[1:]
        return height, width, channels


def read(name: str, asked: Columns) -> Source:
    """Return the source of a data set, downloading it first if that was not done yet.

    Raises
    ------
    UsageError
        If it is not among `DATASETS`.
    DataError
        If it cannot be downloaded.
    DiskError
        If it cannot be kept.
    """
    known = {each.casefold(): each for each in DATASETS}
    if name.casefold() not in known:
        raise unknown("dataset", name, DATASETS, prefix="torchvision:")
    name = known[name.casefold()]
    asked.refuse(f"torchvision:{name}")
    folder = downloads_folder() / "torchvision" / name
    if not (folder / ROWS).exists():
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with cache.lock(f"torchvision-{name}"):
                if not (folder / ROWS).exists():
                    _prepare(name, folder)
    return _source(name, folder)


def _source(name: str, folder: Path) -> Source:
    table = pyarrow.parquet.ParquetFile(folder / ROWS).read(use_threads=False)
    parts = table["part"].to_pylist()
    paths = table["path"].to_pylist()
    arrays = [f"{part}.npy" for part in DATASETS[name]] if name in _IN_ARRAYS else []
    held = [folder / f"{part}.npy" for part in parts] if arrays else [folder / p for p in paths]
    about = {path: _about(path) for path in dict.fromkeys(held)}
    return Source(
        name=name,
        root=None if arrays else folder,
        paths=Strings.of(paths),
        labels=table["label"].to_pylist(),
        splits=[None if part in (UNLABELLED, WHOLE) else part for part in parts],
        sizes=np.array([about[path][0] for path in held], np.int64),
        times=np.array([about[path][1] for path in held], np.int64),
        issues={i: "it was there and is gone" for i, p in enumerate(held) if about[p][0] < 0},
        pictures=SavedPictures(folder, tuple(arrays)) if arrays else None,
    )


def _about(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (-1, -1)
    return status.st_size, status.st_mtime_ns


def _prepare(name: str, folder: Path) -> None:
    """Download a data set and keep its images, classes and splits in a form of our own."""
    raw = folder / "raw"
    raw.mkdir(exist_ok=True)
    columns: dict[str, list[str | None]] = {"path": [], "label": [], "part": []}
    for part, arguments in DATASETS[name].items():
        dataset = _open(name, raw, arguments)
        if name in _IN_ARRAYS:
            with replacing(folder / f"{part}.npy") as temporary:
                np.save(temporary, _images(dataset.data))
            paths, codes = [f"{part}/{i:06d}" for i in range(len(dataset))], _codes(dataset)
        else:
            paths, codes = _files(dataset, folder)
        classes = _class_names(dataset)
        columns["path"] += paths
        columns["label"] += [_label(code, classes) for code in codes]
        columns["part"] += [part] * len(paths)
        del dataset  # an array of all images: there must not be two
    with replacing(folder / ROWS) as temporary:
        pyarrow.parquet.write_table(pa.table(columns), temporary)


def _open(name: str, raw: Path, arguments: dict[str, Any]) -> Any:
    """Let torchvision download and check one part of a data set."""
    import torchvision.datasets

    if name not in _BY_HAND:
        arguments = {**arguments, "download": True}
    if name not in _IN_ARRAYS:
        arguments = {**arguments, "loader": str}  # paths instead of pictures
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout belongs to our results
            return getattr(torchvision.datasets, name)(raw, **arguments)
    except Exception as error:  # of the network, the disk, an archive or a check
        hint = f"check the network, or lay its files into {raw} as torchvision would"
        if name in _BY_HAND:
            hint = f"get its archives from image-net.org and lay them into {raw}"
        raise failed(f"torchvision:{name}", error, raw, hint) from error


def _images(data: Any) -> np.ndarray:
    """Return ``(N, H, W, C)`` uint8 of ``(N, H, W)``, ``(N, C, H, W)`` or ``(N, H, W, C)``."""
    images = np.asarray(data)
    if images.ndim == 3:
        return images[..., None]
    return images.transpose(0, 2, 3, 1) if images.shape[1] == 3 else images


def _codes(dataset: Any) -> list[int]:
    labels = dataset.targets if hasattr(dataset, "targets") else dataset.labels
    return [int(label) for label in labels]


def _files(dataset: Any, folder: Path) -> tuple[list[str], list[int]]:
    """Return relative paths and class numbers, sorted by path."""
    found = sorted((Path(path), int(code)) for path, code in _items(dataset))
    return [path.relative_to(folder).as_posix() for path, _ in found], [code for _, code in found]


def _items(dataset: Any) -> Iterator[tuple[str, int]]:
    for index in range(len(dataset)):
        yield dataset[index]


def _class_names(dataset: Any) -> list[str] | None:
    """Return class names as torchvision knows them, each once; None if it knows none."""
    known = getattr(dataset, "classes", None)
    if known is None:
        return None
    # ImageNet's are tuples of synonyms, MNIST's read "0 - zero".
    names = [", ".join(n) if isinstance(n, tuple) else n.partition(" - ")[0] for n in known]
    marks = getattr(dataset, "wnids", range(len(names)))
    twice = {name for name in names if names.count(name) > 1}
    return [
        f"{name} ({mark})" if name in twice else name
        for name, mark in zip(names, marks, strict=True)
    ]


def _label(code: int, classes: list[str] | None) -> str | None:
    if code < 0:
        return None
    return str(code) if classes is None else classes[code]
