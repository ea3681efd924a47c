"""A data set as the rest of the package sees it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewlabels.core.errors import DataError, UsageError
from fewlabels.data.dataset import Dataset, open_dataset, require_classes


def picture(path: Path, seed: int, size: tuple[int, ...] = (10, 12, 3)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in range(60):
        picture(tmp_path / "data" / "ab"[seed % 2] / f"{seed:02d}.png", seed)
    for seed in range(100, 160):
        picture(tmp_path / "data/unlabelled" / f"{seed}.png", seed)
    return tmp_path / "data"


def names(dataset: Dataset, rows: np.ndarray) -> set[str]:
    return {Path(dataset.source.paths[int(row)]).name for row in rows}


def test_rows_agree_everywhere(folder: Path) -> None:
    dataset = open_dataset(folder)
    assert (dataset.name, dataset.classes, len(dataset)) == ("data", ("a", "b"), 120)
    assert (dataset.pictures_size, dataset.channels) == (10, 3)
    for row in (0, 31, 119):
        path = dataset.manifest.column("path")[row]
        assert path == dataset.source.paths[row]
        with Image.open(folder / str(path)) as image:
            np.testing.assert_array_equal(dataset.store.read(np.array([row]))[0][0], image)
        assert dataset.manifest.column("sha256")[row] == dataset.keys[row]
        label = dataset.labels[row]
        assert dataset.manifest.column("label")[row] == (
            dataset.classes[label] if label >= 0 else None
        )
    everything = np.concatenate([np.flatnonzero(dataset.split == code) for code in range(3)])
    np.testing.assert_array_equal(np.sort(everything), np.arange(120))


def test_rows_of_a_split(folder: Path) -> None:
    dataset = open_dataset(folder)
    train, val, test = (dataset.rows(name) for name in ("train", "val", "test"))
    assert not set(train) & set(val) | set(val) & set(test) | set(train) & set(test)
    assert np.all(dataset.labels[val] >= 0)
    assert np.all(dataset.labels[test] >= 0)
    assert np.any(dataset.labels[train] < 0)
    held = dataset.report["splits"]["out"]
    assert held == np.sum((dataset.split == 2) & (dataset.labels < 0)) > 0
    assert any(f"{held} unlabelled images belong to test" in w for w in dataset.report["warnings"])
    with pytest.raises(UsageError, match="unknown split"):
        dataset.rows("dev")


def test_adding_and_labelling_images_leaves_test_as_it_was(folder: Path) -> None:
    before = open_dataset(folder)
    for seed in range(200, 230):
        picture(folder / "c" / f"{seed}.png", seed)
    for seed in range(100, 130):
        (folder / "unlabelled" / f"{seed}.png").rename(folder / "a" / f"{seed}.png")
    after = open_dataset(folder)
    everyone = names(before, np.arange(120))
    in_test = names(before, np.flatnonzero(before.split == 2))
    assert names(after, np.flatnonzero(after.split == 2)) & everyone == in_test
    assert names(before, before.rows("test")) <= names(after, after.rows("test"))
    assert not names(after, after.rows("test")) & names(before, before.rows("train"))


def test_visible_labels(folder: Path) -> None:
    dataset = open_dataset(folder)
    few, more = dataset.visible(2, 5), dataset.visible(6, 5)
    np.testing.assert_array_equal(np.bincount(dataset.labels[few]), [2, 2])
    assert set(few) <= set(more) <= set(dataset.rows("train"))
    assert set(few) != set(dataset.visible(2, 6))
    everything = dataset.visible(None, 0)
    labelled = {row for name in ("train", "val") for row in dataset.labelled_rows(name)}
    assert set(everything) == labelled


def test_other_random_splits(folder: Path) -> None:
    dataset = open_dataset(folder)
    other = dataset.with_split(3)
    assert set(other.rows("test")) != set(dataset.rows("test"))
    assert other.manifest.column("split") != dataset.manifest.column("split")
    np.testing.assert_array_equal(open_dataset(folder, split_seed=3).split, other.split)
    np.testing.assert_array_equal(other.with_split(0).split, dataset.split)


def test_given_splits_stay(tmp_path: Path) -> None:
    for seed in range(40):
        part = "test" if seed < 10 else "train"
        picture(tmp_path / part / "ab"[seed % 2] / f"{seed}.png", seed)
    dataset = open_dataset(tmp_path)
    assert dataset.splits_given
    assert len(dataset.rows("test")) == 10
    assert dataset.with_split(9) is dataset


def test_groups_stay_together(tmp_path: Path) -> None:
    lines = ["path,label,patient"]
    for seed in range(80):
        picture(tmp_path / f"{seed}.png", seed)
        lines.append(f"{seed}.png,{'ab'[seed % 2]},p{seed // 8}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    for seed in range(5):
        dataset = open_dataset(tmp_path, group_by="patient", split_seed=seed)
        groups = np.array(dataset.source.groups)
        assert all(len(set(dataset.split[groups == group])) == 1 for group in set(groups))


def test_missing_and_broken_files_are_out_but_not_fatal(tmp_path: Path) -> None:
    lines = ["path,label"]
    for seed in range(20):
        picture(tmp_path / f"{seed:02d}.png", seed)
        lines.append(f"{seed:02d}.png,{'ab'[seed % 2]}")
    whole = (tmp_path / "03.png").read_bytes()
    (tmp_path / "03.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "labels.csv").write_text("\n".join([*lines, "gone.png,c"]))
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("a", "b")
    assert dataset.split[[3, 20]].tolist() == [-1, -1]
    paths = [found["path"] for found in dataset.report["quarantine"]]
    assert paths == ["03.png", "gone.png"]
    assert "not found" in dataset.report["quarantine"][1]["reason"]
    assert dataset.manifest.column("issue")[20] == "named in labels.csv but not found"
    assert dataset.labels[20] == -1


def test_mostly_broken_data_is_refused(tmp_path: Path) -> None:
    for seed in range(9):
        file = picture(tmp_path / "a" / f"{seed}.png", seed)
        if seed:
            file.write_bytes(b"no picture")
    with pytest.raises(DataError, match="8 of 9 images cannot be read") as caught:
        open_dataset(tmp_path)
    assert caught.value.code == "data.unreadable"
    shutil.rmtree(tmp_path / "a")
    picture(tmp_path / "a/1.png", 1).write_bytes(b"")
    with pytest.raises(DataError, match="none of 1 images can be read"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("paths", "code"),
    [(["1.png", "2.png"], "data.labels"), (["a/1.png", "unlabelled/2.png"], "data.classes")],
)
def test_no_label_and_one_class(tmp_path: Path, paths: list[str], code: str) -> None:
    for seed, path in enumerate(paths):
        picture(tmp_path / path, seed)
    dataset = open_dataset(tmp_path)
    assert len(dataset.report["warnings"]) >= 1
    with pytest.raises(DataError) as caught:
        require_classes(dataset)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("sizes", "asked", "size", "short_side"),
    [
        ([(28, 30), (28, 28), (40, 28)], None, 28, 28),
        ([(64, 70), (64, 64), (32, 40)], None, 64, 64),
        ([(32, 32), (32, 32), (64, 64)], None, 32, 37),
        ([(70, 70), (30, 30), (30, 30)], None, 128, 128),
        ([(300, 200), (30, 30), (30, 30)], None, 128, 146),
        ([(300, 200), (30, 30), (30, 30)], 64, 64, 73),
    ],
)
def test_training_size(
    tmp_path: Path, sizes: list[tuple[int, int]], asked: int | None, size: int, short_side: int
) -> None:
    for seed, (height, width) in enumerate(sizes):
        picture(tmp_path / "ab"[seed % 2] / f"{seed}.png", seed, (height, width))
    dataset = open_dataset(tmp_path, image_size=asked)
    assert dataset.pictures_size == size
    assert dataset.store.short_side == short_side
    assert dataset.channels == 1


def test_colour_wins_over_grey(tmp_path: Path) -> None:
    picture(tmp_path / "a/1.png", 1, (10, 10))
    picture(tmp_path / "b/2.png", 2)
    assert open_dataset(tmp_path).channels == 3


def test_numeric_classes_come_in_numeric_order(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (12, 9, 9), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(12))
    dataset = open_dataset(tmp_path / "a.npz")
    assert dataset.classes == tuple(str(i) for i in range(12))
    np.testing.assert_array_equal(dataset.labels, np.arange(12))
    assert (dataset.pictures_size, dataset.channels) == (9, 1)


def test_regression(tmp_path: Path) -> None:
    lines = ["path,age"]
    for seed in range(60):
        picture(tmp_path / f"{seed:02d}.png", seed)
        lines.append(f"{seed:02d}.png,{seed if seed % 3 else ''}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    dataset = open_dataset(tmp_path, target="age")
    assert dataset.targets is not None
    assert dataset.report["labelled"] == 40
    assert np.all(np.isfinite(dataset.targets[dataset.rows("test")]))
    assert len(dataset.visible(5, 0)) == 5
    assert np.all(np.isfinite(dataset.targets[dataset.visible(None, 0)]))


@pytest.mark.parametrize("asked", [{"image_size": 4}, {"image_size": 5000}, {"leaks": "mend"}])
def test_flags_out_of_range(asked: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        open_dataset("digits", **asked)  # type: ignore[arg-type]


def test_digits() -> None:
    dataset = open_dataset("digits")
    np.testing.assert_array_equal(np.bincount(dataset.labels[dataset.visible(4, 0)]), [4] * 10)
    test = len(dataset.rows("test"))
    assert 140 < test < 220
    assert min(np.bincount(dataset.labels[dataset.rows("test")])) >= 5
