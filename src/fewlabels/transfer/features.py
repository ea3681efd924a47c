"""Frozen features of whole data sets, computed once, and their neighbour graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabels.core.types import Backbone, Pictures
from fewlabels.data.augment import plain
from fewlabels.data.loader import Reader, load
from fewlabels.models.backbones import pooled_features

GRAPH_NEIGHBOURS = 10
GRAPH_IMAGES = 20_000  # a larger pool adds seconds to the graph, and measured no accuracy
DIRECTIONS = 512  # principal directions kept of longer features
SMALLEST = 1e-5  # a direction's variance, as a share of the largest, below which it is dropped


def extract(
    backbone: Backbone,
    reader: Reader,
    rows: np.ndarray,
    pictures: Pictures,
    *,
    device: torch.device,
    grid: int = 1,
    batch_size: int = 512,
    bf16: bool = False,
) -> Tensor:
    """Return the features of `rows` from the frozen backbone, in evaluation mode.

    Returns
    -------
    Tensor
        ``(n, F)`` float32 on the CPU.
    """
    training = backbone.training
    backbone.eval()
    parts = []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for start in range(0, len(rows), batch_size):
            x = plain(load(reader, rows[start : start + batch_size], device), pictures)
            parts.append(pooled_features(backbone, x, grid).float().cpu())
    backbone.train(training)
    return torch.cat(parts).clone()


@dataclass(frozen=True, slots=True)
class Space:
    """The features of a training set, and which of its images lie near each other.

    Attributes
    ----------
    rows : ndarray
        ``(n,)`` int64 rows of the data set.
    features : Tensor
        ``(n, F)`` float32.
    mean, scale : Tensor
        ``(F,)`` of the training features; scale is one over the standard deviation.
    turn : Tensor
        ``(F, K)`` the half whitening of centred features, see `half_whitening`.
    bank : Tensor
        ``(m, K)`` half-whitened unit vectors of the first `m` images, those in the graph.
    neighbours, weights : Tensor
        ``(m, k)`` int64 positions and float32 cosine similarities of the nearest others.
    """

    rows: np.ndarray
    features: Tensor
    mean: Tensor
    scale: Tensor
    turn: Tensor
    bank: Tensor
    neighbours: Tensor
    weights: Tensor

    def positions(self, rows: np.ndarray) -> Tensor:
        """Return where rows of the data set lie in the space, ``(n,)`` int64."""
        order = np.argsort(self.rows, kind="stable")
        return torch.from_numpy(order[np.searchsorted(self.rows, rows, sorter=order)])

    def inputs(self, rows: np.ndarray, *, whitened: bool) -> Tensor:
        """Return the features of rows, half-whitened ``(n, K)`` or standardised ``(n, F)``."""
        centred = self.features[self.positions(rows)] - self.mean
        return centred @ self.turn if whitened else centred * self.scale


def build_space(rows: np.ndarray, features: Tensor, *, first: np.ndarray | None = None) -> Space:
    """Whiten features by half and connect nearest neighbours by cosine similarity.

    Parameters
    ----------
    rows : ndarray
        ``(n,)`` rows of the data set, already in random order.
    features : Tensor
        ``(n, F)``.
    first : ndarray, optional
        Rows that must be in the graph when the pool is larger than it may be.
    """
    if first is not None:
        order = np.argsort(~np.isin(rows, first), kind="stable")
        rows, features = rows[order], features[torch.from_numpy(order)]
    mean, std = features.mean(0), features.std(0)
    scale = 1 / std.clamp(min=1e-3 * float(std.mean().clamp(min=1e-6)))
    turn = half_whitening(features - mean)
    bank = F.normalize((features[:GRAPH_IMAGES] - mean) @ turn, dim=1)
    neighbours, weights = _nearest(bank, GRAPH_NEIGHBOURS)
    return Space(rows, features, mean, scale, turn, bank, neighbours, weights)


def half_whitening(centred: Tensor) -> Tensor:
    """Return the linear map that halves, on a log scale, how unequal the principal variances are.

    A principal direction of variance v is divided by v to the power 1/4, halfway between
    leaving it alone and whitening it. Whitening in full lets noise speak as loudly as what
    the encoder learned; leaving features alone lets a few directions decide who is whose
    neighbour.

    Parameters
    ----------
    centred : Tensor
        ``(n, F)`` float32 of mean zero.

    Returns
    -------
    Tensor
        ``(F, K)``; the mean variance of ``centred @ turn`` is 1. Directions without
        variance are left out.

    Examples
    --------
    >>> x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    >>> x = (x - x.mean(0)) * torch.tensor([100.0, 1.0])
    >>> ratio = (x @ half_whitening(x)).std(0)
    >>> round(float(ratio[0] / ratio[1]))
    10
    """
    covariance = (centred.T @ centred).double().numpy() / max(1, len(centred) - 1)
    width = len(covariance)
    variances, axes = scipy.linalg.eigh(
        covariance, subset_by_index=(max(0, width - DIRECTIONS), width - 1)
    )
    variances, axes = variances[::-1], axes[:, ::-1]  # the largest first
    kept = variances > SMALLEST * variances[0]
    kept[0] = True
    turn = axes[:, kept] * np.maximum(variances[kept], 1e-12) ** -0.25
    turn /= np.sqrt(np.maximum((variances[kept] ** 0.5).mean(), 1e-12))
    return torch.from_numpy(turn.astype(np.float32))


def _nearest(bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    k = min(k, len(bank) - 1)
    near, similar = [], []
    for start in range(0, len(bank), 1024):
        block = bank[start : start + 1024] @ bank.T  # (1024, m)
        own = torch.arange(len(block))
        block[own, own + start] = -2.0
        top = block.topk(k, dim=1)
        near.append(top.indices)
        similar.append(top.values)
    return torch.cat(near), torch.cat(similar)
