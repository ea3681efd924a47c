"""fewlabels: from a folder of images with few labels to a verdict.

>>> import fewlabels
>>> sorted(name for name in fewlabels.__all__ if name.islower())[:4]
['__version__', 'compare', 'demo', 'evaluate']

Importing costs nothing: torch is loaded by the first verb that is called.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:

    def report(folder: str | Path) -> Path:
        """Stand for `_PackageVerb` where types are checked."""
        ...

    def explain(run: str | Path, *given: Any, **settings: Any) -> dict[str, Any]:
        """Stand for `_PackageVerb` where types are checked."""
        ...

    def models(*given: Any, **settings: Any) -> list[dict[str, Any]]:
        """Stand for `_PackageVerb` where types are checked."""
        ...


_HOMES = {
    "DataOptions": "fewlabels.pipeline.task",
    "FewlabelsError": "fewlabels.core.errors",
    "compare": "fewlabels.study.compare",
    "demo": "fewlabels.study.main_job",
    "evaluate": "fewlabels.pipeline.verbs",
    "export": "fewlabels.pipeline.export",
    "finetune": "fewlabels.pipeline.verbs",
    "inspect": "fewlabels.pipeline.verbs",
    "label_study": "fewlabels.study.labelling",
    "load": "fewlabels.pipeline.predict",
    "pretrain": "fewlabels.pipeline.verbs",
    "run": "fewlabels.study.main_job",
    "suggest": "fewlabels.study.suggest",
    "suspects": "fewlabels.pipeline.suspects",
}
_TAKES_DATA = ("inspect", "pretrain", "finetune", "compare", "run", "label_study")
_TAKES_FOLDER = ("evaluate", "explain", "export", "suggest", "suspects")
_PACKAGES = ("explain", "models", "report")  # verbs that are packages as well
_WRITES_PAGE = ("compare", "run", "demo", "label_study")

__all__ = [
    "DataOptions",
    "FewlabelsError",
    "__version__",
    "compare",
    "demo",
    "evaluate",
    "explain",
    "export",
    "finetune",
    "inspect",
    "label_study",
    "load",
    "models",
    "pretrain",
    "report",
    "run",
    "suggest",
    "suspects",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("fewlabels")
    if name in _PACKAGES:
        return import_module(f"fewlabels.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'fewlabels' has no attribute {name!r}")
    found = getattr(import_module(_HOMES[name]), name)
    return _verb(name, found) if name.islower() else found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _verb(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a verb take plain paths, report progress by itself, and leave its page behind."""

    @functools.wraps(function)
    def verb(*given: Any, **settings: Any) -> Any:
        if given and name in _TAKES_DATA:
            given = (_options(given[0]), *given[1:])
        elif given and name in _TAKES_FOLDER:
            given = (Path(given[0]), *given[1:])
        if name != "load" and "reporter" not in settings:
            reporter = import_module("fewlabels.training.progress").Reporter
            settings["reporter"] = reporter()
        result = function(*given, **settings)
        if name in _WRITES_PAGE:
            _write_page(result)
        return result

    return verb


def _options(data: Any) -> Any:
    options = __getattr__("DataOptions")
    return data if isinstance(data, options) else options(str(data))


def _write_page(result: dict[str, Any]) -> None:
    """Write the page of a comparison; a plan and single cells have none."""
    if not result.get("run") or result.get("kind") == "cells":
        return
    folder = Path(result["run"])
    # What is collected once more is shown anew.
    anew = result.get("kind") == "comparison" and not result.get("already_done")
    if anew or not (folder / "report.html").exists():
        import_module("fewlabels.report.html").write_report(folder)


def _report(folder: str | Path) -> Path:
    """Write ``report.html`` of a run or comparison folder and return its path."""
    written: Path = import_module("fewlabels.report.html").write_report(Path(folder))
    return written


def _explain(*given: Any, **settings: Any) -> Any:
    """Show what a network looks at; see `fewlabels.pipeline.explain.explain`."""
    verb = import_module("fewlabels.pipeline.verbs").explain
    return _verb("explain", verb)(*given, **settings)


def _models(*given: Any, **settings: Any) -> Any:
    """List what can be started from; see `fewlabels.pipeline.choosing.models`."""
    verb = import_module("fewlabels.pipeline.choosing").models
    return _verb("models", verb)(*given, **settings)


class _PackageVerb(ModuleType):
    """One of the packages that are verbs as well."""

    def __call__(self, *given: Any, **settings: Any) -> Any:
        """Do what the verb of this name does."""
        verbs = {"explain": _explain, "models": _models, "report": _report}
        return verbs[self.__name__.rpartition(".")[2]](*given, **settings)


class _Package(ModuleType):
    """A package whose verbs stay verbs when Python sets them to the packages of their names."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _PACKAGES and isinstance(value, ModuleType):
            value.__class__ = _PackageVerb
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
