"""The verb `explain`: a network and images in; maps, neighbours and pictures of it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewlabels.core.errors import DataError, UsageError, unknown
from fewlabels.data.listing import escape
from fewlabels.data.targets import describe
from fewlabels.explain.randomisation import IMAGES
from fewlabels.explain.saliency import MAPS
from fewlabels.models.classifier import Saved
from fewlabels.pipeline.carried import open_whole
from fewlabels.pipeline.evaluate import open_stored
from fewlabels.pipeline.folders import default_folder
from fewlabels.pipeline.keys import test_key
from fewlabels.pipeline.looking import look, stored_pixels
from fewlabels.pipeline.showing import Files, write_explanation
from fewlabels.pipeline.starts import is_run, open_model, refuse_other
from fewlabels.pipeline.subjects import (
    Chosen,
    default_split,
    given_subjects,
    held_out_subjects,
    sample_subjects,
)
from fewlabels.pipeline.surroundings import surroundings, visible_rows
from fewlabels.pipeline.task import Task, find_device
from fewlabels.results import ledger
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
    backbone: str = "auto",
    device: str = "auto",
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Show what a network looks at, and add the pictures to its folder as a record.

    Of published weights as they are, the maps of the images that are named; they get a new folder,
    ``runs/explain-<name>-<number>``.

    Parameters
    ----------
    run : Path
        A run folder with a classifier or regressor, or with an encoder (which predicts nothing
        to explain, but has neighbours, filters and a map of the images); or published weights: a
        timm name, ``torchvision:NAME``, a file of weights or a folder of timm's.
    images : sequence of str or Path
        Files, folders, or paths as the manifest of the data has them. By default the worst
        mistakes on held-out images (of a number the largest errors), and some that it gets right.
    split : {"val", "test"}, optional
        Which held-out images; by default ``val`` where there are any that were not learned from.
        A look at labels of test is counted.
    count : int
        How many, where none are named.
    label : str, optional
        The class whose evidence is shown; by default the predicted one. Of a number the maps
        explain the number itself.
    maps : str or sequence of str
        Keys of `fewlabels.explain.saliency.MAPS`.
    data : str, optional
        Where the images are now; by default where they were.
    backbone : str
        What a file of weights is of.
    device : str
        ``auto`` chooses.
    reporter : Reporter, optional

    Returns
    -------
    dict
        ``images``, ``maps`` (which were shown, and why others were not), ``folder`` with a PNG
        for each image; and the paths of ``.npz`` files: ``arrays`` with views, maps, neighbours and
        filters, ``embedding_arrays`` with the map of images, and in each of ``painted`` the
        ``arrays`` of what a pre-training has painted.

    Raises
    ------
    FewlabelsError
        There is no model, the images are not there, or a setting cannot be used.
    """
    reporter = reporter or Reporter()
    maps = [maps] if isinstance(maps, str) else maps
    asked = _Asked(images, split, count, label, maps, data, device, reporter)
    if is_run(str(run)):
        found = _of_run(RunFolder(Path(run)), backbone, asked)
    else:
        found = _of_weights(str(run), backbone, asked)
    for text in found["warnings"]:
        reporter.say(f"warning: {text}")
    return found


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is to be explained and how; see `explain`."""

    images: Sequence[str | Path]
    split: str | None
    count: int
    label: str | None
    maps: Sequence[str]
    data: str | None
    device: str
    reporter: Reporter


def _of_run(folder: RunFolder, backbone: str, asked: _Asked) -> dict[str, Any]:
    config = folder.config()
    saved = open_model(folder.path)
    refuse_other(str(folder.path), str(saved.config["backbone"]), backbone)
    _check(saved, asked)
    with folder:
        task, gone = _data(folder.path, config, saved, asked)
        chosen = _choose(saved, task, config, asked)
        chosen.warnings[:0] = gone
        return _explained(folder, config, saved, task, chosen, asked)


def _of_weights(start: str, backbone: str, asked: _Asked) -> dict[str, Any]:
    """Explain published weights as they are, in a new folder."""
    if asked.split is not None or asked.data is not None or not asked.images:
        raise UsageError(
            "usage.explain",
            f"{start} is no run folder: it knows no images, no split and no data",
            f"fewlabels explain {start} a.jpg b.jpg",
        )
    saved = open_whole(start, backbone)
    _check(saved, asked)
    chosen = given_subjects(asked.images, saved, None, limit=MOST)
    settings: dict[str, Any] = {"weights": start, "backbone": backbone, "label": asked.label}
    settings |= {"images": list(map(str, asked.images)), "maps": list(asked.maps)}
    config = {"verb": "explain", "settings": settings}
    with RunFolder(default_folder("explain", Path(start).name)) as folder:
        folder.write_config(config)
        found = _explained(folder, config, saved, None, chosen, asked)
        folder.finish()
    return found


def _explained(
    folder: RunFolder,
    config: dict[str, Any],
    saved: Saved,
    task: Task | None,
    chosen: Chosen,
    asked: _Asked,
) -> dict[str, Any]:
    """Look at the chosen images, write what was found, and add the record."""
    found = look(
        saved,
        [subject.pixels for subject in chosen.subjects],
        _more(task),
        asked.maps,
        label=asked.label,
        device=find_device(asked.device),
        reporter=asked.reporter,
    )
    around = None
    if task is not None:
        visible = visible_rows(task, config)
        around = surroundings(task, saved, chosen.subjects, visible, test_labels=chosen.test_labels)
    target = saved.target if task is None else task.dataset.target
    about = None if target is None else describe(target)
    result = write_explanation(Files(folder), config, saved, chosen, found, around, about)
    result |= {"looks_at_test": _count(task, chosen), "warnings": chosen.warnings}
    result |= {"weights": (config.get("settings") or {}).get("weights")}
    checked = validate("explain", result)
    folder.add_record("explain", checked)
    return checked


def _check(saved: Saved, asked: _Asked) -> None:
    if asked.split not in (None, "val", "test"):
        raise unknown("split", str(asked.split), ("val", "test"))
    if not 1 <= asked.count <= MOST:
        raise UsageError("usage.count", f"--count {asked.count} is out of range", f"1 to {MOST}")
    for name in asked.maps:
        if name not in MAPS:
            raise unknown("map", name, MAPS)
    if asked.label is not None and saved.target is not None:
        said = f"--class {asked.label} names a class, and this model predicts {saved.target!r}"
        raise UsageError("usage.class", escape(said), "leave --class out: it explains the number")
    if asked.label is not None and asked.label not in saved.classes:
        raise unknown("class", asked.label, saved.classes)


def _data(
    folder: Path, config: dict[str, Any], saved: Saved, asked: _Asked
) -> tuple[Task | None, list[str]]:
    """Open the data of a run; without it, images that are named can still be explained."""
    try:
        return open_stored(folder, config, saved, asked.data, asked.device, asked.reporter), []
    except DataError as error:
        if not asked.images or asked.data is not None:
            raise
        return None, [f"no neighbours and no map of the images: {error.message}"]


def _choose(saved: Saved, task: Task | None, config: dict[str, Any], asked: _Asked) -> Chosen:
    if asked.images:
        return given_subjects(asked.images, saved, task, limit=MOST)
    assert task is not None
    if saved.head is None:
        return sample_subjects(task, asked.count)
    split = asked.split or default_split(task.dataset, config, asked.data)
    return held_out_subjects(task, saved, split, asked.count)


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
