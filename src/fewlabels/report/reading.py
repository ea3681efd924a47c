"""Read what a run or comparison folder holds; every part is optional."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fewlabels.core.errors import DataError, FewlabelsError
from fewlabels.report.words import Record, method_title, number, record, records
from fewlabels.results.files import read_arrays, read_lines
from fewlabels.results.runfolder import RunFolder
from fewlabels.results.told import RECONSTRUCTION

T = TypeVar("T")
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, RecursionError, FewlabelsError)


@dataclass(frozen=True, slots=True)
class Embedding:
    """The map of images in two dimensions.

    Attributes
    ----------
    xy : ndarray
        ``(n, 2)`` float64, finite.
    label : ndarray
        ``(n,)`` int64, -1 where unknown.
    kind : ndarray
        ``(n,)`` str: ``labelled``, ``unlabelled`` or ``test``.
    classes : list of str
        Class names stored beside the points; may be empty.
    ordered : bool
        Whether they are ranges of a number, from low to high.
    layout : str
        ``code``, ``PCA`` or ``t-SNE``: what the places are.
    """

    xy: NDArray[np.float64]
    label: NDArray[np.int64]
    kind: NDArray[np.str_]
    classes: list[str]
    ordered: bool = False
    layout: str = "t-SNE"


@dataclass(frozen=True, slots=True)
class Training:
    """The log of one training: metric name -> ``(k, 2)`` of step and value.

    `kept` is the step whose weights were kept, where it was not the last.
    """

    name: str
    title: str
    curves: dict[str, NDArray[np.float64]]
    seconds: float | None
    kept: float | None = None


@dataclass(frozen=True, slots=True)
class Painting:
    """What one pre-training painted: name of the row -> ``(n, S, S, C)`` uint8."""

    title: str
    rows: dict[str, NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The last record of `explain`, and its arrays by name; see ``docs/explain.md``."""

    record: Record
    arrays: dict[str, NDArray[Any]]


@dataclass(slots=True)
class Folder:
    """All that the report shows, as read from disk."""

    path: Path
    comparison: Record = field(default_factory=dict)
    results: Record = field(default_factory=dict)
    evaluations: list[Record] = field(default_factory=list)
    mistakes: list[Record] = field(default_factory=list)
    embedding: Embedding | None = None
    explained: Explanation | None = None
    paintings: list[Painting] = field(default_factory=list)
    trainings: list[Training] = field(default_factory=list)
    config: str = ""
    unread: list[str] = field(default_factory=list)


def read_folder(path: Path) -> Folder:
    """Read the parts of a run or comparison folder that are there.

    Raises
    ------
    DataError
        If there is neither a readable comparison.json nor a readable results.json.
    """
    folder = Folder(path)
    folder.comparison = _part(folder, "comparison.json", _json_record, {})
    folder.results = _part(folder, "results.json", _json_record, {})
    folder.comparison = folder.comparison or record(folder.results.get("compare"))
    if not folder.comparison and not folder.results:
        reason = f" ({'; '.join(folder.unread)})" if folder.unread else ""
        raise DataError(
            "report.empty",
            f"{path} holds neither a comparison.json nor a results.json to report on{reason}",
            "fewlabels run DATA, or give the folder of a finished run or comparison",
        )
    folder.evaluations = _part(folder, "records", _evaluations, [])
    folder.mistakes = _part(folder, "mistakes.json", _json_records, [])
    folder.embedding = _part(folder, "figures/embedding.npz", _embedding, None)
    folder.config = _part(folder, "config.yaml", _text, "")
    folder.trainings = _trainings(folder)
    folder.paintings = _paintings(folder)
    _add_explanation(folder)
    return folder


def _add_explanation(folder: Folder) -> None:
    """Read the last record of `explain`, and what records tell that the run itself does not."""
    found: list[Record] = _part(folder, "records", _explanations, [])
    # By their last part: the run may have been moved.
    places = [f"records/{Path(str(one.get('folder'))).name}" for one in found]
    arrays: dict[str, NDArray[Any]] = {}
    sums = {place: record(one.get("files")) for place, one in zip(places, found, strict=True)}
    if found:
        arrays = _belonging(folder, places[-1], "arrays.npz", sums, _arrays, {})
    if arrays:
        folder.explained = Explanation(found[-1], arrays)
    for place in reversed(places):
        if folder.embedding is None:
            folder.embedding = _belonging(folder, place, "embedding.npz", sums, _embedding, None)
        if not folder.mistakes:
            folder.mistakes = _belonging(folder, place, "mistakes.json", sums, _json_records, [])


def _belonging(
    folder: Folder,
    place: str,
    name: str,
    sums: dict[str, Record],
    read: Callable[[Path], T],
    default: T,
) -> T:
    """Read a file that belongs to a record, which keeps its SHA-256."""

    def checked(file: Path) -> T:
        known = sums[place].get(name)
        if known is not None and hashlib.sha256(file.read_bytes()).hexdigest() != known:
            raise ValueError("damaged")
        return read(file)

    return _part(folder, f"{place}/{name}", checked, default)


