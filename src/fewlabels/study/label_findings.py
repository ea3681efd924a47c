"""What a labelling study found: ``comparison.json`` and a table."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fewlabels.pipeline.keys import test_key
from fewlabels.results.environment import describe
from fewlabels.results.ledger import look
from fewlabels.results.runfolder import RunFolder
from fewlabels.results.schema import validate
from fewlabels.study.arms import Arm
from fewlabels.study.label_cells import LabelStudy, encoder_warnings
from fewlabels.study.summary import sentence, summarise

RESULT = "comparison.json"


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """What a study is asked, as the user said it; part of its configuration."""

    start: str
    arms: tuple[str, ...]
    baseline: str
    labels: tuple[int, ...]
    seeds: int
    pretraining_seeds: int
    seed: int
    budget: str
    metric: str
    policy: str
    backbone: str
    device: str


def declared(settings: LabelSettings) -> dict[str, Any]:
    """Return the verdict declared before the run: of what `suggest` does at a cold start."""
    others = [name for name in settings.arms if name != settings.baseline]
    first = next((name for name in ("auto", "coverage", "typicality") if name in others), others[0])
    return {
        "arm": first,
        "baseline": settings.baseline,
        "shots": min(settings.labels),
        "metric": settings.metric,
    }


def conclude(
    run: RunFolder,
    study: LabelStudy,
    settings: LabelSettings,
    cells: list[dict[str, Any]],
    command: str,
) -> dict[str, Any]:
    """Sum the cells up, write ``comparison.json`` and return it."""
    dataset = study.task.dataset
    test, train = len(dataset.rows("test")), len(dataset.rows("train"))
    about = declared(settings)
    found = summarise(
        cells,
        [_strategy_arm(study.arm, name) for name in settings.arms],
        about,
        baseline=settings.baseline,
        overlap=test / max(train, 1),
        cell_folder=run.path / "cells",
    )
    if found["primary"]:
        found["primary"]["sentence"] = sentence(found["primary"], whole=True)
    result = {
        "schema": 1,
        "kind": "comparison",
        "labels_counted": "in all",
        "run": str(run.path),
        "name": dataset.name,
        "command": command,
        "declared": about,
        "encoder": study.arm.describe(),
        "arms": [_described(study.arm, name) for name in settings.arms],
        "cells": cells,
        **found,
        "best": None,
        "design": _design(study, settings, train, test),
        "inspect": dataset.report,
        "environment": describe(str(study.task.device)),
        "config": {**asdict(settings), "plan": asdict(study.steps)},
        "looks_at_test": look(test_key(study.task), f"study label {dataset.name}"),
        "warnings": [*dataset.report["warnings"], *encoder_warnings(study)],
    }
    checked = validate("compare", result)
    run.write_json(RESULT, checked)
    return checked


def _design(study: LabelStudy, settings: LabelSettings, train: int, test: int) -> dict[str, Any]:
    return {
        "splits": len({unit.split for unit in study.units}),
        "draws": len({(u.split, d) for u in study.units for d in u.draws}),
        "pretraining_seeds": len(study.units),
        "budget": settings.budget,
        "images_train": train,
        "images_test": test,
        "splits_given": study.task.dataset.splits_given,
    }


_WORDS = {
    "auto": "as 'fewlabels suggest' chooses by the labels there are",
    "coverage": "one by one, the image that raises most how well labelled images stand for all",
    "typicality": "the densest image of each of the largest clusters without a label",
    "spread_margin": "doubtful images of different looks; begins at random",
    "margin": "the most doubtful images; begins at random",
    "badge": "k-means++ over the gradients of guessed labels; begins at random",
    "coreset": "one by one, the image farthest from all labelled ones",
    "uniform": "at random",
    "class_balanced": "at random, as many of each class: it knows the labels",
}


def _strategy_arm(arm: Arm, name: str) -> Arm:
    """Return a strategy as statistics see arms: no reason of a pre-training explains its score."""
    return replace(arm, name=name, start="labelling", given=None)


def _described(arm: Arm, name: str) -> dict[str, Any]:
    about = {"name": name, "start": "labelling", "method": None, "backbone": arm.backbone}
    return {**about, "transfer": arm.transfer, "description": _WORDS[name]}


def table_csv(result: dict[str, Any]) -> str:
    """Return a line for each strategy and budget: its mean score, and its verdict."""
    metric = result["declared"]["metric"]
    verdicts = {(row["arm"], row["shots"]): row for row in result["verdicts"]}
    head = ["strategy", "labels", "classes_found", "repeats", metric, "low", "high"]
    against = ["difference", "difference_low", "difference_high", "verdict"]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*head, *against])
    for row in result["curves"]:
        key = (row["arm"], row["shots"])
        own = [c["classes_found"] for c in result["cells"] if (c["arm"], c["shots"]) == key]
        judged = verdicts.get(key, {})
        told = [judged.get(name) for name in ("difference", "low", "high", "verdict")]
        scores = [row["seeds"], row["mean"], row["low"], row["high"]]
        table.writerow([*key, round(float(np.mean(own)), 2), *scores, *told])
    return text.getvalue()
