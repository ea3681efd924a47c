"""The verb `suspects`: a run and its labels in; which of them to look at again, out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fewlabels.core.errors import DataError, UsageError
from fewlabels.core.seeding import stream
from fewlabels.data.listing import escape
from fewlabels.evaluation.suspects import LEAST, Doubts, judge, stratified_folds
from fewlabels.explain import pictures
from fewlabels.methods import LABELLED
from fewlabels.models.classifier import Saved
from fewlabels.models.heads import is_linear
from fewlabels.pipeline.evaluate import open_stored
from fewlabels.pipeline.frozen import HEADS, feature_space, fit_head, shares_of
from fewlabels.pipeline.looking import stored_pixels
from fewlabels.pipeline.showing import Files
from fewlabels.pipeline.stages import on_device
from fewlabels.pipeline.starts import open_model
from fewlabels.pipeline.surroundings import visible_rows
from fewlabels.pipeline.task import Task
from fewlabels.results.files import to_csv
from fewlabels.results.runfolder import RunFolder
from fewlabels.results.schema import validate
from fewlabels.training.progress import Reporter
from fewlabels.transfer.features import Space

FOLDS = 10
LEARNED = 20_000  # labels that each fold's model learns from, at most
HEAD = "features"


def suspects(
    run: Path,
    *,
    seed: int = 0,
    data: str | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> list[dict[str, Any]]:
    """Say which labels are probably wrong, and add the list to the run's folder as a record.

    Each label that the run may read is judged by small models on the frozen features of the run's
    encoder, fitted on other labels alone; see `fewlabels.evaluation.suspects`. Labels of test are
    not read.

    Parameters
    ----------
    run : Path
        A run folder with an encoder; best one that has learned from no label.
    seed : int
        Of the folds.
    data : str, optional
        Where the images are now; by default where they were.
    device : str
        ``auto`` chooses.
    reporter : Reporter, optional

    Returns
    -------
    list of dict
        ``path``, ``label``, ``suggested`` and ``score`` in [0, 1], the most doubtful first; empty
        where no label is suspect.

    Raises
    ------
    FewlabelsError
        There is no encoder, the images are not there, or there are too few labels to judge any.
    """
    reporter = reporter or Reporter()
    folder = RunFolder(Path(run))
    config = folder.config()
    saved = open_model(folder.path)
    with folder:
        task = open_stored(folder.path, config, saved, data, device, reporter)
        rows = _judged(task, visible_rows(task, config), reporter)
        if _has_learned(config, saved):
            reporter.say(
                "warning: this network has been trained on these labels, and may have learned the "
                "wrong ones by heart; an encoder of 'fewlabels pretrain' judges better"
            )
        labels = task.truth[rows]
        space = feature_space(task, on_device(task, saved.backbone), rows)
        doubts = judge(labels, held_out_shares(space, rows, labels, task.num_classes, seed))
        order = np.flatnonzero(doubts.suspect)
        order = order[np.argsort(-doubts.score[order], kind="stable")]
        reporter.say(f"{len(order):,} of {len(rows):,} labels are suspect")
        found = [_row(task, rows, doubts, int(place)) for place in order]
        _keep(folder, task, rows[order], found, {"judged": len(rows), "seed": seed})
    return found


def _has_learned(config: dict[str, Any], saved: Saved) -> bool:
    """Say whether the labels have been trained on, and not only fitted on frozen features."""
    settings = config.get("settings") or {}
    if config.get("verb") == "pretrain":
        return settings.get("method") in LABELLED
    # Of the main job the chosen classifier tells by its head: only a linear one is trained on.
    transfer = settings.get("transfer", "parameters" if is_linear(saved.head) else HEAD)
    return transfer not in HEADS


def _judged(task: Task, visible: np.ndarray, reporter: Reporter) -> np.ndarray:
    """Return the rows whose labels can be judged.

    Raises
    ------
    UsageError
        A number is predicted.
    DataError
        No two classes have enough labels.
    """
    if task.dataset.targets is not None:
        raise UsageError(
            "usage.target", "only class labels can be judged", "a run without --target"
        )
    counts = np.bincount(task.truth[visible], minlength=task.num_classes)
    rows: np.ndarray = visible[counts[task.truth[visible]] >= LEAST]
    if (counts >= LEAST).sum() < 2:
        raise DataError(
            "data.few_labels",
            f"fewer than two classes have {LEAST} labels that may be read: none can be judged",
            "label more images; fewlabels suggest says which",
        )
    few = [
        escape(task.dataset.classes[code])
        for code in np.flatnonzero((counts > 0) & (counts < LEAST))
    ]
    if few:
        reporter.say(f"not judged, for want of {LEAST} labels: {', '.join(few[:10])}")
    return rows


def held_out_shares(
    space: Space, rows: np.ndarray, labels: np.ndarray, num_classes: int, seed: int
) -> np.ndarray:
    """Return class probabilities ``(n, num_classes)`` by models that have not seen the label.

    Stratified cross-validation in `FOLDS` folds. The images themselves may be in the graph over
    which labels spread; their own labels are not.

    Parameters
    ----------
    space : Space
        That holds `rows`.
    rows, labels : ndarray
        ``(n,)`` int64.
    """
    rng = np.random.default_rng(stream(seed, "suspects"))
    folds = stratified_folds(labels, FOLDS, rng)
    shares = np.empty((len(rows), num_classes), np.float32)
    for fold in range(FOLDS):
        out, known = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        if len(known) > LEARNED:
            known = rng.choice(known, LEARNED, replace=False)
        if len(out):
            head = fit_head(space, rows[known], labels[known], num_classes, HEAD)
            x = space.features[space.positions(rows[out])]
            shares[out] = shares_of(head, x)
    return shares


def _row(task: Task, rows: np.ndarray, doubts: Doubts, place: int) -> dict[str, Any]:
    dataset = task.dataset
    row = int(rows[place])
    told = {
        "path": escape(str(dataset.source.paths[row])),
        "label": escape(dataset.classes[dataset.labels[row]]),
        "suggested": escape(dataset.classes[doubts.suggested[place]]),
        "score": float(doubts.score[place]),
    }
    return validate("suspects", told)


def _keep(
    folder: RunFolder,
    task: Task,
    rows: np.ndarray,
    found: list[dict[str, Any]],
    about: dict[str, Any],
) -> None:
    """Write the table, the picture and the record."""
    files = Files(folder, "suspects")
    table = files.write("suspects.csv", suspects_csv(found))
    picture = None
    if found:
        sheet = _sheet(stored_pixels(task.dataset, rows[: pictures.ON_CONTACT_SHEET]), found)
        picture = files.write("suspects.png", pictures.png(sheet))
    record = {"schema": 1, "kind": "suspects", "run": str(folder.path), "name": task.dataset.name}
    record |= {**about, "images": found, "table": table, "picture": picture}
    folder.add_record("suspects", record | {"files": files.sums})


def _sheet(pixels: list[np.ndarray], found: list[dict[str, Any]]) -> np.ndarray:
    """Return the images, each over its label and what it may be instead."""
    named = [f"{row['label']} / {row['suggested']}?" for row in found]
    cells = list(zip(named, pixels, strict=False))
    return pictures.contact_sheet(cells)


def suspects_csv(found: list[dict[str, Any]]) -> str:
    """Return suspects as CSV: path, label, suggested, score."""
    return to_csv(("path", "label", "suggested", "score"), found)
