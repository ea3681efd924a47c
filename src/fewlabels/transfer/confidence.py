"""How much a guess about an unlabelled image counts: FixMatch, FreeMatch and SoftMatch.

All three learn from the class that is named on a light view, and differ in which guesses they
trust. FixMatch (Sohn et al. 2020) trusts those above a fixed probability. FreeMatch (Wang et al.
2023) lets the probability that is asked for follow how sure the network is, in all and of each
class. SoftMatch (Chen et al. 2023) weighs every guess, the less the farther its probability is
below the mean.

What they need to know is kept as running means. The published ones forget at a rate of 0.999 a
step, in a million of steps; here runs are a thousand times shorter, so that a mean is over about
the last tenth of the steps until that comes to 0.999 (`memory`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

MEMORY = 0.999  # of running means and of the teacher: all four papers
THRESHOLD = 0.95  # FixMatch, table 4
FAIRNESS = 0.01  # FreeMatch, section 5.1, with few labels
NARROWER = 4.0  # SoftMatch's variance is divided by 2 squared in its authors' code (n_sigma)


def memory(index: int) -> float:
    """Return the share of a running mean that is kept at a step.

    Examples
    --------
    >>> memory(0), memory(90), memory(1_000_000)
    (0.1, 0.91, 0.999)
    """
    return min(MEMORY, (1 + index) / (10 + index))


class Running(nn.Module):
    """Running means over guesses about unlabelled images.

    Parameters
    ----------
    num_classes : int
    level : bool
        Confidences are taken of guesses whose classes were made equally frequent.

    Attributes
    ----------
    shares : Tensor
        ``(K,)`` mean probability of each class.
    called : Tensor
        ``(K,)`` share of the images that are given each class.
    confidence, variance : Tensor
        Scalars, of the largest probability of an image.
    used : Tensor
        Scalar, mean weight of a guess.
    """

    shares: Tensor
    called: Tensor
    confidence: Tensor
    variance: Tensor
    used: Tensor

    def __init__(self, num_classes: int, *, level: bool) -> None:
        super().__init__()
        self.level = level
        even = torch.full((num_classes,), 1 / num_classes)
        self.register_buffer("shares", even)
        self.register_buffer("called", even.clone())
        self.register_buffer("confidence", even[0].clone())
        self.register_buffer("variance", torch.ones(()))
        self.register_buffer("used", torch.zeros(()))

    @torch.no_grad()
    def observe(self, q: Tensor, index: int) -> None:
        """Take in the probabilities ``(M, K)`` of all unlabelled images of a step."""
        new = 1 - memory(index)
        self.shares.lerp_(q.mean(0), new)
        self.called.lerp_(_named(q), new)
        sure = self.leveled(q).amax(1)
        self.confidence.lerp_(sure.mean(), new)
        self.variance.lerp_(sure.var(correction=min(1, len(sure) - 1)), new)

    def leveled(self, q: Tensor) -> Tensor:
        """Return probabilities as confidences are taken of them."""
        return aligned(q, self.shares) if self.level else q


def aligned(q: Tensor, shares: Tensor, wanted: Tensor | None = None) -> Tensor:
    """Return probabilities whose mean is moved from `shares` towards `wanted`.

    Distribution alignment (Berthelot et al. 2020, ReMixMatch, section 3.1); towards classes that
    are equally frequent, unless told otherwise, it is SoftMatch's uniform alignment.

    Parameters
    ----------
    q : Tensor
        ``(M, K)`` probabilities.
    shares, wanted : Tensor
        ``(K,)`` running mean of the probabilities, and what it should be.

    Examples
    --------
    >>> q = torch.tensor([[0.8, 0.2], [0.6, 0.4]])
    >>> aligned(q, torch.tensor([0.7, 0.3])).numpy().round(2)
    array([[0.63, 0.37],
           [0.39, 0.61]], dtype=float32)
    """
    moved = q / shares if wanted is None else q * wanted / shares
    return moved / moved.sum(1, keepdim=True)


def fixed(q: Tensor, _running: Running) -> Tensor:
    """Return weights ``(M,)``: 1 above FixMatch's threshold, else 0."""
    return (q.amax(1) >= THRESHOLD).to(q.dtype)


