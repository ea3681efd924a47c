"""Drawing: maps over images, rows and sheets of pictures, PNG. Arrays in, pixels out, no torch."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]

MAP_NAMES = {
    "grad_cam": "Grad-CAM",
    "integrated_gradients": "integrated gradients",
    "occlusion": "occlusion",
}
PAINTED = {
    "picture": "the picture",
    "seen": "what the encoder was shown of it",
    "painted": "painted from its code",
    "drawn": "drawn from random numbers",
}

# From nothing to the most: dark red over orange to a light yellow, ever lighter, so that the
# order is seen without colours too.
_HEAT = np.array([(70, 0, 20), (196, 60, 0), (245, 145, 20), (255, 236, 130)], np.float64)
# Against and for: the blue and the vermilion of Okabe and Ito, told apart by most eyes.
_AGAINST, _FOR = np.array((0, 114, 178), np.float64), np.array((213, 94, 0), np.float64)
_COVER = 0.85  # of the image, where a map is strongest
_OUTLIERS = 99.5  # percentile of a signed map's magnitude that gets the full colour
ON_CONTACT_SHEET, _ABREAST = 96, 8  # pictures, in all and in a row
_INK, _PAPER, _GREY = (26, 30, 35), (255, 255, 255), (190, 196, 202)
# The colours of classes on the page, see `style.css`.
_CLASSES = [(0, 114, 178), (213, 94, 0), (0, 145, 106), (181, 88, 143)]
_CLASSES += [(185, 130, 0), (56, 151, 211), (106, 90, 205), (75, 85, 96)]
# Of ranges of a number, from low to high: lightness alone tells their order.
_RANGES = [(211, 169, 0), (99, 168, 60), (28, 143, 131), (43, 101, 154), (68, 35, 124)]


def is_signed(name: str, *, number: bool) -> bool:
    """Say whether a map has two signs: all have of a number, and all but Grad-CAM of a class."""
    return number or name != "grad_cam"


def colour(pixels: Pixels) -> Pixels:
    """Return pictures ``(..., C)`` of 1 or 3 channels with 3."""
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


def overlay(picture: Pixels, values: np.ndarray, *, signed: bool) -> Pixels:
    """Lay a map over a pale grey copy of its image.

    Parameters
    ----------
    picture : ndarray
        ``(S, S, C)`` uint8.
    values : ndarray
        ``(S, S)``: in [0, 1], or signed, where vermilion is for the class (or raises the number)
        and blue against.
    signed : bool

    Returns
    -------
    ndarray
        ``(S, S, 3)`` uint8.
    """
    grey = colour(picture).mean(2, keepdims=True) * 0.6 + 80.0  # (S, S, 1)
    if signed:
        most = max(float(np.percentile(np.abs(values), _OUTLIERS)), 1e-12)
        strength = np.clip(np.abs(values) / most, 0, 1)[..., None]
        paint = np.where(values[..., None] > 0, _FOR, _AGAINST)
    else:
        strength = np.clip(values, 0, 1)[..., None]
        steps = np.linspace(0, 1, len(_HEAT))
        flat = strength.ravel()
        paint = np.stack([np.interp(flat, steps, channel) for channel in _HEAT.T], -1)
        paint = paint.reshape(*values.shape, 3)
    # Of signed maps a few pixels hold most; the root lets the others be seen too.
    cover = _COVER * (np.sqrt(strength) if signed else strength)
    return np.asarray((grey * (1 - cover) + paint * cover).round(), np.uint8)


def enlarged(picture: Pixels, side: int) -> Pixels:
    """Return a picture ``(h, w, C)`` with its longer side at `side`; small ones stay sharp."""
    height, width = picture.shape[:2]
    factor = side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    how = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(colour(picture)).resize(size, how))


def contact_sheet(cells: Sequence[tuple[str, Pixels]]) -> Pixels:
    """Return pictures in rows of eight, each over its words; see `sheet`."""
    lines = [cells[start : start + _ABREAST] for start in range(0, len(cells), _ABREAST)]
    return sheet([("", line) for line in lines], side=120)


def sheet(
    rows: Sequence[tuple[str, Sequence[tuple[str, Pixels]]]], *, side: int = 160, gap: int = 10
) -> Pixels:
    """Return rows of pictures on white, each row under its title, each picture over its words.

    Parameters
    ----------
    rows : sequence of (str, sequence of (str, ndarray))
        Titles; words and ``(h, w, C)`` uint8 pictures.
    side : int
        Of a cell in pixels.
    """
    widest = max(len(cells) for _, cells in rows)
    heights = [_row_height(title, cells, side) for title, cells in rows]
    size = (gap + widest * (side + gap), gap + sum(heights) + gap * len(rows))
    canvas = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(canvas)
    top = gap
    for (title, cells), height in zip(rows, heights, strict=True):
        start = top
        if title:
            _write(pen, (gap, start), title, size[0] - 2 * gap, 14)
            start += 22
        for place, (words, picture) in enumerate(cells):
            left = gap + place * (side + gap)
            canvas.paste(Image.fromarray(enlarged(picture, side)), (left, start))
            _write(pen, (left, start + side + 3), words, side, 12)
        top += height + gap
    return np.asarray(canvas)


def _row_height(title: str, cells: Sequence[tuple[str, Pixels]], side: int) -> int:
    return side + (22 if title else 0) + (18 if any(words for words, _ in cells) else 0)


def _write(
    pen: ImageDraw.ImageDraw, at: tuple[int, int], words: str, width: int, size: float
) -> None:
    """Write words in the font that Pillow brings, cut to a width.

    It has no letters but Latin ones: others show as question marks here, and as themselves in
    the JSON and on the page.
    """
    font = ImageFont.load_default(size)
    text = words.encode("latin-1", "replace").decode("latin-1")
    while text and pen.textlength(text, font) > width:
        text = text.removesuffix("...")[:-1] + "..." if len(text) > 4 else ""
    pen.text(at, text, fill=_INK, font=font, stroke_width=2, stroke_fill=_PAPER)


def painted_sheet(rows: dict[str, np.ndarray]) -> Pixels:
    """Return what a method painted as one sheet: a titled row for each key of `PAINTED`."""
    shown = [(PAINTED[name], [("", one) for one in pictures]) for name, pictures in rows.items()]
    return sheet(shown, side=96)


def grid(pictures: Pixels, *, side: int = 48, gap: int = 4) -> Pixels:
    """Return pictures ``(n, h, w, C)`` in a nearly square grid on white."""
    columns = max(1, int(np.ceil(np.sqrt(len(pictures) * 1.6))))
    lines = -(-len(pictures) // columns)
    shape = (gap + lines * (side + gap), gap + columns * (side + gap), 3)
    canvas = np.full(shape, 255, np.uint8)
    for place, picture in enumerate(pictures):
        top, left = (gap + part * (side + gap) for part in divmod(place, columns))
        drawn = enlarged(picture, side)
        canvas[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn
    return canvas


def scatter(
    xy: np.ndarray,
    label: np.ndarray,
    kind: np.ndarray,
    classes: Sequence[str] = (),
    *,
    ordered: bool = False,
) -> Pixels:
    """Return a map of images: a colour for each class, grey without one, rings for labelled ones.

    Parameters
    ----------
    xy : ndarray
        ``(n, 2)``.
    label, kind : ndarray
        ``(n,)`` as `fewlabels.explain.embedding.pack` takes them.
    classes : sequence of str
        Names, written where the images of a class lie; those of ranges in a corner.
    ordered : bool
        Whether they are ranges of a number, from low to high: coloured from pale to strong.
    """
    palette = _RANGES if ordered else _CLASSES
    side, fine = 640, 3  # drawn three times larger, then reduced, for round dots
    canvas = Image.new("RGB", (side * fine, side * fine), _PAPER)
    pen = ImageDraw.Draw(canvas)
    low, span = xy.min(0), max(float(np.ptp(xy, axis=0).max()), 1e-9)
    middle = (side - 40) * (1 - np.ptp(xy, axis=0) / span) / 2
    at = (20 + middle + (side - 40) * (xy - low) / span) * fine
    for name, radius in (("unlabelled", 2.0), ("test", 3.0), ("labelled", 4.5)):
        for (x, y), one in zip(at[kind == name], label[kind == name].tolist(), strict=True):
            paint = palette[one % len(palette)] if one >= 0 else _GREY
            box = [x - radius * fine, side * fine - y - radius * fine]
            box += [x + radius * fine, side * fine - y + radius * fine]
            ring = _INK if name == "labelled" else None
            pen.ellipse(box, fill=paint, outline=ring, width=fine)
    small = canvas.resize((side, side), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(small)
    for one, name in enumerate(classes):
        if ordered:  # ranges overlap: their names would lie upon each other
            pen.ellipse((10, 14 + 20 * one, 20, 24 + 20 * one), fill=palette[one % len(palette)])
            _write(pen, (26, 12 + 20 * one), name, 160, 13)
        elif (label == one).any():
            x, y = np.median(at[label == one], axis=0) / fine
            _write(pen, (int(x) + 8, int(side - y) - 8), name, 120, 13)
    return np.asarray(small)


def png(pixels: Pixels) -> bytes:
    """Return pixels ``(H, W, 3)`` or ``(H, W, 1)`` as a PNG file."""
    buffer = io.BytesIO()
    grey = pixels.shape[2] == 1
    Image.fromarray(pixels[:, :, 0] if grey else pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def data_uri(pixels: Pixels, *, most: int = 192) -> str:
    """Return a picture for an HTML page: small ones as PNG, larger as WebP of at most `most`."""
    if max(pixels.shape[:2]) > most:
        pixels = enlarged(pixels, most)
    if max(pixels.shape[:2]) <= 48:
        return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()
    buffer = io.BytesIO()
    Image.fromarray(colour(pixels)).save(buffer, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def pack(arrays: dict[str, np.ndarray]) -> bytes:
    """Return arrays by name as a compressed ``.npz`` file; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    # numpy's own signature has a boolean beside the names.
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
