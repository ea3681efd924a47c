"""A model taken away: the class, or the number, of picture files, with stored preprocessing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewlabels.core.errors import DataError, UsageError, unknown
from fewlabels.core.types import Batch
from fewlabels.data import decode
from fewlabels.data.augment import plain
from fewlabels.data.listing import escape, walk
from fewlabels.data.members import MAX_BYTES, TOO_LARGE
from fewlabels.data.streaming import assemble
from fewlabels.models.classifier import Saved
from fewlabels.pipeline.carried import open_whole
from fewlabels.pipeline.task import find_device
from fewlabels.training.loop import default_bf16

CHUNK = 256  # pictures decoded before they are scored
AT_ONCE = 16  # pictures explained together

Paths = str | Path | Sequence[str | Path]


class Predictor:
    """A classifier or regressor with the preprocessing it was trained with.

    Parameters
    ----------
    saved : Saved
        Of `fewlabels.models.classifier.load_model`, with a head.
    device : str
        ``auto`` chooses.

    Attributes
    ----------
    classes_ : ndarray
        ``(K,)`` str; empty for a regressor.
    target_ : str or None
        The column of the numbers that a regressor predicts.
    """

    def __init__(self, saved: Saved, *, device: str = "auto") -> None:
        self.device = find_device(device)
        self.pictures = saved.pictures
        self.short_side = saved.short_side
        self.classes_ = np.array(saved.classes, dtype=np.str_)
        self.target_ = saved.target
        self._classifier = saved.classifier.to(self.device).eval()
        self._bf16 = default_bf16(self.device, self.pictures.size)

    def predict(self, paths: Paths) -> list[str] | list[float]:
        """Return the most probable class, or the number, of each picture file.

        Raises
        ------
        DataError
            A file cannot be read.
        """
        found = self._all(paths)
        if self.target_ is not None:
            return [float(value) for value in found]
        return [str(self.classes_[shares.argmax()]) for shares in found]

    def predict_proba(self, paths: Paths) -> np.ndarray:
        """Return class probabilities ``(n, K)`` float32 of picture files, in their order.

        Raises
        ------
        DataError
            A file cannot be read.
        UsageError
            This is a regressor.
        """
        if self.target_ is not None:
            raise UsageError(
                "usage.predict_proba", "a number has no probabilities", "predict instead"
            )
        rows = self._all(paths)
        return np.stack(rows) if rows else np.empty((0, len(self.classes_)), np.float32)

    def _all(self, paths: Paths) -> list[np.ndarray]:
        files = [paths] if isinstance(paths, str | Path) else list(paths)
        rows = []
        for file, found in zip(files, self.scores(files), strict=True):
            if isinstance(found, str):
                hint = "predict_table, or fewlabels predict, go on past such files"
                raise DataError("data.unreadable", f"{escape(str(file))}: {found}", hint)
            rows.append(found)
        return rows

    def scores(self, files: Sequence[str | Path]) -> Iterator[np.ndarray | str]:
        """Yield what is said of each file, or why it cannot be read.

        That is ``(K,)`` float32 probabilities, or a number as float64 of no dimension.
        """
        with ThreadPoolExecutor(os.cpu_count() or 1, "fewlabels-predict") as pool:
            for start in range(0, len(files), CHUNK):
                with decode.Quiet():
                    found = list(pool.map(self._picture, files[start : start + CHUNK]))
                good = [item for item in found if not isinstance(item, str)]
                scored = iter(self._score(good) if good else ())
                yield from (item if isinstance(item, str) else next(scored) for item in found)

    def _picture(self, file: str | Path) -> np.ndarray | str:
        return read_picture(file, self.pictures.channels, self.short_side)

    def _score(self, pictures: list[np.ndarray]) -> np.ndarray:
        batch = as_batch(pictures, self.pictures.channels, self.device)
        return self._classifier.probabilities(batch, self.pictures, bf16=self._bf16)

    def saliency(
        self, paths: Paths, method: str = "grad_cam", *, label: str | None = None
    ) -> np.ndarray:
        """Return where picture files speak for a class, unchecked: see `fewlabels explain`.

        Parameters
        ----------
        paths : str, Path or sequence of these
        method : str
            A key of `fewlabels.explain.saliency.MAPS`.
        label : str, optional
            The class to explain; by default each picture's predicted one. A regressor's maps
            explain the number.

        Returns
        -------
        ndarray
            ``(n, S, S)`` float32, S the size the network sees; [0, 1] from ``grad_cam`` of a
            class, [-1, 1] of a number; else signed, in logits or the unit of the number.

        Raises
        ------
        DataError
            A file cannot be read.
        ModelError
            The network has nothing that this method could explain.
        UsageError
            There is no such method or class.
        """
        from fewlabels.explain.saliency import MAPS

        if method not in MAPS:
            raise unknown("map", method, MAPS)
        if label is not None and label not in self.classes_:
            raise unknown("class", label, self.classes_.tolist())
        files = [paths] if isinstance(paths, str | Path) else list(paths)
        chosen = self._explained(files, label)
        found = []
        for start in range(0, len(files), AT_ONCE):
            pixels = [self._picture(file) for file in files[start : start + AT_ONCE]]
            known = [one for one in pixels if isinstance(one, np.ndarray)]
            x = plain(as_batch(known, self.pictures.channels, self.device), self.pictures)
            targets = torch.from_numpy(chosen[start : start + AT_ONCE]).to(self.device)
            found.append(MAPS[method](self._classifier, x, targets).numpy())
        size = self.pictures.size
        return np.concatenate(found) if found else np.empty((0, size, size), np.float32)

    def _explained(self, files: list[str | Path], label: str | None) -> np.ndarray:
        """Return the class whose evidence is to be shown of each file; 0 of a number."""
        found = self._all(files)
        if self.target_ is not None or not found:
            return np.zeros(len(found), np.int64)
        if label is not None:
            return np.full(len(found), self.classes_.tolist().index(label))
        return np.asarray(np.stack(found).argmax(1), np.int64)


def read_picture(file: str | Path, channels: int, short_side: int) -> np.ndarray | str:
    """Return a picture ``(H, W, C)`` uint8 as the store would keep it, or why it cannot be read."""
    path = Path(file)
    try:
        if not path.is_file():  # a pipe would block whoever reads it
            return "not a file" if path.exists() else "there is no such file"
        if path.stat().st_size > MAX_BYTES:
            return TOO_LARGE
        return decode.load(path.read_bytes(), channels, short_side).pixels
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:
        return str(error)


def as_batch(pictures: list[np.ndarray], channels: int, device: torch.device) -> Batch:
    """Return pictures ``(H, W, C)`` uint8 of any sizes as a batch."""
    canvas, sizes = assemble(pictures, channels)
    rows = torch.arange(len(pictures), device=device)
    return Batch(
        images=torch.from_numpy(canvas).permute(0, 3, 1, 2).to(device),
        sizes=None if sizes is None else torch.from_numpy(sizes).to(device),
        indices=rows,
        epochs=torch.zeros_like(rows),
    )


def load(run: str | Path, *, backbone: str = "auto", device: str = "auto") -> Predictor:
    """Load the model of a run folder, or published weights with their own classifier.

    Parameters
    ----------
    run : str or Path
        Of `finetune` or `run`; or a timm name, ``torchvision:NAME``, a file of weights or a
        folder that timm saved, which then names the classes it was trained on.
    backbone : str
        What a file of weights is of.
    device : str
        ``auto`` chooses.

    Raises
    ------
    ModelError
        There is no classifier, or it is damaged.
    """
    return Predictor(open_whole(str(run), backbone), device=device)


def predict_table(
    run: str | Path,
    files: Sequence[str | Path],
    *,
    backbone: str = "auto",
    device: str = "auto",
) -> list[dict[str, Any]]:
    """Name the class, or the number, of picture files and of all pictures in folders.

    Parameters
    ----------
    run : str or Path
        A run folder with a classifier, or whatever else `load` takes.
    files : sequence of str or Path
        Files and folders; folders are walked.
    backbone, device : str
        As `load`.

    Returns
    -------
    list of dict
        ``path``, ``label``, ``probability``, ``probabilities``; from a regressor ``path`` and
        ``value``; nulls and an ``issue`` for a file that cannot be read.

    Raises
    ------
    ModelError
        There is no classifier, or it is damaged.
    DataError
        None of the files is there, or the folders hold no pictures.
    """
    predictor = load(run, backbone=backbone, device=device)
    paths = find_files(files)
    names = [escape(str(name)) for name in predictor.classes_]
    scores = zip(paths, predictor.scores(paths), strict=True)
    if predictor.target_ is not None:
        return [_number_row(path, found) for path, found in scores]
    return [_row(path, names, found) for path, found in scores]


def find_files(files: Sequence[str | Path]) -> list[Path]:
    """Return files as they were given, and in place of each folder the pictures below it.

    Raises
    ------
    DataError
        Nothing is there.
    """
    given = [Path(file) for file in files]
    if not any(path.exists() for path in given):
        first = escape(str(given[0])) if given else "nothing"
        raise DataError("data.missing", f"{first} does not exist", "check the path")
    found = []
    for path in given:
        found += [path / name for name in walk(path).paths] if path.is_dir() else [path]
    if not found:
        raise DataError("data.empty", f"there are no pictures in {escape(str(given[0]))}")
    return found


def _row(path: Path, names: list[str], found: np.ndarray | str) -> dict[str, Any]:
    row: dict[str, Any] = {"path": escape(path.as_posix())}
    if isinstance(found, str):
        return row | {"label": None, "probability": None, "probabilities": None, "issue": found}
    best = int(found.argmax())
    shares = dict(zip(names, found.tolist(), strict=True))
    return row | {"label": names[best], "probability": float(found[best]), "probabilities": shares}


def _number_row(path: Path, found: np.ndarray | str) -> dict[str, Any]:
    row: dict[str, Any] = {"path": escape(path.as_posix())}
    if isinstance(found, str):
        return row | {"value": None, "issue": found}
    return row | {"value": float(found)}
