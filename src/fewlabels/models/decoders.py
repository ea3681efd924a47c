"""Decoders: from a code back to the image."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional


def _doubled(width: int, times: int) -> tuple[list[nn.Module], int]:
    """Return layers that double a map so many times, halving its channels, and its last width."""
    layers: list[nn.Module] = []
    for _ in range(times):
        narrow = max(width // 2, 16)
        layers += [
            nn.ReLU(inplace=True),
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(width, narrow, 3, padding=1),
        ]
        width = narrow
    return [*layers, nn.ReLU(inplace=True)], width


def doublings(image_size: int, cells: int = 4) -> tuple[int, int]:
    """Return how often a map of about `cells` a side must double to cover an image, and its side.

    Examples
    --------
    >>> doublings(32), doublings(28), doublings(3)
    ((3, 4), (3, 4), (0, 3))
    """
    times = max(0, math.ceil(math.log2(image_size / cells)))
    return times, math.ceil(image_size / 2**times)


class ConvDecoder(nn.Module):
    """From a dense code to an image: a linear map to 4x4, then up-sampling and 3x3 convolutions.

    Parameters
    ----------
    code : int
        Length of the code.
    image_size : int
        Side of the image to paint.
    out_chans : int
        Its channels.
    width : int
        Channels of the first map; halved at every doubling, at least 16.
    """

    def __init__(self, code: int, image_size: int, out_chans: int, *, width: int = 128) -> None:
        super().__init__()
        self.size = image_size
        times, self.start = doublings(image_size)
        self.width = width
        self.expand = nn.Linear(code, width * self.start**2)
        layers, width = _doubled(width, times)
        self.body = nn.Sequential(*layers)
        self.paint = nn.Conv2d(width, out_chans, 3, padding=1)

    def forward(self, code: Tensor) -> Tensor:
        """Map codes ``(B, code)`` to images ``(B, C, size, size)`` in ``(0, 1)``."""
        x = self.expand(code).reshape(-1, self.width, self.start, self.start)
        picture: Tensor = self.paint(self.body(x))[:, :, : self.size, : self.size]
        return picture.sigmoid()


class MapDecoder(nn.Module):
    """From a map back to an image: one mixing convolution, then up-sampling and convolutions.

    Parameters
    ----------
    channels, cells : int
        The map is ``(B, channels, cells, cells)``.
    image_size : int
        Side of the image to paint.
    out_chans : int
        Its channels.
    width : int
        Channels of the decoder's first map; halved at every doubling, at least 16.
    """

    def __init__(
        self, channels: int, cells: int, image_size: int, out_chans: int, *, width: int = 128
    ) -> None:
        super().__init__()
        self.size = image_size
        times, _ = doublings(image_size, cells)
        mix = nn.Conv2d(channels, width, 3, padding=1)
        layers, width = _doubled(width, times)
        self.body = nn.Sequential(mix, *layers)
        self.paint = nn.Conv2d(width, out_chans, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, channels, cells, cells)`` to ``(B, C, size, size)``, unbounded."""
        wide = self.body(x)
        if wide.shape[-1] != self.size:  # not cropped: every cell paints its own place
            wide = functional.interpolate(wide, size=(self.size, self.size), mode="nearest")
        picture: Tensor = self.paint(wide)
        return picture
