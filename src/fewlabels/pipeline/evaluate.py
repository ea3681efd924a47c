"""The verb `evaluate`: a run folder in, its classifier's scores on held-out images out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fewlabels.core.errors import DataError, ModelError, unknown
from fewlabels.data.dataset import Dataset
from fewlabels.data.listing import escape
from fewlabels.models.classifier import Saved
from fewlabels.pipeline.copies import scored
from fewlabels.pipeline.keys import test_key
from fewlabels.pipeline.stages import score
from fewlabels.pipeline.starts import (
    in_format,
    open_model,
    sized,
    split_seed,
    stored_folds,
    stored_options,
)
from fewlabels.pipeline.task import Task, open_task
from fewlabels.results.ledger import look, looks
from fewlabels.results.runfolder import RunFolder
from fewlabels.results.schema import validate
from fewlabels.training.progress import Reporter

SPLITS = ("val", "test")


def evaluate(
    run: Path,
    *,
    split: str = "test",
    data: str | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Score a classifier on held-out images, and add the result to its folder as a record.

    Parameters
    ----------
    run : Path
        A run folder with a classifier.
    split : {"test", "val"}
        Every look at a test set is counted, in whatever folder.
    data : str, optional
        Where the images are now; by default where they were.
    device : str
        ``auto`` chooses.
    reporter : Reporter, optional

    Returns
    -------
    dict
        ``n``, the scores with 95 % intervals, ``looks_at_test``; of a classifier also
        ``per_class`` and ``confusion``, of a regressor ``pairs`` of true and predicted numbers;
        ``without_near_duplicates`` where images have copies in the splits learned from.

    Raises
    ------
    ModelError
        There is no classifier, or it knows other classes, or another number, than the data.
    DataError
        The images are not there, or none of the split is labelled.
    """
    reporter = reporter or Reporter()
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    folder = RunFolder(Path(run))
    config = folder.config()
    saved = open_model(folder.path)
    classifier = saved.classifier
    refuse_trained(config, split, data)
    with folder:
        task = open_stored(folder.path, config, saved, data, device, reporter)
        dataset = in_order_of(task.dataset, saved)
        rows, _ = held_out(dataset, saved, split)
        predictions = score(task, classifier, rows)
        key = test_key(task)
        count = look(key, f"evaluate {task.dataset.name}") if split == "test" else looks(key)
        scores = scored(dataset, rows, predictions)
        about = {"schema": 1, "kind": "evaluate", "run": str(folder.path), "split": split}
        about |= {"name": task.dataset.name, "data": data or config["data"]["data"]}
        result = validate("evaluate", {**about, **scores, "looks_at_test": count})
        folder.add_record("evaluate", result)
    return result


def open_stored(
    folder: Path,
    config: dict[str, Any],
    saved: Saved,
    data: str | None,
    device: str,
    reporter: Reporter,
) -> Task:
    """Open the data of a run as it was opened then, in the format of its model.

    Raises
    ------
    FewlabelsError
        The images are not there, or of another kind than the model's.
    """
    options = stored_options(config, folder)
    stored = sized(replace(options, image_size=None), saved, str(folder))
    policy = "auto"  # nothing is augmented here
    try:
        task = open_task(
            replace(stored, data=data or stored.data),
            policy=policy,
            device=device,
            reporter=reporter,
        )
    except DataError as error:
        if error.code != "data.missing" or data is not None:
            raise
        raise DataError(
            error.code, error.message, "--data DATA, where the images are now"
        ) from None
    folds = 0 if data else stored_folds(folder)
    split = task.with_folds(folds) if folds else task.with_split(split_seed(config))
    return in_format(split, saved, str(folder))


def held_out(dataset: Dataset, saved: Saved, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of a split, and their classes as the model counts them, or their numbers.

    Raises
    ------
    ModelError
        As `in_order_of`.
    DataError
        No image of the split has a label, or the model has learned from every label.
    """
    if dataset.folds:
        raise DataError(
            "data.all_trained",
            f"the model has learned from every labelled image of {dataset.name}; what it scores on "
            "others was measured by cross-validation and is in its report",
            "--data OTHER, with labelled images of its own",
        )
    ordered = in_order_of(dataset, saved)
    rows = ordered.rows(split)
    if not len(rows):
        raise DataError("data.split", f"no labelled image of {dataset.name} lies in {split}")
    return rows, ordered.truth[rows]


def in_order_of(dataset: Dataset, saved: Saved) -> Dataset:
    """Return the data with the classes counted as a model counts them, matched by name.

    Raises
    ------
    ModelError
        The data has a class that the model does not know, or another number.
    """
    if dataset.target != saved.target:
        mine, theirs = (_goal(name) for name in (saved.target, dataset.target))
        raise ModelError(
            "model.target",
            f"the model predicts {mine}, and the data was opened for {theirs}",
            "fewlabels finetune for the same",
        )
    if dataset.targets is not None:
        return dataset
    if not set(dataset.classes) <= set(saved.classes):
        mine, theirs = (_named(names) for names in (saved.classes, dataset.classes))
        raise ModelError(
            "model.classes",
            f"the model knows the classes {mine}, and the data has {theirs}",
            "fewlabels finetune on these classes",
        )
    places = np.array([saved.classes.index(name) for name in dataset.classes] + [-1], np.int64)
    return replace(dataset, classes=saved.classes, labels=places[dataset.labels])


def _goal(target: str | None) -> str:
    return "classes" if target is None else f"the number {escape(target)!r}"


def _named(names: tuple[str, ...]) -> str:
    shown = ", ".join(escape(name) for name in names[:20])
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"({shown}{more})" if names else "(none)"


def refuse_trained(config: dict[str, Any], split: str, data: str | None) -> None:
    """Refuse validation images that a run without ``--labels`` has learned from."""
    verb, settings = config.get("verb"), config.get("settings") or {}
    if (
        split == "val"
        and data is None
        and verb in ("run", "compare")
        and not settings.get("labels")
    ):
        raise DataError(
            "data.val_trained",
            f"without --labels, '{verb}' has learned from the validation images as well",
            "--split test",
        )
