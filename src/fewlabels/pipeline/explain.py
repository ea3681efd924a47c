"""The verb `explain`: a run folder and images in; maps, neighbours and pictures of it out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fewlabels.core.errors import DataError, UsageError, unknown
from fewlabels.data.listing import escape
from fewlabels.explain import embedding, pictures
from fewlabels.explain.filters import first_filters
from fewlabels.explain.randomisation import IMAGES
from fewlabels.explain.saliency import MAPS
from fewlabels.models.classifier import Saved
from fewlabels.pipeline.evaluate import open_stored
from fewlabels.pipeline.keys import test_key
from fewlabels.pipeline.looking import Looked, look, stored_pixels
from fewlabels.pipeline.starts import open_model
from fewlabels.pipeline.subjects import (
    Chosen,
    default_split,
    given_subjects,
    held_out_subjects,
    sample_subjects,
)
from fewlabels.pipeline.surroundings import Surroundings, surroundings, visible_rows
from fewlabels.pipeline.task import Task, find_device
from fewlabels.results import ledger
from fewlabels.results.files import to_json
from fewlabels.results.runfolder import RunFolder
from fewlabels.results.schema import validate
from fewlabels.training.progress import Reporter

MOST = 200  # images at once; more than anybody looks at


def explain(  # noqa: PLR0913 - the flags of the command line
    run: Path,
    images: Sequence[str | Path] = (),
    *,
    split: str | None = None,
    count: int = 12,
    label: str | None = None,
    maps: str | Sequence[str] = tuple(MAPS),
    data: str | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Show what a network looks at, and add the pictures to its folder as a record.

    Parameters
    ----------
    run : Path
        A run folder with a classifier, or with an encoder (which has no classes to explain, but
        neighbours, filters and a map of the images).
    images : sequence of str or Path
        Files, folders, or paths as the manifest of the data has them. By default the worst
        mistakes on held-out images, and some of the right answers.
    split : {"val", "test"}, optional
        Which held-out images; by default ``val`` where there are any that were not learned from.
        A look at labels of test is counted.
    count : int
        How many, where none are named.
    label : str, optional
        The class whose evidence is shown; by default the predicted one.
    maps : str or sequence of str
        Keys of `fewlabels.explain.saliency.MAPS`.
    data : str, optional
        Where the images are now; by default where they were.
    device : str
        ``auto`` chooses.
    reporter : Reporter, optional

    Returns
    -------
    dict
        ``images``, ``maps`` (which were shown, and why others were not), ``folder`` with a PNG
        for each image, and ``arrays``, an ``.npz`` file with everything that was drawn.

    Raises
    ------
    FewlabelsError
        There is no model, the images are not there, or a setting cannot be used.
    """
    reporter = reporter or Reporter()
    maps = [maps] if isinstance(maps, str) else maps
    folder = RunFolder(Path(run))
    config = folder.config()
    saved = open_model(folder.path)
    _check(saved, split, count, label, maps)
    with folder:
        task, gone = _data(folder.path, config, saved, data, device, reporter, bool(images))
        chosen = _choose(images, saved, task, config, split, count, data)
        found = look(
            saved,
            [subject.pixels for subject in chosen.subjects],
            _more(task),
            maps,
            label=label,
            device=find_device(device),
            reporter=reporter,
        )
        around = None
        if task is not None:
            visible = visible_rows(task, config)
            around = surroundings(
                task, saved, chosen.subjects, visible, test_labels=chosen.test_labels
            )
        result = _write(_Files(folder), config, saved, chosen, found, around)
        result |= {"looks_at_test": _count(task, chosen)}
        result["warnings"] = [*gone, *chosen.warnings]
        checked = validate("explain", result)
        folder.add_record("explain", checked)
    for text in checked["warnings"]:
        reporter.say(f"warning: {text}")
    return checked


def _check(
    saved: Saved, split: str | None, count: int, label: str | None, maps: Sequence[str]
) -> None:
    if saved.target is not None:
        raise UsageError(
            "usage.explain",
            f"this model predicts a number, {escape(saved.target)!r}, and maps are of classes",
            "fewlabels report RUN, which shows its largest errors",
        )
    if split not in (None, "val", "test"):
        raise unknown("split", str(split), ("val", "test"))
    if not 1 <= count <= MOST:
        raise UsageError("usage.count", f"--count {count} is out of range", f"1 to {MOST}")
    for name in maps:
        if name not in MAPS:
            raise unknown("map", name, MAPS)
    if label is not None and label not in saved.classes:
        raise unknown("class", label, saved.classes)


def _data(
    folder: Path,
    config: dict[str, Any],
    saved: Saved,
    data: str | None,
    device: str,
    reporter: Reporter,
    named: bool,
) -> tuple[Task | None, list[str]]:
    """Open the data of a run; without it, images that are named can still be explained."""
    try:
        return open_stored(folder, config, saved, data, device, reporter), []
    except DataError as error:
        if not named or data is not None:
            raise
        return None, [f"no neighbours and no map of the images: {error.message}"]


def _choose(
    images: Sequence[str | Path],
    saved: Saved,
    task: Task | None,
    config: dict[str, Any],
    split: str | None,
    count: int,
    data: str | None,
) -> Chosen:
    if images:
        return given_subjects(images, saved, task, limit=MOST)
    assert task is not None
    if saved.head is None:
        return sample_subjects(task, count)
    if split is None:
        split = default_split(task.dataset, config, data)
    return held_out_subjects(task, saved, split, count)


