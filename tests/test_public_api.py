"""What `import fewlabels` offers, and that it costs nothing until it is used."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import fewlabels

VERBS = ["compare", "demo", "evaluate", "explain", "export", "finetune", "inspect"]
VERBS += ["label_study", "load", "models", "pretrain", "report", "run", "suggest", "suspects"]


def test_names() -> None:
    types = ["DataOptions", "FewlabelsError"]
    assert sorted(fewlabels.__all__) == sorted([*types, "__version__", *VERBS])
    assert set(fewlabels.__all__) <= set(dir(fewlabels))
    assert fewlabels.__version__ == metadata.version("fewlabels")


@pytest.mark.parametrize("name", VERBS)
def test_verbs_are_documented(name: str) -> None:
    verb = getattr(fewlabels, name)
    assert callable(verb)
    assert inspect.getdoc(verb)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'pretrian'"):
        fewlabels.pretrian  # noqa: B018


def test_importing_loads_nothing_heavy() -> None:
    code = "import sys, fewlabels; print(sys.modules.keys() & {'torch', 'numpy', 'typer', 'rich'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.medium
def test_models_is_a_verb_and_a_package() -> None:
    code = """
import fewlabels
before = fewlabels.models
import fewlabels.models.small
from fewlabels import models
assert models is before is fewlabels.models
print([row["name"] for row in fewlabels.models("conv-32-64-128-")])
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "['conv-32-64-128-128-dense-512']", done.stderr


@pytest.mark.medium
@pytest.mark.parametrize(
    "first", ["import fewlabels.report.html", "from fewlabels import report", "fewlabels.report"]
)
def test_report_is_a_verb_and_a_package(first: str, tmp_path: Path) -> None:
    code = f"""
import fewlabels
{first}
from fewlabels.report.html import render
try:
    fewlabels.report('nowhere')
except fewlabels.FewlabelsError as error:
    print(error.exit_code)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.strip() == "3", done.stderr
