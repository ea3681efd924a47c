"""The order of images, and batches on the device, as pure functions of the step.

Step `t` takes positions ``t * size`` to ``(t + 1) * size`` of an endless stream of
permutations of the rows, or of a stream that names every class equally often, so training
resumes anywhere by its step number alone.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fewlabels.core.seeding import generator
from fewlabels.core.types import Batch
from fewlabels.data.resident import Resident
from fewlabels.data.streaming import StreamingStore


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
    numbers = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64))
    indices = _sent(numbers, device)
    drawn = torch.zeros_like(indices) if epochs is None else _sent(epochs, device)
    if isinstance(reader, Resident) and reader.is_on(device):
        return Batch(reader.take(indices), None, indices, drawn)
    images, sizes = reader.read(rows)
    canvas = _sent(torch.from_numpy(images), device).permute(0, 3, 1, 2)
    return Batch(
        images=canvas,
        sizes=None if sizes is None else _sent(torch.from_numpy(sizes), device),
        indices=indices,
        epochs=drawn,
    )


def _sent(x: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor on a device; a GPU is not waited for, which takes memory that it can read."""
    if torch.device(device).type == "cuda":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


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

    @property
    def images(self) -> int:
        """Return how many images a step reads."""
        return self.size

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step; any step, in any order."""
        return self.part(step, slice(None))

    def part(self, step: int, span: slice) -> Batch:
        """Return the images of a step's batch in the places of `span`."""
        picked, epochs = self.draw(step, span)
        return load(self.reader, picked, self.device, torch.from_numpy(epochs))

    def ahead(self, step: int, span: slice) -> None:
        """Let a reader that decodes begin with the batch that `part` will be asked for next."""
        if isinstance(self.reader, StreamingStore):
            self.reader.ahead(self.draw(step, span)[0])

    def draw(self, step: int, span: slice) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows that `part` reads, and how often each was drawn before."""
        return self._draw(self._positions(step)[span])

    def _positions(self, step: int) -> np.ndarray:
        return np.arange(step * self.size, (step + 1) * self.size)

    def _draw(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return rows, and how often each was drawn before, of positions in the stream."""
        count = len(self.rows)
        epochs, places = positions // count, positions % count
        picked = np.empty(len(positions), dtype=np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            picked[here] = self.rows[self._order(int(epoch))[places[here]]]
        return picked, epochs

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            if len(self._orders) > 2:
                self._orders.pop(min(self._orders))
            self._orders[epoch] = _permutation(len(self.rows), self.seed, "order", epoch)
        return self._orders[epoch]


class BalancedBatches(Batches):
    """Batches in which every class comes equally often, whatever its size.

    The stream is cut into rounds that name every class once, in an order keyed by the round.
    The images of a class come in permutations of their own, so that none of them is drawn
    again before all others of its class.

    Parameters
    ----------
    labels : ndarray
        ``(n,)`` int64 class of each of the `rows`.

    Other parameters are those of `Batches`.
    """

    def __init__(
        self,
        reader: Reader,
        rows: np.ndarray,
        labels: np.ndarray,
        size: int,
        *,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(reader, rows, size, seed=seed, device=device)
        self._classes = [self.rows[labels == name] for name in np.unique(labels)]
        self._latest: dict[int, tuple[int, np.ndarray]] = {}

    def _draw(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count = len(self._classes)
        rounds, places = positions // count, positions % count
        picked, epochs = np.empty_like(positions), np.empty_like(positions)
        for at, (turn, place) in enumerate(zip(rounds.tolist(), places.tolist(), strict=True)):
            if not at or place == 0:
                named = _permutation(count, self.seed, "round", turn)
            name = int(named[place])
            # A round draws one image of each class: its number is how many came before.
            epochs[at], here = divmod(turn, len(self._classes[name]))
            picked[at] = self._classes[name][self._order_of(name, int(epochs[at]))[here]]
        return picked, epochs

    def _order_of(self, name: int, epoch: int) -> np.ndarray:
        """Return the order of the images of a class in an epoch of their own."""
        if self._latest.get(name, (-1,))[0] != epoch:
            count = len(self._classes[name])
            self._latest[name] = epoch, _permutation(count, self.seed, "order", name, epoch)
        return self._latest[name][1]


class PairedBatches(Batches):
    """Batches of labelled images, each with some unlabelled ones: these come after all of them.

    What belongs together stays together where processes share a batch: the share of a process
    is some of the labelled images, and after these their unlabelled ones.

    Parameters
    ----------
    labelled : Batches
        Whose size counts.
    rows : ndarray
        ``(m,)`` int64 rows of the unlabelled images; each is drawn once in an epoch of their own.
    ratio : int
        Unlabelled images to each labelled one.
    seed : int
        Key of the order of the unlabelled images.
    """

    def __init__(self, labelled: Batches, rows: np.ndarray, ratio: int, *, seed: int) -> None:
        reader, size, device = labelled.reader, labelled.size, labelled.device
        super().__init__(reader, labelled.rows, size, seed=labelled.seed, device=device)
        self._labelled = labelled
        self._others = Batches(reader, rows, size * ratio, seed=seed, device=device)
        self._ratio = ratio

    @property
    def images(self) -> int:
        """Return how many images a step reads."""
        return self.size + self._others.size

    def draw(self, step: int, span: slice) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows that `part` reads, and how often each was drawn before."""
        start, stop, _ = span.indices(self.size)
        places = slice(start * self._ratio, stop * self._ratio)
        both = self._labelled.draw(step, span), self._others.draw(step, places)
        rows, epochs = (np.concatenate(pair) for pair in zip(*both, strict=True))
        return rows, epochs


def _permutation(count: int, seed: int, *names: str | int) -> np.ndarray:
    key = generator(seed, *names)
    order: np.ndarray = torch.randperm(count, generator=key, dtype=torch.int64).numpy()
    return order
