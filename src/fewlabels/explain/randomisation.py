"""Whether a map says anything of what was learned: it must change when the weights do.

Adebayo et al. 2018, "Sanity Checks for Saliency Maps": some pretty maps stay the same when the
network is replaced by one that knows nothing; they draw the edges of the image and explain
nothing. Here all weights are drawn anew at once, the end of that paper's cascade.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from fewlabels.core.seeding import generator
from fewlabels.explain.saliency import Saliency
from fewlabels.models.classifier import Classifier

IMAGES = 6  # that a check looks at
DRAWS = 2  # of random weights
# The paper compares by rank correlation and sets no limit. Half-way between unrelated (0) and
# unchanged (1): above it a map is more like that of a network that knows nothing.
LIMIT = 0.5


@dataclass(frozen=True, slots=True)
class Check:
    """What became of a map when the weights were drawn anew.

    Attributes
    ----------
    correlation : float
        Mean Spearman rank correlation of the maps before and after, in [-1, 1]; of the map and of
        its magnitude, whichever is larger.
    images, draws : int
        Over how many images and draws of weights.
    """

    correlation: float
    images: int
    draws: int

    @property
    def passed(self) -> bool:
        """Whether the map depends on what was learned."""
        return self.correlation <= LIMIT


def check(saliency: Saliency, classifier: Classifier, x: Tensor, targets: Tensor) -> Check:
    """Compare the maps of a classifier with those of copies with random weights.

    Parameters
    ----------
    saliency : callable
        Such as `fewlabels.explain.saliency.grad_cam`.
    classifier : Classifier
        In evaluation mode; it is not changed.
    x : Tensor
        ``(B, C, S, S)`` normalised images.
    targets : Tensor
        ``(B,)`` int64 classes.
    """
    before = saliency(classifier, x, targets).numpy()
    found: list[float] = []
    plain: list[float] = []
    for draw in range(DRAWS):
        after = saliency(randomised(classifier, x, draw), x, targets).numpy()
        plain += [rank_correlation(a, b) for a, b in zip(before, after, strict=True)]
        found += [
            rank_correlation(np.abs(a), np.abs(b)) for a, b in zip(before, after, strict=True)
        ]
    return Check(max(float(np.mean(plain)), float(np.mean(found))), len(x), DRAWS)


def rank_correlation(before: np.ndarray, after: np.ndarray) -> float:
    """Return Spearman's rank correlation of two maps.

    A map without any contrast was not changed by anything, so it counts as 1.

    Examples
    --------
    >>> a = np.arange(9.0).reshape(3, 3)
    >>> round(rank_correlation(a, a**3), 6), round(rank_correlation(a, -a), 6)
    (1.0, -1.0)
    >>> rank_correlation(np.zeros((3, 3)), a), rank_correlation(a, np.zeros((3, 3)))
    (1.0, 0.0)
    """
    if np.ptp(before) == 0:
        return 1.0
    if np.ptp(after) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(before), rankdata(after))[0, 1])


def randomised(classifier: Classifier, x: Tensor, seed: int) -> Classifier:
    """Return a copy that knows nothing: its weights drawn anew, as large as they were.

    Weights come from a normal distribution with their own root mean square, so that signals
    neither vanish nor explode in networks without normalisation. Numbers of one dimension
    (biases, gains) and those without a sign (a neighbour head's votes) are shuffled. Batch norms
    count again, on the images `x`: with the counts of other weights they would flatten all.
    """
    copied = copy.deepcopy(classifier).eval()
    key = generator(seed, "randomised")
    with torch.no_grad():
        for tensor in _learned(copied):
            size = tensor.shape
            if tensor.ndim > 1 and bool((tensor < 0).any()):
                drawn = torch.randn(size, generator=key) * tensor.square().mean().sqrt().cpu()
            else:
                order = torch.randperm(tensor.numel(), generator=key)
                drawn = tensor.cpu().flatten()[order].reshape(size)
            tensor.copy_(drawn)
        _count_again(copied, x if len(x) > 1 else torch.cat([x, x.flip(-1)]))
    return copied


def _learned(module: nn.Module) -> Iterator[Tensor]:
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point() and tensor.numel() > 1:
            yield tensor


def _count_again(classifier: Classifier, x: Tensor) -> None:
    norms = [m for m in classifier.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    norms = [norm for norm in norms if norm.track_running_stats]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches, here one
        norm.train()
    classifier(x)
    for norm in norms:
        norm.eval()
