"""What a command line asks for, and how its values are read.

Nothing runs while the words are parsed: a verb returns a `Job`.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fewlabels.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Job:
    """One call on the library, how to show its result, and whether processes may share it."""

    call: Callable[[], Any]
    show: Callable[[Any], None]
    as_json: bool
    shared: bool = False


def given(**values: Any) -> dict[str, Any]:
    """Return the settings that were given, so that a verb's own defaults stand for the rest."""
    return {name: value for name, value in values.items() if value is not None}


def counts_list(
    text: str | None, flag: str = "labels", example: str = "1,4,25"
) -> list[int] | None:
    """Read ``1,4,25``."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and int(part) >= 1 for part in parts):
        message = f"--{flag} {text!r} is no list of whole numbers of at least 1"
        raise UsageError(f"usage.{flag}", message, f"--{flag} {example}")
    return sorted({int(part) for part in parts})


def names_list(
    text: str | None, flag: str = "arms", example: str = "simclr+features,scratch"
) -> list[str] | None:
    """Read ``simclr+features,scratch``."""
    if text is None:
        return None
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise UsageError(f"usage.{flag}", f"--{flag} names nothing", f"--{flag} {example}")
    return list(dict.fromkeys(names))


def mapping(text: str | None) -> dict[str, Any] | None:
    """Read ``{channels: [32, 64], activation: gelu}``, a mapping in YAML."""
    if text is None:
        return None
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError("usage.change", f"--change {text!r} is no YAML: {error}") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        message = f"--change {text!r} names no settings"
        raise UsageError("usage.change", message, "--change '{channels: [32, 64]}'")
    return value


def typed() -> str:
    """Return the command line as it was typed, to be kept with the result."""
    words = [word for word in sys.argv[1:] if word not in ("--debug", "--json")]
    return shlex.join(["fewlabels", *words])
