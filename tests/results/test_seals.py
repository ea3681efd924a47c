"""Sealed files: every flipped bit is seen, and what an earlier version wrote is still read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fewlabels.core.errors import ModelError
from fewlabels.results.files import append_line, read_arrays, read_json, read_lines
from fewlabels.results.runfolder import RunFolder
from fewlabels.results.seals import read_sealed, write_sealed

BODY = {"steps": 250, "rate": 0.1, "name": "über-owl\udcff", "rows": [1, None], "in": {"a": 1}}


def flipped(raw: bytes, place: int, bit: int) -> bytes:
    return raw[:place] + bytes([raw[place] ^ 1 << bit]) + raw[place + 1 :]


def test_what_was_sealed_comes_back(tmp_path: Path) -> None:
    write_sealed(tmp_path / "a.json", BODY)
    assert read_sealed(tmp_path / "a.json") == BODY


def test_every_flipped_bit_is_seen_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_sealed(path, BODY)
    raw, silent = path.read_bytes(), []
    for place in range(len(raw)):
        for bit in range(8):
            path.write_bytes(flipped(raw, place, bit))
            try:
                found = read_sealed(path)
            except ModelError as error:
                assert error.code == "run.damaged"
                continue
            # Between the values, or in the name of the seal: what was sealed is all there.
            if {name: found.get(name) for name in BODY} != BODY:
                silent.append((place, bit))
    assert silent == []


def test_files_without_a_seal_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"steps": 3}')
    assert read_sealed(tmp_path / "a.json") == {"steps": 3}
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(ModelError, match="no names"):
        read_sealed(tmp_path / "a.json")


def test_lines_with_a_flipped_bit_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for step in range(3):
        append_line(path, {"step": step, "loss": 0.25})
    assert read_lines(path) == [{"step": step, "loss": 0.25} for step in range(3)]
    path.write_bytes(path.read_bytes().replace(b'"step": 1', b'"step": 3'))
    assert [row["step"] for row in read_lines(path)] == [0, 2]
    path.write_text('{"step": 7}\n')  # as an earlier version wrote them
    assert read_lines(path) == [{"step": 7}]


def test_arrays_with_a_flipped_bit_are_refused_or_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    arrays = {"scores": np.arange(40, dtype=np.float32), "names": np.array(["a", "bc"])}
    np.savez_compressed(path, **arrays)
    raw, refused = path.read_bytes(), 0
    for place in range(len(raw)):
        path.write_bytes(flipped(raw, place, place % 8))
        try:
            found = read_arrays(path)
        except ModelError as error:
            assert error.code == "run.damaged"
            refused += 1
            continue
        same = [name for name in arrays if name in found and (found[name] == arrays[name]).all()]
        assert len(same) == 2 or found.keys() != arrays.keys()
    assert refused > len(raw) / 2


def test_json_nested_without_end_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match="not valid JSON"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("name", ["config.yaml", "results.json", "manifest.parquet"])
def test_a_finished_run_is_not_read_once_damaged(tmp_path: Path, name: str) -> None:
    with RunFolder(tmp_path / "run") as run:
        run.write_config({"verb": "pretrain", "seed": 1})
        run.write_json("results.json", {"accuracy": 0.75})
        run.write_bytes("manifest.parquet", b"rows")
        run.finish()
    assert run.config()["seed"] == 1
    path = run.path / name
    path.write_bytes(flipped(path.read_bytes(), 2, 0))
    with pytest.raises(ModelError, match=f"{name} is damaged"):
        run.require(name)
    run.require(*{"config.yaml", "results.json"} - {name})


def test_a_damaged_list_of_checksums_is_no_reason_to_trust(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        run.write_config({"seed": 1})
        run.finish()
    (run.path / "checksums.json").write_text(json.dumps({"schema": 1, "filez": {}}))
    with pytest.raises(ModelError, match=r"checksums.json is damaged"):
        run.config()
