"""Files of weights: tensors are read, and nothing is ever run."""

from __future__ import annotations

import contextlib
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fewlabels.core.errors import ModelError
from fewlabels.models.weights import digest_in_name, read_weights

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def saved(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("w.pth", lambda t: t),
        ("w.pt", lambda t: {"arch": "resnet18", "epoch": 3, "state_dict": t}),
        ("w.bin", lambda t: {"model": {f"module.{k}": v for k, v in t.items()}}),
    ],
)
def test_pytorch_files(tmp_path: Path, name: str, wrap: Callable[[Any], Any]) -> None:
    found = read_weights(saved(tmp_path / name, wrap(TENSORS)))
    assert found.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(found.tensors[k], v) for k, v in TENSORS.items())
    assert found.architecture == ("resnet18" if name == "w.pt" else "")


def test_safetensors(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "w.safetensors")
    assert torch.equal(
        read_weights(tmp_path / "w.safetensors").tensors["a.weight"], TENSORS["a.weight"]
    )


@pytest.mark.parametrize("where", ["whole", "inside", "beside", "plain pickle"])
def test_code_is_refused_and_not_run(tmp_path: Path, where: str) -> None:
    mark, file = tmp_path / "ran", tmp_path / "evil.pth"
    evil = Evil(mark)
    value: Any = {
        "whole": evil,
        "inside": {**TENSORS, "x": evil},
        "beside": {"state_dict": TENSORS, "args": evil},
        "plain pickle": evil,
    }[where]
    if where == "plain pickle":
        file.write_bytes(pickle.dumps(value))
    else:
        torch.save(value, file)
    with pytest.raises(ModelError, match="nothing of it was loaded") as caught:
        read_weights(file)
    assert (caught.value.code, caught.value.exit_code) == ("model.unsafe", 4)
    assert not mark.exists()
    # The file is as dangerous as it looks: whoever trusts it, runs it.
    with contextlib.suppress(RuntimeError):  # after it has run, for a plain pickle
        torch.load(file, weights_only=False)
    assert mark.exists()


def test_damaged_files(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "w.safetensors")
    saved(tmp_path / "w.pth", TENSORS)
    for name in ("w.safetensors", "w.pth"):
        raw = (tmp_path / name).read_bytes()
        for place, part in enumerate((raw[: len(raw) // 2], raw[:5], b"", b"not weights" * 20)):
            file = tmp_path / f"{place}-{name}"
            file.write_bytes(part)
            with pytest.raises(ModelError) as caught:
                read_weights(file)
            assert str(file) in caught.value.message
            assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "program",
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"ccollections\nOrderedDict\n(K\x01tR.",
        b"K\x01N\x86s.",
    ],
    ids=["too few arguments", "no pairs", "an item of nothing"],
)
def test_programs_that_make_no_sense(tmp_path: Path, program: bytes) -> None:
    """As a flipped byte makes them, found by ``benchmarks/fuzz.py``: each step is allowed."""
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as packed:
        packed.writestr("archive/data.pkl", b"\x80\x02" + program)
        packed.writestr("archive/version", b"3\n")
        packed.writestr("archive/byteorder", b"little")
    with pytest.raises(ModelError) as caught:
        read_weights(tmp_path / "w.pth")
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "value",
    [{}, [torch.ones(1)], {"a": 3}, {"a": torch.eye(2).to_sparse()}, torch.ones(2)],
    ids=["empty", "list", "number", "sparse", "tensor"],
)
def test_what_is_no_state_dict(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ModelError, match="holds no tensors by name"):
        read_weights(saved(tmp_path / "w.pth", value))


def test_a_page_saved_as_weights_is_no_code(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_text("<html><body>404: not found</body></html>")
    with pytest.raises(ModelError, match="damaged, or no file of weights") as caught:
        read_weights(tmp_path / "w.pth")
    assert (caught.value.code, caught.value.exit_code) == ("model.damaged", 4)


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "w.h5").write_bytes(b"")
    with pytest.raises(ModelError, match="no file of weights"):
        read_weights(tmp_path / "w.h5")
    with pytest.raises(ModelError, match="No such file"):
        read_weights(tmp_path / "gone.pth")


def test_a_published_file_is_known_by_its_hash(tmp_path: Path) -> None:
    # SHA-256 of b"abc" (FIPS 180-2, appendix B.1)
    (tmp_path / "net-ba7816bf.pth").write_bytes(b"abc")
    (tmp_path / "net-ba7816b0.pth").write_bytes(b"abc")
    (tmp_path / "net-ba7.pth").write_bytes(b"abc")
    known = {path.name for path in tmp_path.iterdir() if digest_in_name(path)}
    assert known == {"net-ba7816bf.pth"}
