"""SimCLR: two views of an image must find each other among the views of all others.

Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual
Representations". An encoder and a small projector map both views to the unit
sphere; the loss is a classification of each view's partner among all other views of
the batch. Departures: AdamW instead of LARS (batches here are small), and colour
changes in a fixed order. The projector stays behind.
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
class SimCLRConfig:
    """Settings of SimCLR.

    Attributes
    ----------
    temperature : float
        Divides the similarities; 0.2 does best in short runs on small images.
    hidden, out : int
        Widths of the projector.
    lr, weight_decay : float
        For AdamW, at a batch of 256.
    """

    temperature: float = 0.2
    hidden: int = 512
    out: int = 128
    lr: float = 2e-3
    weight_decay: float = 1e-4


def nt_xent(z: Tensor, temperature: float) -> Tensor:
    """Return the normalised temperature-scaled cross-entropy (Chen et al. 2020, eq. 1).

    Parameters
    ----------
    z : Tensor
        ``(2B, D)`` projections: the first views of all images, then the second views.
    temperature : float
        Divides the cosine similarities.

    Returns
    -------
    Tensor
        Scalar; ``log(2B - 1)`` when all views look alike.

    Examples
    --------
    >>> z = torch.ones(8, 4)
    >>> round(float(nt_xent(z, 0.5)), 4)  # log(7)
    1.9459
    """
    count = z.shape[0] // 2
    z = F.normalize(z.float(), dim=1)
    logits = z @ z.T / temperature  # (2B, 2B)
    logits.fill_diagonal_(float("-inf"))  # a view is not its own partner
    partner = torch.arange(2 * count, device=z.device).roll(count)
    return F.cross_entropy(logits, partner)


class SimCLR(nn.Module):
    """The method: encoder, projector and one optimizer.

    Parameters
    ----------
    encoder : Backbone
        A backbone; its pooled features feed the projector.
    pictures : Pictures
        Format of the images.
    policies : Policies
        Of which `views` makes the two views.
    config : SimCLRConfig, optional
    """

    def __init__(
        self,
        encoder: Backbone,
        pictures: Pictures,
        policies: Policies,
        config: SimCLRConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = config or SimCLRConfig()
        self.pictures = pictures
        self.policy = policies.views
        self.encoder = encoder
        self.projector = Projector(encoder.num_features, (self.config.hidden, self.config.out))
        self._adamw = torch.optim.AdamW(
            self.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay, fused=True
        )

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the single optimizer."""
        return {"simclr": self._adamw}

    def update(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Learn from two views of one batch."""
        x = augment(batch, self.pictures, self.policy, seed=step.seed, views=2)  # (2B, C, S, S)
        with step.autocast():
            z = self.projector(self.encoder(x))  # (2B, D)
        first, second = z.chunk(2)
        z = torch.cat([step.gather(first), step.gather(second)])
        loss = nt_xent(z, self.config.temperature)
        step.backward(loss, "simclr")
        step.apply("simclr")
        return {"loss": loss.detach()}
