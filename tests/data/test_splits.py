"""Splits keyed by content: what must hold whatever is added."""

from __future__ import annotations

import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fewlabels.data.splits import TEST, TRAIN, VAL, assign, uniform

KEYS = st.lists(st.text("abcdef0123456789", min_size=1, max_size=3), min_size=1, max_size=60)
GIVEN = st.sampled_from(["train", "val", "test", None])


@given(KEYS, KEYS, st.integers(0, 5), st.randoms(use_true_random=False))
def test_adding_images_or_labels_moves_nothing_in_or_out_of_test(
    old: list[str], new: list[str], seed: int, random: object
) -> None:
    labelled = np.array([random.random() < 0.3 for _ in old])  # type: ignore[attr-defined]
    before = assign(old, [None] * len(old), seed, labelled=labelled)
    more = labelled | np.array([random.random() < 0.5 for _ in old])  # type: ignore[attr-defined]
    keys, known = old + new, np.concatenate([more, np.zeros(len(new), bool)])
    after = assign(keys, [None] * len(keys), seed, labelled=known)[: len(old)]
    np.testing.assert_array_equal(before == TEST, after == TEST)
    stays = labelled & more
    np.testing.assert_array_equal(before[stays], after[stays])


@given(KEYS, st.data(), st.integers(0, 5))
def test_equal_keys_stay_together(keys: list[str], data: st.DataObject, seed: int) -> None:
    size = len(keys)
    labelled = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    split = assign(keys, [None] * size, seed, labelled=labelled)
    for key in set(keys):
        assert len({int(s) for k, s in zip(keys, split, strict=True) if k == key}) == 1


@given(st.lists(st.tuples(st.text(max_size=3), GIVEN), min_size=1, max_size=40))
def test_what_is_given_stands(rows: list[tuple[str, str | None]]) -> None:
    keys, splits = [key for key, _ in rows], [split for _, split in rows]
    found = assign(keys, splits, 0)
    for name, code in (("val", VAL), ("test", TEST)):
        assert all(found[i] == code for i, split in enumerate(splits) if split == name)
    if "test" in splits and "val" in splits:
        assert all(found[i] == TRAIN for i, split in enumerate(splits) if split in (None, "train"))
    if "test" in splits:
        assert not any(found[i] == TEST for i, split in enumerate(splits) if split != "test")


def test_shares() -> None:
    keys = [f"{i}" for i in range(20_000)]
    share = np.bincount(assign(keys, [None] * len(keys), 3)) / len(keys)
    np.testing.assert_allclose(share, [0.8, 0.1, 0.1], atol=0.01)
    split = assign(keys, ["train"] * 10_000 + ["test"] * 10_000, 3)
    np.testing.assert_allclose(np.mean(split[:10_000] == VAL), 0.1, atol=0.01)
    assert np.all(split[10_000:] == TEST)


def test_unlabelled_images_train_unless_they_belong_to_test() -> None:
    keys = [f"{i}" for i in range(2_000)]
    split = assign(keys, [None] * 2_000, 0, labelled=np.zeros(2_000, bool))
    assert set(split.tolist()) == {TRAIN, TEST}
    known = assign(keys, [None] * 2_000, 0)
    np.testing.assert_array_equal(split == TEST, known == TEST)


def test_a_test_split_without_labels_leaves_one_to_be_drawn() -> None:
    keys = [f"{i}" for i in range(1_000)]
    given_ = ["train"] * 900 + ["test"] * 100
    split = assign(keys, given_, 0, labelled=np.arange(1_000) < 900)
    assert np.all(split[900:] == TEST)
    assert 50 < np.sum(split[:900] == TEST) < 150


def test_the_hash_is_the_same_on_every_machine() -> None:
    """Pinned: a change here would move the images of every user between splits."""
    np.testing.assert_allclose(uniform(["a", "b", ""], 7, "split"), PINNED, rtol=0, atol=0)


PINNED = [0.8237185342004957, 0.04580375106857948, 0.6938258263615411]


def test_seeds_and_streams_differ() -> None:
    keys = [f"{i}" for i in range(200)]
    one, two = uniform(keys, 0, "split"), uniform(keys, 1, "split")
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.2
    assert abs(np.corrcoef(one, uniform(keys, 0, "labels"))[0, 1]) < 0.2
    assert np.all((one >= 0) & (one < 1))
    assert len(uniform([], 0, "split")) == 0


def test_many_rows_take_little_time() -> None:
    keys = [f"{i:064x}" for i in range(200_000)]
    start = time.perf_counter()
    assign(keys, [None] * len(keys), 0)
    assert time.perf_counter() - start < 3  # about 0.3 s on an idle core
