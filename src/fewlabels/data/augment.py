"""Augmentation of whole batches on the training device, with parameters per image.

Every random number depends on (seed, epoch, index, view) alone, so a view is the
same whatever the batch size, and after any interruption. Geometry and blur are one
resampling (`fewlabels.data.resample`); colour changes compose into one 3x3 matrix and
offset per image, which also normalise. The order is fixed: geometry, blur, colour,
grey, noise, cutout. Distributions follow SimCLR (Chen et al. 2020, appendix A) except
that hue turns in YIQ space and the order of colour changes is fixed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fewlabels.core.seeding import uniform
from fewlabels.core.types import Batch, Pictures
from fewlabels.data.policies import POLICIES, Policies, Policy, auto_policy
from fewlabels.data.resample import resample

__all__ = ["POLICIES", "Policies", "Policy", "augment", "auto_policy", "normalise", "plain"]

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma
CHUNK = 1 << 18  # pixel values worked on at once on a CPU: they stay in its cache
COLUMNS = 20  # random numbers an image and view needs; see `_Draw`


class _Draw:
    """The random numbers of a batch, read column by column, each in [0, 1)."""

    def __init__(self, batch: Batch, seed: int, view: int) -> None:
        self._numbers = uniform(seed, batch.epochs, batch.indices, COLUMNS, view)
        self._next = 0

    def unit(self) -> Tensor:  # (B,)
        self._next += 1
        return self._numbers[:, self._next - 1]

    def between(self, low: float, high: float) -> Tensor:
        return low + (high - low) * self.unit()

    def around(self, centre: float, reach: float) -> Tensor:
        return self.between(centre - reach, centre + reach)

    def chance(self, probability: float) -> Tensor:  # (B,) bool
        return self.unit() < probability


def augment(
    batch: Batch, pictures: Pictures, policy: Policy, *, seed: int, view: int = 0, views: int = 1
) -> Tensor:
    """Return random views of every image, normalised.

    Parameters
    ----------
    batch : Batch
        ``(B, C, H, W)`` uint8 images.
    pictures : Pictures
        Size, channels, mean and std of the result.
    policy : Policy
        How strong the changes are.
    seed, view : int
        With the batch's epochs and indices, the key of every random number of the first view;
        the second view has the key of ``view + 1``, and so on.
    views : int
        Views of every image.

    Returns
    -------
    Tensor
        ``(views * B, C, size, size)`` float32, channels-last, normalised: the first view of
        all images, then the second.
    """
    count = len(batch.images)
    draws = [_Draw(batch, seed, one) for one in range(view, view + views)]
    changes = [_draw_changes(batch, pictures, policy, draw) for draw in draws]
    noise = [draw.between(0.0, policy.noise) if policy.noise else None for draw in draws]
    x = _empty(views * count, batch, pictures)
    limits = _limits(pictures, x)
    for part in _parts(count, x):
        images = _floats(batch.images[part])
        sizes = None if batch.sizes is None else batch.sizes[part]
        for one in range(views):
            target = x[one * count : (one + 1) * count][part]
            _change(images, sizes, changes[one].of(part), pictures, target)
            strength = noise[one]
            if strength is not None:
                keys = Batch(images, sizes, batch.indices[part], batch.epochs[part])
                _add_noise(target, keys, strength[part], pictures, seed=seed, view=view + one)
            target.permute(0, 2, 3, 1).clamp_(*limits)
    if policy.cutout:
        for one, draw in enumerate(draws):
            _cutout(x[one * count : (one + 1) * count], policy.cutout, draw)
    return x


def plain(batch: Batch, pictures: Pictures, *, zoom: float = 1.0) -> Tensor:
    """Return the evaluation view: the central square, at the training size, normalised.

    Parameters
    ----------
    batch : Batch
        ``(B, C, H, W)`` uint8 images.
    pictures : Pictures
        Size, channels, mean and std of the result.
    zoom : float
        Side of the central square as a share of the one that `pictures` names.

    Returns
    -------
    Tensor
        ``(B, C, size, size)`` float32, channels-last.
    """
    height, width = batch.images.shape[2:]
    size = pictures.size
    share = zoom * pictures.crop
    if batch.sizes is None and height == width == size and share == 1.0:
        x = batch.images.float().div_(255.0)
    else:
        heights, widths = _sides(batch)
        side = torch.minimum(heights, widths) * share
        box = torch.stack([(heights - side) / 2, (widths - side) / 2, side, side], 1)
        x = resample(batch.images, batch.sizes, box, size).clamp_(0.0, 1.0)
    return normalise(x, pictures).contiguous(memory_format=torch.channels_last)


def normalise(x: Tensor, pictures: Pictures) -> Tensor:
    """Subtract the mean and divide by the std of each channel; `x` is on the 0-1 scale."""
    mean = _constant(pictures.mean, x.device)[:, None, None]
    std = _constant(pictures.std, x.device)[:, None, None]
    return (x - mean).div_(std)


def denormalise(x: Tensor, pictures: Pictures) -> Tensor:
    """Return normalised images ``(B, C, S, S)`` on the 0-1 scale: the inverse of `normalise`."""
    mean = _constant(pictures.mean, x.device)[:, None, None]
    std = _constant(pictures.std, x.device)[:, None, None]
    return x * std + mean


@functools.lru_cache(maxsize=64)
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return numbers as a float32 tensor on a device, the same tensor each time.

    An accelerator waits for every number that is copied to it, until all its work is done.
    """
    with torch.inference_mode(
        False
    ):  # training uses the tensors that an evaluation asked for first
        return torch.tensor(values, device=device)


