"""From any pixel layout to 8-bit grey or RGB, and down to the size that is stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewlabels.data.tiffs import is_negative

MAX_ASPECT = 3
_ROWS = 256


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture.

    Attributes
    ----------
    pixels : ndarray
        ``(H, W, C)`` uint8, C-contiguous.
    width, height : int
        Of the file, after orientation and before any shrinking.
    notes : tuple of str
        What was done to it: ``exif``, ``damaged-exif``, ``16-bit``, ``12-bit``,
        ``32-bit``, ``palette``, ``alpha``, ``cmyk``, ``animated``, ``cropped``.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    notes: tuple[str, ...]


def from_array(
    array: NDArray[np.generic], channels: int | None = None, short_side: int | None = None
) -> Picture:
    """Bring a picture held in an array to the form that `decode.load` gives.

    Parameters
    ----------
    array : ndarray
        ``(H, W)`` or ``(H, W, C)`` with 1, 3 or 4 channels; bool, uint8 or uint16.
        Floats are refused: their range belongs to the data set, not to one picture.
    channels, short_side
        As in `decode.load`.

    Returns
    -------
    Picture

    Raises
    ------
    ValueError
        If the shape or type is none of these.
    """
    image, notes = array_to_pil(array)
    if image.mode == "RGBA":
        image = on_white(image, notes)
    height, width = array.shape[:2]
    image = in_mode(image, channels)
    if short_side is not None:
        image = shrink_image(image, short_side, notes)
    return Picture(to_pixels(image), width, height, tuple(notes))


def shrink(image: NDArray[np.uint8], short_side: int) -> NDArray[np.uint8]:
    """Reduce the shorter side to `short_side`, antialiased, keeping the aspect.

    Pictures are never enlarged. Of a picture more than three times as long as it is
    wide, only the central part is kept, so that one panorama cannot blow up the canvas
    of a whole batch.

    Parameters
    ----------
    image : ndarray
        ``(H, W, C)`` uint8 with 1 or 3 channels.
    short_side : int

    Returns
    -------
    ndarray
        ``(h, w, C)`` uint8 with ``min(h, w) <= short_side`` and ``max <= 3 * min``.
    """
    height, width = image.shape[:2]
    if min(height, width) <= short_side and max(height, width) <= MAX_ASPECT * min(height, width):
        return np.ascontiguousarray(image)
    return to_pixels(shrink_image(_to_pil(image), short_side))


def stored_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Return the (width, height) to which `shrink` brings a picture of this size."""
    least = min(width, height)
    width, height = min(width, MAX_ASPECT * least), min(height, MAX_ASPECT * least)
    if least <= short_side:
        return width, height
    return round(width * short_side / least), round(height * short_side / least)


def shrink_image(
    image: Image.Image, short_side: int, notes: list[str] | None = None
) -> Image.Image:
    """Shrink a Pillow image as `shrink` does; note a lost border as ``cropped``."""
    width, height = image.size
    most = MAX_ASPECT * min(width, height)
    left, top = max(0, width - most) // 2, max(0, height - most) // 2
    box = (left, top, left + min(width, most), top + min(height, most))
    if notes is not None and box != (0, 0, width, height):
        notes.append("cropped")
    size = stored_size(width, height, short_side)
    if size == (box[2] - box[0], box[3] - box[1]):
        return image if box == (0, 0, width, height) else image.crop(box)
    return image.resize(size, Image.Resampling.BICUBIC, box)


def in_mode(image: Image.Image, channels: int | None) -> Image.Image:
    """Convert L or RGB to grey for 1 channel, colour for 3; None leaves it."""
    if channels not in (None, 1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels}")
    mode = "L" if (channels or (1 if is_grey(image.mode) else 3)) == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def plain(image: Image.Image, notes: list[str]) -> Image.Image:
    """Bring any mode to L or RGB without loss of what the picture shows."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode[0] in "IF":
        return _deep(image, notes)
    if image.mode == "P":
        notes.append("palette")
    if image.has_transparency_data:
        return on_white(image, notes)
    if image.mode == "CMYK":
        notes.append("cmyk")
    return image.convert("L" if is_grey(image.mode) else "RGB")


def on_white(image: Image.Image, notes: list[str]) -> Image.Image:
    """Lay a picture with transparency on white, some rows at a time to spare memory."""
    mode = "L" if is_grey(image.mode) else "RGB"
    canvas = Image.new(mode, image.size, "white")
    clear = False
    for top in range(0, image.height, _ROWS):
        box = (0, top, image.width, min(top + _ROWS, image.height))
        band = image.crop(box).convert("RGBA")
        clear = clear or band.getchannel("A").getextrema() != (255, 255)
        white = Image.new("RGBA", band.size, "white")
        white.alpha_composite(band)
        canvas.paste(white.convert(mode), box)
    if clear:
        notes.append("alpha")
    return canvas


def is_grey(mode: str) -> bool:
    """Tell whether a Pillow mode has no colour."""
    return mode in ("1", "L", "LA", "La", "F") or mode[0] == "I"


def array_to_pil(array: NDArray[np.generic]) -> tuple[Image.Image, list[str]]:
    """Return an array as a Pillow image, with notes on what was done to it."""
    notes: list[str] = []
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ValueError(f"an array of shape {array.shape} is not a picture (H, W[, 1, 3 or 4])")
    if 0 in array.shape:
        raise ValueError(f"an array of shape {array.shape} holds no pixels")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype == np.bool_:
        return _to_pil(array.astype(np.uint8) * 255), notes
    if array.dtype == np.uint16:
        return _to_pil(_scale_16(array, notes)), notes
    if array.dtype != np.uint8:
        raise ValueError(f"an array of {array.dtype} is not a picture (bool, uint8 or uint16)")
    return _to_pil(array), notes


def to_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """Return an L or RGB image as ``(H, W, C)`` uint8."""
    pixels = np.array(image)  # a copy of its own: torch warns about read-only arrays
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _to_pil(array: NDArray[np.generic]) -> Image.Image:
    flat = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    return Image.fromarray(np.ascontiguousarray(flat))


def _deep(image: Image.Image, notes: list[str]) -> Image.Image:
    """Scale a single channel of 16 or 32 bits, or of floats, to 8 bits."""
    values = np.asarray(image)
    clear = image.info.get("transparency")
    if image.mode.startswith("I;16"):
        pixels = _scale_16(values, notes)
        if is_negative(image):
            pixels = 255 - pixels
    else:
        pixels = _scale_32(values)
        notes.append("32-bit")
    if isinstance(clear, int):
        pixels = np.where(values == clear, np.uint8(255), pixels)
        notes.append("alpha")
    return Image.fromarray(pixels)


def _scale_16(values: NDArray[np.generic], notes: list[str]) -> NDArray[np.uint8]:
    if "16-bit" not in notes:
        notes.append("16-bit")
    top = 65535
    if values.max() <= 4095 and values.ndim == 2:
        top = 4095
        notes.append("12-bit")
    table = (np.arange(65536, dtype=np.uint32) * 255 + top // 2) // top
    scaled: NDArray[np.uint8] = table.astype(np.uint8)[values]  # a table takes no wider copy
    return scaled


def _scale_32(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    wide = values.astype(np.float64)
    if not np.isfinite(wide).all():
        raise ValueError("it holds values that are not finite numbers")
    low, high = float(wide.min()), float(wide.max())
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    span = high - low or 1.0
    return np.rint((wide - low) * (255.0 / span)).astype(np.uint8)
