"""What the floors hand to each other: batches, steps, methods and picture formats."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Batch:
    """Images as they lie in the store, on the training device.

    Attributes
    ----------
    images : Tensor
        ``(B, C, H, W)`` uint8, channels-last in memory. Pictures smaller than
        the canvas sit in its top left corner.
    sizes : Tensor or None
        ``(B, 2)`` int64 height and width of each picture inside the canvas;
        None where every picture fills it.
    indices : Tensor
        ``(B,)`` int64 rows of the data set.
    epochs : Tensor
        ``(B,)`` int64: how often each image has been drawn before.
    """

    images: Tensor
    sizes: Tensor | None
    indices: Tensor
    epochs: Tensor


LARGEST_SIDE = 4096  # pixels; several times what anybody has published weights for


@dataclass(frozen=True, slots=True)
class Pictures:
    """The format in which a network takes its images.

    Raises
    ------
    ValueError
        A number is out of range; model folders are written by others too.

    Attributes
    ----------
    size : int
        Height and width in pixels.
    channels : int
        1 for grey, 3 for colour.
    mean, std : tuple of float
        Per channel, on the 0-1 scale.
    crop : float
        Side of the central square that an evaluation sees, as a share of the shorter side.
    interpolation : str
        How published weights saw their pictures resized; empty where nothing is known. It
        travels with the weights and is not used: we shrink by Pillow's bicubic filter once,
        and by an antialiased triangle after that.
    """

    size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float = 1.0
    interpolation: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.size <= LARGEST_SIDE or self.channels < 1:
            raise ValueError(
                f"images of {self.channels}x{self.size}x{self.size}: sides are 1 to {LARGEST_SIDE}"
            )
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std, default=0) <= 0:
            raise ValueError(f"mean {self.mean} and std {self.std}: every std is above 0")
        if not 0.1 <= self.crop <= 1:
            raise ValueError(f"crop {self.crop}: a share of the side, 0.1 to 1")

    def for_channels(self, channels: int) -> Pictures:
        """Return the format for images with other channels: each has the mean of the statistics.

        Examples
        --------
        >>> Pictures(8, 3, (0.4, 0.5, 0.6), (0.25, 0.25, 0.25)).for_channels(1)
        Pictures(size=8, channels=1, mean=(0.5,), std=(0.25,), crop=1.0, interpolation='')
        """
        if channels == self.channels:
            return self
        mean, std = ((sum(v) / len(v),) * channels for v in (self.mean, self.std))
        return replace(self, channels=channels, mean=mean, std=std)


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """The classes of the images that a training may learn from.

    Attributes
    ----------
    table : Tensor
        ``(N,)`` int64 class of each row of the data set; -1 where it is unknown or hidden.
    count : int
        Number of classes.
    """

    table: Tensor
    count: int


class Backbone(nn.Module):
    """A network without its classifier, in timm's words.

    Attributes
    ----------
    num_features : int
        Length of the pooled features.
    num_channels : int
        Channels of the last map.
    options : mapping
        How its architecture differs from the one its name stands for; in JSON's types.
    """

    num_features: int
    num_channels: int
    options: Mapping[str, Any] = MappingProxyType({})

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images ``(B, C, H, W)`` to unpooled features, mostly ``(B, num_channels, h, w)``."""
        raise TypeError(f"{type(self).__name__} does not say how to compute features")

    def forward_head(self, x: Tensor) -> Tensor:
        """Pool what `forward_features` gave to ``(B, num_features)``."""
        raise TypeError(f"{type(self).__name__} does not say how to pool")

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(B, C, H, W)`` to ``(B, num_features)``."""
        return self.forward_head(self.forward_features(x))

    def map_shape(self, channels: int, size: int) -> tuple[int, ...]:
        """Return the shape of the features of one image, without the batch: mostly ``(C, h, w)``.

        It is found by trying; batch statistics stay as they are, and training goes on after it.
        """
        self.eval()
        tensors = (*self.parameters(), *self.buffers())
        device = tensors[0].device if tensors else None
        with torch.no_grad():
            blank = torch.zeros(1, channels, size, size, device=device)
            shape = self.forward_features(blank).shape[1:]
        self.train()
        return tuple(shape)


class Step(Protocol):
    """What the loop lends to a method for one update.

    Where several processes train, each gets its share of the batch, and what all of them do is
    what one would do with the whole batch, provided that a loss is a mean over images or comes
    from what was gathered, and that random numbers keyed by the step are drawn for all images.

    Attributes
    ----------
    index : int
        Of the step.
    images : int
        In the batch, over all processes.
    span : slice
        Which of them are this process's; for what was drawn for all.
    progress : float
        Share of the steps that are done, in [0, 1).
    seed : int
        Of what is drawn for each image by itself.
    generator : torch.Generator
        For what is drawn for the whole batch; in the same state in every process.
    """

    index: int
    images: int
    span: slice
    progress: float
    seed: int
    generator: torch.Generator

    def backward(self, loss: Tensor, name: str) -> None:
        """Backpropagate `loss` for the optimizer `name`."""
        ...

    def apply(self, name: str) -> None:
        """Average the gradients over processes, clip them, step the optimizer `name`.

        A loss or gradient that is not finite is refused, and nothing applied.
        """
        ...

    def gather(self, x: Tensor) -> Tensor:
        """Concatenate `x` over processes, with gradients; its rows are one or more an image."""
        ...

    def autocast(self) -> AbstractContextManager[Any]:
        """Open the mixed-precision context of this run."""
        ...


class Method(Protocol):
    """The only contract a training method implements."""

    @property
    def encoder(self) -> Backbone:
        """Return what transfer takes away."""
        ...

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimizers by name; the loop schedules and saves them."""
        ...

    def update(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Learn from one batch and return detached metrics."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all that training changes, as a flat dict of tensors."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Take back what `state_dict` returned."""
        ...


@runtime_checkable
class Uneven(Protocol):
    """What a method offers besides, if its steps do not all take the same arithmetic."""

    def kind_of_step(self, index: int, steps: int) -> int:
        """Return a number that is the same for all steps of a training that take the same."""
        ...


@runtime_checkable
class Paints(Protocol):
    """What a method offers besides, if what it learns can be shown as pictures."""

    def paint(self, batch: Batch, key: torch.Generator) -> dict[str, Tensor]:
        """Return pictures ``(n, C, S, S)`` on the 0-1 scale by name, in the order to show them.

        ``picture`` is what it was shown, ``seen`` what was left of that, ``painted`` what it
        made of it, ``drawn`` what it paints from random numbers alone.
        """
        ...
