"""The test ledger: how often a test set has been looked at, whatever the run folder.

Every look at test labels makes the next one worth a little less. The count
belongs to the images, not to a folder, so it is kept in the user's cache under
the content of the test set, and no command of ours deletes it.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from fewlabels.core.cache import cache_folder
from fewlabels.results.files import append_line, disk_errors, drop_torn_line, read_lines
from fewlabels.results.lock import Lock

_WAIT_SECONDS = 10.0


def look(test_key: str, what: str) -> int:
    """Note a look at a test set and return how many there have been, this one included.

    Parameters
    ----------
    test_key : str
        The test set's content hash.
    what : str
        Why it was looked at, such as ``compare``.

    Raises
    ------
    DiskError
        The cache folder is not writable: set ``FEWLABELS_CACHE``.
    LockedError
        Another process held the ledger for ten seconds.
    """
    path = _page(test_key)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with Lock(path.with_suffix(".lock"), wait=_WAIT_SECONDS):
        drop_torn_line(path)
        row = {"what": what, "when": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        append_line(path, row, flush=True)
        return looks(test_key)


def looks(test_key: str) -> int:
    """Return how often a test set has been looked at; damaged lines do not count."""
    return sum("what" in row for row in read_lines(_page(test_key)))


def _page(test_key: str) -> Path:
    # Hashed again, so that any text is a safe file name.
    name = hashlib.sha256(test_key.encode()).hexdigest()[:32]
    return cache_folder() / "ledger" / f"{name}.jsonl"
