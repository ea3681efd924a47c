"""``--config FILE.yaml``: flags by name, beaten by flags on the command line."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import typer

from fewlabels.core.errors import UsageError

_ELSEWHERE = ("config", "as_json", "debug", "help")  # how to talk, not what to do


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a YAML file the defaults of the verb that is being parsed.

    Raises
    ------
    UsageError
        If the file cannot be read or names a key that is no flag of this verb.
    """
    if path is not None and not context.resilient_parsing:
        flags = _flags(context)
        repeated = {p.name for p in context.command.params if getattr(p, "multiple", False)}
        values = {}
        for key, value in _load(path).items():
            name = flags[_known(key, flags, path)]
            if value is not None:
                parts = value if isinstance(value, list) else [value]
                listed = [_text(key, part, path) for part in parts] if name in repeated else None
                values[name] = listed or _text(key, value, path)
        context.default_map = values
    return path


def _flags(context: typer.Context) -> dict[str, str]:
    """Return the parameter that each key stands for, under the name the user sees."""
    flags: dict[str, str] = {}
    for parameter in context.command.params:
        if parameter.name and parameter.name not in _ELSEWHERE:
            seen = max(parameter.opts, key=len).lstrip("-").replace("-", "_").lower()
            flags[seen] = parameter.name
    return flags


def _load(path: Path) -> dict[str, Any]:
    from fewlabels.results.settings import load_yaml

    try:
        value = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError("usage.config", f"cannot read {path}: {error}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError("usage.config", f"{path} holds no 'name: value' lines", "budget: 5m")
    return {str(key).replace("-", "_"): found for key, found in value.items()}


def _known(key: str, flags: dict[str, str], path: Path) -> str:
    if key in flags:
        return key
    near = difflib.get_close_matches(key, flags, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"one of: {', '.join(sorted(flags))}"
    raise UsageError("usage.config", f"{path} has the key {key!r}, which is no flag here", hint)


def _text(key: str, value: Any, path: Path) -> str | bool:
    """Return a value as it would be typed; a list becomes ``a,b,c``."""
    if isinstance(value, bool):
        return value
    if isinstance(value, list) and all(isinstance(part, str | int | float) for part in value):
        return ",".join(map(str, value))
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, dict) and key == "change":
        return _flow(value, path)
    raise UsageError("usage.config", f"{path}: {key} is neither text, a number nor a list")


def _flow(value: dict[Any, Any], path: Path) -> str:
    try:
        return json.dumps(value)  # which is YAML as well
    except TypeError as error:
        raise UsageError("usage.config", f"{path}: change: {error}") from error
