"""Batches as pure functions of the step: every image once an epoch, resumable anywhere."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewlabels.data.loader import Batches, load


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
