"""Memory for pictures being decoded, shared out among threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Room:
    """Lets threads decode together as long as their pictures fit, and wait otherwise.

    Parameters
    ----------
    pixels : int
        How many may be decoded at once; no picture has more.
    """

    def __init__(self, pixels: int) -> None:
        self._free = pixels
        self._freed = threading.Condition()

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Hold room for a picture of so many pixels."""
        with self._freed:
            self._freed.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        try:
            yield
        finally:
            with self._freed:
                self._free += pixels
                self._freed.notify_all()
