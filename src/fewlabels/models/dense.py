"""A dense encoder down to a code that can be plotted (road R5)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from fewlabels.core.types import Backbone

WIDTHS = (128, 64, 32, 16, 8, 4, 2)


def dense_layers(widths: Sequence[int]) -> nn.Sequential:
    """Return linear layers of these widths with ReLU between them and none after the last."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class DenseEncoder(Backbone):
    """Pixels to 128-64-32-16-8-4-2: a stack of linear layers with ReLU, no convolution.

    Parameters
    ----------
    in_chans, image_size : int
        Channels and side of the images; 784 pixels for one channel at 28.
    widths : sequence of int
        Of the layers; the last is the length of the code.
    """

    def __init__(self, in_chans: int, image_size: int, *, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.widths = (in_chans * image_size**2, *widths)
        self.num_channels = self.num_features = widths[-1]
        self.layers = dense_layers(self.widths)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images ``(B, C, H, W)`` to codes ``(B, num_features)``."""
        code: Tensor = self.layers(x.flatten(1))
        return code

    def forward_head(self, x: Tensor) -> Tensor:
        """Return the codes as they are."""
        return x
