"""Keeping Pillow's warnings from the user, safely across threads."""

from __future__ import annotations

import threading
import warnings
from types import TracebackType


class Quiet:
    """Keep Pillow's warnings from the user, whatever thread they arise in.

    ``warnings.catch_warnings`` alone changes filters that all threads share, and two
    overlapping uses can restore them in the wrong order. Here the first to enter
    installs the filter and the last to leave removes it.
    """

    _lock = threading.Lock()
    _depth = 0
    _saved: warnings.catch_warnings[None] | None = None

    def __enter__(self) -> None:
        """Silence Pillow, unless that is done already."""
        with Quiet._lock:
            if Quiet._depth == 0:
                Quiet._saved = warnings.catch_warnings()
                Quiet._saved.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            Quiet._depth += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let Pillow speak again when the last user leaves."""
        with Quiet._lock:
            Quiet._depth -= 1
            if Quiet._depth == 0 and Quiet._saved is not None:
                Quiet._saved.__exit__(kind, error, trace)
                Quiet._saved = None
