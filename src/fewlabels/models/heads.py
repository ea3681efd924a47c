"""Heads: what turns features into projections, logits, probabilities or numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Projector(nn.Sequential):
    """A perceptron without biases: linear, batch norm, ReLU, ..., linear.

    Parameters
    ----------
    features : int
        Length of its input.
    widths : sequence of int
        Of its layers; two of them are SimCLR's, three VICReg's.
    """

    def __init__(self, features: int, widths: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for before, width in pairwise([features, *widths]):
            layers += [nn.Linear(before, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(True)]
        super().__init__(*layers[:-2])


class LinearHead(nn.Module):
    """Standardise features, then a linear map to logits.

    Parameters
    ----------
    features : int
        Length of a feature vector.
    num_classes : int
        Number of logits.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.linear = nn.Linear(features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map features ``(B, F)`` to logits ``(B, num_classes)``."""
        logits: Tensor = self.linear((x - self.mean) * self.scale)
        return logits


class NeighbourHead(nn.Module):
    """Vote of the nearest bank entries by cosine similarity, as log-probabilities.

    Parameters
    ----------
    entries, features, directions, num_classes : int
        Shapes: features ``(B, features)`` are centred and turned to ``(B, directions)``; the
        bank is ``(entries, directions)`` unit vectors, its votes ``(entries, num_classes)``.
    k : int
        Neighbours that vote.
    temperature : float
        Votes weigh ``exp(similarity / temperature)`` (Wu et al. 2018).
    """

    mean: Tensor
    turn: Tensor
    bank: Tensor
    votes: Tensor

    def __init__(
        self,
        entries: int,
        features: int,
        directions: int,
        num_classes: int,
        *,
        k: int,
        temperature: float,
    ) -> None:
        super().__init__()
        self.k = min(k, entries)
        self.temperature = temperature
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("turn", torch.zeros(features, directions))
        self.register_buffer("bank", torch.zeros(entries, directions))
        self.register_buffer("votes", torch.zeros(entries, num_classes))

    def average(self, x: Tensor) -> Tensor:
        """Map features ``(B, F)`` to the weighted mean of their votes ``(B, num_classes)``."""
        vectors = F.normalize((x - self.mean) @ self.turn, dim=1)  # (B, directions)
        similarity = vectors @ self.bank.T  # (B, entries)
        near, which = similarity.topk(self.k, dim=1)
        weights = torch.softmax(near / self.temperature, dim=1)  # (B, k)
        return (weights[:, :, None] * self.votes[which]).sum(1)

    def forward(self, x: Tensor) -> Tensor:
        """Map features ``(B, F)`` to log-probabilities ``(B, num_classes)``."""
        return (self.average(x) + 1e-6).log()


class NeighbourAverage(NeighbourHead):
    """The weighted mean of numbers of the nearest bank entries; its votes are ``(entries, 1)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Map features ``(B, F)`` to numbers ``(B, 1)``."""
        return self.average(x)


class MixtureHead(nn.Module):
    """The average opinion of a linear and a neighbour head, as log-probabilities.

    Parameters
    ----------
    linear : LinearHead
    neighbours : NeighbourHead
    """

    def __init__(self, linear: LinearHead, neighbours: NeighbourHead) -> None:
        super().__init__()
        self.linear = linear
        self.neighbours = neighbours

    def forward(self, x: Tensor) -> Tensor:
        """Map features ``(B, F)`` to log-probabilities ``(B, num_classes)``."""
        opinions = self.linear(x).softmax(1) + self.neighbours(x).softmax(1)
        logits: Tensor = (opinions / 2).clamp(min=1e-9).log()
        return logits


class AverageHead(nn.Module):
    """The average of what a linear and a neighbour head say of a number.

    Parameters
    ----------
    linear : LinearHead
    neighbours : NeighbourAverage
        Each with one output.
    """

    def __init__(self, linear: LinearHead, neighbours: NeighbourAverage) -> None:
        super().__init__()
        self.linear = linear
        self.neighbours = neighbours

    def forward(self, x: Tensor) -> Tensor:
        """Map features ``(B, F)`` to numbers ``(B, 1)``."""
        outputs: Tensor = (self.linear(x) + self.neighbours(x)) / 2
        return outputs


class RegressionHead(nn.Module):
    """A number for each image, in standard deviations from the mean of those learned from.

    Centre and spread are Python floats, not tensors: kept in full precision, on any device.

    Parameters
    ----------
    inner : LinearHead, NeighbourAverage or AverageHead
        With one output.
    centre, spread : float
        Mean and standard deviation, above 0, of the numbers learned from, in their unit.

    Raises
    ------
    ValueError
        Centre or spread is not finite, or the spread not above 0.
    """

    def __init__(self, inner: nn.Module, centre: float, spread: float) -> None:
        super().__init__()
        if not (np.isfinite(centre) and np.isfinite(spread) and spread > 0):
            raise ValueError(f"centre {centre} and spread {spread} cannot scale a number")
        self.inner = inner
        self.centre = centre
        self.spread = spread

    def forward(self, x: Tensor) -> Tensor:
        """Map features ``(B, F)`` to standardised numbers ``(B, 1)``."""
        outputs: Tensor = self.inner(x)
        return outputs


def answers(head: nn.Module, outputs: Tensor) -> np.ndarray:
    """Return what the outputs of a head mean.

    Parameters
    ----------
    head : nn.Module
    outputs : Tensor
        ``(B, K)`` logits, or ``(B, 1)`` from a `RegressionHead`.

    Returns
    -------
    ndarray
        Class probabilities ``(B, K)`` float32, or numbers ``(B,)`` float64 in their unit.
    """
    if isinstance(head, RegressionHead):
        scaled: np.ndarray = outputs[:, 0].detach().float().cpu().numpy().astype(np.float64)
        return head.centre + head.spread * scaled
    probabilities: np.ndarray = outputs.detach().float().softmax(1).cpu().numpy()
    return probabilities


def is_linear(head: nn.Module | None) -> bool:
    """Say whether a head can be trained further: a linear one, of classes or of a number."""
    return isinstance(head.inner if isinstance(head, RegressionHead) else head, LinearHead)
