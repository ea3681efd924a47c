"""Two pictures laid over each other as shifting and stretching can, and how well they agree.

Copies differ in frame (cropped), size, brightness and compression. The second picture is
registered onto the first: scale and shift along each side by Gauss-Newton steps on the squared
difference, with a factor and an offset of brightness fitted along (Lucas and Kanade 1981; Baker
and Matthews 2004). Then three questions are asked, of the area that both show:

- Do the *edges* agree? The correlation of the brightness gradients, which is what is told as the
  likeness. Gradients are nearly white in natural pictures, so that agreement in a smooth
  background counts little.
- Do they agree *everywhere*? The largest share of the edges of one of 4x4 fields that is not
  explained. A camera that never moves gives pictures that agree but for the animal.
- Do the *colours* agree? The same shirt in red is another picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

FIELDS = 4
_STEPS = ((1.5, 3), (0.8, 3))  # blur in pixels, and Gauss-Newton steps at it
_BLUR = 1.0  # for the comparison: what re-encoding leaves of the finest details is noise
_FARTHEST, _LARGEST, _STEP = 0.2, 1.18, 0.08  # shift, scale and step, in half sides
_NOISE = 0.1  # squared grey levels a pixel of edges that are nothing; without edges no likeness
_TONE = 8.0  # grey levels added to the contrast that differences of colour are held against


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well pairs of pictures agree; ``(B,)`` float32 each.

    Attributes
    ----------
    likeness : ndarray
        Correlation of the gradients, at most 1.
    unlike : ndarray
        Largest unexplained share of the edges of a field, 0 for copies.
    colour : ndarray
        Difference of the colours, relative to the contrast; 0 for copies.
    """

    likeness: Floats
    unlike: Floats
    colour: Floats


def agreement(first: Floats, second: Floats) -> Agreement:
    """Register pictures and say how well they agree.

    Parameters
    ----------
    first, second : ndarray
        ``(B, S, S, C)`` float32 from 0 to 255, C 1 or 3, S 16 or more.

    Returns
    -------
    Agreement
    """
    one, other = _planes(first), _planes(second)
    place = _registered(one[0], other[0])
    down, across, shown = _onto(place, one[0].shape[1])
    soft = _blur(_BLUR, one[0].shape[1])
    one = [soft @ plane @ soft.T for plane in one]
    other = [down @ (soft @ plane @ soft.T) @ across.transpose(0, 2, 1) for plane in other]
    likeness, unlike = _edges(one[0], other[0], shown)
    return Agreement(likeness, unlike, _colours(one, other, shown))


def _planes(pictures: Floats) -> list[Floats]:
    """Return brightness and, where there is colour, two differences to it; ``(B, S, S)`` each."""
    if pictures.shape[3] == 1:
        return [pictures[..., 0]]
    grey = pictures @ np.array([0.299, 0.587, 0.114], np.float32)
    # The factors are those of JPEG's YCbCr.
    return [
        grey,
        (pictures[..., 2] - grey) * np.float32(0.564),
        (pictures[..., 0] - grey) * np.float32(0.713),
    ]


def _blur(sigma: float, side: int) -> Floats:
    """Return the ``(S, S)`` matrix that blurs columns by a Gaussian, edges renormalised."""
    away = np.subtract.outer(np.arange(side), np.arange(side))
    kernel = np.exp(-0.5 * (away / sigma) ** 2)
    blur: Floats = (kernel / kernel.sum(1, keepdims=True)).astype(np.float32)
    return blur


