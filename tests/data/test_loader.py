"""Batches as pure functions of the step: every image once an epoch, resumable anywhere."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewlabels.data.loader import BalancedBatches, Batches, PairedBatches, load


class Numbers:
    """A store of 2x3 grey images: image `i` is filled with `i`."""

    def __init__(self, *, sized: bool = False) -> None:
        self.sized = sized

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        images = np.repeat(rows.astype(np.uint8), 6).reshape(-1, 2, 3, 1)
        sizes = np.stack([np.ones_like(rows), 2 + rows % 2], 1) if self.sized else None
        return images, sizes


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 3))
def test_every_image_comes_once_an_epoch(count: int, size: int, seed: int) -> None:
    rows = np.arange(count) * 3 + 1
    batches = Batches(Numbers(), rows, size, seed=seed)
    steps = -(-3 * count // size)  # rounded up: three epochs and a bit of the fourth
    drawn = [batches[step] for step in range(steps)]
    indices = torch.cat([batch.indices for batch in drawn]).numpy()
    epochs = torch.cat([batch.epochs for batch in drawn]).numpy()
    for epoch in range(3):
        assert sorted(indices[epochs == epoch][:count]) == rows.tolist()
        assert (epochs == epoch).sum() == count
    assert all(a <= b for a, b in pairwise(epochs))


def test_a_batch_depends_on_its_step_alone() -> None:
    rows = np.arange(30)
    forward, backward = (Batches(Numbers(), rows, 7, seed=1) for _ in range(2))
    in_order = [forward[step] for step in range(40)]
    for step in reversed(range(40)):
        assert torch.equal(backward[step].indices, in_order[step].indices)
        assert torch.equal(backward[step].epochs, in_order[step].epochs)
        assert torch.equal(backward[step].images, in_order[step].images)


@given(st.integers(1, 20), st.integers(1, 8))
def test_shares_of_a_batch_make_the_batch(size: int, count: int) -> None:
    batches = Batches(Numbers(sized=True), np.arange(11), size, seed=1)
    cuts = [size * rank // count for rank in range(count + 1)]
    parts = [batches.part(3, slice(*cut)) for cut in pairwise(cuts) if cut[0] < cut[1]]
    for name in ("images", "sizes", "indices", "epochs"):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(joined, getattr(batches[3], name))


def test_the_order_changes_with_epoch_and_seed() -> None:
    rows = np.arange(50)
    batches, other = Batches(Numbers(), rows, 50, seed=1), Batches(Numbers(), rows, 50, seed=2)
    assert not torch.equal(batches[0].indices, batches[1].indices)
    assert not torch.equal(batches[0].indices, other[0].indices)
    assert batches[0].indices.tolist() != rows.tolist()


def test_images_and_indices_belong_together() -> None:
    batch = Batches(Numbers(), np.array([4, 9, 200]), 5, seed=0)[3]
    assert batch.images.shape == (5, 1, 2, 3)
    assert batch.images.dtype == torch.uint8
    assert batch.images[:, 0, 0, 0].tolist() == batch.indices.tolist()
    assert batch.sizes is None


def test_sizes_come_along() -> None:
    batch = load(Numbers(sized=True), np.array([3, 8]))
    assert batch.sizes is not None
    assert batch.sizes.tolist() == [[1, 3], [1, 2]]
    assert batch.epochs.tolist() == [0, 0]


def test_images_stay_channels_last() -> None:
    batch = load(Numbers(), np.arange(4))
    assert batch.images.permute(0, 2, 3, 1).is_contiguous()


def skewed() -> tuple[np.ndarray, np.ndarray]:
    """Return 30 rows: 20, 7, 2 and 1 of four classes, in no order."""
    rows = np.random.default_rng(0).permutation(30) + 5
    return rows, np.repeat([0, 1, 3, 4], [20, 7, 2, 1])


def test_balanced_classes_come_equally_often_and_images_of_a_class_too() -> None:
    rows, labels = skewed()
    batches = BalancedBatches(Numbers(), rows, labels, 8, seed=1)
    drawn = [batches[step] for step in range(140)]  # 1,120 draws: 280 of every class
    indices = torch.cat([batch.indices for batch in drawn]).numpy()
    epochs = torch.cat([batch.epochs for batch in drawn]).numpy()
    name = dict(zip(rows.tolist(), labels.tolist(), strict=True))
    drawn_classes = np.array([name[int(row)] for row in indices])
    assert np.bincount(drawn_classes).tolist() == [280, 280, 0, 280, 280]
    assert all(np.bincount(c, minlength=5).max() == 2 for c in drawn_classes.reshape(-1, 8))
    for code, count in ((0, 20), (1, 7), (3, 2), (4, 1)):
        times = np.bincount(indices[drawn_classes == code])
        assert set(times[times > 0].tolist()) == {280 // count}
    # An image that is drawn again gets a new view: its epoch is how often it came before.
    for row in rows:
        assert epochs[indices == row].tolist() == list(range((indices == row).sum()))


def test_a_balanced_batch_depends_on_its_step_alone() -> None:
    rows, labels = skewed()
    forward, backward = (BalancedBatches(Numbers(), rows, labels, 7, seed=2) for _ in range(2))
    in_order = [forward[step] for step in range(60)]
    for step in reversed(range(60)):
        assert torch.equal(backward[step].indices, in_order[step].indices)
        assert torch.equal(backward[step].epochs, in_order[step].epochs)
    other = BalancedBatches(Numbers(), rows, labels, 7, seed=3)
    assert not torch.equal(other[0].indices, in_order[0].indices)


def test_balanced_rounds_do_not_repeat_one_order() -> None:
    rows, labels = skewed()
    batches = BalancedBatches(Numbers(), rows, labels, 4, seed=0)
    name = dict(zip(rows.tolist(), labels.tolist(), strict=True))
    rounds = {tuple(name[int(row)] for row in batches[step].indices) for step in range(20)}
    assert len(rounds) > 8


def paired(size: int = 5, ratio: int = 3) -> PairedBatches:
    labelled = Batches(Numbers(sized=True), np.array([4, 7, 9]), size, seed=1)
    return PairedBatches(labelled, np.arange(40), ratio, seed=2)


def test_labelled_images_come_first_then_the_unlabelled_ones() -> None:
    batches = paired()
    labelled = Batches(Numbers(), np.array([4, 7, 9]), 5, seed=1)
    others = Batches(Numbers(), np.arange(40), 15, seed=2)
    assert (batches.size, batches.images) == (5, 20)
    for step in (0, 3, 8):
        batch = batches[step]
        for name in ("indices", "epochs"):
            whole = torch.cat([getattr(one[step], name) for one in (labelled, others)])
            assert torch.equal(getattr(batch, name), whole)
        assert torch.equal(batch.images[:, 0, 0, 0].long(), batch.indices)
    assert len(labelled[0].images) == labelled.images


@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 5))
def test_shares_keep_unlabelled_images_with_their_labelled_ones(
    size: int, ratio: int, count: int
) -> None:
    batches = paired(size, ratio)
    whole = batches[3].indices
    cuts = [size * rank // count for rank in range(count + 1)]
    spans = [slice(*cut) for cut in pairwise(cuts) if cut[0] < cut[1]]
    parts = [batches.part(3, span).indices for span in spans]
    each = [span.stop - span.start for span in spans]
    assert torch.equal(torch.cat([p[:n] for p, n in zip(parts, each, strict=True)]), whole[:size])
    assert torch.equal(torch.cat([p[n:] for p, n in zip(parts, each, strict=True)]), whole[size:])
    assert [len(part) for part in parts] == [n * (1 + ratio) for n in each]
