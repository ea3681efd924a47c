"""The page shows what `explain` left in the folder, and what it must not show it does not."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewlabels.report import write_report
from fewlabels.results.runfolder import RunFolder

pytestmark = pytest.mark.medium


def page_of(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def record_again(folder: Path, **changes: Any) -> None:
    """Add a changed copy of the explanation, which then is the last."""
    (found,) = RunFolder(folder).records("explain")
    with RunFolder(folder) as run:
        run.add_record("explain", found | changes)


def test_images_maps_neighbours_and_checks(folder: Path) -> None:
    page = page_of(folder)
    assert page.count("<figcaption>Grad-CAM</figcaption>") == 3
    assert page.count("<figcaption>integrated gradients</figcaption>") == 3
    assert "<figcaption>occlusion</figcaption>" not in page  # withdrawn
    assert "withdrawn: alike" in page and "0.06" in page
    assert page.count("<bdi>no label</bdi> 0.50") == 3
    assert page.count("maps are for") == 3
    assert 'href="#explained"' in page
    assert "What the pre-training paints" in page and "painted from its code" in page


def test_pictures_are_those_of_the_arrays(folder: Path) -> None:
    with np.load(folder / "figures" / "paintings.npz") as arrays:
        expected = arrays["painted"][3]
    painted = page_of(folder).partition("painted from its code</p>")[2]
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', painted)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures[3]))))
    np.testing.assert_array_equal(shown, expected[:, :, 0])


def test_hostile_names_and_odd_arrays_do_no_harm(folder: Path, hostile: str) -> None:
    (found,) = RunFolder(folder).records("explain")
    rows = [row | {"path": hostile, "predicted": hostile} for row in found["images"]]
    record_again(folder, images=rows)
    assert hostile not in page_of(folder)
    np.savez(
        folder / "records" / "explain-1" / "arrays.npz",
        views=np.zeros((2, 8, 8, 3), np.uint8),  # fewer than images
        grad_cam=np.zeros((2, 9, 9)),  # of another size
        near=np.zeros((1, 2, 8, 8, 3), np.uint8),
        filters=np.zeros((2, 2)),
    )
    page = page_of(folder)
    assert "What it looks at" in page and "<figcaption>Grad-CAM</figcaption>" not in page


def test_a_damaged_file_is_named_and_a_damaged_record_is_left_out(folder: Path) -> None:
    (folder / "records" / "explain-1" / "arrays.npz").write_bytes(b"PK torn")
    page = page_of(folder)
    assert "records/explain-1/arrays.npz: " in page
    assert "What it looks at" not in page
    record = folder / "records" / "explain-1.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"run": "changed"}))
    assert "arrays.npz" not in page_of(folder)


def test_without_explanations_nothing_is_said(folder: Path) -> None:
    (folder / "records" / "explain-1.json").unlink()
    (folder / "figures" / "paintings.npz").unlink()
    page = page_of(folder)
    assert "What it looks at" not in page and "What the pre-training paints" not in page
    assert 'href="#explained"' not in page


def test_a_run_that_tells_less_borrows_map_and_mistakes(folder: Path) -> None:
    place = folder / "records" / "explain-1"
    (folder / "figures" / "embedding.npz").rename(place / "embedding.npz")
    (folder / "mistakes.json").rename(place / "mistakes.json")
    page = page_of(folder)
    assert "How the network sees the images" in page
    assert "Its most confident mistakes" in page
