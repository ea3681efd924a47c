from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from fewlabels.core.errors import ModelError, UsageError
from fewlabels.results.schema import KINDS, validate

INTERVAL = {"value": 0.5, "low": 0.4, "high": None}
INSPECT = {
    **{"images": 3, "labelled": 2, "unlabelled": 1, "unreadable": 1, "imbalance": 1.0},
    **{"classes": {"a": 1, "b": 1}, "splits": {"train": 3}, "duplicates": [["x", "y"]]},
    "quarantine": [{"path": "z.jpg", "reason": "truncated"}],
    "leaks": [{"split_a": "train", "path_a": "x", "split_b": "test", "path_b": "y"}],
    "warnings": ["one image is unreadable"],
}
PRETRAIN = {
    **{"run": "runs/a", "method": "simclr", "backbone": "tiny", "parameters": 4, "steps": 2},
    **{"images_seen": 64, "seconds": 1.5, "images_per_second": 40.0, "peak_memory_mb": None},
    **{"final": {"loss": 1.0}, "probe": INTERVAL},
}
SCORES = ("accuracy", "balanced_accuracy", "precision_macro", "recall_macro", "f1_macro")
EVALUATE = {
    **{"run": "runs/a", "split": "test", "n": 2, "looks_at_test": 1},
    **dict.fromkeys(SCORES, INTERVAL),
    **{"nll": 0.1, "ece": None, "brier": 0.2, "confusion": [[1, 0], [0, 1]]},
    "per_class": [{"name": "a", "n": 1, "precision": None, "recall": 1.0, "f1": 1.0}],
}
REGRESSION = {
    **{"run": "runs/a", "split": "val", "n": 2, "looks_at_test": None},
    **{"mse": INTERVAL, "mae": INTERVAL, "r2": INTERVAL},
}
FINETUNE = PRETRAIN | {
    **{"transfer": "features", "start": "runs/a", "labels": {"a": 1}, "val": EVALUATE},
    "carried": {"carried": 3, "reshaped": 0, "new": 2, "skipped": 1},
}
CELL = {
    **{"id": "c", "arm": "simclr+features", "shots": 4, "seed": 0, "accuracy": 0.5},
    "streams": {"split": 0, "labels": 1, "pretraining": None, "training": 3},
    **{"seconds": 1.0, "steps": 2, "images_seen": 3, "peak_memory_mb": 1.0, "failed": None},
}
ROW = {"arm": "a", "baseline": "scratch", "shots": 4, "low": -0.1, "high": 0.2}
VERDICT = ROW | {"difference": 0.1, "verdict": "undecided", "detectable": 0.15}
ARM = {"name": "a", "start": "simclr", "method": "simclr", "backbone": "t", "transfer": "features"}
COMPARE = {
    **{"arms": [ARM], "cells": [CELL], "verdicts": [VERDICT], "primary": VERDICT},
    "curves": [{"arm": "a", "shots": 4, "seeds": 3, "mean": 0.5, "low": 0.4, "high": 0.6}],
    "label_saving": [ROW | {"factor": 2.0, "low": 1.0, "high": None}],
    "forecast": [{"arm": "a", "shots": 9, "value": 0.5, "low": 0.4, "high": 0.6}],
    "looks_at_test": 1,
}
RUN = {
    **{"run": "runs/a", "report": "report.html", "inspect": INSPECT, "compare": COMPARE},
    **{"best": "a", "test": EVALUATE},
}
PREDICT = {"path": "x.jpg", "label": "a", "probability": 0.9, "probabilities": {"a": 0.9}}
EXPLAIN = {
    **{"run": "runs/a", "split": "val", "looks_at_test": 0, "folder": "runs/a/records/explain-1"},
    **{"arrays": "arrays.npz", "filters": None, "embedding": "map.png", "paintings": None},
    "maps": [{"map": "occlusion", "shown": False, "correlation": None, "reason": "withdrawn"}],
    "images": [
        {
            **{"path": "x.jpg", "kind": "mistake", "label": "a", "predicted": "b"},
            **{"probability": 0.9, "explained": "b", "picture": "0001.png"},
            "neighbours": [{"path": "y.jpg", "label": None, "similarity": 0.5}],
        }
    ],
}
MODEL = {
    **{"name": "resnet18", "parameters": 4, "macs": None, "published_accuracy": None},
    **{"available": True, "fit": {"logme": -0.1, "knn": INTERVAL, "labels": 4}},
}
EXPORT = {"path": "out", "format": "timm", "max_abs_difference": 0.0, "bytes": 3}
SUGGEST = {"path": "x.jpg", "rank": 1, "score": 0.5, "reason": "like no other image"}
SUSPECT = {"path": "x.jpg", "label": "a", "suggested": "b", "score": 0.9}
CELLS = {
    "run": "runs/a",
    "cells": [
        {
            **{"id": "0f", "arm": "a", "shots": 4, "done": False, "failed": "the loss is nan"},
            "streams": {"split": 0, "labels": 1, "pretraining": None, "training": 7},
        }
    ],
}
EXAMPLES: dict[str, dict[str, Any]] = {
    **{"inspect": INSPECT, "pretrain": PRETRAIN, "finetune": FINETUNE, "evaluate": EVALUATE},
    **{"compare": COMPARE, "cell": CELL, "cells": CELLS, "run": RUN, "predict": PREDICT},
    **{"models": MODEL, "export": EXPORT, "explain": EXPLAIN},
    **{"suggest": SUGGEST, "suspects": SUSPECT},
}


def test_every_kind_has_an_example() -> None:
    assert set(EXAMPLES) == set(KINDS)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_examples_are_valid_and_come_back_unchanged(kind: str) -> None:
    whole = validate(kind, EXAMPLES[kind])
    assert {key: value for key, value in whole.items() if key != "schema"} == EXAMPLES[kind]
    assert ("schema" in whole) == (kind not in ("cell", "predict", "models", "suggest", "suspects"))
    assert validate(kind, whole) == whole


@pytest.mark.parametrize(
    ("kind", "field"), [(kind, field) for kind, value in EXAMPLES.items() for field in value]
)
def test_a_missing_name_is_named(kind: str, field: str) -> None:
    value = copy.deepcopy(EXAMPLES[kind])
    del value[field]
    if kind == "cell" and field == "accuracy":
        assert validate(kind, value) == value  # a regression has other scores
        return
    with pytest.raises(ModelError, match=field):
        validate(kind, value)


def test_regression_scores_are_enough() -> None:
    assert validate("evaluate", REGRESSION)["mse"] == INTERVAL


def test_more_names_are_kept_and_numbers_made_plain() -> None:
    value = EVALUATE | {"n": np.int64(2), "nll": np.nan, "extra": np.arange(2)}
    whole = validate("evaluate", value)
    assert (whole["n"], whole["nll"], whole["extra"]) == (2, None, [0, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": "maybe"}, "verdicts.0.verdict"),
        ({"low": 0.3}, "low 0.3 is above high 0.2"),
        ({"difference": "x"}, "verdicts.0.difference"),
    ],
)
def test_wrong_values_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        validate("compare", COMPARE | {"verdicts": [VERDICT | change]})


def test_newer_schema_and_unknown_kind_are_refused() -> None:
    with pytest.raises(ModelError, match="schema"):
        validate("inspect", INSPECT | {"schema": 2})
    with pytest.raises(UsageError, match="inspct"):
        validate("inspct", INSPECT)
