"""The project as a newcomer gets it: pins that fit, one door, a wheel that runs elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
BIN = "Scripts" if os.name == "nt" else "bin"


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def test_every_dependency_is_pinned_within_its_range() -> None:
    about = project()
    wanted = [*about["dependencies"], *about["optional-dependencies"]["dev"]]
    pinned = pins()
    for requirement in map(Requirement, wanted):
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} but {version} pinned"


def test_pins_name_no_place() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "fewlabels" not in pins()
    assert not [line for line in text.splitlines() if "/" in line or "@" in line]


def test_ci_runs_the_one_door() -> None:
    commands = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert commands == ["#!/bin/sh", "set -e", 'cd "$(dirname "$0")/.."', "make test"]
    assert os.name == "nt" or os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_alone_lists_the_targets() -> None:
    text = run("make", "-C", str(ROOT))
    for target in ("setup", "demo", "test", "check", "test-slow"):
        assert f"  {target} " in text


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    run(*build, str(ROOT))
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.slow
def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
    source = ROOT / "src"
    files = (path.relative_to(source) for path in source.rglob("*") if path.is_file())
    # What tools leave behind is hidden, or Python's own cache.
    expected = {
        name.as_posix()
        for name in files
        if not any(part.startswith((".", "__pycache__")) for part in name.parts)
    }
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert wheel.name == "fewlabels-0.1.0-py3-none-any.whl"
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_wheel_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    python = install(wheel, tmp_path / "venv")
    where = run(python, "-c", "import fewlabels; print(fewlabels.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(tmp_path)
    command = str(python.with_name("fewlabels"))
    help_text = run(command, "--help", cwd=tmp_path)
    for verb in ("run", "pretrain", "finetune", "evaluate", "compare", "predict", "demo"):
        assert verb in help_text
    assert json.loads(run(command, "inspect", "digits", "--json", cwd=tmp_path))["images"] == 1797


def install(wheel: Path, place: Path) -> Path:
    """Install the wheel alone in a new environment that borrows the libraries of this one."""
    run(sys.executable, "-m", "venv", "--without-pip", str(place))
    python = place / BIN / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel))
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # A path added this way comes last, and .pth files in it (our editable install) are not read.
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(site, "borrowed.pth").write_text("\n".join(borrowed), encoding="utf-8")
    return python


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
