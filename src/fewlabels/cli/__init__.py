"""The command line: parse, call, print. Torch is imported only inside a verb."""

from __future__ import annotations

from fewlabels.cli.app import main

__all__ = ["main"]
