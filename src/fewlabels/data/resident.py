"""Decoded images that lie on the training device as a whole, so that batches are looked up there.

A batch read on the host is a slice of memory and a copy to the device, which a fast accelerator
waits for in every step. Sets of small images fit it many times over.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.data.store import MappedStore, Store

SHARE = 0.1  # of the memory that is free on the device; the rest is for training


class Resident:
    """A store, and its images on a device; what it offers beside `take` is the store's own.

    Parameters
    ----------
    store : MappedStore
        Whose images all decoded, to one size.
    device : torch.device or str

    Raises
    ------
    ValueError
        Images are missing, or differ in size.
    """

    def __init__(self, store: MappedStore, device: torch.device | str) -> None:
        block = store.block
        if block is None:
            raise ValueError("images that differ in size, or are missing, make no block")
        self._store = store
        # A copy where it stays on the CPU too: torch warns about memory that is read alone.
        self.pixels = torch.tensor(block, device=device)  # (N, H, W, C) uint8
        self.count = store.count
        self.channels = store.channels
        self.short_side = store.short_side
        self.ok = store.ok
        self.sha256 = store.sha256
        self.widths = store.widths
        self.heights = store.heights
        self.issues = store.issues
        self.notes = store.notes
        self.codes = store.codes
        self.folder = store.folder

    def read(self, rows: np.ndarray) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
        """Copy the images of `rows` out of the map; see `fewlabels.data.store.Store.read`."""
        return self._store.read(rows)

    def is_on(self, device: torch.device | str) -> bool:
        """Say whether the images lie on this device."""
        asked = torch.device(device)
        return asked.type == self.pixels.device.type and asked.index in (
            None,
            self.pixels.device.index,
        )

    def take(self, indices: Tensor) -> Tensor:
        """Return images ``(B, C, H, W)`` uint8, channels-last, of rows ``(B,)`` on the device."""
        return self.pixels.index_select(0, indices).permute(0, 3, 1, 2)


def resident(store: Store, device: torch.device) -> Store:
    """Return the store with its images on a GPU where they are few enough, else as it is."""
    if device.type != "cuda" or not isinstance(store, MappedStore) or store.block is None:
        return store
    free, _ = torch.cuda.mem_get_info(device)
    return Resident(store, device) if store.block.nbytes <= SHARE * free else store
