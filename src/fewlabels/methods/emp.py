"""EMP-SSL: many crops of an image must agree, and images must fill the space.

Tong, Chen, Ma and LeCun 2023, "EMP-SSL: Towards Self-Supervised Learning in One Training
Epoch". The embeddings of many small crops of an image are pulled to their mean, while the
coding rate of every batch of crops (how many directions it fills) is pushed up. Made for
very few epochs. Departures: AdamW instead of LARS, fewer crops, and a narrower projector.
The projector stays behind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.core.types import Backbone, Batch, Pictures, Step
from fewlabels.data.augment import Policies, augment
from fewlabels.models.heads import Projector


@dataclass(frozen=True, slots=True)
class EMPConfig:
    """Settings of EMP-SSL.

    Attributes
    ----------
    crops : int
        Crops of every image; the paper's 20 give 100 images a batch their due.
    area : tuple of float
        Of a crop, the paper's fixed quarter; used where the policy crops at all.
    agreement : float
        Weight of the agreement, the paper's 200.
    precision : float
        Squared precision of the coding rate, the paper's 0.2.
    widths : tuple of int
        Of the projector; the paper's are 4096 and 1024.
    lr, weight_decay : float
        For AdamW, at a batch of 64 images.
    """

    crops: int = 8
    area: tuple[float, float] = (0.25, 0.25)
    agreement: float = 200.0
    precision: float = 0.2
    widths: tuple[int, ...] = (512, 128)
    lr: float = 2e-3
    weight_decay: float = 1e-4


def coding_rate(z: Tensor, precision: float) -> Tensor:
    """Return how many nats it takes to tell unit vectors apart (Tong et al. 2023, equation 2).

    Parameters
    ----------
    z : Tensor
        ``(V, B, D)`` float32 unit vectors; each of the V batches has its own rate.
    precision : float
        Squared precision.

    Returns
    -------
    Tensor
        Scalar: half the log-determinant of ``I + D / (B * precision) Z^T Z``, averaged.

    Examples
    --------
    >>> round(float(coding_rate(torch.eye(2)[None], 1.0)), 4)  # log 2
    0.6931
    """
    _, count, width = z.shape
    gram = torch.matmul(z.transpose(1, 2), z) * (width / (count * precision))  # (V, D, D)
    return torch.logdet(torch.eye(width, device=z.device, dtype=z.dtype) + gram).mean() / 2


def agreement(z: Tensor) -> Tensor:
    """Return the mean cosine of crops ``(V, B, D)`` with the mean of their image's crops."""
    return F.cosine_similarity(z, z.mean(0, keepdim=True), dim=2).mean()


class EMP(nn.Module):
    """The method: encoder, projector and one optimizer.

    Parameters
    ----------
    encoder : Backbone
        A backbone; its pooled features feed the projector.
    pictures : Pictures
        Format of the images.
    policies : Policies
        Of which `views` makes the crops.
    config : EMPConfig, optional
    """

    def __init__(
        self,
        encoder: Backbone,
        pictures: Pictures,
        policies: Policies,
        config: EMPConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = config or EMPConfig()
        self.pictures = pictures
        views = policies.views
        self.policy = replace(views, crop=self.config.area) if views.crop != (1.0, 1.0) else views
        self.encoder = encoder
        self.projector = Projector(encoder.num_features, self.config.widths)
        self._adamw = torch.optim.AdamW(
            self.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay, fused=True
        )

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the single optimizer."""
        return {"emp": self._adamw}

    def update(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Learn from many crops of one batch."""
        config = self.config
        x = augment(batch, self.pictures, self.policy, seed=step.seed, views=config.crops)
        with step.autocast():
            z = self.projector(self.encoder(x))  # (V * B, D)
        z = F.normalize(z.float(), dim=1).view(config.crops, len(batch.images), -1)
        z = step.gather(z.transpose(0, 1).contiguous()).transpose(0, 1)  # (V, B, D)
        rate, alike = coding_rate(z, config.precision), agreement(z)
        loss = -rate - config.agreement * alike
        step.backward(loss, "emp")
        step.apply("emp")
        return {"loss": loss.detach(), "coding_rate": rate.detach(), "agreement": alike.detach()}
