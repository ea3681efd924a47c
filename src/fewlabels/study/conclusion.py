"""The end of a comparison: everything summed up into ``comparison.json``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fewlabels.core.errors import ModelError
from fewlabels.evaluation.reaching import time_to_baseline
from fewlabels.pipeline.keys import test_key
from fewlabels.results.environment import describe
from fewlabels.results.files import read_json
from fewlabels.results.ledger import look
from fewlabels.results.runfolder import RunFolder
from fewlabels.results.schema import validate
from fewlabels.study.auto import told
from fewlabels.study.copies import without_copies
from fewlabels.study.folding import count_encoders, images_of, reason
from fewlabels.study.grid import Comparison
from fewlabels.study.summary import summarise
from fewlabels.training.durations import parse_duration


def conclude(run: RunFolder, comparison: Comparison, command: str) -> dict[str, Any]:
    """Sum the cells up, write ``comparison.json`` and return it."""
    task, settings = comparison.task, comparison.settings
    train, test = images_of(task)
    folds = task.dataset.folds
    last = [choice for choice in comparison.choices if choice["shots"] == max(comparison.shots)]
    found = summarise(
        comparison.cells,
        comparison.arms,
        comparison.declared,
        baseline=settings.baseline,
        overlap=test / max(train, 1),
        folds=folds,
        cell_folder=run.path / "cells",
        # The labels that a choice is made on are test images of other folds.
        chosen=last[0]["name"] if last and not folds else None,
        classes=task.num_classes,
    )
    result = {
        "schema": 1,
        "kind": "comparison",
        "run": str(run.path),
        "name": task.dataset.name,
        "command": command,
        "declared": comparison.declared,
        "arms": [arm.describe() for arm in comparison.arms],
        "auto": told(comparison.steps.recipes),
        "cells": comparison.cells,
        "missing": comparison.missing,
        **found,
        "time_to_baseline": time_to_baseline(
            comparison.cells,
            [arm.name for arm in comparison.arms],
            settings.baseline,
            metric=settings.metric,
        ),
        "without_near_duplicates": without_copies(comparison),
        "best": last[0] if last else None,
        "choices": comparison.choices,
        "design": {
            "splits": len({unit.split for unit in comparison.units}),
            "draws": len({(0 if folds else u.split, d) for u in comparison.units for d in u.draws}),
            "pretraining_seeds": count_encoders(comparison.units),
            "folds": folds or None,
            "folded_because": reason(task, settings.folds) or None,
            "budget": settings.budget,
            "budget_seconds": _seconds(settings.budget),
            "images_train": train,
            "images_test": test,
            "splits_given": task.dataset.splits_given,
        },
        "inspect": task.dataset.report,
        "environment": describe(str(task.device)),
        "config": {**asdict(settings), "plan": asdict(comparison.steps)},
        "seconds": sum(c["transfer_seconds"] for c in comparison.cells if not c["failed"])
        + _pretraining_seconds(comparison),
        "looks_at_test": _looks(run, comparison),
        "warnings": [*task.dataset.report["warnings"], *dict.fromkeys(comparison.warnings)],
    }
    checked = validate("compare", result)
    run.write_json("comparison.json", checked)
    return checked


def _looks(run: RunFolder, comparison: Comparison) -> int | None:
    """Count this look at the test set, unless the folder shows the same cells already."""
    try:
        shown = read_json(run.path / "comparison.json")
        if shown["cells"] == comparison.cells:
            looks: int | None = shown["looks_at_test"]
            return looks
    except (ModelError, KeyError, TypeError):
        pass
    return look(test_key(comparison.task), f"compare {comparison.task.dataset.name}")


def _pretraining_seconds(comparison: Comparison) -> float:
    """Return the seconds of all pre-trainings, each counted once."""
    sharing = {unit.split for unit in comparison.units if unit.shared}
    arms = {arm.name: arm for arm in comparison.arms}
    seen: dict[tuple[Any, ...], float] = {}
    for cell in comparison.cells:
        if not cell["failed"] and cell["pretrain_seconds"]:
            streams = cell["streams"]
            split = "all" if streams["split"] in sharing else streams["split"]
            method = arms[cell["arm"]].at(cell["shots"]).counted.partition("+")[0]
            seen[method, split, streams["pretraining"]] = cell["pretrain_seconds"]
    return sum(seen.values())


def _seconds(budget: str) -> float | None:
    duration = parse_duration(budget)
    return duration.value if duration.unit == "seconds" else None
