"""What a picture looks like from afar, in 47 bytes: by these codes near-copies are looked up.

A code holds the low spatial frequencies of a 16x16 thumbnail (a discrete cosine transform), of
brightness without its mean and of two colour differences. A change of the file's encoding or
size hardly touches them; a change of brightness multiplies them all, and codes have one length.
Frequencies are weighted by their size, since natural pictures hold less of the higher ones
(Field 1987), so that each counts about alike.

Nothing is fitted to a data set: the code of a picture never depends on the others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

THUMBNAIL = 16
SCALE = 127  # length of a code
LEAST_SIDE = 16  # of a picture in pixels: below, two pictures agree by chance
LEAST_GREY_SIDE = 64  # without colour, two digits of small size agree better than some copies
LEAST_CONTRAST = 2.0  # standard deviation in grey levels; flat pictures all look the same
_BRIGHTNESS, _COLOUR = 5.0, 3.0  # highest frequencies kept, in half waves a side
_COLOUR_WEIGHT, _TINT_WEIGHT = 1.5, 0.5


_F: NDArray[np.float64] = np.hypot(*np.mgrid[:6, :6])
_OF_BRIGHTNESS = (_F > 0) & (_F <= _BRIGHTNESS)
_OF_COLOUR = _F <= _COLOUR
WIDTH = int(_OF_BRIGHTNESS.sum() + 2 * _OF_COLOUR.sum())
_WAVES = np.cos(np.pi * np.arange(6)[:, None] * (np.arange(THUMBNAIL) + 0.5) / THUMBNAIL)
_COLOUR_WEIGHTS = np.where(_F > 0, _COLOUR_WEIGHT * _F, _COLOUR_WEIGHT * _TINT_WEIGHT)


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shrink ``(H, W, C)`` uint8 to ``(16, 16, C)``, aspect given up; black where it has no code.

    Pictures are left without a code that are too small to tell a copy from another picture.
    """
    least = LEAST_SIDE if pixels.shape[2] == 3 else LEAST_GREY_SIDE
    if min(pixels.shape[:2]) < least:
        return np.zeros((THUMBNAIL, THUMBNAIL, pixels.shape[2]), np.uint8)
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    small = image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(small).reshape(THUMBNAIL, THUMBNAIL, -1)


def encode(thumbnails: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Return the codes of thumbnails.

    Parameters
    ----------
    thumbnails : ndarray
        ``(n, 16, 16, C)`` uint8 of `thumbnail`, C 1 or 3.

    Returns
    -------
    ndarray
        ``(n, 47)`` int8 of length `SCALE`, but for rounding; zeros for flat pictures.
    """
    x = thumbnails.astype(np.float64)
    grey = x[..., 0] if x.shape[-1] == 1 else x @ (0.299, 0.587, 0.114)
    planes = [grey, *(x[..., c] - grey for c in ((0, 2) if x.shape[-1] == 3 else ()))]
    waves = [_WAVES @ plane @ _WAVES.T for plane in planes]
    parts = [(waves[0] * _F)[:, _OF_BRIGHTNESS]]
    parts += [(wave * _COLOUR_WEIGHTS)[:, _OF_COLOUR] for wave in waves[1:]]
    codes = np.concatenate(parts, 1)
    length = np.sqrt((codes**2).sum(1, keepdims=True))
    flat = grey.std((1, 2)) < LEAST_CONTRAST
    scaled = np.where(flat[:, None], 0.0, SCALE * codes / np.maximum(length, 1e-9))
    whole = np.zeros((len(x), WIDTH), np.int8)
    whole[:, : codes.shape[1]] = np.rint(scaled)
    return whole
