"""Folds of the labelled images: every label once in test, nothing of a test image outside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewlabels.data.dataset import Dataset, open_dataset
from fewlabels.data.folds import can_fold, deal, too_few


def keys(count: int) -> list[str]:
    return [f"{i:04x}" for i in range(count)]


@pytest.mark.parametrize("sizes", [(20, 20, 20), (7, 13, 40), (2, 3, 51)])
def test_folds_differ_by_one_image_and_so_do_the_classes_in_them(sizes: tuple[int, ...]) -> None:
    truth = np.repeat(np.arange(len(sizes)), sizes)
    found = deal(keys(len(truth)), truth, 0, 5, classes=len(sizes))
    assert np.ptp(np.bincount(found, minlength=5)) <= 1
    for code in range(len(sizes)):
        assert np.ptp(np.bincount(found[truth == code], minlength=5)) <= 1


def test_another_dealing_is_another_and_the_order_of_the_files_does_not_matter() -> None:
    truth = np.arange(60) % 4
    first, again = (deal(keys(60), truth, seed, 5, classes=4) for seed in (0, 0))
    assert (first == again).all()
    assert 0.1 < (first == deal(keys(60), truth, 1, 5, classes=4)).mean() < 0.4
    order = np.random.default_rng(0).permutation(60)
    turned = deal([keys(60)[i] for i in order], truth[order], 0, 5, classes=4)
    assert (turned == first[order]).all()


def test_each_fold_spans_the_range_of_a_number() -> None:
    numbers = np.random.default_rng(0).normal(size=50)
    found = deal(keys(50), numbers, 0, 5, classes=0)
    blocks = np.argsort(np.argsort(numbers)) // 5
    for block in range(10):
        assert sorted(found[blocks == block]) == [0, 1, 2, 3, 4]


def test_a_group_stays_together() -> None:
    groups = [f"group:{i // 3}" for i in range(60)]
    found = deal(groups, np.arange(60) // 15, 0, 5, classes=4).reshape(20, 3)
    assert (found == found[:, :1]).all()


def test_too_few_is_fewer_than_thirty_or_than_classes() -> None:
    assert "about 29 test images, and 30 are needed" in too_few(np.arange(294) % 4, 4)
    assert not too_few(np.arange(300) % 4, 4)
    assert "40 are needed" in too_few(np.arange(300) % 40, 40)
    assert not can_fold(np.arange(10), 10)  # one label a class: nothing is learned of it
    assert can_fold(np.array([0, 0, 1, 1, 2]), 3)


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """60 labelled images, 100 without, of which one is a copy of a labelled one."""
    images = np.random.default_rng(0).integers(0, 255, (160, 8, 8), dtype=np.uint8)
    images[100] = images[0]
    labels = np.array([*(str(i % 3) for i in range(60)), *[""] * 100])
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    return open_dataset(tmp_path / "data.npz").with_folds(5)


def test_every_label_is_tested_once_and_no_test_image_is_learned_from(data: Dataset) -> None:
    assert len(data.rows("test")) == 0 and len(data.visible(None, 0)) == 60
    folds = [data.with_split(seed) for seed in range(5)]
    tested = np.concatenate([fold.rows("test") for fold in folds])
    assert sorted(tested) == list(range(60))
    for fold in folds:
        assert not set(fold.rows("test")) & set(fold.rows("train"))
        assert not set(fold.rows("test")) & set(fold.visible(None, 0))
        assert set(fold.visible(4, 0)) <= set(fold.rows("train"))
    assert set(folds[0].rows("test")) != set(data.with_split(5).rows("test"))  # the next dealing


def test_pretraining_is_on_the_unlabelled_images_alone_the_same_in_every_fold(
    data: Dataset,
) -> None:
    assert data.pretrains_apart
    expected = [row for row in range(60, 160) if row != 100]  # the copy is left out
    for seed in (0, 1, 7):
        assert list(data.with_split(seed).pretraining_rows()) == expected


def test_with_few_unlabelled_images_each_fold_pretrains_on_what_it_may_see(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (90, 8, 8), dtype=np.uint8)
    labels = np.array([*(str(i % 3) for i in range(60)), *[""] * 30])
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    fold = open_dataset(tmp_path / "data.npz").with_folds(5).with_split(0)
    assert not fold.pretrains_apart
    assert list(fold.pretraining_rows()) == list(fold.rows("train"))
    assert len(fold.pretraining_rows()) == 90 - 12


def test_groups_keep_their_unlabelled_images_out_of_pretraining(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8)
    rows = ["path,label,patient"]
    for i, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / f"{i:02d}.png")
        rows.append(f"{i:02d}.png,{'ab'[i % 2] if i < 16 else ''},{i % 20}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    found = open_dataset(tmp_path / "labels.csv", group_by="patient").with_folds(4)
    unlabelled = set(found.rows("train")) - set(range(16))
    assert unlabelled == {row for row in range(16, 40) if row % 20 >= 16}
