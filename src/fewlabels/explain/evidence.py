"""The score whose origin a map shows: how much speaks for a class, or the number itself.

Probabilities saturate: where a classifier is sure, nothing changes them and every gradient is
almost zero. So maps of classes explain what lies before the softmax.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.models.heads import MixtureHead, NeighbourHead, RegressionHead

NO_VOTE = 1e-9  # instead of no vote at all, whose logarithm is no number


def evidence(head: nn.Module, features: Tensor, targets: Tensor) -> Tensor:
    """Return how much speaks for one class of each image, with gradients everywhere.

    A linear head: its logit. Neighbours: see `nearness`; their own output has no gradient where
    all of them are of one class. A mixture: the mean of both. A regressor: its number in its
    unit, less the mean of the numbers it learned from. Any other head: its output.

    Parameters
    ----------
    head : nn.Module
        Of a classifier.
    features : Tensor
        ``(B, F)``.
    targets : Tensor
        ``(B,)`` int64 classes; of a regressor they are not read.

    Returns
    -------
    Tensor
        ``(B,)``.
    """
    if isinstance(head, RegressionHead):
        # Without its centre, beside which float32 would lose what a small square changes.
        number: Tensor = head.spread * head(features)[:, 0]
        return number
    if isinstance(head, MixtureHead):
        parts = (evidence(part, features, targets) for part in (head.linear, head.neighbours))
        return torch.stack(list(parts)).mean(0)
    if isinstance(head, NeighbourHead):
        return nearness(head, features, targets)
    logits: Tensor = head(features)
    return logits.gather(1, targets[:, None])[:, 0]


def nearness(head: NeighbourHead, features: Tensor, targets: Tensor) -> Tensor:
    """Return how near images ``(B, F)`` are to the bank's images of their target class: ``(B,)``.

    The logarithm of the class's share of the vote before shares are divided by their sum, over
    the k entries that speak most for the class. For the predicted class that is the head's own
    score but for the division; for any other it still asks how near that class is, where the
    head's k neighbours may hold none of it.
    """
    vectors = F.normalize((features - head.mean) @ head.turn, dim=1)  # (B, directions)
    similarity = vectors @ head.bank.T / head.temperature  # (B, entries)
    votes = head.votes[:, targets].T.clamp(min=NO_VOTE).log()  # (B, entries)
    return (similarity + votes).topk(head.k, dim=1).values.logsumexp(1)
