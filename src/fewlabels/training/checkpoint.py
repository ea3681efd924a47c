"""Checkpoints: all that training changes, written whole, verified, never unpickled.

A checkpoint is one safetensors file (networks and optimizer tensors) whose header
carries the numbers that are no tensors, beside a JSON file with its SHA-256 that is
written last. The newest two are kept; a damaged one falls back to the one before.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fewlabels.core.errors import FewlabelsError
from fewlabels.core.types import Method
from fewlabels.results.files import write_atomic
from fewlabels.results.seals import read_sealed, write_sealed

KEEP = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where training stands.

    Attributes
    ----------
    step : int
        Steps that are done.
    seconds : float
        Time they took.
    tensors : dict
        Networks under ``method/``, optimizer tensors under ``optimizer/``.
    numbers : dict
        Optimizer settings and scalars.
    damaged : tuple of str
        Newer checkpoint files that could not be used.
    """

    step: int
    seconds: float
    tensors: dict[str, Tensor]
    numbers: dict[str, Any]
    damaged: tuple[str, ...] = ()


def save_checkpoint(folder: Path, method: Method, step: int, seconds: float) -> None:
    """Write a checkpoint of `method` after `step` steps into `folder`.

    Raises
    ------
    DiskError
        The disk is full or not writable; earlier checkpoints stay.
    """
    tensors = {
        f"method/{name}": value.detach().cpu().contiguous()
        for name, value in method.state_dict().items()
        if isinstance(value, Tensor)
    }
    numbers: dict[str, Any] = {}
    for name, optimizer in method.optimizers().items():
        state = optimizer.state_dict()
        numbers[name] = {"param_groups": state["param_groups"], "scalars": {}}
        for index, slots in state["state"].items():
            for slot, value in slots.items():
                if isinstance(value, Tensor):
                    key = f"optimizer/{name}/{index}/{slot}"
                    tensors[key] = value.detach().cpu().contiguous()
                else:
                    numbers[name]["scalars"][f"{index}/{slot}"] = value
    raw = save(_unshared(tensors), {"numbers": json.dumps(numbers)})
    target = folder / f"step-{step:08d}.safetensors"
    write_atomic(target, raw)
    digest = hashlib.sha256(raw).hexdigest()
    about = {"step": step, "seconds": seconds, "sha256": digest}
    write_sealed(target.with_suffix(".json"), about)
    for old in sorted(folder.glob("step-*.json"))[:-KEEP]:
        old.unlink(missing_ok=True)
        old.with_suffix(".safetensors").unlink(missing_ok=True)


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share memory, which safetensors refuses to write."""
    seen: set[int] = set()
    result = {}
    for name, value in tensors.items():
        pointer = value.untyped_storage().data_ptr()
        result[name] = value.clone() if pointer in seen else value
        seen.add(pointer)
    return result


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint whose checksum holds, or None."""
    damaged: list[str] = []
    for note in sorted(folder.glob("step-*.json"), reverse=True):
        try:
            found = read_sealed(note)
            path = note.with_suffix(".safetensors")
            raw_digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if raw_digest != found["sha256"]:
                raise ValueError("checksum differs")
            with safe_open(path, "pt") as file:
                numbers = json.loads(file.metadata()["numbers"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Checkpoint(
                int(found["step"]), float(found["seconds"]), tensors, numbers, tuple(damaged)
            )
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, FewlabelsError) as error:
            damaged.append(f"{note.stem}: {error}")
    return None


def restore(method: Method, checkpoint: Checkpoint) -> None:
    """Put a checkpoint back into a freshly built method and its optimizers."""
    tensors = checkpoint.tensors
    state = {n.removeprefix("method/"): v for n, v in tensors.items() if n.startswith("method/")}
    method.load_state_dict(state)
    for name, optimizer in method.optimizers().items():
        slots: dict[int, dict[str, Any]] = {}
        for key, value in tensors.items():
            if key.startswith(f"optimizer/{name}/"):
                index, slot = key.split("/")[2:]
                slots.setdefault(int(index), {})[slot] = value
        for key, scalar in checkpoint.numbers[name]["scalars"].items():
            index, slot = key.split("/")
            slots.setdefault(int(index), {})[slot] = scalar
        groups = checkpoint.numbers[name]["param_groups"]
        optimizer.load_state_dict({"state": slots, "param_groups": groups})
        _match_layout(optimizer)


def _match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Lay optimizer tensors out as their parameters are, so that updates round alike."""
    for parameter, slots in optimizer.state.items():
        for slot, value in slots.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                slots[slot] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
