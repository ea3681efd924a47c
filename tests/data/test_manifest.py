"""The manifest: what is saved is what was known."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from fewlabels.core.errors import DataError
from fewlabels.data.listing import Strings
from fewlabels.data.manifest import COLUMNS, Digests, Manifest, assemble
from fewlabels.data.source import Source


def example() -> Manifest:
    source = Source(
        name="x",
        root=Path("nowhere"),
        paths=Strings.of(["a/1.jpg", "a/caf\udce9.jpg", "b.jpg"]),
        labels=["a", "a", None],
        splits=[None] * 3,
        sizes=np.zeros(3, np.int64),
        times=np.zeros(3, np.int64),
        targets=np.array([1.5, np.nan, 2]),
        groups=["g", None, None],
    )
    sha256 = np.zeros((3, 32), np.uint8)
    sha256[0] = np.frombuffer(hashlib.sha256(b"1").digest(), np.uint8)
    sha256[1, 31] = 1
    widths, heights = np.array([4, 5, 0]), np.array([6, 7, 0])
    split = np.array([0, 2, -1], np.int8)
    return assemble(source, split, sha256, (widths, heights), {2: "truncated"})


def test_a_row_an_image() -> None:
    manifest = example()
    assert len(manifest) == 3
    rows = [{name: manifest.column(name)[i] for name in COLUMNS.names} for i in range(3)]
    assert rows[0] == {
        "path": "a/1.jpg",
        "label": "a",
        "target": 1.5,
        "split": "train",
        "group": "g",
        "sha256": hashlib.sha256(b"1").hexdigest(),
        "width": 4,
        "height": 6,
        "issue": None,
    }
    assert rows[1]["path"] == "a/caf\\xe9.jpg"
    assert rows[1]["sha256"] == "0" * 63 + "1"
    assert (rows[1]["split"], rows[1]["target"]) == ("test", None)
    assert rows[2] == dict.fromkeys(COLUMNS.names) | {
        "path": "b.jpg",
        "target": 2.0,
        "issue": "truncated",
    }


def test_save_and_load(tmp_path: Path) -> None:
    manifest = example()
    manifest.save(tmp_path / "manifest.parquet")
    manifest.save(tmp_path / "manifest.parquet")
    assert Manifest.load(tmp_path / "manifest.parquet").table.equals(manifest.table)
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.parquet"]


def test_what_is_no_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no")
    pa.parquet.write_table(pa.table({"path": ["a"]}), tmp_path / "other.parquet")
    for name in ("gone", "text", "other"):
        with pytest.raises(DataError, match="cannot read the manifest"):
            Manifest.load(tmp_path / f"{name}.parquet")


def test_digests_are_text_on_demand() -> None:
    raw = np.frombuffer(b"".join(hashlib.sha256(bytes([i])).digest() for i in range(5)), np.uint8)
    digests = Digests(raw.reshape(5, 32))
    expected = [hashlib.sha256(bytes([i])).hexdigest() for i in range(5)]
    assert list(digests) == expected
    assert [digests[i] for i in range(-5, 0)] == expected
    assert list(digests[1:3]) == expected[1:3]
