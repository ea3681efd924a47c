"""The verb `suggest`: a run and its images in; which to label next, and why, out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from fewlabels.core.errors import DataError, UsageError, unknown
from fewlabels.core.seeding import stream
from fewlabels.core.types import Backbone
from fewlabels.data.leaks import content_ids
from fewlabels.data.listing import escape
from fewlabels.explain import pictures
from fewlabels.pipeline.evaluate import open_stored
from fewlabels.pipeline.frozen import features, fit_head, shares_of
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
from fewlabels.transfer.features import build_space, half_whitening
from fewlabels.transfer.picks import BY_DOUBT, STRATEGIES
from fewlabels.transfer.pool import Pick, Pool, choose

UNLABELLED = 50_000  # images that are looked at; of more, so many drawn at random
LABELLED = 20_000  # likewise of those with a label: what the neighbour graph holds
ENOUGH = 25  # labels per class from which doubt says more than typicality


def suggest(
    run: Path,
    *,
    count: int = 20,
    strategy: str = "auto",
    seed: int = 0,
    data: str | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> list[dict[str, Any]]:
    """Say which images of a run to label next, and add the list to its folder as a record.

    Parameters
    ----------
    run : Path
        A run folder with an encoder or a classifier. Its training images that have no label, or
        none that the run may read (``--labels``), are picked from.
    count : int
        How many.
    strategy : str
        A key of `fewlabels.transfer.picks.STRATEGIES`; ``auto`` chooses, see `auto_strategy`.
    seed : int
        Of all that is drawn at random.
    data : str, optional
        Where the images are now; by default where they were. Labels that were added since count.
    device : str
        ``auto`` chooses.
    reporter : Reporter, optional

    Returns
    -------
    list of dict
        ``path``, ``rank`` from 1, ``score`` (of the strategy's own kind) and ``reason``. Fewer
        than `count` where no more are left that are no copies of others.

    Raises
    ------
    FewlabelsError
        There is no encoder, the images are not there, all are labelled, or the strategy needs
        labels that are not there.
    """
    reporter = reporter or Reporter()
    if strategy not in ("auto", *STRATEGIES):
        raise unknown("strategy", strategy, ("auto", *STRATEGIES))
    if count < 1:
        raise UsageError("usage.count", f"--count {count} is out of range", "1 or more")
    folder = RunFolder(Path(run))
    config = folder.config()
    saved = open_model(folder.path)
    with folder:
        task = open_stored(folder.path, config, saved, data, device, reporter)
        rows = draw_rows(task, visible_rows(task, config), seed)
        _say_what_is_seen(rows, task, reporter)
        name, why = (strategy, "as asked for")
        if strategy == "auto":
            name, why = auto_strategy(task, rows.labelled)
        reporter.say(f"strategy: {name}, {why}")
        pool = _pool(task, saved.backbone, rows, by_doubt=name in BY_DOUBT)
        rng = np.random.default_rng(stream(seed, "suggest"))
        picks = choose(pool, count, STRATEGIES[name], rng)
        if len(picks) < count:
            reporter.say(f"only {len(picks)} suggested: all others are copies of one with a label")
        found = _rows_of(task, rows, picks)
        _keep(folder, task, rows, picks, found, {"strategy": name, "because": why, "seed": seed})
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Which rows of a data set are looked at.

    Attributes
    ----------
    labelled : ndarray
        ``(l,)`` rows whose labels may be read.
    others : ndarray
        ``(u,)`` rows to pick from.
    unlabelled : int
        How many there are to pick from, copies apart.
    """

    labelled: np.ndarray
    others: np.ndarray
    unlabelled: int

    @property
    def all(self) -> np.ndarray:
        """Return the rows in the order of the pool."""
        return np.concatenate([self.labelled, self.others])


def draw_rows(task: Task, visible: np.ndarray, seed: int) -> Rows:
    """Return training rows in random order, one of each picture, at most so many.

    Raises
    ------
    DataError
        All training images are labelled.
    """
    dataset = task.dataset
    train = np.random.default_rng(stream(seed, "pool")).permutation(dataset.rows("train"))
    known = np.isin(train, visible)
    train = np.concatenate([train[known], train[~known]])  # of copies the labelled one is kept
    ids = content_ids(dataset.store.sha256, dataset.store.ok)[train]
    train = train[np.sort(np.unique(ids, return_index=True)[1])]
    known = np.isin(train, visible)
    labelled, others = train[known], train[~known]
    if not len(others):
        raise DataError(
            "data.all_labelled",
            f"all training images of {dataset.name} have a label: there is none to suggest",
            "add images without a label, and --data DATA if they lie elsewhere",
        )
    return Rows(labelled[:LABELLED], others[:UNLABELLED], len(others))


def _say_what_is_seen(rows: Rows, task: Task, reporter: Reporter) -> None:
    seen, there = len(rows.others), rows.unlabelled
    some = f"{seen:,} of {there:,} unlabelled images, drawn at random"
    of = some if seen < there else f"all {seen:,} unlabelled images"
    reporter.say(f"picking from {of}; {len(rows.labelled):,} are labelled")
    if not len(task.dataset.rows("test")):
        reporter.say(
            "no test image has a label: only labels of images drawn at random can measure a "
            "classifier, so label some that are not suggested as well"
        )


def auto_strategy(task: Task, labelled: np.ndarray) -> tuple[str, str]:
    """Return the strategy for the labels there are, and why.

    Coverage until there are `ENOUGH` labels for each class that is known, in the mean: a
    classifier from few labels is sure of what it has not seen, and its doubts mislead. From then
    on doubt, spread over clusters. Of numbers, coverage always.
    """
    if task.dataset.targets is not None:
        return "coverage", "as for every number that is predicted"
    classes = len(np.unique(task.truth[labelled]))
    if not len(labelled):
        return "coverage", "because nothing is labelled yet"
    each = f"{len(labelled) / classes:.1f} labels per class"
    if classes < 2:
        return "coverage", "because all labels are of one class"
    if len(labelled) < ENOUGH * classes:
        return "coverage", f"because {each} are too few to trust a classifier's doubts"
    return "spread_margin", f"because {each} are enough for a classifier to know its doubts"


def _pool(task: Task, backbone: Backbone, rows: Rows, *, by_doubt: bool) -> Pool:
    """Return what strategies see of the images.

    Raises
    ------
    UsageError
        Doubts are asked for, and no classifier can be had.
    """
    x = features(task, on_device(task, backbone), rows.all)
    labelled = np.arange(len(x)) < len(rows.labelled)
    shares = _shares(task, rows, x) if by_doubt else None
    names = tuple(escape(name) for name in task.dataset.classes)
    return Pool(unit_vectors(x), labelled, shares, names)


def unit_vectors(x: Tensor) -> np.ndarray:
    """Return half-whitened features as unit vectors ``(n, K)``, as neighbours are found by."""
    centred = x - x.mean(0)
    return np.asarray(F.normalize(centred @ half_whitening(centred), dim=1).numpy())


def _shares(task: Task, rows: Rows, x: Tensor) -> np.ndarray:
    """Return class probabilities ``(n, C)`` by a small model on the labels that may be read."""
    labels = task.truth[rows.labelled]
    if task.dataset.targets is not None or len(np.unique(labels)) < 2:
        raise UsageError(
            "usage.strategy",
            "doubt needs a classifier, and there are no labels of two classes to fit one on",
            "--strategy coverage",
        )
    space = build_space(rows.all, x)
    head = fit_head(space, rows.labelled, labels, task.num_classes, "features")
    return shares_of(head, x)


def _rows_of(task: Task, rows: Rows, picks: list[Pick]) -> list[dict[str, Any]]:
    paths, order = task.dataset.source.paths, rows.all
    return [
        validate(
            "suggest",
            {
                "path": escape(str(paths[int(order[pick.place])])),
                "rank": rank,
                "score": pick.score,
                "reason": pick.reason,
            },
        )
        for rank, pick in enumerate(picks, 1)
    ]


def _keep(
    folder: RunFolder,
    task: Task,
    rows: Rows,
    picks: list[Pick],
    found: list[dict[str, Any]],
    about: dict[str, Any],
) -> None:
    """Write the table, the picture and the record."""
    files = Files(folder, "suggest")
    table = files.write("suggestions.csv", suggestions_csv(found))
    shown = rows.all[[pick.place for pick in picks[: pictures.ON_CONTACT_SHEET]]]
    picture = files.write("suggestions.png", pictures.png(_sheet(task, shown, found)))
    record = {"schema": 1, "kind": "suggest", "run": str(folder.path), "name": task.dataset.name}
    record |= {**about, "labelled": len(rows.labelled), "looked_at": len(rows.others)}
    record |= {"unlabelled": rows.unlabelled, "images": found}
    folder.add_record(
        "suggest", {**record, "table": table, "picture": picture, "files": files.sums}
    )


def _sheet(task: Task, rows: np.ndarray, found: list[dict[str, Any]]) -> np.ndarray:
    """Return the images with their ranks and names, in their order."""
    named = [f"{row['rank']}  {Path(row['path']).name}" for row in found]
    cells = list(zip(named, stored_pixels(task.dataset, rows), strict=False))
    return pictures.contact_sheet(cells)


def suggestions_csv(found: list[dict[str, Any]]) -> str:
    """Return suggestions as CSV: rank, path, score, reason."""
    return to_csv(("rank", "path", "score", "reason"), found)
