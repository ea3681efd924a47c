"""A quick look at the headers, to choose the training size and the channels."""

from __future__ import annotations

import numpy as np

from fewlabels.core.errors import DataError
from fewlabels.data import decode
from fewlabels.data.listing import escape
from fewlabels.data.source import Source

SMALL = 64
AUTO_SIZE = 128
SURVEY = 2000
HEAD_BYTES = 1 << 16


def survey(source: Source) -> tuple[np.ndarray, int]:
    """Return short sides, and 1 or 3 channels, of up to 2,000 images evenly spread.

    Every image is looked at where there are no more; the headers of all would cost
    more than opening the store.
    """
    rows = source.sample(SURVEY)
    with decode.Quiet():
        found = [header for row in rows.tolist() if (header := _header(source, row)) is not None]
    if not found:
        first = escape(source.paths[0])
        raise DataError(
            "data.unreadable",
            f"none of {len(rows)} images can be read, first {first}",
            "check that the files are whole, and that the path is the right one",
        )
    sides = np.array([side for side, _ in found], np.int64)
    return sides, max(channels for _, channels in found)


def _header(source: Source, row: int) -> tuple[int, int] | None:
    """Return (short side, channels) of one image; None if it is unreadable."""
    if row in source.issues:
        return None
    if source.pictures is not None:
        height, width, channels = source.pictures.shape(row)
        return min(height, width), channels
    try:
        header = _probe(source, row)
    except (OSError, ValueError):
        return None
    return min(header.width, header.height), header.channels


def _probe(source: Source, row: int) -> decode.Header:
    head = source.head(row, HEAD_BYTES)
    try:
        return decode.probe(head)
    except ValueError:
        if len(head) < HEAD_BYTES:
            raise
    # TIFF may keep its directory at the end, and metadata may fill the head.
    return decode.probe(source.head(row, -1))


def auto_size(sides: np.ndarray) -> int:
    """Return the most common short side where all are small, else 128."""
    if int(sides.max()) > SMALL:
        return AUTO_SIZE
    return max(8, int(np.bincount(sides).argmax()))
