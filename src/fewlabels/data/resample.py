"""Resampling of whole batches: one box of every image to a square, antialiased, on any device.

Crop, zoom, shift, flip and blur are one separable resampling (two batched matrix
products); a rotation falls back to `grid_sample`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


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
        ``(B, C, H, W)`` of values 0 to 255, uint8 or float32.
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
    limit_y = None if sizes is None else sizes[:, 0].float()
    limit_x = None if sizes is None else sizes[:, 1].float()
    if angle is not None:
        x = _rotated(images, box, angle, limit_y, limit_x, size)
        return x if sigma is None else _separable(x, blur(sigma, size), blur(sigma, size))
    rows = _weights(box[:, 0], box[:, 2], limit_y, height, size)  # (B, size, H)
    # The second product also brings the bytes to the 0-1 scale.
    columns = _weights(box[:, 1], box[:, 3], limit_x, width, size, total=1 / 255.0)
    if sigma is not None:
        rows, columns = blur(sigma, size) @ rows, blur(sigma, size) @ columns
    return _separable(images, rows, columns)


def _separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply `rows` (B, S, H) and `columns` (B, S, W) to `x` (B, C, H, W)."""
    count, channels, height, width = x.shape
    size = rows.shape[1]
    # (B, H, C*W) and then (B, S*C, W): two plain batched products, no copy of the weights.
    x = x.permute(0, 2, 1, 3).to(torch.float32, memory_format=torch.contiguous_format)
    x = torch.bmm(rows, x.reshape(count, height, channels * width))
    x = torch.bmm(x.reshape(count, size * channels, width), columns.transpose(1, 2))
    return x.reshape(count, size, channels, size).permute(0, 2, 1, 3)


def _weights(
    start: Tensor,
    length: Tensor,
    limit: Tensor | None,
    source: int,
    size: int,
    *,
    total: float = 1.0,
) -> Tensor:
    """Return triangle-filter weights ``(B, size, source)``, antialiased when shrinking.

    Parameters
    ----------
    start, length : Tensor
        ``(B,)`` of the box along this side; a negative length flips.
    limit : Tensor or None
        ``(B,)`` pixels of the picture; None where all `source` pixels are its own.
    total : float
        What the weights of one pixel of the result add up to.
    """
    step = length / size  # (B,), negative where flipped
    steps = torch.arange(size, device=start.device, dtype=torch.float32) + 0.5
    first = start - length.clamp(max=0)  # a flipped box starts at its far edge
    centre = (first[:, None] + steps * step[:, None] - 0.5).clamp_(min=0)  # (B, size)
    centre = (
        centre.clamp_(max=source - 1.0) if limit is None else centre.minimum(limit[:, None] - 1)
    )
    pixel = torch.arange(source, device=start.device, dtype=torch.float32)
    slope = -1 / step.abs().clamp(min=1.0)[:, None, None]
    # In place: the weights of a batch are as large as its images.
    weights = (pixel - centre[:, :, None]).abs_().mul_(slope).add_(1).clamp_(min=0)
    if limit is not None:
        weights.mul_((pixel < limit[:, None])[:, None, :])
    return weights.mul_(total / weights.sum(2, keepdim=True))


def blur(sigma: Tensor, size: int) -> Tensor:
    """Return Gaussian smoothing matrices ``(B, size, size)``; sigma 0 gives the identity."""
    pixel = torch.arange(size, device=sigma.device, dtype=torch.float32)
    distance = (pixel[:, None] - pixel[None, :]) ** 2
    weights = torch.exp(-distance / (2 * sigma.clamp(min=1e-3) ** 2)[:, None, None])
    return weights / weights.sum(2, keepdim=True)


def _rotated(
    images: Tensor,
    box: Tensor,
    angle: Tensor,
    limit_y: Tensor | None,
    limit_x: Tensor | None,
    size: int,
) -> Tensor:
    height, width = images.shape[2:]
    unit = (torch.arange(size, device=box.device, dtype=torch.float32) + 0.5) / size - 0.5
    sine, cosine = torch.sin(angle)[:, None, None], torch.cos(angle)[:, None, None]
    down = unit[None, :, None] * box[:, 2, None, None]
    right = unit[None, None, :] * box[:, 3, None, None]
    y = (box[:, 0] + box[:, 2] / 2)[:, None, None] + cosine * down + sine * right
    x = (box[:, 1] + box[:, 3].abs() / 2)[:, None, None] - sine * down + cosine * right
    # Half a pixel inside the picture, so that nothing is read from beyond its edge.
    y, x = _inside(y, limit_y, height), _inside(x, limit_x, width)
    grid = torch.stack([2 * x / width - 1, 2 * y / height - 1], -1)
    picture = images.to(torch.float32, memory_format=torch.contiguous_format)
    return F.grid_sample(picture, grid, align_corners=False).mul_(1 / 255.0)


def _inside(place: Tensor, limit: Tensor | None, source: int) -> Tensor:
    if limit is None:
        return place.clamp_(0.5, source - 0.5)
    return torch.minimum(place.clamp_(min=0.5), (limit - 0.5)[:, None, None])
