"""BYOL: predict what a slowly moving copy of yourself says of another view.

Grill et al. 2020, "Bootstrap Your Own Latent". An online network (encoder, projector,
predictor) must predict the projection that a target network gives another view of the same
image; the target is a moving average of the online encoder and projector and gets no
gradient. No other image is needed to compare with. Departures: AdamW instead of LARS,
narrower layers, and a faster target (runs here are short). Projector, predictor and target
stay behind.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.core.types import Backbone, Batch, Pictures, Step
from fewlabels.data.augment import Policies, augment
from fewlabels.models.heads import Projector
from fewlabels.models.momentum import follow


@dataclass(frozen=True, slots=True)
class BYOLConfig:
    """Settings of BYOL.

    Attributes
    ----------
    momentum : float
        Of the target at the start; it rises to 1 along a cosine, as in the paper, whose 0.996
        is for a million steps.
    hidden, out : int
        Widths of projector and predictor; the paper's are 4096 and 256.
    lr, weight_decay : float
        For AdamW, at a batch of 256.
    """

    momentum: float = 0.98
    hidden: int = 512
    out: int = 128
    lr: float = 2e-3
    weight_decay: float = 1e-4


def byol_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the squared distance of unit vectors (Grill et al. 2020, equation 2).

    Parameters
    ----------
    predicted, target : Tensor
        ``(B, D)``; the target gets no gradient.

    Returns
    -------
    Tensor
        Scalar in ``[0, 4]``.

    Examples
    --------
    >>> a = torch.tensor([[1.0, 0.0]])
    >>> float(byol_loss(a, 3 * a)), float(byol_loss(a, -a))
    (0.0, 4.0)
    """
    similarity = F.cosine_similarity(predicted.float(), target.detach().float(), dim=1)
    return (2 - 2 * similarity).mean()


class BYOL(nn.Module):
    """The method: online network, target network and one optimizer.

    Parameters
    ----------
    encoder : Backbone
        A backbone; its pooled features feed the projector.
    pictures : Pictures
        Format of the images.
    policies : Policies
        Of which `views` makes the two views.
    config : BYOLConfig, optional
    """

    def __init__(
        self,
        encoder: Backbone,
        pictures: Pictures,
        policies: Policies,
        config: BYOLConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = config or BYOLConfig()
        self.pictures = pictures
        self.policy = policies.views
        self.encoder = encoder
        widths = (self.config.hidden, self.config.out)
        self.projector = Projector(encoder.num_features, widths)
        self.predictor = Projector(self.config.out, widths)
        online = nn.Sequential(self.encoder, self.projector)
        self.target = copy.deepcopy(online).requires_grad_(False)
        trained = [p for p in self.parameters() if p.requires_grad]
        self._adamw = torch.optim.AdamW(
            trained, lr=self.config.lr, weight_decay=self.config.weight_decay, fused=True
        )

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the single optimizer."""
        return {"byol": self._adamw}

    def update(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Learn from two views of one batch, then let the target follow."""
        x = augment(batch, self.pictures, self.policy, seed=step.seed, views=2)  # (2B, C, S, S)
        with step.autocast():
            predicted = self.predictor(self.projector(self.encoder(x)))  # (2B, D)
            with torch.no_grad():
                target = self.target(x)
        first, second = target.chunk(2)
        loss = byol_loss(predicted, torch.cat([second, first]))  # each predicts the other view
        step.backward(loss, "byol")
        step.apply("byol")
        parts = (self.encoder, self.projector)
        follow(self.target, parts, self.config.momentum, step.progress)
        return {"loss": loss.detach()}
