"""Frozen features of whole data sets, computed once, and their neighbour graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabels.core.types import Backbone, Pictures
from fewlabels.data.augment import plain
from fewlabels.data.loader import Reader, load
from fewlabels.models.backbones import pooled_features

GRAPH_NEIGHBOURS = 10
GRAPH_IMAGES = 20_000  # a larger pool adds seconds to the graph, and measured no accuracy


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
    bank : Tensor
        ``(m, F)`` centred unit vectors of the first `m` images, those in the graph.
    neighbours, weights : Tensor
        ``(m, k)`` int64 positions and float32 cosine similarities of the nearest others.
    """

    rows: np.ndarray
    features: Tensor
    mean: Tensor
    scale: Tensor
    bank: Tensor
    neighbours: Tensor
    weights: Tensor


def build_space(rows: np.ndarray, features: Tensor, *, first: np.ndarray | None = None) -> Space:
    """Standardise features and connect nearest neighbours by cosine similarity.

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
    bank = F.normalize(features[:GRAPH_IMAGES] - mean, dim=1)
    neighbours, weights = _nearest(bank, GRAPH_NEIGHBOURS)
    return Space(rows, features, mean, scale, bank, neighbours, weights)


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
