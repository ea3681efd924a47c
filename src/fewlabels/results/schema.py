"""The names that scripts read, version 1: more may be added, none is renamed.

Unknown or unbounded is null; an interval covers 95 %.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from fewlabels.core.errors import ModelError, unknown
from fewlabels.results.files import plain
from fewlabels.results.rows import (
    Arm,
    Carried,
    Cell,
    ClassScore,
    ComparedWithoutCopies,
    Curve,
    Explained,
    Fit,
    Forecast,
    Interval,
    LabelConflict,
    Layout,
    Leak,
    Likeness,
    ListedCell,
    MapCheck,
    MissingCell,
    Painted,
    Prediction,
    Quarantined,
    ReachRow,
    Recipe,
    Record,
    SavingRow,
    Stopping,
    Suggestion,
    Suspect,
    Target,
    TargetSummary,
    Unlabelled,
    VerdictRow,
    Versioned,
    WithoutCopies,
)

__all__ = [
    "KINDS",
    "SCHEMA",
    "Arm",
    "Cell",
    "CellsResult",
    "Comparison",
    "Curve",
    "EvaluateResult",
    "ExplainResult",
    "ExportResult",
    "FinetuneResult",
    "InspectResult",
    "Interval",
    "ModelRow",
    "Prediction",
    "PretrainResult",
    "RunResult",
    "SavingRow",
    "Suggestion",
    "Suspect",
    "VerdictRow",
    "validate",
]

SCHEMA = 1

_OF_NUMBERS = ("mse", "mae", "r2")
_OF_CLASSES = (
    *("accuracy", "balanced_accuracy", "precision_macro", "recall_macro", "f1_macro"),
    *("nll", "ece", "brier", "per_class", "confusion"),
)


class InspectResult(Versioned):
    """What lies in a data set."""

    images: int
    labelled: int
    unlabelled: int
    classes: dict[str, int]
    splits: dict[str, int]
    unreadable: int
    quarantine: list[Quarantined]
    duplicates: list[list[str]]
    leaks: list[Leak]
    label_conflicts: list[LabelConflict] = Field(default_factory=list)
    imbalance: float | None
    warnings: list[str]
    likeness: Likeness | None = None
    target: TargetSummary | None = None


class PretrainResult(Versioned):
    """One run of a training stage: what was trained, what it cost, how it ended."""

    run: str
    method: str | None
    backbone: str | None
    parameters: int | None
    steps: int
    images_seen: int
    seconds: float
    images_per_second: float | None
    peak_memory_mb: float | None
    multiply_adds: int | None = None
    energy_joules: float | None = None
    final: dict[str, float | None]
    probe: Interval | None
    likeness: Likeness | None = None
    passes: float | None = None


class EvaluateResult(Versioned):
    """Scores on one split: of a classifier, or of a regressor."""

    run: str
    split: str
    n: int
    looks_at_test: int | None
    accuracy: Interval | None = None
    balanced_accuracy: Interval | None = None
    precision_macro: Interval | None = None
    recall_macro: Interval | None = None
    f1_macro: Interval | None = None
    nll: float | None = None
    ece: float | None = None
    brier: float | None = None
    per_class: list[ClassScore] | None = None
    confusion: list[list[int]] | None = None
    mse: Interval | None = None
    mae: Interval | None = None
    r2: Interval | None = None
    spearman: Interval | None = None
    target: Target | None = None
    pairs: list[tuple[float, float]] | None = None
    without_near_duplicates: WithoutCopies | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        given = self.model_fields_set
        if not (given.issuperset(_OF_CLASSES) or given.issuperset(_OF_NUMBERS)):
            raise ValueError(f"needs all of {_OF_CLASSES}, or all of {_OF_NUMBERS}")
        return self


class FinetuneResult(PretrainResult):
    """A fine-tuned classifier or regressor, and how it did on the validation images."""

    transfer: str
    start: str
    carried: Carried | None
    labels: dict[str, int]
    val: EvaluateResult | None
    stopping: Stopping | None = None
    unlabelled: Unlabelled | None = None


class ModelRow(Record):
    """Something that can be started from."""

    name: str
    parameters: int | None
    macs: int | None
    published_accuracy: float | None
    available: bool
    fit: Fit | None


class ExportResult(Versioned):
    """A model in a form that others read."""

    path: str
    format: str
    max_abs_difference: float
    bytes: int


class Comparison(Versioned):
    """Arms by shots by seeds, and the verdicts on them."""

    arms: list[Arm]
    auto: list[Recipe] = Field(default_factory=list)
    cells: list[Cell]
    curves: list[Curve]
    verdicts: list[VerdictRow]
    label_saving: list[SavingRow]
    forecast: list[Forecast]
    time_to_baseline: list[ReachRow] = Field(default_factory=list)
    primary: VerdictRow | None
    looks_at_test: int | None
    missing: list[MissingCell] = Field(default_factory=list)
    without_near_duplicates: ComparedWithoutCopies | None = None
    design: Layout | None = None
    labels_counted: Literal["in all"] | None = None
    encoder: Arm | None = None


class CellsResult(Versioned):
    """Cells of a comparison by their names, and which of them are done."""

    run: str
    cells: list[ListedCell]


class ExplainResult(Versioned):
    """What a network looks at: images with their maps and neighbours, and where the files lie."""

    run: str
    weights: str | None = None
    split: str | None
    looks_at_test: int | None
    images: list[Explained]
    maps: list[MapCheck]
    folder: str
    arrays: str
    filters: str | None
    embedding: str | None
    paintings: str | None
    target: Target | None = None
    embedding_arrays: str | None = None
    layout: Literal["code", "PCA", "t-SNE"] | None = None
    painted: list[Painted] = Field(default_factory=list)


class RunResult(Versioned):
    """The main job: from a folder to a verdict."""

    run: str
    report: str
    inspect: InspectResult
    compare: Comparison
    recipe: Recipe | None = None
    best: str | None
    test: EvaluateResult | None


KINDS: dict[str, type[Record]] = {
    "inspect": InspectResult,
    "pretrain": PretrainResult,
    "finetune": FinetuneResult,
    "evaluate": EvaluateResult,
    "explain": ExplainResult,
    "compare": Comparison,
    "cell": Cell,
    "cells": CellsResult,
    "run": RunResult,
    "predict": Prediction,
    "models": ModelRow,
    "suggest": Suggestion,
    "suspects": Suspect,
    "export": ExportResult,
}


def validate(kind: str, value: dict[str, Any]) -> dict[str, Any]:
    """Return `value` in JSON's types, checked against the names of its kind.

    Parameters
    ----------
    kind : str
        A key of `KINDS`; ``predict``, ``models``, ``suggest`` and
        ``suspects`` take one row.
    value : dict
        What `plain` takes; NaN and infinity become None.

    Returns
    -------
    dict
        The same fields, with ``"schema": 1`` first where the kind carries it.

    Raises
    ------
    UsageError
        The kind is unknown.
    ModelError
        A field is missing or of the wrong kind; every one is named.
    """
    if kind not in KINDS:
        raise unknown("result", kind, KINDS)
    model = KINDS[kind]
    known = {"schema": SCHEMA} if issubclass(model, Versioned) else {}
    whole: dict[str, Any] = plain(known | value)
    try:
        model.model_validate(whole)
    except ValidationError as error:
        raise ModelError("results.schema", f"not a {kind} result: {_fields(error)}") from error
    return whole


def _fields(error: ValidationError) -> str:
    items = error.errors(include_url=False)
    found = [f"{'.'.join(map(str, item['loc'])) or 'whole'}: {item['msg']}" for item in items]
    more = f"; and {len(found) - 10} more" if len(found) > 10 else ""
    return "; ".join(found[:10]) + more
