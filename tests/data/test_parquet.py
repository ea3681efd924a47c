"""Parquet files with the images inside read as a folder of the same pictures would."""

from __future__ import annotations

import io
import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from fewlabels.core.errors import DataError
from fewlabels.data import cells
from fewlabels.data.dataset import open_dataset
from fewlabels.data.sources import Source, read_source
from fewlabels.data.store import MappedStore, StreamingStore, open_store

NAMES = ["cat", "dog"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWLABELS_CACHE", str(tmp_path / "cache"))


def png(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "png")
    return file.getvalue()


def shard(
    path: Path,
    seeds: range,
    *,
    names: list[str] | None = None,
    label: str = "label",
    image: str = "image",
    group: int = 7,
    **more: list[Any],
) -> Path:
    """Write pictures as Hugging Face does: image{bytes, path}, numbers for classes."""
    pictures = [{"bytes": png(seed), "path": f"{seed}.png"} for seed in seeds]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    columns: dict[str, Any] = {image: pa.array(pictures, kind)}
    if label:
        columns[label] = pa.array([seed % 2 for seed in seeds], pa.int64())
    table = pa.table({**columns, **more})
    if names is not None:
        known = {label: {"names": names, "_type": "ClassLabel"}, image: {"_type": "Image"}}
        about = json.dumps({"info": {"features": known}})
        table = table.replace_schema_metadata({"huggingface": about})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path, row_group_size=group)
    return path


def folder_of(root: Path, **splits: range) -> Path:
    for split, seeds in splits.items():
        for seed in seeds:
            path = root / split / NAMES[seed % 2] / f"{seed:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(seed))
    return root


def by_content(source: Source) -> dict[bytes, tuple[str | None, str | None]]:
    rows = range(len(source))
    return {bytes(source.read(i)): (source.labels[i], source.splits[i]) for i in rows}


