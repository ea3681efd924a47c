"""What each layout on disk is read as, and what is refused."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from fewlabels.core.errors import DataError
from fewlabels.data.columns import _stream
from fewlabels.data.listing import Strings, walk
from fewlabels.data.sources import Source, read_source


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(path.encode())
    return root


def rows(source: Source) -> dict[str, tuple[str | None, str | None]]:
    return {path: (source.labels[i], source.splits[i]) for i, path in enumerate(source.paths)}


def refusal(data: Path, **asked: str) -> DataError:
    with pytest.raises(DataError) as caught:
        read_source(data, **asked)
    return caught.value


def test_class_folders_and_unlabelled(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "cat/deep/er/2.PNG", "dog/1.jpeg", "Unlabeled/x.webp")
    source = read_source(tmp_path)
    assert rows(source) == {
        "Unlabeled/x.webp": (None, None),
        "cat/1.jpg": ("cat", None),
        "cat/deep/er/2.PNG": ("cat", None),
        "dog/1.jpeg": ("dog", None),
    }
    assert source.name == tmp_path.name
    assert source.read(1) == b"cat/1.jpg"
    assert source.head(1, 3) == b"cat"
    assert source.sizes[1] == 9
    assert source.times[1] == (tmp_path / "cat/1.jpg").stat().st_mtime_ns


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Validation"])
@pytest.mark.parametrize("unlabelled", ["unlabelled/3.jpg", "train/unlabeled/3.jpg"])
def test_split_folders(tmp_path: Path, val: str, unlabelled: str) -> None:
    touch(tmp_path, "train/cat/1.jpg", f"{val}/cat/1.jpg", "test/dog/1.jpg", unlabelled)
    found = rows(read_source(tmp_path))
    assert found["train/cat/1.jpg"] == ("cat", "train")
    assert found[f"{val}/cat/1.jpg"] == ("cat", "val")
    assert found["test/dog/1.jpg"] == ("dog", "test")
    assert found[unlabelled] == (None, "train" if unlabelled.startswith("train") else None)


def test_a_flat_folder_is_unlabelled(tmp_path: Path) -> None:
    assert read_source(touch(tmp_path, "1.jpg", "2.jpg")).labels == [None, None]


def test_order_does_not_depend_on_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, *(f"{c}/{i}.jpg" for c in "cab" for i in range(12)), "a/z/0.jpg")
    first = list(read_source(tmp_path).paths)
    real = os.scandir

    class Backwards:
        def __init__(self, path: object) -> None:
            with real(path) as entries:  # type: ignore[call-overload]
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> object:
            return iter(self.entries)

        def __exit__(self, *args: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Backwards)
    assert list(read_source(tmp_path).paths) == first
    assert len(first) == 37


def test_hidden_links_and_other_files(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "cat/._1.jpg", ".ipynb_checkpoints/1.jpg", "__MACOSX/1.jpg")
    touch(tmp_path, "dog/1.jpg", "dog/notes.txt", "dog/.hidden", "README")
    (tmp_path / "dog/2.jpg").symlink_to(tmp_path / "cat/1.jpg")
    (tmp_path / "cat/loop").symlink_to(tmp_path, target_is_directory=True)
    source = read_source(tmp_path)
    assert list(source.paths) == ["cat/1.jpg", "dog/1.jpg"]
    assert source.warnings == (
        "2 files are no images: 1 .txt, 1 without a suffix",
        "2 symbolic links were not followed",
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_named_like_an_image_is_never_opened(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg")
    os.mkfifo(tmp_path / "cat/2.jpg")
    assert list(read_source(tmp_path).paths) == ["cat/1.jpg"]


def test_names_that_are_not_utf8_can_be_read_and_printed(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    (tmp_path / "a").mkdir()
    try:
        (tmp_path / "a" / name).write_bytes(b"picture")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    source = read_source(tmp_path)
    assert source.read(0) == b"picture"
    assert source.paths.printable().to_pylist() == ["a/caf\\xe9.jpg"]


@pytest.mark.parametrize("pair", [("Cat", "cat"), ("café", unicodedata.normalize("NFD", "café"))])
def test_clashing_class_names(tmp_path: Path, pair: tuple[str, str]) -> None:
    touch(tmp_path, f"train/{pair[0]}/1.jpg", f"test/{pair[1]}/1.jpg")
    if len(list(tmp_path.rglob("*.jpg"))) < 2:
        pytest.skip("this file system merges the names")
    assert refusal(tmp_path).code == "data.class_clash"


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["train/a/1.jpg", "val/a/1.jpg", "valid/a/1.jpg"], "name the same split twice"),
        (["test/a/1.jpg", "val/a/1.jpg"], "no train/"),
        (["train/a/1.jpg", "test/a/1.jpg", "cat/1.jpg"], "beside others (cat/)"),
    ],
)
def test_ambiguous_layouts(tmp_path: Path, paths: list[str], said: str) -> None:
    error = refusal(touch(tmp_path, *paths))
    assert error.code == "data.layout"
    assert said in error.message


def test_nothing_there(tmp_path: Path) -> None:
    error = refusal(touch(tmp_path, "cat/notes.txt"))
    assert error.code == "data.empty"
    assert ".jpeg" in error.message
    assert "1 .txt" in error.message
    assert "class folders" in error.hint
    assert refusal(tmp_path / "gone").code == "data.missing"
    assert refusal(tmp_path / "cat/notes.txt").code == "data.kind"
    assert refusal(tmp_path, target="age").code == "data.column"


def test_odd_folders_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "loose.jpg")
    (tmp_path / "dog").mkdir()
    source = read_source(tmp_path)
    assert source.labels == [None, "cat"]
    assert "the folder dog holds no images" in source.warnings
    assert "1 images lie beside the class folders: taken as unlabelled" in source.warnings


def table(root: Path, text: str, name: str = "labels.csv") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")
    return root / name


def test_a_table_in_a_flat_folder(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg", "3.jpg", "4.jpg")
    table(tmp_path, "\ufefffile;label;split\n1.jpg;01;test\n2.jpg; ;\n3.jpg;2;Train\n")
    source = read_source(tmp_path)
    assert rows(source) == {
        "1.jpg": ("01", "test"),
        "2.jpg": (None, None),
        "3.jpg": ("2", "train"),
        "4.jpg": (None, None),
    }
    assert source.warnings == ("1 images are not in labels.csv: taken as unlabelled",)


def test_a_table_finds_images_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.jpg", "images/b/2.jpg", "images/a/dup.jpg", "images/b/dup.jpg")
    path = table(tmp_path, "image_id,class\n1,x\nimgs\\2.jpg,y\ndup.jpg,x\nimages/1.jpg,x\n")
    source = read_source(path)
    assert rows(source) == {
        "dup.jpg": ("x", None),
        "images/1.jpg": ("x", None),
        "images/b/2.jpg": ("y", None),
    }
    assert source.issues == {0: "named in labels.csv but not found"}
    assert source.sizes[0] == -1
    with pytest.raises(OSError):
        source.read(0)


def test_targets_and_groups(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    path = table(tmp_path, "path,age,patient\n1.jpg,3.5,p\n2.jpg,,p\n3.jpg,-1e3,\n")
    source = read_source(path, target="age", group_by="patient")
    assert source.targets is not None
    np.testing.assert_array_equal(source.targets, [3.5, np.nan, -1000])
    assert source.groups == ["p", "p", None]
    assert source.labels == [None] * 3
    assert refusal(table(tmp_path, "path,age\n1.jpg,old\n"), target="age").code == "data.target"


def test_parquet_with_named_columns(tmp_path: Path) -> None:
    touch(tmp_path / "pictures", "1.jpg", "2.jpg", "3.jpg")
    columns = {"where": ["1.jpg", "2.jpg", "3.jpg"], "what": [3.0, None, 10.0]}
    pa.parquet.write_table(pa.table(columns), tmp_path / "pictures/t.parquet")
    source = read_source(tmp_path / "pictures", image_column="where", label_column="what")
    assert source.labels == ["3", None, "10"]


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("path,label\n1.jpg,a\n./1.jpg,b\n", "data.labels", "two labels for 1.jpg: a and b"),
        ("path,label,split\n1.jpg,a,train\n1.jpg,a,test\n", "data.labels", "two rows"),
        ("path,label\n1.jpg,Cat\n2.jpg,cat\n", "data.class_clash", "'Cat'"),
        ("path,label,split\n1.jpg,a,dev\n", "data.splits", "'dev'"),
        ("name,label\n1.jpg,a\n", "data.column", "name, label"),
        ("path,size\n1.jpg,3\n", "data.column", "path, size"),
        ("path,label\n,a\n", "data.table", "1 rows"),
        ("", "data.table", "cannot read"),
        ("path,label\n1.jpg,a,b,c\n", "data.table", "cannot read"),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, text: str, code: str, said: str) -> None:
    path = table(touch(tmp_path, "1.jpg", "2.jpg"), text)
    for data in (path, tmp_path):
        error = refusal(data)
        assert error.code == code
        assert said in error.message


def test_the_same_row_twice_is_one_image(tmp_path: Path) -> None:
    path = table(touch(tmp_path, "1.jpg"), "path,label\n1.jpg,a\n1.jpg,a\n")
    assert read_source(path).labels == ["a"]


def test_several_tables(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg")
    for name in ("a.csv", "b.csv"):
        table(tmp_path, "path,label\n1.jpg,x\n", name)
    assert refusal(tmp_path).code == "data.layout"
    assert read_source(tmp_path / "b.csv").labels == ["x"]


def test_a_table_of_something_else_does_not_hide_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/1.jpg")
    table(tmp_path, "epoch,loss\n1,0.5\n", "log.csv")
    source = read_source(tmp_path)
    assert source.labels == ["cat", "dog"]
    assert source.warnings == ("log.csv names no image here: it is not used",)


def test_npz(tmp_path: Path) -> None:
    images = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    np.savez(tmp_path / "a.npz", images=images, labels=[1, -1, 0], splits=["train", "", "test"])
    source = read_source(tmp_path / "a.npz")
    assert rows(source) == {
        "images/000000": ("1", "train"),
        "images/000001": (None, None),
        "images/000002": ("0", "test"),
    }
    np.testing.assert_array_equal(source.read(2), images[2][..., None])


def test_npz_with_parts_and_other_types(tmp_path: Path) -> None:
    train = np.linspace(0, 1, 2 * 3 * 4 * 6, dtype=np.float32).reshape(2, 3, 4, 6)
    test = np.full((1, 3, 4, 6), 65535, np.uint16)
    y = np.array([[3], [4]])
    np.savez_compressed(tmp_path / "a.npz", x_train=train, y_train=y, x_test=test, y_test=[3])
    source = read_source(tmp_path / "a.npz")
    assert source.splits == ["train", "train", "test"]
    assert source.labels == ["3", "4", "3"]
    assert source.pictures is not None
    assert source.pictures.shape(2) == (4, 6, 3)
    for row, expected in ((1, train[1].transpose(1, 2, 0) * 255), (2, np.full((4, 6, 3), 255))):
        image = source.read(row)
        assert isinstance(image, np.ndarray)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, np.rint(expected))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"pictures": np.zeros((2, 4, 4))}, "expected images"),
        ({"images": np.zeros((2, 4))}, "has shape (2, 4)"),
        ({"images": np.zeros((2, 4, 4, 2))}, "2 channels"),
        ({"images": np.zeros((2, 4, 4)), "labels": np.eye(2)}, "one label for an image"),
        ({"images": np.zeros((2, 4, 4)), "labels": np.array([{}, {}])}, "pickled"),
        ({"images": np.zeros((2, 4, 4)), "labels": [1, 2], "splits": ["dev", ""]}, "'dev'"),
    ],
)
def test_npz_that_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    assert said in refusal(tmp_path / "a.npz").message


def test_a_broken_npz(tmp_path: Path) -> None:
    assert refusal(touch(tmp_path, "a.npz") / "a.npz").code == "data.npz"


def test_digits() -> None:
    source = read_source("digits")
    assert len(source) == 1797
    assert Counter(source.labels)["0"] == 178
    image = source.read(0)
    assert isinstance(image, np.ndarray)
    assert (image.shape, image.dtype, int(image.max())) == ((8, 8, 1), np.uint8, 239)


def test_strings_take_their_bytes_and_eight_more() -> None:
    names = [f"class/{i:08d}.jpg" for i in range(10_000)]
    packed = Strings.of(names)
    assert list(packed) == names
    assert packed[-1] == names[-1]
    assert list(packed[10:12]) == names[10:12]
    assert packed._array.nbytes <= sum(map(len, names)) + 8 * (len(names) + 1)


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="Permission denied"):
        walk(tmp_path)


def test_arrow_keeps_nothing_of_pythons() -> None:
    """Its threads may let go of what they keep while Python ends, which aborts the process."""
    content = b"label,path\n" * 100
    before = sys.getrefcount(content)
    stream = _stream(content)
    assert sys.getrefcount(content) == before
    assert stream.read() == content
