"""A dictionary of image patches as a backbone: one wide layer without gradients."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabels.core.types import Backbone

# Added to the variance of a patch before it is divided: 10 on the 0-255 scale as in Coates et al.
# 2011, on the scale of normalised images, whose standard deviation is about a quarter of 255.
EPSILON = 10 / 64**2


class PatchDictionary(Backbone):
    """How near every patch of an image is to every entry of a dictionary (Coates et al. 2011).

    Patches are standardised one by one and whitened; an entry's answer is how much nearer than
    the average entry it is, or 0; answers are averaged over four quarters of the image. Images
    are averaged down to at most 32x32 before.

    Parameters
    ----------
    in_chans, image_size : int
        Channels and side of the images.
    entries : int
        Size of the dictionary.
    """

    mean: Tensor
    whiten: Tensor
    dictionary: Tensor

    def __init__(self, in_chans: int, image_size: int, *, entries: int = 400) -> None:
        super().__init__()
        self.side = min(image_size, 32)
        self.patch = 6 if self.side >= 16 else 3
        length = in_chans * self.patch**2
        self.num_channels = entries
        self.num_features = 4 * entries
        self.register_buffer("mean", torch.zeros(length))
        self.register_buffer("whiten", torch.eye(length))
        self.register_buffer("dictionary", torch.randn(entries, length))

    def patches(self, x: Tensor) -> Tensor:
        """Return all patches of normalised images, standardised: ``(B, L, length)``."""
        if x.shape[-1] != self.side:
            x = F.adaptive_avg_pool2d(x, self.side)
        cut = F.unfold(x.float(), self.patch).transpose(1, 2)  # (B, L, length)
        cut = cut - cut.mean(2, keepdim=True)
        return cut / (cut.var(2, keepdim=True) + EPSILON).sqrt()

    def distances(self, patches: Tensor) -> Tensor:
        """Return the distances ``(..., entries)`` of standardised patches ``(..., length)``."""
        z = (patches - self.mean) @ self.whiten
        squared = z.square().sum(-1, keepdim=True) - 2 * z @ self.dictionary.T
        return (squared + self.dictionary.square().sum(1)).clamp(min=0).sqrt()

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images ``(B, C, H, W)`` to answers ``(B, entries, h, h)``."""
        return torch.cat([self._answers(part) for part in self._parts(x)])

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(B, C, H, W)`` to ``(B, 4 * entries)``, whole maps never at once."""
        return torch.cat([self.forward_head(self._answers(part)) for part in self._parts(x)])

    @staticmethod
    def _parts(x: Tensor) -> tuple[Tensor, ...]:
        """Cut a batch to a few images on CPUs: all its distances would leave the cache."""
        return torch.split(x, 4 if x.device.type == "cpu" else max(len(x), 1))

    def _answers(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            distance = self.distances(self.patches(x))  # (B, L, entries)
        answers = F.relu(distance.mean(2, keepdim=True) - distance)
        cells = self.side - self.patch + 1
        return answers.transpose(1, 2).reshape(len(x), -1, cells, cells)

    def forward_head(self, x: Tensor) -> Tensor:
        """Average a map ``(B, entries, h, h)`` over its four quarters: ``(B, 4 * entries)``."""
        return F.adaptive_avg_pool2d(x, 2).flatten(1)
