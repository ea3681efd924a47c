"""What a result was made with: versions, machine and command, without machine paths."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_PACKAGES = ("fewlabels", "torch", "torchvision", "timm", "numpy")


def describe(device: str | None = None) -> dict[str, Any]:
    """Return versions, processor, threads and device of this process.

    Parameters
    ----------
    device : str, optional
        The device in use, such as ``cpu`` or ``cuda:0``; by default the one
        that ``auto`` would take.

    Returns
    -------
    dict
        ``python``, the packages, ``platform``, ``machine``, ``cpu``, ``cores``,
        ``threads``, ``device`` and, in a checkout of fewlabels, ``commit``.
    """
    import torch

    cpu, cores = _cpu(), _cores()
    about: dict[str, Any] = {name: _version(name) for name in _PACKAGES}
    about |= {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "machine": f"{cores} x {cpu}",
        "cpu": cpu,
        "cores": cores,
        "threads": torch.get_num_threads(),
        "device": _device(device),
    }
    commit = _commit(Path(__file__).parents[3])
    return about | ({"commit": commit} if commit else {})


def command_line(argv: Sequence[str]) -> str:
    """Return a command as a user would type it again, their home folder as ``~``.

    Parameters
    ----------
    argv : sequence of str
        As `sys.argv`: the first element is the program, whatever its path.

    Examples
    --------
    >>> command_line(["/opt/venv/bin/fewlabels", "run", "my photos", "--labels", "4"])
    "fewlabels run 'my photos' --labels 4"
    """
    return " ".join(["fewlabels", *(_argument(argument) for argument in argv[1:])])


def _argument(argument: str) -> str:
    home = str(Path.home())
    inside = argument.removeprefix(home + os.sep)
    if len(home) > 1 and inside != argument:
        return f"~/{shlex.quote(inside)}"  # a quoted tilde would not be expanded
    return shlex.quote(argument)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu() -> str:
    if sys.platform == "darwin":
        name = _output(["sysctl", "-n", "machdep.cpu.brand_string"])
    elif sys.platform == "win32":
        name = platform.processor()
    else:
        name = _proc_cpu()
    return name or platform.machine() or "unknown processor"


def _proc_cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    named = (line.split(":", 1)[1] for line in lines if line.startswith("model name"))
    return " ".join(next(named, "").split())


def _device(device: str | None) -> str:
    import torch

    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and torch.cuda.is_available():
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return device


def _commit(root: Path) -> str:
    """Return the commit of a checkout of ours, with ``-dirty`` when files differ from it."""
    # An installed copy may lie inside somebody else's repository, whose commit says nothing.
    if not ((root / ".git").exists() and (root / "src" / "fewlabels").is_dir()):
        return ""
    describe = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    return _output([*describe, "--exclude=*"])


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
