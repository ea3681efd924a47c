"""Augmentation of whole batches on the training device, with parameters per image.

Every random number depends on (seed, epoch, index, view) alone, so a view is the
same whatever the batch size, and after any interruption. Crop, zoom, shift and
flip are one separable, antialiased resampling (two batched matrix products);
rotation falls back to `grid_sample`. Colour changes compose into one 3x3 matrix
and offset per image. The order is fixed: geometry, blur, colour, grey, noise,
cutout. Distributions follow SimCLR (Chen et al. 2020, appendix A) except that
hue turns in YIQ space and the order of colour changes is fixed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabels.core.seeding import uniform
from fewlabels.core.types import Batch, Pictures

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma
COLUMNS = 20  # random numbers an image and view needs; see `_Draw`


@dataclass(frozen=True, slots=True)
class Policy:
    """Strengths of the random changes; the defaults change nothing.

    Attributes
    ----------
    crop : tuple of float
        Range of the area of the random resized crop, as a share of the picture.
    ratio : float
        Largest aspect ratio of that crop (and its inverse the smallest).
    flip : float
        Probability of a horizontal flip.
    shift : float
        Largest shift in each direction, as a share of the side.
    rotate : float
        Largest rotation in degrees, either way.
    scale : tuple of float
        Range of an isotropic zoom.
    brightness, contrast, saturation, hue : float
        Half-widths of the factors around 1; hue in turns.
    jitter : float
        Probability that the four colour changes apply.
    grey : float
        Probability of dropping the colour.
    blur : float
        Probability of a Gaussian blur of 0.1 to 2 pixels per 32 pixels of side.
    noise : float
        Largest standard deviation of Gaussian pixel noise, on the 0-1 scale.
    cutout : float
        Side of a square set to the mean, as a share of the side.
    """

    crop: tuple[float, float] = (1.0, 1.0)
    ratio: float = 1.0
    flip: float = 0.0
    shift: float = 0.0
    rotate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    jitter: float = 1.0
    grey: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    cutout: float = 0.0


@dataclass(frozen=True, slots=True)
class Policies:
    """What one kind of picture bears: `views` for pre-training, `light` for labels."""

    views: Policy
    light: Policy


POLICIES: dict[str, Policies] = {
    # Photographs. SimCLR's CIFAR-10 recipe: crop area 0.2-1, jitter strength 0.5 at p 0.8,
    # grey at p 0.2, no blur at 32 pixels. Light: the usual shift and flip.
    "natural": Policies(
        views=Policy(
            crop=(0.2, 1.0),
            ratio=4 / 3,
            flip=0.5,
            brightness=0.4,
            contrast=0.4,
            saturation=0.4,
            hue=0.1,
            jitter=0.8,
            grey=0.2,
        ),
        light=Policy(crop=(0.6, 1.0), ratio=4 / 3, flip=0.5, brightness=0.2, contrast=0.2),
    ),
    # Writing: a mirrored or upside-down character is another character.
    "digits": Policies(
        views=Policy(shift=0.12, rotate=15.0, scale=(0.8, 1.2), contrast=0.3, brightness=0.2),
        light=Policy(shift=0.12, rotate=10.0, scale=(0.9, 1.1)),
    ),
    # Grey scans: place and tone vary, colour does not exist and strong crops lose the finding.
    "medical": Policies(
        views=Policy(
            crop=(0.5, 1.0), ratio=1.2, flip=0.5, rotate=10.0, brightness=0.3, contrast=0.3, blur=0.2
        ),
        light=Policy(crop=(0.8, 1.0), flip=0.5, rotate=10.0, brightness=0.1, contrast=0.1),
    ),
    "none": Policies(views=Policy(), light=Policy()),
}


def auto_policy(channels: int, size: int) -> str:
    """Choose a policy from the pictures alone: colour, small grey, or large grey."""
    if channels == 3:
        return "natural"
    return "digits" if size <= 32 else "medical"


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
    batch: Batch, pictures: Pictures, policy: Policy, *, seed: int, view: int = 0
) -> Tensor:
    """Return one random view of every image, normalised.

    Parameters
    ----------
    batch : Batch
        ``(B, C, H, W)`` uint8 images.
    pictures : Pictures
        Size, channels, mean and std of the result.
    policy : Policy
        How strong the changes are.
    seed, view : int
        With the batch's epochs and indices, the key of every random number.

    Returns
    -------
    Tensor
        ``(B, C, size, size)`` float32, channels-last, normalised.
    """
    draw = _Draw(batch, seed, view)
    box, angle = _geometry(batch, policy, draw)
    sigma = _blur_sigma(policy, draw, pictures.size)
    x = resample(batch.images, batch.sizes, box, pictures.size, angle=angle, sigma=sigma)
    x = _colour(x, policy, draw)
    if policy.noise:
        x = _noise(x, batch, draw.between(0.0, policy.noise), seed, view)
    x = normalise(x.clamp_(0.0, 1.0), pictures)
    if policy.cutout:
        x = _cutout(x, policy.cutout, draw)
    return x.contiguous(memory_format=torch.channels_last)


def plain(batch: Batch, pictures: Pictures, *, zoom: float = 1.0) -> Tensor:
    """Return the evaluation view: the central square, at the training size, normalised.

    Parameters
    ----------
    batch : Batch
        ``(B, C, H, W)`` uint8 images.
    pictures : Pictures
        Size, channels, mean and std of the result.
    zoom : float
        Side of the central square as a share of the shorter side.

    Returns
    -------
    Tensor
        ``(B, C, size, size)`` float32, channels-last.
    """
    height, width = batch.images.shape[2:]
    size = pictures.size
    if batch.sizes is None and height == width == size and zoom == 1.0:
        x = batch.images.float().div_(255.0)
    else:
        heights, widths = _sides(batch)
        side = torch.minimum(heights, widths) * zoom
        box = torch.stack([(heights - side) / 2, (widths - side) / 2, side, side], 1)
        x = resample(batch.images, batch.sizes, box, size).clamp_(0.0, 1.0)
    return normalise(x, pictures).contiguous(memory_format=torch.channels_last)


def normalise(x: Tensor, pictures: Pictures) -> Tensor:
    """Subtract the mean and divide by the std of each channel; `x` is on the 0-1 scale."""
    mean = x.new_tensor(pictures.mean)[:, None, None]
    std = x.new_tensor(pictures.std)[:, None, None]
    return (x - mean) / std


def resample(
    images: Tensor,
    sizes: Tensor | None,
    box: Tensor,
    size: int,
    *,
    angle: Tensor | None = None,
    sigma: Tensor | None = None,
) -> Tensor:
    """Resample a box of every image to a square; edges repeat beyond the picture.

    Parameters
    ----------
    images : Tensor
        ``(B, C, H, W)`` uint8.
    sizes : Tensor or None
        ``(B, 2)`` heights and widths of the pictures inside the canvas.
    box : Tensor
        ``(B, 4)`` top, left, height, width in pixels; a negative width flips.
    size : int
        Side of the result.
    angle : Tensor, optional
        ``(B,)`` rotation in radians about the centre of the box.
    sigma : Tensor, optional
        ``(B,)`` Gaussian blur in pixels of the result; 0 leaves an image as it is.

    Returns
    -------
    Tensor
        ``(B, C, size, size)`` float32 on the 0-1 scale.
    """
    height, width = images.shape[2:]
    limit_y = sizes[:, 0].float() if sizes is not None else images.new_full((1,), height).float()
    limit_x = sizes[:, 1].float() if sizes is not None else images.new_full((1,), width).float()
    if angle is not None:
        x = _rotated(images, box, angle, limit_y, limit_x, size)
        return x if sigma is None else _separable(x, _blur(sigma, size), _blur(sigma, size))
    rows = _weights(box[:, 0], box[:, 2], limit_y, height, size)  # (B, size, H)
    columns = _weights(box[:, 1], box[:, 3], limit_x, width, size)  # (B, size, W)
    if sigma is not None:
        rows, columns = _blur(sigma, size) @ rows, _blur(sigma, size) @ columns
    return _separable(images, rows, columns).mul_(1 / 255.0)


def _separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply `rows` (B, S, H) and `columns` (B, S, W) to `x` (B, C, H, W)."""
    count, channels, height, width = x.shape
    size = rows.shape[1]
    # (B, H, C*W) and then (B, S*C, W): two plain batched products, no copy of the weights.
    x = x.permute(0, 2, 1, 3).to(torch.float32, memory_format=torch.contiguous_format)
    x = torch.bmm(rows, x.reshape(count, height, channels * width))
    x = torch.bmm(x.reshape(count, size * channels, width), columns.transpose(1, 2))
    return x.reshape(count, size, channels, size).permute(0, 2, 1, 3)


