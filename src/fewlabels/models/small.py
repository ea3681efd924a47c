"""Small convolutional networks for small images and for CPUs.

All speak timm's language: `forward_features` gives a map, `forward_head` pools
it, `num_features` is the length of the pooled vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from fewlabels.core.types import Backbone

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "leaky_relu": partial(nn.LeakyReLU, 0.1, inplace=True),
    "gelu": nn.GELU,
}
# ceil_mode keeps 1-pixel maps alive when images are tiny.
POOLINGS: dict[str, Callable[[], nn.Module]] = {
    "max": partial(nn.MaxPool2d, 2, ceil_mode=True),
    "avg": partial(nn.AvgPool2d, 2, ceil_mode=True),
}


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
        Where a 2x2 pooling follows a convolution.
    norm : bool
        Whether batch normalisation follows every convolution.
    grid : int
        Side of the pooled map: features are ``channels[-1] * grid ** 2``.
    dense : int
        Width of a dense layer with its activation over the pooled map; 0 for none.
    activation : str
        A key of `ACTIVATIONS`.
    pooling : str
        A key of `POOLINGS`.
    """

    def __init__(  # noqa: PLR0913 - what a plain network is made of
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        in_chans: int = 3,
        pool: Sequence[bool] = (),
        norm: bool = True,
        grid: int = 1,
        dense: int = 0,
        activation: str = "relu",
        pooling: str = "max",
    ) -> None:
        super().__init__()
        pooled = tuple(pool) or (False,) * len(channels)
        self.settings = {
            **{"channels": tuple(channels), "strides": tuple(strides), "pool": pooled},
            **{"norm": norm, "grid": grid, "dense": dense},
            **{"activation": activation, "pooling": pooling},
        }
        self.grid = grid
        self.num_channels = channels[-1]
        self.num_features = channels[-1] * grid * grid
        blocks: list[nn.Module] = []
        before = in_chans
        for place, (width, stride) in enumerate(zip(channels, strides, strict=True)):
            block = _block(before, width, stride if place == 0 else 1, norm, activation)
            if pooled[place]:
                block.append(POOLINGS[pooling]())
            if place and stride > 1:
                block.insert(0, nn.AvgPool2d(stride, ceil_mode=True))
            blocks.append(block)
            before = width
        self.blocks = nn.ModuleList(blocks)
        self.dense: nn.Module = nn.Identity()
        if dense:
            linear = nn.Linear(self.num_features, dense)
            self.dense = nn.Sequential(linear, ACTIVATIONS[activation]())
            self.num_features = dense
        # With batch normalisation the size of the weights does not matter.
        if not norm or activation in ("sigmoid", "tanh"):
            draw_for(self, activation)

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


def draw_for(network: nn.Module, activation: str) -> None:
    """Draw weights so that signals keep their size through an activation.

    For sigmoid and tanh as Glorot and Bengio 2010 do; a sigmoid has a quarter of the slope of the
    identity at zero, hence the gain of 4. For the others, which pass about half of what they get,
    as He et al. 2015 do.
    """
    for part in network.modules():
        if not isinstance(part, nn.Conv2d | nn.Linear):
            continue
        if activation in ("sigmoid", "tanh"):
            gain = 4.0 if activation == "sigmoid" else nn.init.calculate_gain("tanh")
            nn.init.xavier_uniform_(part.weight, gain)
        else:
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        if part.bias is not None:
            nn.init.zeros_(part.bias)


def _block(before: int, width: int, stride: int, norm: bool, activation: str) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(before, width, 3, stride, 1, bias=not norm)]
    if norm:
        layers.append(nn.BatchNorm2d(width))
    layers.append(ACTIVATIONS[activation]())
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


def conv_32_64_128(
    in_chans: int = 3, image_size: int = 32, *, activation: str = "relu", pooling: str = "max"
) -> SmallCNN:
    """Return Conv 32-64-128, 3x3, with pooling after each (road R1)."""
    return _plain((32, 64, 128), 3, in_chans, image_size, 0, activation, pooling)


def conv_32_64_64(
    in_chans: int = 3, image_size: int = 32, *, activation: str = "relu", pooling: str = "max"
) -> SmallCNN:
    """Return Conv 32-64-64, 3x3, with pooling after the first two (road R6)."""
    return _plain((32, 64, 64), 2, in_chans, image_size, 0, activation, pooling)


def conv_32_64_64_dense_64(
    in_chans: int = 3, image_size: int = 32, *, activation: str = "relu", pooling: str = "max"
) -> SmallCNN:
    """Return Conv 32-64-64 with pooling after the first two, then dense 64 (road R6)."""
    return _plain((32, 64, 64), 2, in_chans, image_size, 64, activation, pooling)


def conv_32_64_128_128_dense_512(
    in_chans: int = 3, image_size: int = 224, *, activation: str = "relu", pooling: str = "max"
) -> SmallCNN:
    """Return Conv 32-64-128-128 with pooling after each, then dense 512 (road R3)."""
    return _plain((32, 64, 128, 128), 4, in_chans, image_size, 512, activation, pooling)


def _plain(
    channels: tuple[int, ...],
    pools: int,
    in_chans: int,
    image_size: int,
    dense: int,
    activation: str,
    pooling: str,
) -> SmallCNN:
    """Return unnormalised convolutions with so many poolings, and a dense layer over the map."""
    return SmallCNN(
        channels,
        (1,) * len(channels),
        in_chans=in_chans,
        pool=[place < pools for place in range(len(channels))],
        norm=False,
        grid=_halved(image_size, pools) if dense else 1,
        dense=dense,
        activation=activation,
        pooling=pooling,
    )


def _halved(side: int, times: int) -> int:
    """Return the side of a map after so many poolings, which round up."""
    for _ in range(times):
        side = (side + 1) // 2
    return side
