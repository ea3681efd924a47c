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


def unknown(
    kind: str, name: str, allowed: Iterable[str], *, prefix: str = "", otherwise: str = ""
) -> UsageError:
    """Return the error for an unknown name, with the nearest known names.

    Parameters
    ----------
    kind, name : str
        What was named, and how.
    allowed : iterable of str
        The known names.
    prefix : str
        What stands before every name, and says nothing of which are alike.
    otherwise : str
        The hint where nothing is near; by default the first known names.
    """
    names = sorted(allowed)
    near = [prefix + one for one in nearest(name, names)]
    listed = ", ".join(prefix + one for one in names[:20])
    hint = f"did you mean {' or '.join(near)}?" if near else otherwise or f"one of: {listed}"
    return UsageError(f"usage.{kind}", f"unknown {kind} {prefix + name!r}", hint)


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """Return at most three names that are like one, the likest first, whatever their case.

    Examples
    --------
    >>> nearest("cifar", ["CIFAR10", "DTD", "USPS"])
    ['CIFAR10']
    >>> nearest("mnist10", ["FashionMNIST", "MNIST", "DTD"])
    ['MNIST', 'FashionMNIST']
    """
    spelt: dict[str, str] = {}
    for one in names:
        spelt.setdefault(one.casefold(), one)
    asked = name.casefold()
    parts = [one for one in spelt if len(_shared(asked, one)) >= max(3, 0.6 * len(asked))]
    near = difflib.get_close_matches(asked, parts, n=3, cutoff=0.0)
    near = near or difflib.get_close_matches(asked, spelt, n=3, cutoff=0.5)
    return [spelt[one] for one in near]


def _shared(one: str, other: str) -> str:
    """Return the longest text that lies in both."""
    found = difflib.SequenceMatcher(None, one, other, autojunk=False).find_longest_match()
    return one[found.a : found.a + found.size]
