"""VICReg: two views must agree, every direction must vary, and no two may say the same.

Bardes, Ponce and LeCun 2022, "VICReg: Variance-Invariance-Covariance Regularization for
Self-Supervised Learning". Nothing is contrasted with anything: collapse is ruled out by
asking every output to vary over the batch. Departures: AdamW instead of LARS and a
narrower expander (batches here are small). The expander stays behind.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.core.types import Backbone, Batch, Pictures, Step
from fewlabels.data.augment import Policies, augment
from fewlabels.models.heads import Projector


@dataclass(frozen=True, slots=True)
class VICRegConfig:
    """Settings of VICReg.

    Attributes
    ----------
    invariance, variance, covariance : float
        Weights of the three terms, the paper's (section 4.2).
    widths : tuple of int
        Of the expander's three layers; the paper's are 8192 wide.
    lr, weight_decay : float
        For AdamW, at a batch of 256.
    """

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    widths: tuple[int, ...] = (512, 512, 512)
    lr: float = 2e-3
    weight_decay: float = 1e-4


def vicreg_terms(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return invariance, variance and covariance (Bardes et al. 2022, equations 1 to 5).

    Parameters
    ----------
    a, b : Tensor
        ``(B, D)`` float32 embeddings of the two views of every image.

    Returns
    -------
    tuple of Tensor
        Scalars: the mean squared difference; how far the standard deviations stay below 1,
        averaged over directions and views; the squared covariances off the diagonal over D,
        summed over views.

    Examples
    --------
    >>> x = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    >>> [round(float(term), 3) for term in vicreg_terms(x, x)]
    [0.0, 0.0, 8.0]
    """
    invariance = F.mse_loss(a, b)
    variance = (_too_narrow(a) + _too_narrow(b)) / 2
    return invariance, variance, _off_diagonal(a) + _off_diagonal(b)


def _too_narrow(z: Tensor) -> Tensor:
    return F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean()


def _off_diagonal(z: Tensor) -> Tensor:
    z = z - z.mean(0)
    covariance = z.T @ z / (len(z) - 1)  # (D, D)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]


class VICReg(nn.Module):
    """The method: encoder, expander and one optimizer.

    Parameters
    ----------
    encoder : Backbone
        A backbone; its pooled features feed the expander.
    pictures : Pictures
        Format of the images.
    policies : Policies
        Of which `views` makes the two views.
    config : VICRegConfig, optional
    """

    def __init__(
        self,
        encoder: Backbone,
        pictures: Pictures,
        policies: Policies,
        config: VICRegConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = config or VICRegConfig()
        self.pictures = pictures
        self.policy = policies.views
        self.encoder = encoder
        self.expander = Projector(encoder.num_features, self.config.widths)
        self._adamw = torch.optim.AdamW(
            self.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay, fused=True
        )

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the single optimizer."""
        return {"vicreg": self._adamw}

    def update(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Learn from two views of one batch."""
        x = augment(batch, self.pictures, self.policy, seed=step.seed, views=2)  # (2B, C, S, S)
        with step.autocast():
            z = self.expander(self.encoder(x))  # (2B, D)
        first, second = z.float().chunk(2)
        terms = vicreg_terms(step.gather(first), step.gather(second))
        invariance, variance, covariance = terms
        loss = (
            self.config.invariance * invariance
            + self.config.variance * variance
            + self.config.covariance * covariance
        )
        step.backward(loss, "vicreg")
        step.apply("vicreg")
        return {
            "loss": loss.detach(),
            "invariance": invariance.detach(),
            "variance": variance.detach(),
            "covariance": covariance.detach(),
        }