def _sampling(scale: Floats, shift: Floats, side: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Return ``(B, S, S)`` matrices of linear interpolation, and which samples lie inside."""
    at = (scale[:, None] * _coordinates(side) + shift[:, None] + 1) * np.float32((side - 1) / 2)
    inside = (at >= -0.01) & (at <= side - 0.99)
    at = np.clip(at, 0, side - 1)
    away = np.abs(at[:, :, None] - np.arange(side, dtype=np.float32))
    return np.maximum(np.float32(0), 1 - away), inside


def _coordinates(side: int) -> Floats:
    return np.linspace(-1, 1, side, dtype=np.float32)


def _onto(place: Floats, side: int) -> tuple[Floats, Floats, Floats]:
    """Return the matrices that lay the second picture onto the first, and what both show."""
    down, rows = _sampling(place[:, 0], place[:, 1], side)
    across, columns = _sampling(place[:, 2], place[:, 3], side)
    return down, across, (rows[:, :, None] & columns[:, None, :]).astype(np.float32)


def _registered(one: Floats, other: Floats) -> Floats:
    """Return ``(B, 4)``: scale and shift down, scale and shift across, in half sides."""
    place = np.tile(np.array([1, 0, 1, 0], np.float32), (len(one), 1))
    for sigma, steps in _STEPS:
        soft = _blur(sigma, one.shape[1])
        a, b = soft @ one @ soft.T, soft @ other @ soft.T
        for _ in range(steps):
            place = _step(a, b, place)
    return place


def _step(a: Floats, b: Floats, place: Floats) -> Floats:
    """Return the place after one Gauss-Newton step.

    Minimises ``|a - g b(place + d) - o|`` over the place, the factor g and the offset o, with
    ``b(place + d)`` linear in d; what is solved for is ``g d``, g and o.
    """
    side = a.shape[1]
    down, across, shown = _onto(place, side)
    moved = down @ b @ across.transpose(0, 2, 1)
    half, at = np.float32((side - 1) / 2), _coordinates(side)
    slope_down = np.gradient(moved, axis=1) * half / place[:, 0, None, None]
    slope_across = np.gradient(moved, axis=2) * half / place[:, 2, None, None]
    columns = [slope_down * at[:, None], slope_down, slope_across * at, slope_across]
    columns += [moved, np.ones_like(moved)]
    known = (np.stack(columns, 1) * shown[:, None]).reshape(len(a), 6, -1)
    wanted = (a * shown).reshape(len(a), -1, 1)
    inner = (known @ known.transpose(0, 2, 1)).astype(np.float64)
    # A little damping, for pictures whose edges all run one way.
    inner += 1e-4 / 6 * np.trace(inner, axis1=1, axis2=2)[:, None, None] * np.eye(6)
    found = np.linalg.solve(inner, (known @ wanted).astype(np.float64))[..., 0]
    factor = np.where(np.abs(found[:, 4:5]) < 0.3, 0.3, found[:, 4:5])
    place = place + np.clip(found[:, :4] / factor, -_STEP, _STEP).astype(np.float32)
    place[:, ::2] = np.clip(place[:, ::2], 1 / _LARGEST, _LARGEST)
    place[:, 1::2] = np.clip(place[:, 1::2], -_FARTHEST, _FARTHEST)
    return place


def _edges(a: Floats, b: Floats, shown: Floats) -> tuple[Floats, Floats]:
    """Return the correlation of the gradients, and the largest unexplained share of a field."""
    inside = shown[:, 2:, 1:-1] * shown[:, :-2, 1:-1] * shown[:, 1:-1, 2:] * shown[:, 1:-1, :-2]
    (ay, ax), (by, bx) = _gradient(a), _gradient(b)
    noise = _NOISE * inside.sum((1, 2)) + 1e-6
    mine, theirs, both = (
        (v * inside).sum((1, 2)) for v in (ay**2 + ax**2, by**2 + bx**2, ay * by + ax * bx)
    )
    likeness = both / np.sqrt((mine + noise) * (theirs + noise))
    factor = np.sqrt((mine + noise) / (theirs + noise))[:, None, None]
    off = ((ay - factor * by) ** 2 + (ax - factor * bx) ** 2) * inside
    energy = 0.5 * (ay**2 + ax**2 + factor**2 * (by**2 + bx**2)) * inside
    fields = _fields(a.shape[1] - 2)
    off, energy = fields @ off @ fields.T, fields @ energy @ fields.T
    # A field of sky holds little but noise: it is held against an average field as well.
    share = off / (energy + energy.mean((1, 2), keepdims=True) + 1e-6)
    return likeness.astype(np.float32), share.max((1, 2)).astype(np.float32)


def _gradient(x: Floats) -> tuple[Floats, Floats]:
    return x[:, 2:, 1:-1] - x[:, :-2, 1:-1], x[:, 1:-1, 2:] - x[:, 1:-1, :-2]


def _fields(side: int) -> Floats:
    """Return the ``(4, S)`` matrix that sums fields of rows."""
    of_row = np.arange(side) * FIELDS // side
    sums: Floats = (of_row == np.arange(FIELDS)[:, None]).astype(np.float32)
    return sums


def _colours(one: list[Floats], other: list[Floats], shown: Floats) -> Floats:
    """Return the root mean square difference of the colours over the contrast."""
    area = shown.sum((1, 2)) + 1e-6
    mine, theirs = (_contrast(planes[0], shown, area) for planes in (one, other))
    factor = (mine / np.maximum(theirs, 1e-3))[:, None, None]
    off = np.zeros(len(area), np.float32)
    for a, b in zip(one[1:], other[1:], strict=True):
        off += ((a - factor * b) ** 2 * shown).sum((1, 2))
    different: Floats = np.sqrt(off / area) / (mine + _TONE)
    return different


def _contrast(x: Floats, shown: Floats, area: Floats) -> Floats:
    middle = (x * shown).sum((1, 2)) / area
    spread: Floats = np.sqrt(((x - middle[:, None, None]) ** 2 * shown).sum((1, 2)) / area)
    return spread
