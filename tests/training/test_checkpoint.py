"""Checkpoints: everything comes back, and a damaged file is never trusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fewlabels.core.errors import DiskError
from fewlabels.data.loader import Batches
from fewlabels.training import checkpoint as module
from fewlabels.training.checkpoint import latest_checkpoint, restore, save_checkpoint
from fewlabels.training.loop import Plan, train

CPU = torch.device("cpu")


@pytest.fixture
def trained(make: Callable[..., Any], batches: Batches) -> Any:
    method = make()
    train(method, batches, Plan(5, seed=1), device=CPU)
    return method


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "nowhere") is None


def test_weights_buffers_and_optimizers_come_back(
    trained: Any, make: Callable[..., Any], tmp_path: Path
) -> None:
    save_checkpoint(tmp_path, trained, 5, 1.25)
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, found.seconds, found.damaged) == (5, 1.25, ())
    other = make(seed=9, lr=0.7)
    restore(other, found)
    for name, value in trained.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    for name, optimizer in trained.optimizers().items():
        mine, theirs = optimizer.state_dict(), other.optimizers()[name].state_dict()
        assert mine["state"].keys() == theirs["state"].keys()
        for index, slots in mine["state"].items():
            for slot, value in slots.items():
                assert torch.equal(torch.as_tensor(theirs["state"][index][slot]), value)
        assert [g["lr"] for g in mine["param_groups"]] == [g["lr"] for g in theirs["param_groups"]]
    assert other.optimizers()["encoder"].state, "AdamW has moments after five steps"


def test_optimizer_tensors_lie_as_their_weights_do(
    trained: Any, make: Callable[..., Any], tmp_path: Path
) -> None:
    save_checkpoint(tmp_path, trained, 5, 0.0)
    other = make()
    found = latest_checkpoint(tmp_path)
    assert found is not None
    restore(other, found)
    for parameter, slots in other.optimizers()["encoder"].state.items():
        assert slots["exp_avg"].stride() == parameter.stride()


def test_the_newest_two_are_kept(trained: Any, tmp_path: Path) -> None:
    for step in (1, 2, 30):
        save_checkpoint(tmp_path, trained, step, 0.0)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "step-00000002.json",
        "step-00000002.safetensors",
        "step-00000030.json",
        "step-00000030.safetensors",
    ]
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 30


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(bytes(raw))


DAMAGE: dict[str, Callable[[Path], None]] = {
    "a bit flipped": lambda path: _flip(path.with_suffix(".safetensors")),
    "cut short": lambda path: path.with_suffix(".safetensors").write_bytes(b"1234"),
    "empty": lambda path: path.with_suffix(".safetensors").write_bytes(b""),
    "weights gone": lambda path: path.with_suffix(".safetensors").unlink(),
    "note is no JSON": lambda path: path.write_text("{", encoding="utf-8"),
    "note lacks the checksum": lambda path: path.write_text('{"step": 2}', encoding="utf-8"),
    "note is a list": lambda path: path.write_text("[]", encoding="utf-8"),
}


@pytest.mark.parametrize("what", sorted(DAMAGE))
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    what: str, trained: Any, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path, trained, 1, 0.5)
    save_checkpoint(tmp_path, trained, 2, 1.0)
    DAMAGE[what](tmp_path / "step-00000002.json")
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, found.seconds) == (1, 0.5)
    assert len(found.damaged) == 1
    assert found.damaged[0].startswith("step-00000002")


def test_all_damaged_is_none(trained: Any, tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, trained, step, 0.0)
        _flip(tmp_path / f"step-{step:08d}.safetensors")
    assert latest_checkpoint(tmp_path) is None


def test_a_process_killed_before_the_note_leaves_the_checkpoint_before(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, trained, 1, 0.0)

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_sealed", die)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, trained, 2, 0.0)
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, found.damaged) == (1, ())


def test_a_full_disk_keeps_what_was_saved(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, trained, 1, 0.0)

    def full(path: Path, data: bytes | str) -> None:
        raise DiskError("disk.full", f"no space left for {path}")

    monkeypatch.setattr(module, "write_atomic", full)
    with pytest.raises(DiskError):
        save_checkpoint(tmp_path, trained, 2, 0.0)
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1


def test_nothing_is_pickled(trained: Any, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, trained, 3, 0.0)
    raw = (tmp_path / "step-00000003.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    assert {"encoder", "head"} == json.loads(header["__metadata__"]["numbers"]).keys()


def test_tensors_that_share_memory_are_both_saved(make: Callable[..., Any], tmp_path: Path) -> None:
    method = make()
    method.twin = method.head.weight  # the same parameter under two names
    save_checkpoint(tmp_path, method, 1, 0.0)
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert torch.equal(found.tensors["method/twin"], found.tensors["method/head.weight"])
