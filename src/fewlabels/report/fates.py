"""What became of the tensors of a start: the table of those that were not carried whole."""

from __future__ import annotations

from typing import Any

from fewlabels.report import words
from fewlabels.report.words import Record, number, records

_OPEN = 12  # rows; a longer table is folded
_MOST = 400  # rows; results.json holds all
_READING = {
    "reshaped": "reshaped tensors have another shape, and what overlaps was kept (a first "
    "convolution between grey and colour is summed or spread)",
    "new": "new ones were drawn at random",
    "skipped": "skipped ones have no place here",
}


def fates(results: Record) -> Record | None:
    """Return the tensors that were reshaped, new or skipped.

    Returns
    -------
    dict or None
        ``rows`` of name, fate, shape before and now, ``carried`` (how many were carried whole),
        ``folded``, ``left_out`` and ``reading``; None where nothing is told of tensors.
    """
    told = [row for row in records(results.get("tensors")) if row.get("name")]
    if not told:
        return None
    changed = [row for row in told if row.get("fate") != "carried"]
    kinds = [text for kind, text in _READING.items() if any(r.get("fate") == kind for r in changed)]
    return {
        "rows": [_row(row) for row in changed[:_MOST]],
        "carried": words.count(len(told) - len(changed)),
        "changed": words.count(len(changed)),
        "folded": len(changed) > _OPEN,
        "left_out": max(0, len(changed) - _MOST),
        "reading": "; ".join(kinds),
    }


def _row(row: Record) -> tuple[str, str, str, str]:
    name, fate = words.name_of(row["name"]), words.name_of(row.get("fate"))
    return name, fate, _shape(row.get("before")), _shape(row.get("shape"))


def _shape(value: Any) -> str:
    sides = [number(side) for side in value] if isinstance(value, list) else []
    return words.TIMES.join(f"{side:g}" for side in sides if side is not None) or words.MISSING
