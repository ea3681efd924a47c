"""Reading a file of weights that somebody else made: tensors and nothing else.

Safetensors are data. PyTorch's own files are pickles, which can run any code; they are read
with ``weights_only=True``, which knows tensors and containers alone, and whatever else lies
in them makes the file refused.
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from fewlabels.core.errors import ModelError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar")
# Under which names training scripts keep the weights beside their other state.
_WRAPPED = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema")
_WRAPPERS = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile


@dataclass(frozen=True, slots=True, eq=False)
class WeightsFile:
    """What a file of weights holds.

    Attributes
    ----------
    tensors : dict
        By name.
    architecture : str
        What the file says it is of (``arch``, as PyTorch's example scripts write it), or nothing.
    """

    tensors: dict[str, Tensor]
    architecture: str = ""


def read_weights(path: Path) -> WeightsFile:
    """Read a ``.safetensors`` file, or a PyTorch file of tensors alone.

    Raises
    ------
    ModelError
        It is missing, damaged, holds something else than tensors, or none.
    """
    if path.suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise ModelError("model.format", f"{path} is no file of weights", f"one of: {known}")
    try:
        found: Any = load_file(path) if path.suffix == ".safetensors" else _load_pickle(path)
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from error
    except OSError as error:
        why = error.strerror or str(error)
        raise ModelError("model.unreadable", f"cannot read {path}: {why}") from error
    except Exception as error:  # PyTorch's reader raises almost anything on a damaged file
        raise _damaged(path, str(error).partition("\n")[0][:200] or type(error).__name__) from error
    return _unwrapped(found, path)


def _load_pickle(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other kinds of files that it might be
        return torch.load(path, map_location="cpu", weights_only=True)


def _damaged(path: Path, why: str) -> ModelError:
    return ModelError(
        "model.damaged", f"{path} is damaged, or no file of weights: {why}", "fetch it again"
    )


def _is_pickle(path: Path) -> bool:
    """Say whether a file begins as pickles do since protocol 2, or as a zip of one."""
    with path.open("rb") as file:
        return file.read(2) in (b"PK", *(bytes([0x80, number]) for number in range(2, 6)))


def _refused(path: Path, error: Exception) -> ModelError:
    """Tell a file with code in it from one that is damaged."""
    if "GLOBAL" not in str(error) and not _is_pickle(path):
        return _damaged(path, "it begins like neither of PyTorch's formats")
    named = [word for word in str(error).split() if word.startswith("GLOBAL")]
    what = str(error).partition("GLOBAL ")[2].partition(" ")[0] if named else "other objects"
    return ModelError(
        "model.unsafe",
        f"{path} holds more than tensors ({what}); loading that could run code, so nothing of "
        "it was loaded",
        "where you trust it, load it in PyTorch and save its state_dict alone, as safetensors",
    )


def _unwrapped(found: Any, path: Path) -> WeightsFile:
    architecture = ""
    if isinstance(found, Mapping):
        architecture = str(found.get("arch") or "")
        inner = [found[name] for name in _WRAPPED if isinstance(found.get(name), Mapping)]
        found = inner[0] if inner else found
    if not isinstance(found, Mapping) or not found or not all(map(_is_dense, found.values())):
        raise ModelError(
            "model.format",
            f"{path} holds no tensors by name, as a state_dict does",
            "torch.save(net.state_dict(), FILE), or safetensors.torch.save_file",
        )
    tensors = {str(name): value for name, value in found.items()}
    for prefix in _WRAPPERS:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return WeightsFile(tensors, architecture)


def _is_dense(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Return the name of the first tensor with a NaN or an infinity in it, or nothing.

    Examples
    --------
    >>> not_finite({"a": torch.ones(2), "b": torch.tensor([1.0, float("nan")])})
    'b'
    """
    found = (name for name, value in tensors.items() if not bool(torch.isfinite(value).all()))
    return next(found, "")


def digest_in_name(path: Path) -> bool:
    """Say whether a file's name ends in the beginning of its SHA-256, as PyTorch names its own.

    Such a file is the one that was published.
    """
    said = path.stem.rpartition("-")[2]
    if len(said) < 8 or not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(said)
