"""Data sets of the Hugging Face Hub by name: their Parquet files, read as `parquet` reads them.

Only Parquet is fetched, which holds data and no code. What is not Parquet in the repository
itself the Hub has mostly converted, on a branch of its own.
"""

from __future__ import annotations

import re
from pathlib import Path

from fewlabels.core.errors import DataError, UsageError
from fewlabels.data import parquet
from fewlabels.data.downloads import failed
from fewlabels.data.source import Columns, Source

CONVERTED = "refs/convert/parquet"
_HINT = (
    "check the name and the network (a private one needs HF_TOKEN), or download the files of "
    "https://huggingface.co/datasets/{} by hand and give their folder"
)
_NAME = re.compile(r"[\w.-]+")


def read(text: str, asked: Columns) -> Source:
    """Return the source of ``owner/name``, or of one folder in it, ``owner/name/folder``.

    The files are kept where ``huggingface_hub`` keeps them: in ``HF_HOME``.

    Raises
    ------
    UsageError
        If `text` is no such name, or ``huggingface_hub`` is not installed.
    DataError
        If the data set cannot be downloaded, or has no Parquet files with images.
    """
    parts = text.strip("/").split("/")
    if len(parts) < 2 or not all(_NAME.fullmatch(p) and p not in (".", "..") for p in parts):
        message = f"hf:{text} names no data set of the Hugging Face Hub"
        raise UsageError("usage.dataset", message, "hf:owner/name, as in hf:ylecun/mnist")
    repository, inside = "/".join(parts[:2]), "/".join(parts[2:])
    for revision in (None, CONVERTED):
        root = _fetch(repository, inside, revision) / inside
        files = [path for path in parquet.parquet_files(root) if parquet.holds_images(path)]
        if files:
            return parquet.read_files(files, root, asked, parts[-1])
    raise DataError(
        "data.hub",
        f"hf:{text} has no Parquet files with images, and the Hub has not converted it",
        f"look at https://huggingface.co/datasets/{repository}/tree/main, and download by hand",
    )


def _fetch(repository: str, inside: str, revision: str | None) -> Path:
    """Return the folder with the Parquet files of a repository, downloading what is new."""
    try:
        import huggingface_hub
    except ImportError as error:
        message = "hf: needs huggingface_hub, which is not installed"
        raise UsageError("usage.extra", message, "pip install huggingface_hub") from error
    pattern = f"{inside}/*.parquet" if inside else "*.parquet"
    try:
        folder = huggingface_hub.snapshot_download(
            repository, repo_type="dataset", revision=revision, allow_patterns=[pattern]
        )
    except Exception as error:  # of the hub, its web client, the network or the disk
        kept = Path(huggingface_hub.constants.HF_HUB_CACHE)
        raise failed(f"hf:{repository}", error, kept, _HINT.format(repository)) from error
    return Path(folder)
