"""Small convolutional networks for small images and for CPUs.

All speak timm's language: `forward_features` gives a map, `forward_head` pools
it, `num_features` is the length of the pooled vector.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fewlabels.core.types import Backbone


class SmallCNN(Backbone):
    """A plain stack of convolutions.

    Parameters
    ----------
    channels : sequence of int
        Width of every convolution.
    strides : sequence of int
        How much every block shrinks its map: the first by a strided convolution, the others
        by averaging before the convolution. On CPUs the gradient of a strided convolution takes
        twice as long as that of a plain one, and frozen features came out better.
    in_chans : int
        Channels of the images.
    pool : sequence of bool, optional
        Where a 2x2 max pooling follows a convolution.
    norm : bool
        Whether batch normalisation follows every convolution.
    grid : int
        Side of the pooled map: features are ``channels[-1] * grid ** 2``.
    dense : int
        Width of a dense layer with ReLU over the pooled map; 0 for none.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        in_chans: int = 3,
        pool: Sequence[bool] = (),
        norm: bool = True,
        grid: int = 1,
        dense: int = 0,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.num_channels = channels[-1]
        self.num_features = channels[-1] * grid * grid
        blocks: list[nn.Module] = []
        before = in_chans
        for place, (width, stride) in enumerate(zip(channels, strides, strict=True)):
            block = _block(
                before, width, stride if place == 0 else 1, norm, bool(pool) and pool[place]
            )
            if place and stride > 1:
                # ceil_mode keeps 1-pixel maps alive when images are tiny.
                block.insert(0, nn.AvgPool2d(stride, ceil_mode=True))
            blocks.append(block)
            before = width
        self.blocks = nn.ModuleList(blocks)
        self.dense: nn.Module = nn.Identity()
        if dense:
            self.dense = nn.Sequential(nn.Linear(self.num_features, dense), nn.ReLU())
            self.num_features = dense

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images ``(B, C, H, W)`` to ``(B, channels, h, w)``."""
        for block in self.blocks:
            x = block(x)
        return x

    def forward_head(self, x: Tensor) -> Tensor:
        """Pool a map to ``(B, num_features)``."""
        features: Tensor = self.dense(pool_grid(x, self.grid))
        return features


def pool_grid(x: Tensor, grid: int) -> Tensor:
    """Average a map ``(B, C, h, w)`` over a `grid` x `grid` raster, flattened."""
    if grid == 1:
        return x.mean((2, 3))
    return torch.nn.functional.adaptive_avg_pool2d(x, grid).flatten(1)


def _block(before: int, width: int, stride: int, norm: bool, pool: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(before, width, 3, stride, 1, bias=not norm)]
    if norm:
        layers.append(nn.BatchNorm2d(width))
    layers.append(nn.ReLU(inplace=True))
    if pool:
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    return nn.Sequential(*layers)


def tiny(in_chans: int = 3, image_size: int = 32) -> SmallCNN:
    """Return a CNN of about 0.4 M parameters, the default on CPUs.

    The first stride is 2 from 24 pixels up, and larger images get more shrinking
    blocks, so that the last map stays at about 4x4.
    """
    if image_size < 16:  # digits of 8x8
        return SmallCNN((32, 64, 96, 128), (1, 2, 1, 2), in_chans=in_chans)
    if image_size < 24:
        return SmallCNN((32, 64, 128, 192), (1, 2, 2, 1), in_chans=in_chans)
    channels, strides = [32, 64, 128, 256], [2, 1, 2, 2]
    while image_size > 48:
        channels, strides = [max(channels[0] // 2, 24), *channels], [2, *strides]
        image_size //= 2
    return SmallCNN(channels, strides, in_chans=in_chans)


def conv_32_64_128(in_chans: int = 3, image_size: int = 32) -> SmallCNN:
    """Return Conv 32-64-128, 3x3, ReLU, with max pooling after each (road R1)."""
    return SmallCNN(
        (32, 64, 128), (1, 1, 1), in_chans=in_chans, pool=(True, True, True), norm=False
    )


def conv_32_64_64(in_chans: int = 3, image_size: int = 32) -> SmallCNN:
    """Return Conv 32-64-64, 3x3, ReLU, with max pooling after the first two (road R6)."""
    return SmallCNN(
        (32, 64, 64), (1, 1, 1), in_chans=in_chans, pool=(True, True, False), norm=False
    )


def conv_32_64_64_dense_64(in_chans: int = 3, image_size: int = 32) -> SmallCNN:
    """Return Conv 32-64-64 with max pooling after the first two, then dense 64 (road R6)."""
    return SmallCNN(
        (32, 64, 64),
        (1, 1, 1),
        in_chans=in_chans,
        pool=(True, True, False),
        norm=False,
        grid=_halved(image_size, 2),
        dense=64,
    )


def conv_32_64_128_128_dense_512(in_chans: int = 3, image_size: int = 224) -> SmallCNN:
    """Return Conv 32-64-128-128 with max pooling after each, then dense 512 (road R3)."""
    return SmallCNN(
        (32, 64, 128, 128),
        (1, 1, 1, 1),
        in_chans=in_chans,
        pool=(True, True, True, True),
        norm=False,
        grid=_halved(image_size, 4),
        dense=512,
    )


def _halved(side: int, times: int) -> int:
    """Return the side of a map after so many poolings, which round up."""
    for _ in range(times):
        side = (side + 1) // 2
    return side
