"""Generators: from a random code to an image."""

from __future__ import annotations

from torch import Tensor, nn

from fewlabels.models.decoders import doublings


class Generator(nn.Module):
    """A DCGAN generator (Radford et al. 2016), with up-sampling instead of strided transposes.

    Nearest-neighbour up-sampling before a convolution leaves no checkerboards (Odena et al.
    2016).

    Parameters
    ----------
    code : int
        Length of the code.
    image_size : int
        Side of the image.
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
        self.expand = nn.Linear(code, width * self.start**2, bias=False)
        layers: list[nn.Module] = [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        for _ in range(times):
            narrow = max(width // 2, 16)
            layers += [
                nn.Upsample(scale_factor=2, mode="nearest"),
                nn.Conv2d(width, narrow, 3, padding=1, bias=False),
                nn.BatchNorm2d(narrow),
                nn.ReLU(inplace=True),
            ]
            width = narrow
        self.body = nn.Sequential(*layers)
        self.paint = nn.Conv2d(width, out_chans, 3, padding=1)

    def forward(self, code: Tensor) -> Tensor:
        """Map codes ``(B, code)`` to images ``(B, C, size, size)`` in ``(0, 1)``."""
        x = self.expand(code).reshape(-1, self.width, self.start, self.start)
        picture: Tensor = self.paint(self.body(x))[:, :, : self.size, : self.size]
        return picture.sigmoid()
