"""JSON that tells whether it is whole: with a seal, the SHA-256 of what it says.

Against damage, not forgery: whoever can write the file can seal it anew. What carries no seal, as
in folders of an earlier version, is taken as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewlabels.core.errors import ModelError
from fewlabels.results.files import plain, read_json, to_json, write_atomic

SEAL = "seal"


def sealed(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return `body` in JSON's types with its seal.

    Examples
    --------
    >>> unsealed(sealed({"steps": 3}), "plan.json")
    {'steps': 3}
    """
    whole: dict[str, Any] = plain(dict(body))
    return whole | {SEAL: _digest(whole)}


def unsealed(value: Any, path: str | Path) -> dict[str, Any]:
    """Return what was sealed, without its seal.

    Raises
    ------
    ModelError
        It is not what was sealed, or no object.
    """
    if not isinstance(value, dict):
        raise ModelError("run.damaged", f"{path} holds no names and values")
    body = {name: inner for name, inner in value.items() if name != SEAL}
    if SEAL in value and value[SEAL] != _digest(body):
        raise ModelError("run.damaged", f"{path} is damaged: its seal does not fit")
    return body


def read_sealed(path: str | Path) -> dict[str, Any]:
    """Return what a sealed JSON file says.

    Raises
    ------
    ModelError
        It is missing or damaged.
    """
    return unsealed(read_json(path), path)


def write_sealed(path: str | Path, body: Mapping[str, Any]) -> None:
    """Write a sealed JSON file, whole or not at all.

    Raises
    ------
    DiskError
        The disk is full or not writable. `path` stays as it was.
    """
    write_atomic(path, to_json(sealed(body)) + "\n")


def _digest(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
