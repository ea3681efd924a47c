"""The files of an explanation: a picture of each image, arrays, and what JSON tells of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewlabels.explain import embedding, pictures
from fewlabels.explain.filters import first_filters
from fewlabels.models.classifier import Saved
from fewlabels.pipeline.looking import Looked
from fewlabels.pipeline.sheets import panels, row_of
from fewlabels.pipeline.subjects import Chosen
from fewlabels.pipeline.surroundings import Surroundings
from fewlabels.results.files import to_json
from fewlabels.results.runfolder import RunFolder


@dataclass(slots=True)
class Files:
    """Writes the files that belong to the next record, and keeps their checksums."""

    folder: RunFolder
    kind: str = "explain"
    sums: dict[str, str] = field(default_factory=dict)
    place: str = ""

    def __post_init__(self) -> None:
        self.place = f"records/{self.kind}-{self.folder.next_record(self.kind)}"

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
    target: dict[str, str] | None,
) -> dict[str, Any]:
    """Write pictures and arrays; return the result, but for what is counted."""
    rows = [row_of(place, saved, chosen, found, around) for place in range(len(chosen.subjects))]
    for place, row in enumerate(rows):
        drawn = pictures.sheet(panels(place, row, found, around, target))
        row["picture"] = files.write(f"{place + 1:04d}.png", pictures.png(drawn))
    arrays = {"views": found.views, **found.maps}
    filters = first_filters(saved.backbone, saved.pictures)
    result: dict[str, Any] = {"schema": 1, "kind": "explain", "run": str(files.folder.path)}
    result |= {"name": _name(config), "split": chosen.split, "images": rows, "target": target}
    result |= {"maps": found.checks, "folder": str(files.folder.path / files.place)}
    result |= {"filters": None, "mistakes": None}
    result |= {"embedding": None, "embedding_arrays": None, "layout": None}
    if filters is not None:
        arrays["filters"] = filters
        result["filters"] = files.write("filters.png", pictures.png(pictures.grid(filters)))
    if around is not None:
        arrays["near"] = around.pictures
        result |= _write_map(files, around)
    if chosen.mistakes:
        result["mistakes"] = files.write("mistakes.json", to_json(chosen.mistakes) + "\n")
    result["arrays"] = files.write("arrays.npz", pictures.pack(arrays))
    painted = _painted(files.folder.path, config)
    result |= {"paintings": painted[0]["picture"] if painted else None, "painted": painted}
    return result | {"files": files.sums}


def _write_map(files: Files, around: Surroundings) -> dict[str, Any]:
    """Write the map of images, drawn and as arrays."""
    places = (around.xy, around.label, around.kind, around.classes)
    drawn = pictures.scatter(*places, ordered=around.ordered)
    packed = embedding.pack(*places, ordered=around.ordered, layout=around.layout)
    return {
        "embedding": files.write("embedding.png", pictures.png(drawn)),
        "embedding_arrays": files.write("embedding.npz", packed),
        "layout": around.layout,
    }


def _name(config: dict[str, Any]) -> str:
    return str((config.get("data") or {}).get("data") or "")


def _painted(folder: Path, config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what pre-trainings have left: this run's own, its start's, those of its encoders."""
    start = (config.get("settings") or {}).get("start")
    places = [folder, *([Path(str(start))] if start else [])]
    places += sorted((folder / "encoders").glob("*"))
    return [
        {
            "encoder": None if place == folder else place.name,
            "picture": str(place / "figures" / "paintings.png"),
            "arrays": str(place / "figures" / "paintings.npz"),
        }
        for place in places
        if (place / "figures" / "paintings.npz").exists()
    ]
