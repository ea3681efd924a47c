"""From the bytes of a picture file to uint8 pixels, each odd case decided on purpose.

What is decided, and why:

- Formats: JPEG (with its multi-picture variant), PNG, WebP, BMP, TIFF and GIF. Rarer
  decoders are where security holes live, so they are never reached.
- A header that promises more than 50 megapixels is refused before decoding, and no more
  than that are decoded at once, whatever the threads.
- TIFF holds other formats inside: its rare compressions are not read, nor tiles above
  16 megapixels, which a file of 200 bytes can ask for.
- The EXIF (or XMP) orientation is applied. Metadata too damaged to read leaves the
  picture upright, and is counted.
- 16-bit integers are scaled from 0-65535, or from 0-4095 where a single-channel picture
  holds nothing above: scanners and cameras store 12 bits in 16. 32-bit integers and
  floats have no fixed range and are scaled from their own smallest and largest value
  (floats inside 0-1: from 0-1).
- Palettes are resolved. Transparency, wherever it comes from, is laid on white.
- CMYK and YCCK become RGB; embedded ICC profiles are ignored, as they are by most
  published training pipelines.
- Animations and multi-page files give their first frame.
- Every row must decode: a truncated file is refused, never filled with grey; see
  `damage` for what decoders do not say by themselves.

Formats but PNG have no checksum, so flipped bits inside them can go unseen: the SHA-256
in the manifest is what notices them later.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from fewlabels.data.damage import refuse_damage, refuse_grey
from fewlabels.data.pixels import (
    Picture,
    from_array,
    in_mode,
    is_grey,
    plain,
    shrink,
    shrink_image,
    stored_size,
    to_pixels,
)
from fewlabels.data.quiet import Quiet
from fewlabels.data.room import Room
from fewlabels.data.tiffs import refuse_rare

__all__ = [
    "Header",
    "Picture",
    "Quiet",
    "decode",
    "from_array",
    "load",
    "probe",
    "shrink",
    "stored_size",
]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 50_000_000
_ORIENTATION = 0x0112
_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"GIF8": "GIF",
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ROOM = Room(MAX_PIXELS)
_METADATA = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")


@dataclass(frozen=True, slots=True)
class Header:
    """What a picture file says about itself, before its pixels are decoded.

    Attributes
    ----------
    width, height : int
        As the picture is meant to be seen, after its orientation is applied.
    mode : str
        Pillow's name of the pixel layout, such as ``RGB``, ``L`` or ``I;16``.
    format : str
        Pillow's name of the file format, such as ``JPEG``.
    """

    width: int
    height: int
    mode: str
    format: str

    @property
    def channels(self) -> int:
        """1 for grey pictures, 3 for all others."""
        return 1 if is_grey(self.mode) else 3


def probe(data: bytes) -> Header:
    """Read the header of a picture file.

    Parameters
    ----------
    data : bytes
        The whole file.

    Returns
    -------
    Header

    Raises
    ------
    ValueError
        With the reason in words: not a picture, too large, or damaged.
    """
    with Quiet(), _open(data) as image:
        try:
            turn = _orientation(image)
        except ValueError:
            turn = 1
        width, height = image.size if turn < 5 else image.size[::-1]
        return Header(width, height, image.mode, str(image.format))


def decode(data: bytes, channels: int | None = None) -> NDArray[np.uint8]:
    """Decode a picture file at its full size.

    Parameters
    ----------
    data : bytes
        The whole file.
    channels : int or None
        1 for grey, 3 for colour, None for what the file holds.

    Returns
    -------
    ndarray
        ``(H, W, C)`` uint8.

    Raises
    ------
    ValueError
        With the reason in words.
    """
    return load(data, channels).pixels


def load(data: bytes, channels: int | None = None, short_side: int | None = None) -> Picture:
    """Decode a picture file and shrink it as the store does.

    Large JPEGs are decoded at a half, quarter or eighth of their size where that leaves
    the shorter side at least twice `short_side`: several times faster, and the same
    pixels every time, though not those of ``shrink(decode(data))`` to the last bit.

    Parameters
    ----------
    data : bytes
        The whole file.
    channels : int or None
        1 for grey, 3 for colour, None for what the file holds.
    short_side : int or None
        As in `shrink`; None keeps the full size.

    Returns
    -------
    Picture

    Raises
    ------
    ValueError
        With the reason in words: empty, not a picture, too large, truncated or damaged.
    """
    with Quiet(), _open(data) as image:
        try:
            refuse_damage(data, image.format)
            return _load(image, data, channels, short_side)
        except MemoryError:
            raise
        except Exception as error:  # Pillow raises almost anything on hostile files
            raise ValueError(_reason(error)) from error


def _open(data: bytes) -> Image.Image:
    if not data:
        raise ValueError("the file is empty")
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise ValueError(_unknown(data)) from None
    except Image.DecompressionBombError:
        raise ValueError(_too_large()) from None
    except Exception as error:  # as in load
        raise ValueError(_reason(error)) from error
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(_too_large())
    refuse_rare(image)
    return image


def _too_large() -> str:
    return f"more than {MAX_PIXELS // 10**6} megapixels"


def _unknown(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return "a HEIC, AVIF or video file; convert it to JPEG or PNG"
    for signature, kind in _SIGNATURES.items():
        if data.startswith(signature):
            return f"not a {kind} file that can be read: damaged, without pixels, or of a rare kind"
    return "not a JPEG, PNG, WebP, BMP, TIFF or GIF picture"


def _reason(error: Exception) -> str:
    return f"truncated or damaged ({str(error) or type(error).__name__})"


def _load(image: Image.Image, data: bytes, channels: int | None, short_side: int | None) -> Picture:
    width, height = image.size
    notes = _notes(image)
    if short_side is not None:
        _draft(image, short_side)
    with _ROOM.take(image.width * image.height):
        image.load()
        if image.format in ("JPEG", "MPO"):
            refuse_grey(data, image)
        turn = _read_turn(image, notes)
        image = plain(image, notes)
        if not is_grey(image.mode):  # grey is made colour when it is small
            image = in_mode(image, channels)
        if turn in _TURNS:
            width, height = (width, height) if turn < 5 else (height, width)
            image = image.transpose(_TURNS[turn])
        if short_side is not None:
            image = shrink_image(image, short_side, notes)
        return Picture(to_pixels(in_mode(image, channels)), width, height, tuple(notes))


def _notes(image: Image.Image) -> list[str]:
    moves = getattr(image, "is_animated", False) and image.format != "MPO"  # phones' photos
    notes = ["animated"] if moves else []
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_ORIENTATION) in _TURNS:
        notes.append("exif")  # Pillow turns these itself while loading
    if image.format in ("PNG", "TIFF") and ";16" in str(getattr(image, "tile", "")):
        notes.append("16-bit")
    return notes


def _draft(image: Image.Image, short_side: int) -> None:
    """Let libjpeg decode at a smaller scale while that keeps 2x the pixels needed."""
    least = min(image.size)
    if image.format in ("JPEG", "MPO") and least >= 4 * short_side:
        wanted = 2 * short_side
        width, height = image.size
        image.draft(None, (-(-width * wanted // least), -(-height * wanted // least)))


def _read_turn(image: Image.Image, notes: list[str]) -> int:
    try:
        turn = _orientation(image)
    except ValueError:
        notes.append("damaged-exif")
        return 1
    if turn != 1:
        notes.append("exif")
    return turn


def _orientation(image: Image.Image) -> int:
    upright = isinstance(image, TiffImageFile)
    if upright or not any(key in image.info for key in _METADATA):
        return 1
    try:
        turn = image.getexif().get(_ORIENTATION, 1)
    except MemoryError:
        raise
    except Exception as error:  # as in load
        raise ValueError(_reason(error)) from error
    return turn if turn in _TURNS else 1
