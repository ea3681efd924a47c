"""DINO: small crops must be sorted as a slowly moving teacher sorts large ones.

Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers" (it works on
CNNs too). A student and its moving average, the teacher, both map a view to a distribution
over learned prototypes; the student must match what the teacher says of other, larger crops
of the same image. Centring keeps one prototype from winning everything, and a low teacher
temperature keeps all from being equal. Departures: fewer prototypes, a lighter head and a
faster teacher (runs and batches here are small). The heads and the teacher stay behind.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.core.errors import UsageError
from fewlabels.core.types import Backbone, Batch, Pictures, Step
from fewlabels.data.augment import Policies, augment
from fewlabels.models.heads import Projector
from fewlabels.models.momentum import follow


@dataclass(frozen=True, slots=True)
class DINOConfig:
    """Settings of DINO.

    Attributes
    ----------
    prototypes : int
        Outputs of the head; the paper's 65,536 are for ImageNet.
    hidden, bottleneck : int
        Widths of the head; the paper's are 2048 and 256.
    student, teacher : float
        Temperatures, the paper's 0.1 and 0.04.
    momentum : float
        Of the teacher at the start; it rises to 1 along a cosine, as in the paper.
    centre : float
        Momentum of the centre, the paper's.
    local : int
        Small crops of every image, at half the side; the paper takes up to 10.
    large, small : tuple of float
        Areas of the two kinds of crops, the paper's, used where the policy crops at all.
    lr, weight_decay : float
        For AdamW, at a batch of 256.
    """

    prototypes: int = 1024
    hidden: int = 512
    bottleneck: int = 128
    student: float = 0.1
    teacher: float = 0.04
    momentum: float = 0.98
    centre: float = 0.9
    local: int = 2
    large: tuple[float, float] = (0.4, 1.0)
    small: tuple[float, float] = (0.1, 0.4)
    lr: float = 2e-3
    weight_decay: float = 1e-4


def dino_loss(student: Tensor, teacher: Tensor, *, student_t: float, teacher_t: float) -> Tensor:
    """Return the cross-entropy of every student view with every other teacher view.

    Parameters
    ----------
    student : Tensor
        ``(V, B, K)`` scores of all views; the first of them are the teacher's views.
    teacher : Tensor
        ``(G, B, K)`` centred scores of the first G views.
    student_t, teacher_t : float
        Temperatures (Caron et al. 2021, equations 1 and 3).

    Returns
    -------
    Tensor
        Scalar; ``log K`` when the student says nothing.

    Examples
    --------
    >>> nothing = torch.zeros(3, 2, 8)
    >>> round(float(dino_loss(nothing, nothing[:2], student_t=0.1, teacher_t=0.1)), 4)  # log 8
    2.0794
    """
    said = F.log_softmax(student / student_t, dim=2)
    wanted = (teacher / teacher_t).softmax(2)
    pairs = [
        -(wanted[g] * said[v]).sum(1).mean()
        for g in range(len(wanted))
        for v in range(len(said))
        if g != v
    ]
    return torch.stack(pairs).mean()


class _Head(nn.Module):
    """A projector whose unit vectors are compared with unit prototypes."""

    def __init__(self, features: int, config: DINOConfig) -> None:
        super().__init__()
        self.project = Projector(features, (config.hidden, config.bottleneck))
        self.prototypes = nn.Parameter(torch.randn(config.prototypes, config.bottleneck))

    def forward(self, x: Tensor) -> Tensor:
        z = F.normalize(self.project(x).float(), dim=1)
        # Divided by small temperatures, cosines in bfloat16 would be too coarse.
        with torch.autocast(z.device.type, enabled=False):
            return z @ F.normalize(self.prototypes, dim=1).T  # (B, K) cosines


class DINO(nn.Module):
    """The method: student, teacher, the centre of what the teacher says, and one optimizer.

    Parameters
    ----------
    encoder : Backbone
        A backbone that takes images of any size; its pooled features feed the head.
    pictures : Pictures
        Format of the images.
    policies : Policies
        Of which `views` makes the crops.
    config : DINOConfig, optional

    Raises
    ------
    UsageError
        For a backbone that does not take the small crops.
    """

    centre: Tensor

    def __init__(
        self,
        encoder: Backbone,
        pictures: Pictures,
        policies: Policies,
        config: DINOConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = config or DINOConfig()
        self.pictures = pictures
        self.small = replace(pictures, size=max(pictures.size // 2, 4))
        crops = policies.views.crop != (1.0, 1.0)
        views = policies.views
        self.large_policy = replace(views, crop=self.config.large) if crops else views
        self.small_policy = replace(views, crop=self.config.small) if crops else views
        self.encoder = encoder
        self._refuse_one_size()
        self.head = _Head(encoder.num_features, self.config)
        student = nn.Sequential(self.encoder, self.head)
        self.teacher = copy.deepcopy(student).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(self.config.prototypes))
        trained = [p for p in self.parameters() if p.requires_grad]
        self._adamw = torch.optim.AdamW(
            trained, lr=self.config.lr, weight_decay=self.config.weight_decay, fused=True
        )

    def _refuse_one_size(self) -> None:
        try:
            self.encoder.map_shape(self.small.channels, self.small.size)
        except (RuntimeError, AssertionError, ValueError, IndexError) as error:
            raise UsageError(
                "usage.backbone",
                f"DINO shows crops of half the side as well, and this backbone does not take "
                f"{self.small.size}x{self.small.size} images",
                "a convolutional --backbone such as tiny or resnet18, or another --method",
            ) from error

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the single optimizer."""
        return {"dino": self._adamw}

    def update(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Learn from two large and some small crops of one batch; then let the teacher follow."""
        config, count = self.config, len(batch.images)
        large = augment(batch, self.pictures, self.large_policy, seed=step.seed, views=2)
        small = augment(
            batch, self.small, self.small_policy, seed=step.seed, view=2, views=config.local
        )
        with step.autocast():
            said = torch.cat([self.head(self.encoder(x)) for x in (large, small)])
            with torch.no_grad():
                taught = self.teacher(large)  # (2B, K)
        loss = dino_loss(
            said.view(2 + config.local, count, -1),
            (taught - self.centre).view(2, count, -1),
            student_t=config.student,
            teacher_t=config.teacher,
        )
        step.backward(loss, "dino")
        step.apply("dino")
        with torch.no_grad():
            self.centre.lerp_(step.gather(taught).mean(0), 1 - config.centre)
        parts = (self.encoder, self.head)
        follow(self.teacher, parts, config.momentum, step.progress)
        return {"loss": loss.detach()}
