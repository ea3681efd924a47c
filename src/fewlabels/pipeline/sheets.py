"""What is said of each explained image: its row in the result, and its sheet of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewlabels.data.listing import escape
from fewlabels.explain import pictures
from fewlabels.models.classifier import Saved
from fewlabels.pipeline.looking import Looked
from fewlabels.pipeline.subjects import Chosen
from fewlabels.pipeline.surroundings import Surroundings

Row = dict[str, Any]
Panels = list[tuple[str, list[tuple[str, pictures.Pixels]]]]


def row_of(
    place: int, saved: Saved, chosen: Chosen, found: Looked, around: Surroundings | None
) -> Row:
    """Return what a result says of the image at `place`, but for where its picture is."""
    subject = chosen.subjects[place]
    row: Row = {"path": subject.name, "kind": subject.kind, "label": subject.label}
    row |= {"predicted": None, "probability": None, "explained": None}
    if saved.target is not None and found.answers is not None:
        number, value = float(found.answers[place]), subject.value
        row |= {"value": value, "predicted": number}
        row["error"] = None if value is None else number - value
    elif found.answers is not None and found.targets is not None:
        shares = found.answers[place]
        row["predicted"] = escape(saved.classes[int(shares.argmax())])
        row["probability"] = float(shares.max())
        row["explained"] = escape(saved.classes[int(found.targets[place])])
    return row | {"neighbours": around.near[place] if around else []}


def panels(
    place: int, row: Row, found: Looked, around: Surroundings | None, target: Row | None
) -> Panels:
    """Return the rows of a sheet: the image with its maps, and its neighbours.

    Parameters
    ----------
    target : dict or None
        ``name`` and ``unit`` of the number that is predicted; None for classes.
    """
    view = found.views[place]
    cells = [("as the network sees it", view)]
    for name, maps in found.maps.items():
        signed = pictures.is_signed(name, number=target is not None)
        shown = pictures.overlay(view, maps[place], signed=signed)
        cells.append((pictures.MAP_NAMES[name], shown))
    unit = target["unit"] if target else ""
    rows = [(_title(row, unit), cells)]
    if around is not None:
        near = zip(around.near[place], around.pictures[place], strict=True)
        words = [(f"{one['similarity']:.2f} {_known(one, unit)}", p) for one, p in near]
        rows.append(("nearest training images, by cosine", words))
    return rows


def _known(one: Row, unit: str) -> str:
    """Return what is known of a neighbour."""
    if one.get("value") is not None:
        return _amount(one["value"], unit)
    return one["label"] or "(no label)"


def _amount(value: float, unit: str) -> str:
    return f"{value:.4g} {unit}".rstrip()


def _title(row: Row, unit: str) -> str:
    parts = [Path(row["path"]).name]
    if "error" in row:
        parts.append(f"predicted {_amount(row['predicted'], unit)}")
        if row["value"] is not None:
            parts.append(f"is {_amount(row['value'], unit)}")
        return "  |  ".join(parts)
    if row["predicted"] is not None:
        parts.append(f"called {row['predicted']}, {100 * row['probability']:.0f} %")
    if row["label"] is not None:
        parts.append(f"is {row['label']}")
    if row["explained"] != row["predicted"]:
        parts.append(f"maps are for {row['explained']}")
    return "  |  ".join(parts)
