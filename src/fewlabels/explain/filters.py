"""What the first layer of a network looks for, as pictures."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from fewlabels.core.types import Backbone, Pictures
from fewlabels.models.patches import PatchDictionary

MOST = 64


def first_filters(backbone: Backbone, pictures: Pictures) -> np.ndarray | None:
    """Return the filters of the layer that sees the pixels.

    The kernels of the first convolution, the rows of the first dense layer laid out as the
    image, or the entries of a patch dictionary.

    Returns
    -------
    ndarray or None
        ``(n, k, k, C)`` uint8, C 1 or 3, at most `MOST` of them, each scaled to its own largest
        weight: 128 is a weight of 0. None where no layer sees the pixels as they are.
    """
    found = _kernels(backbone, pictures)  # (n, C, k, k)
    if found is None or not found.numel():
        return None
    kernels = found[:MOST].detach().float().cpu().numpy().transpose(0, 2, 3, 1)
    if kernels.shape[3] not in (1, 3):
        kernels = kernels.mean(3, keepdims=True)
    largest = np.abs(kernels).max((1, 2, 3), keepdims=True)
    shown = 128 + 127 * kernels / np.maximum(largest, np.finfo(np.float32).tiny)
    return np.asarray(shown.round(), np.uint8)


def _kernels(backbone: Backbone, pictures: Pictures) -> Tensor | None:
    channels, size = pictures.channels, pictures.size
    if isinstance(backbone, PatchDictionary):
        return backbone.dictionary.reshape(-1, channels, backbone.patch, backbone.patch)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == channels:
            return module.weight
        if isinstance(module, nn.Linear) and module.in_features == channels * size**2:
            return module.weight.reshape(-1, channels, size, size)
    return None
