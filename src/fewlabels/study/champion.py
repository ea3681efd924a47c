"""The chosen arm's model: fitted, scored on test, saved, and looked at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fewlabels.explain.embedding import TEST, UNLABELLED, embedding_map, pack
from fewlabels.models.classifier import Classifier, save_model
from fewlabels.pipeline.copies import scored
from fewlabels.pipeline.frozen import features
from fewlabels.pipeline.stages import score
from fewlabels.pipeline.task import Task
from fewlabels.results.runfolder import RunFolder
from fewlabels.study.cells import fit
from fewlabels.study.encoders import Encoder, open_encoder, task_of
from fewlabels.study.grid import Comparison
from fewlabels.study.plan import training_seed
from fewlabels.training.progress import Reporter


def crown(run: RunFolder, comparison: Comparison, reporter: Reporter) -> dict[str, Any] | None:
    """Fit the chosen arm on the first draw at the most labels, score it and keep it.

    Writes ``model/``, ``mistakes.json`` and ``figures/embedding.npz``.

    Returns
    -------
    dict or None
        As `evaluate`; None where nothing was chosen, and of a cross-validation, whose last
        classifier learns from every label and has no test image left.
    """
    shots = max(comparison.shots)
    chosen = [c for c in comparison.choices if c["shots"] == shots]
    if not chosen:
        return None
    reporter.say(f"best at {shots or 'all'} labels: {chosen[0]['name']} ({chosen[0]['reason']})")
    arm = next(a for a in comparison.arms if a.name == chosen[0]["name"]).at(shots)
    unit, draw = comparison.units[0], comparison.units[0].draws[0]
    task = comparison.own(unit)
    if comparison.task.dataset.folds:  # what was measured on folds is fitted to all labels
        task = replace(comparison.task, pictures=task.pictures)
    rows = comparison.rows(task, shots, draw)
    encoder = open_encoder(task, arm, unit, comparison.steps, rows, run.path, reporter)
    task = task_of(arm, encoder, task)
    seed = training_seed(arm, shots, unit, draw)
    classifier = fit(task, arm, encoder, rows, comparison.steps, seed).classifier
    save_model(
        run.path / "model",
        classifier.backbone,
        arm.into or encoder.backbone_name,
        task.pictures,
        short_side=task.dataset.store.short_side,
        head=classifier.head,
        **task.goal.model,
        grid=classifier.grid,
    )
    test = rows[:0] if task.dataset.folds else task.dataset.rows("test")
    _write_map(run, task, classifier, encoder, rows, test)
    if not len(test):
        return None
    predictions = score(task, classifier, test)
    run.write_json("mistakes.json", task.goal.mistakes(test, predictions))
    scores = scored(task.dataset, test, predictions)
    return {"schema": 1, "run": str(run.path), "split": "test", **scores, "looks_at_test": None}


def _write_map(
    run: RunFolder,
    task: Task,
    classifier: Classifier,
    encoder: Encoder,
    rows: np.ndarray,
    test: np.ndarray,
) -> None:
    others = encoder.space.rows[~np.isin(encoder.space.rows, rows)][:UNLABELLED]
    held = test[np.linspace(0, len(test) - 1, min(len(test), TEST)).astype(np.int64)]
    labelled = rows[:UNLABELLED]
    places = np.concatenate([labelled, others, held])
    xy, layout = embedding_map(features(task, classifier.backbone, places))
    # The labels of the unlabelled are hidden from the user's eyes as from the models'.
    codes, names = task.goal.colours(np.concatenate([labelled, held]))
    first, rest = codes[: len(labelled)], codes[len(labelled) :]
    label = np.concatenate([first, np.full(len(others), -1), rest])
    kind = np.repeat(["labelled", "unlabelled", "test"], [len(labelled), len(others), len(held)])
    packed = pack(xy, label, kind, names, ordered=not task.num_classes, layout=layout)
    run.write_bytes("figures/embedding.npz", packed)