def _more(task: Task | None) -> list[np.ndarray]:
    """Return a few training images, for the check where few others are explained."""
    if task is None:
        return []
    rows = task.dataset.rows("train")
    return stored_pixels(task.dataset, rows[:: max(1, len(rows) // IMAGES)][:IMAGES])


def _count(task: Task | None, chosen: Chosen) -> int | None:
    """Count a look at the test set where labels of it were read; return the looks so far."""
    if task is None:
        return None
    key = test_key(task)
    if chosen.test_labels:
        return ledger.look(key, f"explain {task.dataset.name}")
    return ledger.looks(key)


@dataclass(slots=True)
class _Files:
    """Writes the files that belong to the next record, and keeps their checksums."""

    folder: RunFolder
    sums: dict[str, str] = field(default_factory=dict)
    place: str = ""

    def __post_init__(self) -> None:
        self.place = f"records/explain-{self.folder.next_record('explain')}"

    def write(self, name: str, data: bytes | str) -> str:
        """Write a file and return its path, as a user would type it."""
        raw = data.encode() if isinstance(data, str) else data
        self.sums[name] = hashlib.sha256(raw).hexdigest()
        return str(self.folder.write_bytes(f"{self.place}/{name}", raw))


def _write(
    files: _Files,
    config: dict[str, Any],
    saved: Saved,
    chosen: Chosen,
    found: Looked,
    around: Surroundings | None,
) -> dict[str, Any]:
    """Write pictures and arrays; return the result, but for what is counted."""
    rows = [_row(place, saved, chosen, found, around) for place in range(len(chosen.subjects))]
    for place, row in enumerate(rows):
        drawn = pictures.sheet(_panels(place, row, found, around))
        row["picture"] = files.write(f"{place + 1:04d}.png", pictures.png(drawn))
    arrays = {"views": found.views, **found.maps}
    filters = first_filters(saved.backbone, saved.pictures)
    result: dict[str, Any] = {"schema": 1, "kind": "explain", "run": str(files.folder.path)}
    result |= {"name": _name(config), "split": chosen.split, "images": rows}
    result |= {"maps": found.checks, "folder": str(files.folder.path / files.place)}
    result |= {"filters": None, "embedding": None, "mistakes": None}
    if filters is not None:
        arrays["filters"] = filters
        result["filters"] = files.write("filters.png", pictures.png(pictures.grid(filters)))
    if around is not None:
        arrays["near"] = around.pictures
        packed = embedding.pack(around.xy, around.label, around.kind, around.classes)
        files.write("embedding.npz", packed)
        drawn = pictures.scatter(around.xy, around.label, around.kind, around.classes)
        result["embedding"] = files.write("embedding.png", pictures.png(drawn))
    if chosen.mistakes:
        result["mistakes"] = files.write("mistakes.json", to_json(chosen.mistakes) + "\n")
    result["arrays"] = files.write("arrays.npz", pictures.pack(arrays))
    result["paintings"] = _paintings(files.folder.path, config)
    return result | {"files": files.sums}


def _row(
    place: int, saved: Saved, chosen: Chosen, found: Looked, around: Surroundings | None
) -> dict[str, Any]:
    subject = chosen.subjects[place]
    row: dict[str, Any] = {"path": subject.name, "kind": subject.kind, "label": subject.label}
    row |= {"predicted": None, "probability": None, "explained": None}
    if found.probabilities is not None and found.targets is not None:
        shares = found.probabilities[place]
        row["predicted"] = escape(saved.classes[int(shares.argmax())])
        row["probability"] = float(shares.max())
        row["explained"] = escape(saved.classes[int(found.targets[place])])
    return row | {"neighbours": around.near[place] if around else []}


def _panels(
    place: int, row: dict[str, Any], found: Looked, around: Surroundings | None
) -> list[tuple[str, list[tuple[str, pictures.Pixels]]]]:
    """Return the rows of a sheet: the image with its maps, and its neighbours."""
    view = found.views[place]
    cells = [("as the network sees it", view)]
    for name, maps in found.maps.items():
        signed = name in pictures.SIGNED
        shown = pictures.overlay(view, maps[place], signed=signed)
        cells.append((pictures.MAP_NAMES[name], shown))
    panels = [(_title(row), cells)]
    if around is not None:
        near = zip(around.near[place], around.pictures[place], strict=True)
        words = [(f"{one['similarity']:.2f} {one['label'] or '(no label)'}", p) for one, p in near]
        panels.append(("nearest training images, by cosine", words))
    return panels


def _title(row: dict[str, Any]) -> str:
    parts = [Path(row["path"]).name]
    if row["predicted"] is not None:
        parts.append(f"called {row['predicted']}, {100 * row['probability']:.0f} %")
    if row["label"] is not None:
        parts.append(f"is {row['label']}")
    if row["explained"] != row["predicted"]:
        parts.append(f"maps are for {row['explained']}")
    return "  |  ".join(parts)


def _name(config: dict[str, Any]) -> str:
    return str((config.get("data") or {}).get("data") or "")


def _paintings(folder: Path, config: dict[str, Any]) -> str | None:
    """Return where the pictures lie that the pre-training has left, in this run or in its start."""
    start = (config.get("settings") or {}).get("start")
    for place in (folder, *([Path(str(start))] if start else [])):
        found = place / "figures" / "paintings.png"
        if found.exists():
            return str(found)
    return None