LAYOUTS = {
    "hub": (
        *("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"),
        "data/test-00000-of-00001.parquet",
    ),
    "converted": tuple(f"default/{p}.parquet" for p in ("train/0000", "train/0001", "test/0000")),
    "flat": ("train_1.parquet", "train_2.parquet", "test.parquet"),
    "partial": tuple(f"c/partial-{p}.parquet" for p in ("train/0", "train/1", "test/0")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_of_parquet_reads_as_the_folder_of_its_pictures(
    tmp_path: Path, layout: str
) -> None:
    parts = (range(20), range(20, 33), range(33, 48))
    for name, seeds in zip(LAYOUTS[layout], parts, strict=True):
        shard(tmp_path / "p" / name, seeds, names=NAMES)
    folder = folder_of(tmp_path / "f", train=range(33), test=range(33, 48))
    source, expected = read_source(tmp_path / "p"), read_source(folder)
    assert by_content(source) == by_content(expected)
    assert source.paths[0] in {f"{LAYOUTS[layout][0]}/000000", f"{LAYOUTS[layout][2]}/000000"}
    assert len(set(source.paths)) == 48
    assert source.warnings == ()
    mine, other = open_dataset(tmp_path / "p"), open_dataset(folder)
    columns = ["sha256", "label", "split", "width", "height"]
    rows = [sorted(d.manifest.table.select(columns).to_pylist(), key=str) for d in (mine, other)]
    assert rows[0] == rows[1]
    assert mine.report == other.report


def test_without_given_splits_the_same_images_go_to_test(tmp_path: Path) -> None:
    shard(tmp_path / "p" / "0000.parquet", range(60), names=NAMES)
    folder = tmp_path / "f"
    for seed in range(60):
        path = folder / NAMES[seed % 2] / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(seed))
    for data in (tmp_path / "p", tmp_path / "p" / "0000.parquet"):
        mine, other = open_dataset(data), open_dataset(folder)
        assert mine.name in ("p", "0000")
        test = [{d.content[int(i)] for i in d.rows("test")} for d in (mine, other)]
        assert test[0] == test[1] != set()


def test_one_file_keeps_no_split_of_its_name_unless_there_is_train(tmp_path: Path) -> None:
    path = shard(tmp_path / "test-00000-of-00001.parquet", range(4))
    assert read_source(path).splits == [None] * 4
    assert read_source(path).labels == ["0", "1", "0", "1"]
    train = shard(tmp_path / "train.parquet", range(4, 6))
    assert read_source(train).splits == ["train"] * 2
    assert Counter(read_source(tmp_path).splits) == {"test": 4, "train": 2}


def test_an_unlabelled_part_and_labels_of_minus_one(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.parquet", range(4), names=NAMES)
    shard(tmp_path / "unsupervised-0.parquet", range(4, 8), names=NAMES)
    source = read_source(tmp_path)
    assert source.labels == ["cat", "dog", "cat", "dog", None, None, None, None]
    assert source.splits == ["train"] * 4 + [None] * 4
    labels = pa.array([0, -1, None], pa.int8())
    path = shard(tmp_path / "x" / "y.parquet", range(3), label="", label_=labels)
    table = pyarrow.parquet.read_table(path).rename_columns(["image", "label"])
    pyarrow.parquet.write_table(table, path)
    assert read_source(path).labels == ["0", None, None]


def test_plain_bytes_text_labels_and_other_columns(tmp_path: Path) -> None:
    columns = {
        "img": pa.array([png(0), png(1), png(2), None], pa.large_binary()),
        "class": ["Cat ", "", "dog", "dog"],
        "split": ["train", "test", "valid", ""],
        "age": [1.5, None, 3.0, 4.0],
        "patient": ["p", "p", "q", ""],
        "caption": ["long"] * 4,
    }
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    source = read_source(tmp_path / "x.parquet", target="age", group_by="patient")
    assert source.labels == ["Cat", None, "dog", "dog"]
    assert source.splits == ["train", "test", "val", None]
    assert source.groups == ["p", "p", "q", None]
    np.testing.assert_array_equal(source.targets, [1.5, np.nan, 3, 4])
    assert source.read(2) == png(2)
    assert source.head(2, 10) == png(2)[:10]
    with pytest.raises(OSError, match="the cell is empty"):
        source.read(3)
    store = open_store(source, short_side=8, channels=3)
    assert store.issues == {3: "cannot be read (the cell is empty)"}


def test_no_column_of_labels_is_pre_training_data(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.parquet", range(3), label="")
    source = read_source(path)
    assert source.labels == [None] * 3
    assert source.warnings == ("the Parquet files have no column of labels",)


def refusal(data: Path, **asked: str) -> DataError:
    with pytest.raises(DataError) as caught:
        read_source(data, **asked)
    return caught.value


def test_which_column_is_meant(tmp_path: Path) -> None:
    fine, coarse = ({"names": NAMES, "_type": "ClassLabel"} for _ in range(2))
    about = json.dumps({"info": {"features": {"fine_label": fine, "coarse_label": coarse}}})
    columns = {
        "left": [png(0), png(2)],
        "right": [png(1), png(3)],
        "fine_label": [0, 1],
        "coarse_label": [1, 1],
    }
    table = pa.table(columns).replace_schema_metadata({"huggingface": about})
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(table, path)
    assert "several columns of images: 'left', 'right'" in refusal(path).message
    assert "no column 'up'" in refusal(path, image_column="up").message
    error = refusal(path, image_column="left")
    assert "several columns of labels: 'fine_label', 'coarse_label'" in error.message
    assert "--label-column" in error.hint
    source = read_source(path, image_column="right", label_column="coarse_label")
    assert (source.labels, source.read(1)) == (["dog", "dog"], png(3))
    assert refusal(path, image_column="left", label_column="none").code == "data.column"


def test_labels_beyond_their_names(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.parquet", range(3), names=["only"])
    error = refusal(path)
    assert error.code == "data.labels"
    assert "outside the 1 names" in error.message


def test_several_data_sets_in_one_folder(tmp_path: Path) -> None:
    for name in ("large/train/0.parquet", "small/train/0.parquet"):
        shard(tmp_path / name, range(2), names=NAMES)
    error = refusal(tmp_path)
    assert error.code == "data.layout"
    assert "large, small" in error.message
    assert len(read_source(tmp_path / "small")) == 2


def test_several_labels_of_one_image(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.parquet", range(2), label="", labels=[[0, 1], [1]])
    assert refusal(path).code == "data.column"


def test_damaged_files(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.parquet", range(40))
    whole = path.read_bytes()
    for content in (b"", b"PAR1", whole[:-20]):
        path.write_bytes(content)
        assert refusal(path).code == "data.parquet"
        assert refusal(tmp_path).code == "data.parquet"
    raw = bytearray(whole)
    raw[40:3000] = bytes(2960)  # the pages of the first row group, not the end with the schema
    path.write_bytes(raw)
    source = read_source(path)
    with pytest.raises(OSError, match=r"x\.parquet cannot be read"):
        source.read(0)
    assert source.read(39) == png(39)


def test_a_table_that_only_names_files_is_read_as_before(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(1))
    pyarrow.parquet.write_table(
        pa.table({"path": ["1.png"], "label": ["a"]}), tmp_path / "t.parquet"
    )
    for data in (tmp_path, tmp_path / "t.parquet"):
        assert read_source(data).labels == ["a"]


def test_bytes_beside_images_are_not_mistaken_for_a_table(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/1.png").write_bytes(png(1))
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog/2.png").write_bytes(png(2))
    shard(tmp_path / "train.parquet", range(3))
    source = read_source(tmp_path)
    assert source.labels == ["cat", "dog"]
    assert source.warnings == ("train.parquet names no image here: it is not used",)


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """Count how often each row group is read."""
    reads: Counter[int] = Counter()
    real = cells.Cells._read

    def read(self: cells.Cells, group: int) -> Any:
        reads[group] += 1
        return real(self, group)

    monkeypatch.setattr(cells.Cells, "_read", read)
    return reads


def test_each_row_group_is_read_once_in_order_and_few_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = read_source(shard(tmp_path / "x.parquet", range(210)))
    reads = counted(monkeypatch)
    one_group = 7 * len(png(0))
    monkeypatch.setattr(cells, "KEPT_BYTES", 5 * one_group)
    for row in range(210):
        source.read(row)
    assert reads == Counter(range(30))
    assert source.files is not None
    kept = source.files._kept  # type: ignore[attr-defined]
    assert sum(array.nbytes for array in kept.values()) <= 5 * one_group
    assert source.files.block == 7


def test_a_survey_of_many_rows_reads_a_few_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = read_source(shard(tmp_path / "x.parquet", range(2100)))
    reads = counted(monkeypatch)
    rows = source.sample(140)
    assert len(rows) == 140
    assert np.all(np.diff(rows) > 0)
    assert (rows[0], rows[-1]) == (0, 2099)
    for row in rows.tolist():
        source.head(row, 64)
    assert len(reads) <= 40  # of 300
    assert len(source.sample(10_000)) == 2100


def test_past_the_cap_rows_stream_in_any_order_from_several_threads(tmp_path: Path) -> None:
    for part in range(3):
        shard(tmp_path / f"p/train-{part}.parquet", range(part * 20, part * 20 + 20))
    source = read_source(tmp_path / "p")
    mapped = open_store(source, short_side=8, channels=3)
    streamed = open_store(source, short_side=8, channels=3, cap_bytes=0)
    assert isinstance(mapped, MappedStore)
    assert isinstance(streamed, StreamingStore)
    wrong: list[int] = []

    def compare(seed: int) -> None:
        rows = np.random.default_rng(seed).permutation(60)
        if not np.array_equal(mapped.read(rows)[0], streamed.read(rows)[0]):
            wrong.append(seed)

    threads = [threading.Thread(target=compare, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_other_bytes_under_the_same_name_are_seen(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.parquet", range(4))
    first = open_store(read_source(path), short_side=8, channels=3).sha256.tobytes()
    shard(path, range(4, 8))
    assert open_store(read_source(path), short_side=8, channels=3).sha256.tobytes() != first


def test_a_row_group_that_cannot_fit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shard(tmp_path / "x.parquet", range(40), group=40)
    monkeypatch.setattr("fewlabels.data.parquet.LARGE_GROUP", 20_000)
    assert "takes so much memory" in read_source(path).warnings[0]
    monkeypatch.setattr("fewlabels.data.parquet.LARGE_GROUP", 5_000)
    error = refusal(path)
    assert "one must fit into memory" in error.message
    assert "row_group_size=100" in error.hint


def test_damaged_names_of_columns_are_refused(tmp_path: Path) -> None:
    """As found by ``benchmarks/fuzz.py``: Arrow decodes them only when they are asked for."""
    rows = [{"image": {"bytes": b"x", "path": None}, "label": "a"}]
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    raw, refused = (tmp_path / "t.parquet").read_bytes(), 0
    places = [at for at in range(len(raw)) if raw[at : at + 5] in (b"bytes", b"image")]
    for at in places:
        (tmp_path / "t.parquet").write_bytes(raw[:at] + b"\xff" + raw[at + 1 :])
        try:
            read_source(tmp_path / "t.parquet")
        except DataError as error:
            refused += error.code == "data.parquet"
    assert refused


def test_text_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """As a damaged Parquet file holds it, found by ``benchmarks/fuzz.py``: Arrow does not look."""
    for name in ("path", "label", "age"):
        rows = {"path": ["1.png"], "label": ["a"], "age": ["3"], name: [b"\xae"]}
        table = pa.table(rows)
        place = table.column_names.index(name)
        damaged = pa.Array.from_buffers(pa.string(), 1, table[name].chunk(0).buffers())
        pa.parquet.write_table(table.set_column(place, name, damaged), tmp_path / "t.parquet")
        with pytest.raises(DataError, match=f"{name}.*not UTF-8"):
            read_source(tmp_path / "t.parquet", target="age")
