"""Images that come as arrays: ``.npz`` files and the built-in digits."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fewlabels.core.errors import DataError
from fewlabels.data.listing import Strings, escape
from fewlabels.data.source import SPLITS, Source, name_of, refuse_clashes

IMAGES = ("images", "image", "x", "X", "data")
LABELS = ("labels", "label", "y", "targets")
PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
EXPECTED = "images [+ labels] [+ splits], or x_train, y_train, x_test, y_test"


@dataclass(frozen=True)
class NpzPictures:
    """The images of an ``.npz`` file, read into memory when the first is asked for."""

    path: Path
    members: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @cached_property
    def _images(self) -> list[np.ndarray]:
        with np.load(self.path, allow_pickle=False) as file:
            return [_to_uint8(file[name], name) for name in self.members]

    def __call__(self, index: int) -> np.ndarray:
        """Return image `index` as ``(H, W, C)`` uint8."""
        for block in self._images:
            if index < len(block):
                return np.asarray(block[index])
            index -= len(block)
        raise IndexError(index)

    def shape(self, index: int) -> tuple[int, int, int]:
        """Return height, width and channels of image `index`, from the file's header."""
        for shape in self.shapes:
            if index < shape[0]:
                return _height_width_channels(shape)
            index -= shape[0]
        raise IndexError(index)


@dataclass(frozen=True)
class DigitsPictures:
    """scikit-learn's handwritten digits: 1,797 grey images of 8 x 8."""

    @cached_property
    def _images(self) -> np.ndarray:
        from sklearn.datasets import load_digits

        # Stored as counts 0..16 of dark pixels in 4 x 4 blocks of the scans.
        pictures: np.ndarray = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
        return pictures[..., None]

    def __call__(self, index: int) -> np.ndarray:
        """Return image `index` as ``(8, 8, 1)`` uint8."""
        return np.asarray(self._images[index])

    def shape(self, index: int) -> tuple[int, int, int]:
        """Return 8, 8, 1."""
        return (8, 8, 1)


def read_digits() -> Source:
    """Return scikit-learn's handwritten digits, which need no file of the user's."""
    from sklearn.datasets import load_digits

    labels: list[str | None] = [str(label) for label in load_digits().target]
    count = len(labels)
    return Source(
        name="digits",
        root=None,
        paths=Strings.of(f"images/{i:06d}" for i in range(count)),
        labels=labels,
        splits=[None] * count,
        sizes=np.full(count, -1, np.int64),
        times=np.full(count, -1, np.int64),
        pictures=DigitsPictures(),
    )


def read_npz(path: Path) -> Source:
    """Read labels and splits of an ``.npz`` file; its images stay on disk until used.

    Raises
    ------
    DataError
        If the file is damaged, or its arrays are not images and labels.
    """
    try:
        shapes = _headers(path)
        members = _members(shapes, path)
        with np.load(path, allow_pickle=False) as file:
            known = {name: file[name] for name in shapes if name not in {m[0] for m in members}}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        message = f"cannot read {escape(str(path))}: {error}"
        raise DataError("data.npz", message, f"save {EXPECTED} with numpy.savez") from error
    labels: list[str | None] = []
    splits: list[str | None] = []
    names: list[str] = []
    for image, label, split in members:
        count = shapes[image][0]
        labels += _labels(known.get(label), count, label)
        splits += [split] * count if split else _splits(known.get("splits"), count)
        names += [f"{image}/{i:06d}" for i in range(count)]
    refuse_clashes(label for label in labels if label is not None)
    stat = path.stat()
    return Source(
        name=name_of(path),
        root=None,
        paths=Strings.of(names),
        labels=labels,
        splits=splits,
        sizes=np.full(len(names), stat.st_size, np.int64),
        times=np.full(len(names), stat.st_mtime_ns, np.int64),
        pictures=NpzPictures(
            path.resolve(),
            tuple(image for image, _, _ in members),
            tuple(shapes[image] for image, _, _ in members),
        ),
    )


def _headers(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array without reading the arrays."""
    shapes = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0
                if version >= (2, 0):
                    read = np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            if dtype.hasobject:
                raise ValueError(f"{member} holds pickled objects, which are never loaded")
            shapes[member.removesuffix(".npy")] = shape
    return shapes


def _members(shapes: dict[str, tuple[int, ...]], path: Path) -> list[tuple[str, str, str | None]]:
    """Return (array of images, array of labels, split) for each block of images."""
    found: list[tuple[str, str, str | None]] = []
    for name in IMAGES:
        if name in shapes:
            label = next((label for label in LABELS if label in shapes), "labels")
            found.append((name, label, None))
    if not found:
        found = [(f"x_{p}", f"y_{p}", split) for p, split in PARTS.items() if f"x_{p}" in shapes]
    if not found or (len(found) > 1 and found[0][2] is None):
        raise ValueError(f"expected {EXPECTED}; it holds {', '.join(sorted(shapes)) or 'nothing'}")
    for name, _, _ in found:
        if len(shapes[name]) not in (3, 4) or 0 in shapes[name][1:]:
            raise ValueError(f"{name} has shape {shapes[name]}, not (N, H, W) or (N, H, W, C)")
        if (channels := _height_width_channels(shapes[name])[2]) not in (1, 3):
            raise ValueError(f"{name} has {channels} channels, not 1 or 3")
    if not sum(shapes[name][0] for name, _, _ in found):
        raise ValueError("it holds no images")
    return found


def _labels(values: np.ndarray | None, count: int, name: str) -> list[str | None]:
    """Return class names; -1, NaN and blank text are unlabelled."""
    if values is None:
        return [None] * count
    values = values.reshape(-1) if values.shape == (count, 1) else values
    if values.shape != (count,):
        raise DataError(
            "data.labels",
            f"{name} has shape {values.shape}, not ({count},): one label for an image",
            "turn one-hot rows into class numbers with .argmax(1)",
        )
    return [_label(value) for value in values.tolist()]


def _label(value: object) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, float):
        value = int(value) if value == value and value.is_integer() else value
    if value != value or value == -1:
        return None
    return str(value).strip() or None


def _splits(values: np.ndarray | None, count: int) -> Sequence[str | None]:
    if values is None:
        return [None] * count
    if values.shape != (count,):
        raise DataError("data.splits", f"splits has shape {values.shape}, not ({count},)")
    names = [str(_label(value) or "").casefold() for value in values.tolist()]
    odd = sorted({name for name in names if name and name not in SPLITS})
    if odd:
        raise DataError("data.splits", f"unknown split {odd[0]!r}", "use train, val and test")
    return [SPLITS[name] if name else None for name in names]


def _channels_first(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3)


def _height_width_channels(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the form of one image in an array of `shape`, wherever its channels are."""
    if len(shape) == 3:
        return shape[1], shape[2], 1
    _, a, b, c = shape
    return (b, c, a) if _channels_first(shape) else (a, b, c)


def _to_uint8(images: np.ndarray, name: str) -> np.ndarray:
    """Return ``(N, H, W, C)`` uint8, scaled by the range that the type or values show."""
    if images.ndim == 3:
        images = images[..., None]
    elif _channels_first(images.shape):
        images = images.transpose(0, 2, 3, 1)
    if images.dtype == np.uint8:
        return images
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high < 65536):
        raise DataError(
            "data.npz", f"{name} has values from {low:g} to {high:g}", "scale to 0..1 or 0..255"
        )
    top = 1.0 if high <= 1 else 255.0 if high <= 255 else 65535.0
    return np.rint(images * (255.0 / top)).astype(np.uint8)