def _weights(start: Tensor, length: Tensor, limit: Tensor, source: int, size: int) -> Tensor:
    """Return triangle-filter weights ``(B, size, source)``, antialiased when shrinking."""
    step = length / size  # (B,), negative where flipped
    steps = torch.arange(size, device=start.device, dtype=torch.float32) + 0.5
    first = start - length.clamp(max=0)  # a flipped box starts at its far edge
    centre = first[:, None] + steps * step[:, None] - 0.5  # (B, size)
    centre = torch.minimum(centre.clamp(min=0), (limit - 1)[:, None])
    support = step.abs().clamp(min=1.0)[:, None, None]
    pixel = torch.arange(source, device=start.device, dtype=torch.float32)
    weights = (1 - (pixel - centre[:, :, None]).abs_() / support).clamp_(min=0)
    if limit.numel() > 1:
        weights = weights * (pixel < limit[:, None])[:, None, :]
    return weights / weights.sum(2, keepdim=True)


def _blur(sigma: Tensor, size: int) -> Tensor:
    """Return Gaussian smoothing matrices ``(B, size, size)``; sigma 0 gives the identity."""
    pixel = torch.arange(size, device=sigma.device, dtype=torch.float32)
    distance = (pixel[:, None] - pixel[None, :]) ** 2
    weights = torch.exp(-distance / (2 * sigma.clamp(min=1e-3) ** 2)[:, None, None])
    return weights / weights.sum(2, keepdim=True)


