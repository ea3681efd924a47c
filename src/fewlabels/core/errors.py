"""Errors a user can act on: what, which file, why, and the next command to try."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FewlabelsError(Exception):
    """An error with a stable code and an exit status.

    Parameters
    ----------
    code : str
        Stable dotted code that scripts may match, such as ``data.empty``.
    message : str
        What happened, to which file or parameter, and why.
    hint : str, optional
        The next thing to try.
    """

    exit_code = 1

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        tail = f"\n  try: {self.hint}" if self.hint else ""
        return f"error[{self.code}]: {self.message}{tail}"


class UsageError(FewlabelsError):
    """A flag, configuration key or argument that cannot be used."""

    exit_code = 2


class DataError(FewlabelsError):
    """The images, labels or splits cannot be used as they are."""

    exit_code = 3


class ModelError(FewlabelsError):
    """A model file is missing, damaged or of another kind."""

    exit_code = 4


class DivergedError(FewlabelsError):
    """Training met a loss or gradient that is not finite."""

    exit_code = 5


class OutOfMemoryError(FewlabelsError):
    """The work does not fit the memory of the device."""

    exit_code = 6


class DiskError(FewlabelsError):
    """A file could not be written."""

    exit_code = 7


class LockedError(FewlabelsError):
    """Another process is working in the run folder."""

    exit_code = 8


def unknown(kind: str, name: str, allowed: Iterable[str]) -> UsageError:
    """Return the error for an unknown name, with the nearest known names."""
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"one of: {', '.join(names[:20])}"
    return UsageError(f"usage.{kind}", f"unknown {kind} {name!r}", hint)
