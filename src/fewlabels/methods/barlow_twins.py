"""Barlow Twins: what two views say must correlate direction by direction, and nowhere else.

Zbontar, Jing, Misra, LeCun and Deny 2021, "Barlow Twins: Self-Supervised Learning via
Redundancy Reduction". The cross-correlation of the embeddings of two views over the batch
is pushed to the identity. Departures: AdamW instead of LARS and a narrower projector
(batches here are small). The projector stays behind.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewlabels.core.types import Backbone, Batch, Pictures, Step
from fewlabels.data.augment import Policies, augment
from fewlabels.models.heads import Projector


@dataclass(frozen=True, slots=True)
class BarlowTwinsConfig:
    """Settings of Barlow Twins.

    Attributes
    ----------
    redundancy : float
        Weight of the correlations off the diagonal, the paper's 5e-3.
    widths : tuple of int
        Of the projector's three layers; the paper's are 8192 wide.
    lr, weight_decay : float
        For AdamW, at a batch of 256.
    """

    redundancy: float = 5e-3
    widths: tuple[int, ...] = (512, 512, 512)
    lr: float = 2e-3
    weight_decay: float = 1e-4


def barlow_twins_loss(a: Tensor, b: Tensor, redundancy: float) -> Tensor:
    """Return the distance of the cross-correlation from the identity (Zbontar et al., eq. 1).

    Parameters
    ----------
    a, b : Tensor
        ``(B, D)`` float32 embeddings of the two views of every image.
    redundancy : float
        Weight of the off-diagonal squares.

    Returns
    -------
    Tensor
        Scalar.

    Examples
    --------
    >>> x = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    >>> round(float(barlow_twins_loss(x, x, 0.5)), 3)
    0.0
    >>> round(float(barlow_twins_loss(x, -x, 0.5)), 3)  # two times (-1 - 1) squared
    8.0
    """
    correlation = _standard(a).T @ _standard(b) / len(a)  # (D, D)
    agreement = correlation.diagonal()
    rest = correlation.square().sum() - agreement.square().sum()
    return (agreement - 1).square().sum() + redundancy * rest


def _standard(z: Tensor) -> Tensor:
    return (z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt()


class BarlowTwins(nn.Module):
    """The method: encoder, projector and one optimizer.

    Parameters
    ----------
    encoder : Backbone
        A backbone; its pooled features feed the projector.
    pictures : Pictures
        Format of the images.
    policies : Policies
        Of which `views` makes the two views.
    config : BarlowTwinsConfig, optional
    """

    def __init__(
        self,
        encoder: Backbone,
        pictures: Pictures,
        policies: Policies,
        config: BarlowTwinsConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = config or BarlowTwinsConfig()
        self.pictures = pictures
        self.policy = policies.views
        self.encoder = encoder
        self.projector = Projector(encoder.num_features, self.config.widths)
        self._adamw = torch.optim.AdamW(
            self.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay, fused=True
        )

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the single optimizer."""
        return {"barlow_twins": self._adamw}

    def update(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Learn from two views of one batch."""
        x = augment(batch, self.pictures, self.policy, seed=step.seed, views=2)  # (2B, C, S, S)
        with step.autocast():
            z = self.projector(self.encoder(x))  # (2B, D)
        first, second = z.float().chunk(2)
        loss = barlow_twins_loss(step.gather(first), step.gather(second), self.config.redundancy)
        step.backward(loss, "barlow_twins")
        step.apply("barlow_twins")
        return {"loss": loss.detach()}
