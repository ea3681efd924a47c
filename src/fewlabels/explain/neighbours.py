"""The training images that the network finds most like an image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabels.transfer.features import half_whitening


def nearest(
    queries: Tensor, bank: Tensor, k: int, *, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest entries of a bank, by the cosine of half-whitened features.

    The same space in which labels spread and neighbours vote, see
    `fewlabels.transfer.features`.

    Parameters
    ----------
    queries, bank : Tensor
        ``(q, F)`` and ``(n, F)`` float32.
    k : int
        At most `n` are returned.
    own : ndarray, optional
        ``(q,)`` the entry that is the query itself and does not count, -1 for none.

    Returns
    -------
    places : ndarray
        ``(q, k)`` int64 into the bank, the nearest first.
    similarity : ndarray
        ``(q, k)`` float32 in [-1, 1].

    Examples
    --------
    >>> x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    >>> places, similarity = nearest(x[:2], x, 3)
    >>> places[:, 0].tolist(), similarity[:, 0].round(3).tolist()
    ([0, 1], [1.0, 1.0])
    >>> bool(nearest(x[:2], x, 3, own=np.array([0, 1]))[0][0, 0] == 0)
    False
    """
    mean = bank.mean(0)
    turn = half_whitening(bank - mean)
    unit = F.normalize((bank - mean) @ turn, dim=1)
    similarity = F.normalize((queries - mean) @ turn, dim=1) @ unit.T  # (q, n)
    count = len(bank)
    if own is not None:
        inside = np.flatnonzero(own >= 0)
        similarity[torch.from_numpy(inside), torch.from_numpy(own[inside])] = -2.0
        count -= bool(len(inside))
    near = similarity.topk(min(k, count), dim=1)
    return near.indices.numpy(), near.values.numpy()
