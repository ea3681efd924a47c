"""Where downloaded data sets are kept, and what is said when one cannot be had."""

from __future__ import annotations

import errno
from pathlib import Path

from fewlabels.core.cache import cache_folder
from fewlabels.core.errors import DataError, DiskError, FewlabelsError
from fewlabels.data.listing import escape

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


def downloads_folder() -> Path:
    """Return where data sets that were asked for by name lie; it is not created here."""
    return cache_folder() / "datasets"


def downloads_size() -> int:
    """Return the bytes that downloaded data sets take on disk."""
    found = (path for path in downloads_folder().rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in found)


def failed(name: str, error: BaseException, folder: Path, hint: str) -> FewlabelsError:
    """Return the error for a data set that could not be downloaded into `folder`."""
    why = escape(str(error).strip().partition("\n")[0]) or type(error).__name__
    if isinstance(error, OSError) and error.errno in _DISK:
        hint = "free some space, or set FEWLABELS_CACHE (for hf: HF_HOME) to another folder"
        return DiskError("disk.download", f"cannot keep {name} in {folder}: {why}", hint)
    return DataError("data.download", f"cannot download {name}: {why}", hint)
