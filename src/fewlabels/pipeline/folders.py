"""Where results go when the user names no folder."""

from __future__ import annotations

import re
from pathlib import Path


def default_folder(verb: str, name: str) -> Path:
    """Return the first free ``runs/<verb>-<name>-<n>``."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "data"
    number = 1
    while (folder := Path("runs") / f"{verb}-{plain}-{number}").exists():
        number += 1
    return folder