def free(q: Tensor, running: Running) -> Tensor:
    """Return weights ``(M,)``: 1 above FreeMatch's threshold of the class, else 0."""
    sure, called = q.max(1)
    return (sure >= thresholds(running.confidence, running.shares)[called]).to(q.dtype)


def thresholds(confidence: Tensor, shares: Tensor) -> Tensor:
    """Return FreeMatch's threshold of each class (equation 8).

    The running mean of confidence, lowered for classes that are given little probability.

    Examples
    --------
    >>> thresholds(torch.tensor(0.8), torch.tensor([0.5, 0.25, 0.25])).round(decimals=3).tolist()
    [0.8..., 0.4..., 0.4...]
    """
    return confidence * shares / shares.amax()


def soft(q: Tensor, running: Running) -> Tensor:
    """Return SoftMatch's weights ``(M,)`` of aligned guesses."""
    sure = running.leveled(q).amax(1)
    return truncated_gaussian(sure, running.confidence, running.variance)


def truncated_gaussian(sure: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Return weights of confidences ``(M,)``: 1 above the mean, a Gaussian below (equation 7)."""
    below = (sure - mean).clamp(max=0.0)
    return torch.exp(-below.square() / (2 * variance.clamp(min=1e-12) / NARROWER))


def fairness(logits: Tensor, weights: Tensor, running: Running) -> Tensor:
    """Return FreeMatch's penalty on predictions that are less varied than they were (equation 11).

    Parameters
    ----------
    logits : Tensor
        ``(M, K)`` of strong views; they get a gradient.
    weights : Tensor
        ``(M,)`` whether each counts.
    running : Running

    Returns
    -------
    Tensor
        Scalar: minus the cross-entropy of the running means and those of this batch, each divided
        by how often classes are named. Classes that the batch does not name are left out.
    """
    # What does not count is weighed by nothing instead of left out: to know how many there are, an
    # accelerator would have to be waited for.
    counts = (weights > 0).to(logits.dtype)[:, None]  # (M, 1)
    q = logits.softmax(1)
    all_counted = counts.sum().clamp(min=1)
    named = (_calls(q) * counts).sum(0) / all_counted
    wanted = _summing_to_one(running.shares, running.called)
    found = _summing_to_one((q * counts).sum(0) / all_counted, named)
    # A class that is not named has a share of nothing.
    each = wanted * found.clamp(min=1e-12).log()
    return torch.where(named > 0, each, 0.0).sum()


def _summing_to_one(shares: Tensor, named: Tensor) -> Tensor:
    each = torch.where(named > 0, shares / named.clamp(min=1e-12), 0.0)
    return each / each.sum().clamp(min=1e-12)


def _named(q: Tensor) -> Tensor:
    """Return the share ``(K,)`` of the images of which each class is the likeliest."""
    return _calls(q).mean(0)


def _calls(q: Tensor) -> Tensor:
    """Return ``(M, K)``: 1 for the likeliest class of each image, else 0."""
    # Not `one_hot`, which looks at the largest class first, and so waits for an accelerator.
    return torch.zeros_like(q).scatter_(1, q.argmax(1, keepdim=True), 1.0)


Rule = Callable[[Tensor, Running], Tensor]
RULES: dict[str, Rule] = {"fixmatch": fixed, "freematch": free, "softmatch": soft}


def certainty(shares: Tensor) -> Tensor:
    """Return how much label propagation is to be trusted (Iscen et al. 2019, equation 11).

    Parameters
    ----------
    shares : Tensor
        ``(m, K)`` non-negative class shares that sum to 1.

    Returns
    -------
    Tensor
        ``(m,)`` in [0, 1]: 1 minus the entropy, as a part of the largest possible one.

    Examples
    --------
    >>> certainty(torch.tensor([[1.0, 0.0], [0.5, 0.5]])).tolist()
    [1.0, 0.0]
    """
    entropy = -torch.xlogy(shares, shares).sum(1)
    return (1 - entropy / torch.tensor(float(shares.shape[1])).log()).clamp(0.0, 1.0)
