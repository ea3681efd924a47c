"""What TIFF needs beyond other formats: it holds formats inside, and promises sizes twice."""

from __future__ import annotations

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

MAX_TILE = 16_000_000
_COMPRESSION, _PHOTOMETRIC, _TILE_WIDTH, _TILE_HEIGHT = 259, 262, 322, 323
_WHITE_IS_ZERO = 0
# None, CCITT (2, 3, 4), LZW, JPEG, Deflate (8, 32946), PackBits, Zstandard
_READ = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946, 50000})


def refuse_rare(image: Image.Image) -> None:
    """Refuse a TIFF that leads to rare decoders, or whose tiles are out of all proportion.

    libtiff makes room for a whole tile, though the picture may be of 16 pixels: a file of 200
    bytes could ask for gigabytes.

    Raises
    ------
    ValueError
        With the reason in words.
    """
    if not isinstance(image, TiffImageFile):
        return
    compression = image.tag_v2.get(_COMPRESSION, 1)
    if compression not in _READ:
        raise ValueError(f"a TIFF with the rare compression {compression}; save it again with LZW")
    width, height = (image.tag_v2.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_HEIGHT))
    if not isinstance(width, int) or not isinstance(height, int) or width * height > MAX_TILE:
        raise ValueError(f"a TIFF with tiles of more than {MAX_TILE // 10**6} megapixels")


def is_negative(image: Image.Image) -> bool:
    """Tell whether Pillow leaves white as zero: it turns 8 bits and fewer round, and no 16."""
    return (
        isinstance(image, TiffImageFile)
        and image.mode.startswith("I;16")
        and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    )
