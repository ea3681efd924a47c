"""How one classifier does on held-out images: confusion, classes, mistakes."""

from __future__ import annotations

import base64
import binascii
import re
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewlabels.report import words
from fewlabels.report.measures import measure_of
from fewlabels.report.words import Record, number, record, records

_NUMBERED, _SHADED, _PAIRS, _BARS, _MISTAKES = 12, 40, 10, 30, 24
_PICTURE = re.compile(r"data:image/(png|jpeg|webp);base64,([A-Za-z0-9+/]+={0,2})\Z")
_NAMES = {
    **words.METRICS,
    "nll": "log loss",
    "ece": "calibration error",
    "brier": "Brier score",
    "mse": "mean squared error",
    "mae": "mean absolute error",
    "r2": "R²",
    "spearman": "rank correlation",
}
_PLAIN = ("nll", "brier")
_OF_NUMBERS = ("mse", "mae", "r2", "spearman")


def class_names(evaluation: Record) -> list[str]:
    """Return class names in the order of the confusion matrix."""
    return [words.name_of(row.get("name")) for row in records(evaluation.get("per_class"))]


def score_rows(evaluation: Record) -> list[tuple[str, str, str]]:
    """Return name, value and interval of every overall score that is known."""
    rows = []
    for key, name in _NAMES.items():
        if evaluation.get(key) is None:
            continue
        value, spread = words.interval(evaluation[key])
        if key in _OF_NUMBERS:
            value, spread = _number(evaluation, key)
        elif key in _PLAIN:
            value, spread = _plain(evaluation[key]), ""
        else:
            value += " %" if value != words.MISSING else ""
        rows.append((name, value, spread))
    return rows


def _number(evaluation: Record, key: str) -> tuple[str, str]:
    """Return a score of predicted numbers in its unit, and its interval."""
    measure = measure_of(key, record(evaluation.get("target")))
    value, spread = measure.interval(evaluation[key])
    return f"{value} {measure.unit}".rstrip(), spread


def _plain(value: Any) -> str:
    found = number(value.get("value") if isinstance(value, dict) else value)
    return words.MISSING if found is None else f"{found:.3f}"


def confusion(evaluation: Record, names: list[str]) -> Record | None:
    """Return the matrix as shaded cells (up to 40 classes) and the most confused pairs.

    Returns
    -------
    dict or None
        ``rows`` of ``(name, [(count, share, note)])``, empty beyond 40 classes;
        ``pairs`` most frequent first; None where there is no square matrix.
    """
    matrix = _square(evaluation.get("confusion"))
    if matrix is None:
        return None
    size = len(matrix)
    names = names if len(names) == size else [f"class {i}" for i in range(size)]
    totals = np.maximum(matrix.sum(axis=1, keepdims=True), 1.0)
    shares = matrix / totals
    return {
        "names": names,
        "size": size,
        "numbered": size <= _NUMBERED,
        "rows": _matrix_rows(matrix, shares, names) if size <= _SHADED else [],
        "pairs": _pairs(matrix, shares, names),
    }


def _square(value: Any) -> NDArray[np.float64] | None:
    try:
        matrix = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] and matrix.size > 0
    return np.nan_to_num(matrix) if square else None


def _matrix_rows(
    matrix: NDArray[np.float64], shares: NDArray[np.float64], names: list[str]
) -> list[tuple[str, list[Record]]]:
    return [
        (
            name,
            [
                {
                    "count": f"{matrix[i, j]:g}",
                    "share": round(float(shares[i, j]), 3),
                    "tone": _tone(float(shares[i, j]), i == j),
                    "note": f"{name} called {names[j]}: {matrix[i, j]:g} ({shares[i, j]:.1%})",
                }
                for j in range(len(names))
            ],
        )
        for i, name in enumerate(names)
    ]


def _tone(share: float, right: bool) -> str:
    """Return CSS classes; ``mid`` and ``deep`` are where dark and light pages flip the ink."""
    tones = ["right" if right else "wrong", *(["mid"] if share > 0.6 else [])]
    return " ".join([*tones, *(["deep"] if share > 0.85 else [])])


def _pairs(
    matrix: NDArray[np.float64], shares: NDArray[np.float64], names: list[str]
) -> list[Record]:
    off = matrix * (1 - np.eye(len(matrix)))
    most = np.argsort(-off, axis=None, kind="stable")[:_PAIRS]
    where = [(int(k) // len(matrix), int(k) % len(matrix)) for k in most]
    return [
        {"true": names[i], "called": names[j], "count": f"{off[i, j]:g}", "share": shares[i, j]}
        for i, j in where
        if off[i, j] > 0
    ]


def per_class(evaluation: Record) -> Record | None:
    """Return recall and F1 of each class, weakest first; beyond 30 classes the rest apart."""
    rows: list[Record] = [
        {
            "name": words.name_of(row.get("name")),
            "n": words.count(row.get("n")),
            "precision": words.percent(row.get("precision")),
            "recall": words.percent(row.get("recall")),
            "f1": words.percent(row.get("f1")),
            "recall_bar": _bar(row.get("recall")),
            "f1_bar": _bar(row.get("f1")),
        }
        for row in records(evaluation.get("per_class"))
    ]
    if not rows:
        return None
    rows.sort(key=lambda row: row["f1_bar"])
    cut = _BARS if len(rows) > _BARS else len(rows)
    return {"rows": rows[:cut], "rest": rows[cut:], "total": len(rows)}


def _bar(share: Any) -> float:
    return round(100 * min(max(number(share) or 0.0, 0.0), 1.0), 1)


def mistakes(found: list[Record]) -> list[Record]:
    """Return the worst mistakes with safe pictures; a picture that is not one is left out."""
    return [
        {
            "path": words.name_of(row.get("path")),
            "label": words.name_of(row.get("label")),
            "predicted": words.name_of(row.get("predicted")),
            "probability": words.percent(row.get("probability")),
            **picture(row.get("thumbnail")),
        }
        for row in found[:_MISTAKES]
        if "label" in row
    ]


def picture(value: Any) -> Record:
    """Accept base64 pictures alone, so that no address can slip into the page."""
    match = _PICTURE.match(value) if isinstance(value, str) else None
    if match is None:
        return {"picture": "", "tiny": False}
    return {"picture": match.group(0), "tiny": match.group(1) == "png" and _width(match[2]) <= 48}


def _width(encoded: str) -> int:
    """Return the width in a PNG header, so that tiny pictures are enlarged without blur."""
    try:
        head = base64.b64decode(encoded[:32])
        return int(struct.unpack(">I", head[16:20])[0])
    except (binascii.Error, struct.error):
        return 0
