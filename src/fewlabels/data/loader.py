"""The order of images, and batches on the device, as pure functions of the step.

Step `t` takes positions ``t * size`` to ``(t + 1) * size`` of an endless stream of
permutations of the rows, so training resumes anywhere by its step number alone.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fewlabels.core.seeding import generator
from fewlabels.core.types import Batch


class Reader(Protocol):
    """What a store offers to the loader."""

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return images ``(B, H, W, C)`` uint8 and, where they differ, sizes ``(B, 2)``."""
        ...


def load(
    reader: Reader,
    rows: np.ndarray,
    device: torch.device | str = "cpu",
    epochs: Tensor | None = None,
) -> Batch:
    """Return the images of `rows` as a batch on `device`."""
    images, sizes = reader.read(rows)
    canvas = torch.from_numpy(images).permute(0, 3, 1, 2)
    indices = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64))
    return Batch(
        images=canvas.to(device, non_blocking=True),
        sizes=None if sizes is None else torch.from_numpy(sizes).to(device),
        indices=indices.to(device),
        epochs=torch.zeros_like(indices, device=device) if epochs is None else epochs.to(device),
    )


class Batches:
    """Batches of `size` images drawn from `rows` in an order keyed by the seed and epoch.

    Parameters
    ----------
    reader : Reader
        Where the images lie.
    rows : ndarray
        ``(n,)`` int64 rows to draw from; each is drawn once an epoch.
    size : int
        Images in a batch; larger than `n` it draws images again with new views.
    seed : int
        Key of the order.
    device : torch.device or str
        Where batches go.
    """

    def __init__(
        self,
        reader: Reader,
        rows: np.ndarray,
        size: int,
        *,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.reader = reader
        self.rows = np.asarray(rows, dtype=np.int64)
        self.size = size
        self.seed = seed
        self.device = device
        self._orders: dict[int, np.ndarray] = {}

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step; any step, in any order."""
        count = len(self.rows)
        positions = np.arange(step * self.size, (step + 1) * self.size)
        epochs, places = positions // count, positions % count
        picked = np.empty(self.size, dtype=np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            picked[here] = self.rows[self._order(int(epoch))[places[here]]]
        return load(self.reader, picked, self.device, torch.from_numpy(epochs))

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            if len(self._orders) > 2:
                self._orders.pop(min(self._orders))
            key = generator(self.seed, "order", epoch)
            order = torch.randperm(len(self.rows), generator=key, dtype=torch.int64)
            self._orders[epoch] = order.numpy()
        return self._orders[epoch]
