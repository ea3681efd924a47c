"""What a pre-training method paints: reconstructions, holes filled in, images drawn from nothing.

Decoders and generators stay behind when the encoder is taken away, so these pictures are made at
the end of pre-training or never.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fewlabels.core.seeding import generator
from fewlabels.core.types import Batch, Method, Paints
from fewlabels.explain.pictures import Pixels

IMAGES = 8


def paintings(method: Method, batch: Batch) -> dict[str, np.ndarray]:
    """Return the pictures of a method by name, in the order to show them; none if it paints none.

    Parameters
    ----------
    method : Method
        Fully trained; it is not changed.
    batch : Batch
        A few training images.

    Returns
    -------
    dict of ndarray
        ``(n, S, S, C)`` uint8 by a key of `fewlabels.explain.pictures.PAINTED`.
    """
    if not isinstance(method, Paints):
        return {}
    assert isinstance(method, nn.Module)
    training = method.training
    method.eval()
    with torch.no_grad():
        rows = method.paint(batch, generator(0, "paintings", device=batch.images.device))
    method.train(training)
    return {name: to_pixels(row) for name, row in rows.items()}


def to_pixels(x: Tensor) -> Pixels:
    """Return pictures ``(n, C, S, S)`` on the 0-1 scale as ``(n, S, S, C)`` uint8."""
    levels = (x.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).cpu().numpy())
