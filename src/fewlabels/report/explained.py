"""What the network looks at, and what pre-training painted: arrays as pictures in the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewlabels.explain import pictures
from fewlabels.report import words
from fewlabels.report.numbers import amount, amounts
from fewlabels.report.reading import Explanation, Painting
from fewlabels.report.words import Record, number, record, records

_SHOWN = 12  # images; the pictures of all lie in the folder
_PAINTINGS = 4  # encoders
_WORDS = {
    "grad_cam": "Grad-CAM: light where the last map speaks for the class",
    "integrated_gradients": "integrated gradients: orange pixels speak for it, blue ones against",
    "occlusion": "occlusion: orange where covering a place weakens it, blue where it strengthens",
}
_WORDS_OF_NUMBERS = {
    "grad_cam": "Grad-CAM: orange where the last map raises the number, blue where it lowers it",
    "integrated_gradients": "integrated gradients: orange pixels raise it, blue ones lower it",
    "occlusion": "occlusion: orange where covering a place lowers it, blue where that raises it",
}


def explanation(found: Explanation | None) -> Record | None:
    """Return images with maps and neighbours, what each map means, and what was withdrawn."""
    if found is None:
        return None
    rows = records(found.record.get("images"))
    checks = records(found.record.get("maps"))
    names = [name for name in pictures.MAP_NAMES if _fits(found.arrays, name)]
    views = found.arrays.get("views")
    if views is None or not _is_pictures(views):
        return None
    refused = [check.get("reason") for check in checks]
    tested = any(number(check.get("correlation")) is not None for check in checks)
    shown = min(len(rows), len(views), _SHOWN)
    target = record(found.record.get("target"))
    legend = _WORDS_OF_NUMBERS if target else _WORDS
    return {
        "images": [_image(p, rows[p], found.arrays, names, target) for p in range(shown)],
        "of_number": bool(target),
        "left_out": len(rows) - shown,
        "folder": Path(str(found.record.get("folder"))).name,
        "legend": [legend[name] for name in names],
        "checks": [_check(check) for check in checks] if tested else [],
        "unmapped": "" if tested else "; ".join(dict.fromkeys(words.texts(refused))),
        "filters": _filters(found.arrays.get("filters")),
    }


def _is_pictures(value: NDArray[Any]) -> bool:
    return value.ndim == 4 and value.dtype == np.uint8 and value.shape[3] in (1, 3)


def _fits(arrays: dict[str, NDArray[Any]], name: str) -> bool:
    """Whether there is a map of this name for every image."""
    maps, views = arrays.get(name), arrays.get("views")
    return maps is not None and views is not None and maps.shape == views.shape[:3]


def _image(
    place: int, row: Record, arrays: dict[str, NDArray[Any]], names: list[str], target: Record
) -> Record:
    view = arrays["views"][place]
    panels = [("the image", pictures.data_uri(view))]
    for name in names:
        signed = pictures.is_signed(name, number=bool(target))
        drawn = pictures.overlay(view, arrays[name][place], signed=signed)
        panels.append((pictures.MAP_NAMES[name], pictures.data_uri(drawn)))
    explained, predicted = row.get("explained"), row.get("predicted")
    unit = str(target.get("unit") or "")
    return {
        "number": amounts(row, unit) if target else None,
        "path": words.name_of(row.get("path")),
        "label": row.get("label"),
        "predicted": predicted,
        "probability": words.percent(row.get("probability")),
        "wrong": row.get("label") not in (None, predicted) and predicted is not None,
        "explained": explained if explained != predicted else None,
        "panels": panels,
        "tiny": max(view.shape[:2]) <= 48,
        "near": _near(place, row, arrays.get("near"), unit),
    }


def _near(place: int, row: Record, near: NDArray[Any] | None, unit: str) -> list[Record]:
    rows = records(row.get("neighbours"))
    if near is None or near.ndim != 5 or place >= len(near):
        return []
    return [
        {
            "path": words.name_of(one.get("path")),
            "label": one.get("label") if one.get("value") is None else amount(one["value"], unit),
            "similarity": f"{number(one.get('similarity')) or 0.0:.2f}",
            "picture": pictures.data_uri(picture, most=96),
        }
        for one, picture in zip(rows, near[place], strict=False)
    ]


def _check(row: Record) -> Record:
    correlation = number(row.get("correlation"))
    return {
        "name": pictures.MAP_NAMES.get(str(row.get("map")), str(row.get("map"))),
        "shown": bool(row.get("shown")),
        "correlation": words.MISSING if correlation is None else f"{correlation:.2f}",
        "reason": str(row.get("reason") or ""),
    }


def _filters(filters: NDArray[Any] | None) -> list[str]:
    if filters is None or not _is_pictures(filters):
        return []
    return [pictures.data_uri(one) for one in filters]


def paintings(found: list[Painting]) -> list[Record]:
    """Return what was painted at the end of pre-training: a title, and rows of pictures."""
    shown = []
    for one in found[:_PAINTINGS]:
        rows = [
            {"words": title, "pictures": [pictures.data_uri(p, most=96) for p in one.rows[name]]}
            for name, title in pictures.PAINTED.items()
            if name in one.rows and _is_pictures(one.rows[name])
        ]
        if rows:
            shown.append({"title": one.title, "rows": rows})
    return shown
