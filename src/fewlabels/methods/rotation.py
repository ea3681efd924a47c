"""Rotation prediction: say which way up the picture is.

Gidaris, Singh and Komodakis 2018, "Unsupervised Representation Learning by Predicting Image
Rotations". Every image is shown in its four right-angled turns, and a classifier must name
the turn; to do so it has to recognise what is shown. The classifier stays behind. Pictures
without an upright, such as cells or satellite tiles, teach it nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.core.types import Backbone, Batch, Pictures, Step
from fewlabels.data.augment import Policies, augment


@dataclass(frozen=True, slots=True)
class RotationConfig:
    """Settings of rotation prediction.

    Attributes
    ----------
    lr, weight_decay : float
        For AdamW; a batch is four turns of each of 64 images.
    """

    lr: float = 1e-3
    weight_decay: float = 1e-4


def four_turns(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return square images turned by 0, 90, 180 and 270 degrees, and which turn each has.

    Parameters
    ----------
    x : Tensor
        ``(B, C, S, S)``.

    Returns
    -------
    tuple of Tensor
        ``(4B, C, S, S)``, turn by turn, and ``(4B,)`` int64.
    """
    turned = torch.cat([torch.rot90(x, turn, (2, 3)) for turn in range(4)])
    return turned, torch.arange(4, device=x.device).repeat_interleave(len(x))


class Rotation(nn.Module):
    """The method: encoder, a linear classifier of four turns and one optimizer.

    Parameters
    ----------
    encoder : Backbone
        A backbone; its pooled features feed the classifier.
    pictures : Pictures
        Format of the images.
    policies : Policies
        Of which `light` changes the images before they are turned.
    config : RotationConfig, optional
    """

    def __init__(
        self,
        encoder: Backbone,
        pictures: Pictures,
        policies: Policies,
        config: RotationConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = config or RotationConfig()
        self.pictures = pictures
        self.policy = policies.light
        self.encoder = encoder
        self.classify = nn.Linear(encoder.num_features, 4)
        self._adamw = torch.optim.AdamW(
            self.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay, fused=True
        )

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the single optimizer."""
        return {"rotation": self._adamw}

    def update(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Learn from the four turns of one batch."""
        x = augment(batch, self.pictures, self.policy, seed=step.seed)
        x, turns = four_turns(x)
        x = x.contiguous(memory_format=torch.channels_last)
        with step.autocast():
            logits = self.classify(self.encoder(x))  # (4B, 4)
        loss = F.cross_entropy(logits.float(), turns)
        step.backward(loss, "rotation")
        step.apply("rotation")
        hits = (logits.detach().argmax(1) == turns).float().mean()
        return {"loss": loss.detach(), "turns_right": hits}