def _rotated(
    images: Tensor, box: Tensor, angle: Tensor, limit_y: Tensor, limit_x: Tensor, size: int
) -> Tensor:
    height, width = images.shape[2:]
    unit = (torch.arange(size, device=box.device, dtype=torch.float32) + 0.5) / size - 0.5
    sine, cosine = torch.sin(angle)[:, None, None], torch.cos(angle)[:, None, None]
    down = unit[None, :, None] * box[:, 2, None, None]
    right = unit[None, None, :] * box[:, 3, None, None]
    y = (box[:, 0] + box[:, 2] / 2)[:, None, None] + cosine * down + sine * right
    x = (box[:, 1] + box[:, 3].abs() / 2)[:, None, None] - sine * down + cosine * right
    y = torch.minimum(y.clamp(min=0.5), (limit_y - 0.5)[:, None, None])
    x = torch.minimum(x.clamp(min=0.5), (limit_x - 0.5)[:, None, None])
    grid = torch.stack([2 * x / width - 1, 2 * y / height - 1], -1)
    picture = images.to(torch.float32, memory_format=torch.contiguous_format).mul_(1 / 255.0)
    return F.grid_sample(picture, grid, align_corners=False)


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


def _colour(x: Tensor, policy: Policy, draw: _Draw) -> Tensor:
    """Change brightness, contrast, saturation and hue, or drop the colour."""
    chosen = draw.chance(policy.jitter)
    bright = torch.where(chosen, draw.around(1.0, policy.brightness), 1.0)
    contrast = torch.where(chosen, draw.around(1.0, policy.contrast), 1.0)
    saturation = torch.where(chosen, draw.around(1.0, policy.saturation), 1.0)
    turn = torch.where(chosen, draw.around(0.0, policy.hue), 0.0)
    saturation = torch.where(draw.chance(policy.grey), 0.0, saturation)
    if not (policy.brightness or policy.contrast or policy.saturation or policy.hue or policy.grey):
        return x
    count, channels, height, width = x.shape
    flat = x.reshape(count, channels, height * width)
    mean = flat.mean(2)  # (B, C)
    if channels == 1:
        scale = (bright * contrast)[:, None, None]
        return (flat * scale + (bright * (1 - contrast))[:, None, None] * mean[:, :, None]).view_as(
            x
        )
    matrix = _hue_matrix(turn, saturation) * (bright * contrast)[:, None, None]  # (B, 3, 3)
    level = (mean @ x.new_tensor(GREY)) * bright * (1 - contrast)  # grey mean stays where it was
    flat = torch.baddbmm(level[:, None, None], matrix, flat)
    return flat.reshape(count, channels, height, width)


def _hue_matrix(turn: Tensor, saturation: Tensor) -> Tensor:
    """Return RGB matrices ``(B, 3, 3)`` that turn the hue and scale the chroma in YIQ space."""
    to_yiq = turn.new_tensor([GREY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
    from_yiq = torch.linalg.inv(to_yiq)
    cosine, sine = torch.cos(2 * math.pi * turn) * saturation, torch.sin(2 * math.pi * turn) * saturation
    zero, one = torch.zeros_like(turn), torch.ones_like(turn)
    turned = torch.stack([one, zero, zero, zero, cosine, -sine, zero, sine, cosine], 1)
    return from_yiq @ turned.view(-1, 3, 3) @ to_yiq


def _noise(x: Tensor, batch: Batch, strength: Tensor, seed: int, view: int) -> Tensor:
    pixels = x[0].numel()
    # Two uniform numbers a pixel, turned Gaussian by Box and Muller.
    numbers = uniform(seed, batch.epochs, batch.indices, 2 * pixels, view + 1_000)
    radius = (-2 * torch.log1p(-numbers[:, :pixels])).sqrt()
    gauss = radius * torch.cos(2 * math.pi * numbers[:, pixels:])
    return x + strength[:, None, None, None] * gauss.reshape(x.shape)


def _cutout(x: Tensor, share: float, draw: _Draw) -> Tensor:
    size = x.shape[-1]
    side = share * size
    top, left = draw.unit() * (size - side), draw.unit() * (size - side)
    pixel = torch.arange(size, device=x.device) + 0.5
    rows = (pixel >= top[:, None]) & (pixel < top[:, None] + side)  # (B, S)
    columns = (pixel >= left[:, None]) & (pixel < left[:, None] + side)
    return x.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)
