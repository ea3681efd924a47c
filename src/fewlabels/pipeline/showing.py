"""The files of an explanation: a picture of each image, arrays, and what JSON tells of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewlabels.data.listing import escape
from fewlabels.explain import embedding, pictures
from fewlabels.explain.filters import first_filters
from fewlabels.models.classifier import Saved
from fewlabels.pipeline.looking import Looked
from fewlabels.pipeline.subjects import Chosen
from fewlabels.pipeline.surroundings import Surroundings
from fewlabels.results.files import to_json
from fewlabels.results.runfolder import RunFolder


@dataclass(slots=True)
class Files:
    """Writes the files that belong to the next record, and keeps their checksums."""

    folder: RunFolder
    sums: dict[str, str] = field(default_factory=dict)
    place: str = ""

    def __post_init__(self) -> None:
        self.place = f"records/explain-{self.folder.next_record('explain')}"

    def write(self, name: str, data: bytes | str) -> str:
        """Write a file and return its path, as a user would type it."""
        raw = data.encode() if isinstance(data, str) else data
        self.sums[name] = hashlib.sha256(raw).hexdigest()
        return str(self.folder.write_bytes(f"{self.place}/{name}", raw))


def write_explanation(
    files: Files,
    config: dict[str, Any],
    saved: Saved,
    chosen: Chosen,
    found: Looked,
    around: Surroundings | None,
) -> dict[str, Any]:
    """Write pictures and arrays; return the result, but for what is counted."""
    rows = [_row(place, saved, chosen, found, around) for place in range(len(chosen.subjects))]
    for place, row in enumerate(rows):
        drawn = pictures.sheet(_panels(place, row, found, around))
        row["picture"] = files.write(f"{place + 1:04d}.png", pictures.png(drawn))
    arrays = {"views": found.views, **found.maps}
    filters = first_filters(saved.backbone, saved.pictures)
    result: dict[str, Any] = {"schema": 1, "kind": "explain", "run": str(files.folder.path)}
    result |= {"name": _name(config), "split": chosen.split, "images": rows}
    result |= {"maps": found.checks, "folder": str(files.folder.path / files.place)}
    result |= {"filters": None, "embedding": None, "mistakes": None}
    if filters is not None:
        arrays["filters"] = filters
        result["filters"] = files.write("filters.png", pictures.png(pictures.grid(filters)))
    if around is not None:
        arrays["near"] = around.pictures
        packed = embedding.pack(around.xy, around.label, around.kind, around.classes)
        files.write("embedding.npz", packed)
        drawn = pictures.scatter(around.xy, around.label, around.kind, around.classes)
        result["embedding"] = files.write("embedding.png", pictures.png(drawn))
    if chosen.mistakes:
        result["mistakes"] = files.write("mistakes.json", to_json(chosen.mistakes) + "\n")
    result["arrays"] = files.write("arrays.npz", pictures.pack(arrays))
    result["paintings"] = _paintings(files.folder.path, config)
    return result | {"files": files.sums}


def _row(
    place: int, saved: Saved, chosen: Chosen, found: Looked, around: Surroundings | None
) -> dict[str, Any]:
    subject = chosen.subjects[place]
    row: dict[str, Any] = {"path": subject.name, "kind": subject.kind, "label": subject.label}
    row |= {"predicted": None, "probability": None, "explained": None}
    if found.probabilities is not None and found.targets is not None:
        shares = found.probabilities[place]
        row["predicted"] = escape(saved.classes[int(shares.argmax())])
        row["probability"] = float(shares.max())
        row["explained"] = escape(saved.classes[int(found.targets[place])])
    return row | {"neighbours": around.near[place] if around else []}


def _panels(
    place: int, row: dict[str, Any], found: Looked, around: Surroundings | None
) -> list[tuple[str, list[tuple[str, pictures.Pixels]]]]:
    """Return the rows of a sheet: the image with its maps, and its neighbours."""
    view = found.views[place]
    cells = [("as the network sees it", view)]
    for name, maps in found.maps.items():
        signed = name in pictures.SIGNED
        shown = pictures.overlay(view, maps[place], signed=signed)
        cells.append((pictures.MAP_NAMES[name], shown))
    panels = [(_title(row), cells)]
    if around is not None:
        near = zip(around.near[place], around.pictures[place], strict=True)
        words = [(f"{one['similarity']:.2f} {one['label'] or '(no label)'}", p) for one, p in near]
        panels.append(("nearest training images, by cosine", words))
    return panels


def _title(row: dict[str, Any]) -> str:
    parts = [Path(row["path"]).name]
    if row["predicted"] is not None:
        parts.append(f"called {row['predicted']}, {100 * row['probability']:.0f} %")
    if row["label"] is not None:
        parts.append(f"is {row['label']}")
    if row["explained"] != row["predicted"]:
        parts.append(f"maps are for {row['explained']}")
    return "  |  ".join(parts)


def _name(config: dict[str, Any]) -> str:
    return str((config.get("data") or {}).get("data") or "")


def _paintings(folder: Path, config: dict[str, Any]) -> str | None:
    """Return where the pictures lie that the pre-training has left, in this run or in its start."""
    start = (config.get("settings") or {}).get("start")
    for place in (folder, *([Path(str(start))] if start else [])):
        found = place / "figures" / "paintings.png"
        if found.exists():
            return str(found)
    return None
