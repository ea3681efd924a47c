"""Classes of unequal size: class weights, balanced sampling, logit adjustment.

A plain loss learns how frequent classes are as well as how they look, so that a rare class is
seldom named. Three remedies, each of which asks for the same error in every class:

- ``weights``: an image counts in inverse proportion to the size of its class;
- ``sampling``: every class is drawn equally often (`fewlabels.data.loader.BalancedBatches`);
- ``logits``: logit adjustment (Menon et al. 2021). The logarithms of the class frequencies are
  added to the logits while learning (their equation 10), so that what the network itself says is
  for classes that are equally frequent.

Menon et al. also adjust afterwards, by subtracting the logarithms from the logits of a plain fit.
The loss is taken here: the model then needs no correction wherever it goes, and their tables
favour it. For a logistic regression whose intercepts are free of penalty the two are one, since
a constant added to the score of a class only moves its intercept; it is adjusted afterwards.

Frequencies are those of the labels that may be learned from, and no others.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.models.heads import LinearHead

IMBALANCE = ("none", "weights", "sampling", "logits")

# What each remedy becomes for a small model on frozen features, which sees all labels at once:
# drawing classes equally often is then to weigh them. Models that are not listed treat classes
# alike by themselves (centroid, spreading), or have no loss to weigh (knn); the scores of ridge
# and svm are no log-probabilities that frequencies could be added to.
_OF_HEADS: dict[str, dict[str, str]] = {
    "logistic": {"weights": "weights", "logits": "logits"},
    "features": {"weights": "weights", "logits": "logits"},
    "ridge": {"weights": "weights"},
    "svm": {"weights": "weights"},
}


def head_remedy(kind: str, imbalance: str) -> str:
    """Return what a remedy becomes for a small model of frozen features; ``none`` if nothing.

    Examples
    --------
    >>> head_remedy("logistic", "sampling"), head_remedy("ridge", "logits")
    ('weights', 'none')
    """
    asked = "weights" if imbalance == "sampling" else imbalance
    return _OF_HEADS.get(kind, {}).get(asked, "none")


def class_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return a weight for each class, in inverse proportion to its images.

    Parameters
    ----------
    labels : ndarray
        ``(n,)`` int64 in ``[0, num_classes)``, n >= 1.
    num_classes : int

    Returns
    -------
    ndarray
        ``(num_classes,)`` float64 whose mean over the images is 1; 0 for a class without one.

    Examples
    --------
    >>> class_weights(np.array([0, 0, 0, 2]), 3).round(3).tolist()
    [0.667, 0.0, 2.0]
    """
    counts = np.bincount(labels, minlength=num_classes)
    seen = counts > 0
    weights = np.zeros(num_classes)
    weights[seen] = len(labels) / (seen.sum() * counts[seen])
    return weights


def log_priors(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the logarithm of each class's share of the images.

    Returns
    -------
    ndarray
        ``(num_classes,)`` float64, at most 0. A class without an image gets 0, the logarithm
        of being certain: nothing speaks for it, so the loss must not lift it above the others.

    Examples
    --------
    >>> np.exp(log_priors(np.array([0, 0, 0, 2]), 3)).round(3).tolist()
    [0.75, 1.0, 0.25]
    """
    counts = np.bincount(labels, minlength=num_classes)
    return np.log(np.where(counts > 0, counts / len(labels), 1.0))


class ClassLoss(nn.Module):
    """Cross-entropy with label smoothing, and a remedy for classes of unequal size.

    Parameters
    ----------
    labels : ndarray
        ``(n,)`` int64 classes of the images that are learned from.
    num_classes : int
    imbalance : str
        One of `IMBALANCE`; ``sampling`` changes the batches and leaves the loss plain.
    smoothing : float
        Label smoothing in [0, 1).
    """

    weight: Tensor | None
    shift: Tensor | None

    def __init__(
        self, labels: np.ndarray, num_classes: int, imbalance: str, smoothing: float
    ) -> None:
        super().__init__()
        self.smoothing = smoothing
        weight = class_weights(labels, num_classes) if imbalance == "weights" else None
        shift = log_priors(labels, num_classes) if imbalance == "logits" else None
        # They follow from the labels, and are no part of what is saved.
        for name, values in (("weight", weight), ("shift", shift)):
            buffer = None if values is None else torch.from_numpy(values).float()
            self.register_buffer(name, buffer, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of logits ``(B, num_classes)`` on classes ``(B,)``.

        Weighted losses are divided by the number of images, not by the sum of their weights:
        weights are 1 in the mean over the training set, so batches, and the shares that
        several processes take of one, need not know of each other.
        """
        if self.shift is not None:
            logits = logits + self.shift
        each = F.cross_entropy(
            logits, target, weight=self.weight, label_smoothing=self.smoothing, reduction="none"
        )
        return each.mean()


def adjust(head: LinearHead, labels: np.ndarray) -> LinearHead:
    """Subtract the log-frequencies of classes from the biases of a head; return it.

    Parameters
    ----------
    head : LinearHead
        Whose outputs are logits of a fit without remedy. Changed in place.
    labels : ndarray
        ``(n,)`` int64 classes it was fitted on.
    """
    shift = log_priors(labels, head.linear.out_features)
    with torch.no_grad():
        head.linear.bias.sub_(torch.from_numpy(shift).float())
    return head