@dataclass(frozen=True, slots=True)
class _Changes:
    """What happens to every image: geometry, blur and colour."""

    box: Tensor  # (B, 4)
    angle: Tensor | None  # (B,)
    sigma: Tensor | None  # (B,)
    matrix: Tensor | None  # (B, C, C)
    lift: Tensor | None  # (B,) the share of its mean grey that is added to every pixel

    def of(self, part: slice) -> _Changes:
        each = (self.box, self.angle, self.sigma, self.matrix, self.lift)
        box, *others = (None if x is None else x[part] for x in each)
        assert box is not None
        return _Changes(box, *others)


def _draw_changes(batch: Batch, pictures: Pictures, policy: Policy, draw: _Draw) -> _Changes:
    box, angle = _geometry(batch, policy, draw)
    sigma = _blur_sigma(policy, draw, pictures.size)
    return _Changes(box, angle, sigma, *_colour(pictures.channels, policy, draw))


def _empty(count: int, batch: Batch, pictures: Pictures) -> Tensor:
    shape = (count, pictures.channels, pictures.size, pictures.size)
    return torch.empty(shape, device=batch.images.device, memory_format=torch.channels_last)


def _parts(count: int, x: Tensor) -> Iterator[slice]:
    """Cut a batch into parts that stay in a CPU's cache; other devices take it whole."""
    step = count if x.device.type != "cpu" else max(1, CHUNK // x[0].numel())
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _floats(images: Tensor) -> Tensor:
    """Return uint8 images ``(B, C, H, W)`` as float32, laid out as `resample` reads them."""
    rows = images.permute(0, 2, 1, 3)  # (B, H, C, W)
    return rows.to(torch.float32, memory_format=torch.contiguous_format).permute(0, 2, 1, 3)


def _change(
    images: Tensor, sizes: Tensor | None, changes: _Changes, pictures: Pictures, target: Tensor
) -> None:
    """Write images ``(B, C, H, W)``, changed and normalised but not limited yet, to `target`."""
    x = resample(
        images, sizes, changes.box, pictures.size, angle=changes.angle, sigma=changes.sigma
    )
    if changes.matrix is None or changes.lift is None:
        target.copy_(normalise(x, pictures))
        return
    count, channels, size, _ = x.shape
    mean, std = _constant(pictures.mean, x.device), _constant(pictures.std, x.device)
    flat = x.reshape(count, channels, size * size)
    grey = flat.mean(2) @ _constant(GREY if channels == 3 else (1.0,), x.device)  # (B,)
    offset = ((grey * changes.lift)[:, None] - mean) / std  # (B, C)
    matrix = changes.matrix / std[:, None]
    target.copy_(torch.baddbmm(offset[:, :, None], matrix, flat).view_as(x))


def _limits(pictures: Pictures, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return what black and white come to, ``(S, S, C)``.

    Laid out in full, they let the CPU limit whole vectors: eight times as fast.
    """
    mean, std = _constant(pictures.mean, x.device), _constant(pictures.std, x.device)
    shape = (pictures.size, pictures.size, pictures.channels)
    low, high = -mean / std, (1 - mean) / std
    return low.expand(shape).contiguous(), high.expand(shape).contiguous()


def _sides(batch: Batch) -> tuple[Tensor, Tensor]:
    count, _, height, width = batch.images.shape
    if batch.sizes is not None:
        return batch.sizes[:, 0].float(), batch.sizes[:, 1].float()
    full = torch.ones(count, device=batch.images.device)
    return full * height, full * width


def _geometry(batch: Batch, policy: Policy, draw: _Draw) -> tuple[Tensor, Tensor | None]:
    """Return the box to cut from every image, and its rotation."""
    heights, widths = _sides(batch)
    area = heights * widths * draw.between(*policy.crop)
    stretch = torch.exp(draw.around(0.0, math.log(policy.ratio)))
    zoom = 1 / draw.between(*policy.scale)
    if policy.crop == (1.0, 1.0):
        # Without a random crop the picture is cut to its central square.
        side = torch.minimum(heights, widths)
        height, width = side * zoom, side * zoom
        top, left = (heights - height) / 2, (widths - width) / 2
        draw.unit(), draw.unit()
    else:
        height = torch.minimum((area / stretch).sqrt(), heights) * zoom
        width = torch.minimum((area * stretch).sqrt(), widths) * zoom
        top, left = draw.unit() * (heights - height), draw.unit() * (widths - width)
    top = top + draw.around(0.0, policy.shift) * heights
    left = left + draw.around(0.0, policy.shift) * widths
    width = torch.where(draw.chance(policy.flip), -width, width)
    angle = draw.around(0.0, math.radians(policy.rotate))
    return torch.stack([top, left, height, width], 1), angle if policy.rotate else None


def _blur_sigma(policy: Policy, draw: _Draw, size: int) -> Tensor | None:
    chosen, strength = draw.chance(policy.blur), draw.between(0.1, 2.0)
    return torch.where(chosen, strength * size / 32, 0.0) if policy.blur else None


def _colour(channels: int, policy: Policy, draw: _Draw) -> tuple[Tensor | None, Tensor | None]:
    """Return colour matrices ``(B, C, C)`` and the share ``(B,)`` of the mean grey they add.

    Contrast turns about the mean grey, which stays where brightness puts it.
    """
    chosen = draw.chance(policy.jitter)
    bright = torch.where(chosen, draw.around(1.0, policy.brightness), 1.0)
    contrast = torch.where(chosen, draw.around(1.0, policy.contrast), 1.0)
    saturation = torch.where(chosen, draw.around(1.0, policy.saturation), 1.0)
    turn = torch.where(chosen, draw.around(0.0, policy.hue), 0.0)
    saturation = torch.where(draw.chance(policy.grey), 0.0, saturation)
    if not (policy.brightness or policy.contrast or policy.saturation or policy.hue or policy.grey):
        return None, None
    scale = (bright * contrast)[:, None, None]
    matrix = _hue_matrix(turn, saturation) * scale if channels == 3 else scale
    return matrix, bright * (1 - contrast)


def _hue_matrix(turn: Tensor, saturation: Tensor) -> Tensor:
    """Return RGB matrices ``(B, 3, 3)`` that turn the hue and scale the chroma in YIQ space."""
    luma, chroma, across = _yiq(turn.device)
    cosine = torch.cos(2 * math.pi * turn) * saturation
    sine = torch.sin(2 * math.pi * turn) * saturation
    return luma + cosine[:, None, None] * chroma + sine[:, None, None] * across


@functools.lru_cache(maxsize=8)
def _yiq(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return the matrices ``(3, 3)`` of what no turn of the hue changes, of chroma, and across it.

    Inverted on the CPU, where no other work is waited for; see `_constant`.
    """
    with torch.inference_mode(False):
        to_yiq = torch.tensor([GREY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
        from_yiq = torch.linalg.inv(to_yiq)
        quarter = torch.tensor([(0.0, -1.0), (1.0, 0.0)])  # I and Q turned by 90 degrees
        luma = from_yiq[:, :1] @ to_yiq[:1]
        chroma, across = from_yiq[:, 1:] @ to_yiq[1:], from_yiq[:, 1:] @ quarter @ to_yiq[1:]
        return luma.to(device), chroma.to(device), across.to(device)


def _add_noise(
    x: Tensor, batch: Batch, strength: Tensor, pictures: Pictures, *, seed: int, view: int
) -> None:
    """Add Gaussian noise ``(B,)`` strong, on the 0-1 scale, to normalised images."""
    pixels = x[0].numel()
    # Two uniform numbers a pixel, turned Gaussian by Box and Muller.
    numbers = uniform(seed, batch.epochs, batch.indices, 2 * pixels, view + 1_000)
    radius = (-2 * torch.log1p(-numbers[:, :pixels])).sqrt()
    gauss = radius * torch.cos(2 * math.pi * numbers[:, pixels:])
    std = _constant(pictures.std, x.device)[:, None, None]
    x += (strength[:, None, None, None] * gauss.reshape(x.shape)).div_(std)


def _cutout(x: Tensor, share: float, draw: _Draw) -> Tensor:
    size = x.shape[-1]
    side = share * size
    top, left = draw.unit() * (size - side), draw.unit() * (size - side)
    pixel = torch.arange(size, device=x.device) + 0.5
    rows = (pixel >= top[:, None]) & (pixel < top[:, None] + side)  # (B, S)
    columns = (pixel >= left[:, None]) & (pixel < left[:, None] + side)
    return x.masked_fill_((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)
