"""Where fewlabels keeps what it can make again, and its ledger of looks at test sets."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Return the user's cache folder; it is not created here.

    Returns
    -------
    Path
        ``FEWLABELS_CACHE`` where it is set, else the place the platform names:
        ``~/.cache/fewlabels`` (or below ``XDG_CACHE_HOME``) on Linux,
        ``~/Library/Caches/fewlabels`` on macOS, ``%LOCALAPPDATA%`` on Windows.
    """
    chosen = os.environ.get("FEWLABELS_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return _platform_caches() / "fewlabels"


def _platform_caches() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    # The XDG specification: a relative path is invalid and must be ignored.
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return named if named.is_absolute() else Path.home() / ".cache"