def _explanations(file: Path) -> list[Record]:
    found: list[Record] = RunFolder(file.parent).records("explain")
    return found


def _arrays(file: Path) -> dict[str, NDArray[Any]]:
    return read_arrays(file)


def _paintings(folder: Folder) -> list[Painting]:
    """Read what was painted at the end of pre-training, in the folder itself and its encoders."""
    root = folder.path
    files = [root / "figures" / "paintings.npz"]
    files += sorted((root / "encoders").glob("*/figures/paintings.npz"))
    found = []
    for file in (f for f in files if f.is_file()):
        rows: dict[str, NDArray[Any]] = _part(
            folder, file.relative_to(root).as_posix(), _arrays, {}
        )
        place = file.parents[1]
        found.append(Painting("" if place == root else place.name, rows))
    return [one for one in found if one.rows]


def _part(folder: Folder, name: str, read: Callable[[Path], T], default: T) -> T:
    """Read one part; a damaged one is named in the report instead of ending it.

    What lies in ``records`` is sealed record by record.
    """
    file = folder.path / name
    if not file.exists():
        return default
    try:
        if not name.startswith("records"):
            RunFolder(folder.path).require(name)
        return read(file)
    except _UNREADABLE as error:
        folder.unread.append(f"{name}: {error}")
        return default


def _evaluations(file: Path) -> list[Record]:
    """Return what `evaluate` added to a finished run, oldest first."""
    found: list[Record] = RunFolder(file.parent).records("evaluate")
    return found


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


def _json_record(file: Path) -> Record:
    value = json.loads(file.read_bytes())
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _json_records(file: Path) -> list[Record]:
    return records(json.loads(file.read_bytes()))


def _embedding(file: Path) -> Embedding:
    arrays = read_arrays(file)
    xy = np.asarray(arrays["xy"], dtype=np.float64)
    label = np.asarray(arrays["label"], dtype=np.int64)
    kind = np.asarray(arrays["kind"], dtype=np.str_)
    classes = [str(c) for c in arrays["classes"]] if "classes" in arrays else []
    ordered = bool(arrays["ordered"]) if "ordered" in arrays else False
    layout = str(arrays["layout"]) if "layout" in arrays else "t-SNE"
    if xy.ndim != 2 or xy.shape[1] != 2 or not len(xy) == len(label) == len(kind):
        raise ValueError(f"xy {xy.shape}, label {label.shape} and kind {kind.shape} do not fit")
    good = np.isfinite(xy).all(axis=1)
    if not good.any():
        raise ValueError("no finite point")
    return Embedding(xy[good], label[good], kind[good], classes, ordered, layout)


def _trainings(folder: Folder) -> list[Training]:
    """Read metrics.jsonl of the folder itself and of its encoders."""
    root = folder.path
    files = [root / "metrics.jsonl", *sorted((root / "encoders").glob("*/metrics.jsonl"))]
    found = []
    for file in (f for f in files if f.is_file()):
        name = file.relative_to(root).as_posix()
        rows: list[Record] = _part(folder, name, _json_lines, [])
        about: Record = _part(
            folder, name.replace("metrics.jsonl", "results.json"), _json_record, {}
        )
        training = _training(file.parent, root, rows, about)
        if training.curves:
            found.append(training)
    return found


def _json_lines(file: Path) -> list[Record]:
    """Read JSON lines; a line torn by a kill is left out."""
    return records(read_lines(file))


def _training(place: Path, root: Path, rows: list[Record], about: Record) -> Training:
    name = "" if place == root else place.name
    title = method_title(about["method"]) if about.get("method") else name or "Training"
    accuracies = ("probe", "val_accuracy", "plain_train_accuracy")
    keys = (
        "loss",
        RECONSTRUCTION,
        "val_loss",
        *accuracies,
        "probe_r2",
        "val_r2",
        "plain_train_r2",
        "rank",
    )
    curves = {key: curve for key in keys if len(curve := _curve(rows, key)) > 1}
    seconds = [s for row in rows if (s := number(row.get("seconds"))) is not None]
    stopping = record(about.get("stopping"))
    kept = number(stopping.get("best_step")) if stopping.get("kept") == "best" else None
    return Training(name, title, curves, max(seconds, default=None), kept)


def _curve(rows: list[Record], key: str) -> NDArray[np.float64]:
    pairs = []
    for place, row in enumerate(rows):
        value = row.get(key)
        value = number(value.get("value") if isinstance(value, dict) else value)
        if value is not None:
            step = number(row.get("step"))
            pairs.append((place if step is None else step, value))
    return np.array(pairs, dtype=np.float64).reshape(-1, 2)
