"""Whether an encoder learns anything: rank of the embedding, and k-NN on the visible labels.

Both are for people to look at while it trains; nothing is chosen by them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabels.core.types import Backbone, Pictures
from fewlabels.data.dataset import Dataset
from fewlabels.transfer.features import extract

PROBES = 8  # times the probe is taken in a run
IMAGES = 512
COLLAPSED_RANK = 3.0  # of a code of five numbers or more; see `collapsed_below`


def effective_rank(features: Tensor) -> float:
    """Return the exponential of the entropy of the singular values (Roy and Vetterli 2007).

    RankMe (Garrido et al. 2023) uses it to judge encoders without labels.

    Parameters
    ----------
    features : Tensor
        ``(n, F)``.

    Returns
    -------
    float
        Between 1 and ``min(n, F)``; 1 when all features are alike up to scale.

    Examples
    --------
    >>> round(effective_rank(torch.eye(8) - 1 / 8), 3)
    7.0
    """
    values = torch.linalg.svdvals((features - features.mean(0)).double())
    total = float(values.sum())
    if total < 1e-9:
        return 1.0
    shares = values / total
    shares = shares[shares > 1e-12]
    return float(torch.exp(-(shares * shares.log()).sum()))


def collapsed_below(length: int) -> float:
    """Return the effective rank below which features of this length have collapsed.

    A code of two numbers cannot span three directions: a short code has collapsed where it spans
    less than half-way from one direction to all of its own.

    Examples
    --------
    >>> collapsed_below(2), collapsed_below(4), collapsed_below(512)
    (1.5, 2.5, 3.0)
    """
    return min(COLLAPSED_RANK, (1 + length) / 2)


def leave_one_out_knn(features: Tensor, labels: np.ndarray, *, k: int = 5) -> float:
    """Return the accuracy of a k-NN vote of all other labelled images.

    Parameters
    ----------
    features : Tensor
        ``(n, F)``.
    labels : ndarray
        ``(n,)`` int64.
    k : int
        Neighbours; never more than ``n - 1``.

    Returns
    -------
    float
        In [0, 1]; NaN with fewer than two images.
    """
    if len(labels) < 2:
        return float("nan")
    values, near = _nearest_others(features, min(k, len(labels) - 1))
    votes = F.one_hot(torch.from_numpy(labels)[near]).float()
    weighted = (votes * (values / 0.1).exp()[:, :, None]).sum(1)
    return float((weighted.argmax(1).numpy() == labels).mean())


def leave_one_out_knn_r2(features: Tensor, targets: np.ndarray, *, k: int = 5) -> float:
    """Return R2 of the weighted mean of the k nearest other images with a number.

    Parameters
    ----------
    features : Tensor
        ``(n, F)``.
    targets : ndarray
        ``(n,)`` float64.
    k : int
        Neighbours; never more than ``n - 1``.

    Returns
    -------
    float
        At most 1; 0 is no better than knowing the mean. NaN with fewer than two images, and
        where the numbers do not vary.
    """
    guessed = leave_one_out_means(features, targets, k=k)
    spread = float(np.var(targets))
    if guessed is None or spread == 0:
        return float("nan")
    return 1 - float(((targets - guessed) ** 2).mean()) / spread


def leave_one_out_means(features: Tensor, targets: np.ndarray, *, k: int = 5) -> np.ndarray | None:
    """Return what the k nearest others say of each number, ``(n,)``; None with fewer than two."""
    if len(targets) < 2:
        return None
    values, near = _nearest_others(features, min(k, len(targets) - 1))
    weights = (values / 0.1).softmax(1).double().numpy()
    guessed: np.ndarray = (weights * targets[near.numpy()]).sum(1)
    return guessed


def _nearest_others(features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return similarities and places ``(n, k)`` of the nearest other images."""
    unit = F.normalize(features - features.mean(0), dim=1)
    similarity = unit @ unit.T
    similarity.fill_diagonal_(-2.0)
    near = similarity.topk(k, dim=1)
    return near.values, near.indices


class LiveProbe:
    """Probes an encoder on the visible labels of a data set.

    Parameters
    ----------
    dataset : Dataset
    pictures : Pictures
    device : torch.device
    rows : ndarray, optional
        ``(n,)`` visible labelled rows; without them only the rank is measured.
    bf16 : bool
    """

    def __init__(
        self,
        dataset: Dataset,
        pictures: Pictures,
        device: torch.device,
        *,
        rows: np.ndarray | None = None,
        bf16: bool = False,
    ) -> None:
        self.dataset = dataset
        self.pictures = pictures
        self.device = device
        self.rows = rows
        self.bf16 = bf16
        train = dataset.pretraining_rows()
        self.sample = train[np.linspace(0, len(train) - 1, min(len(train), IMAGES)).astype(int)]

    def __call__(self, encoder: Backbone) -> dict[str, float]:
        """Return ``rank`` and, where labels are visible, ``knn``; ``knn_r2`` for numbers."""
        result = {"rank": effective_rank(self._features(encoder, self.sample))}
        if self.rows is not None and len(self.rows) > 1:
            x = self._features(encoder, self.rows)
            known = self.dataset.truth[self.rows]
            if self.dataset.targets is None:
                result["knn"] = leave_one_out_knn(x, known)
            elif np.isfinite(r2 := leave_one_out_knn_r2(x, known)):
                result["knn_r2"] = r2
        return result

    def guesses(self, encoder: Backbone) -> np.ndarray | None:
        """Return what the neighbours say of each visible number; None where there are no two."""
        assert self.rows is not None
        known = self.dataset.truth[self.rows]
        return leave_one_out_means(self._features(encoder, self.rows), known)

    def verdict(self, encoder: Backbone) -> tuple[float, str]:
        """Return the rank and a warning in words, empty when all is well."""
        rank = effective_rank(self._features(encoder, self.sample))
        return rank, self.warning(rank, encoder.num_features)

    def warning(self, rank: float, length: int) -> str:
        """Return a warning in words where the rank is that of a collapsed encoder, else nothing.

        Parameters
        ----------
        rank : float
            Of its features.
        length : int
            Of a feature vector.
        """
        least = self.least_rank(length)
        if least is None or rank >= least:
            return ""
        return (
            f"the encoder has collapsed: its features of {len(self.sample)} images span "
            f"about {rank:.1f} directions, so images can hardly be told apart"
        )

    def least_rank(self, length: int) -> float | None:
        """Return the rank below which features of this length have collapsed.

        None with images so few that the rank tells nothing.
        """
        return collapsed_below(length) if len(self.sample) > 2 * COLLAPSED_RANK else None

    def _features(self, encoder: Backbone, rows: np.ndarray) -> Tensor:
        return extract(
            encoder,
            self.dataset.store,
            rows,
            self.pictures,
            device=self.device,
            bf16=self.bf16,
        )
