"""Files made to do harm: nothing of them runs, nothing is written outside, no memory is taken."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from fewlabels.cli import main
from fewlabels.core.errors import FewlabelsError, ModelError
from fewlabels.core.types import Pictures
from fewlabels.data.sources import read_source
from fewlabels.models.backbones import create_backbone
from fewlabels.models.classifier import load_model, save_model
from fewlabels.models.heads import LinearHead
from fewlabels.models.published import find
from fewlabels.models.weights import read_weights
from fewlabels.results.files import read_json
from fewlabels.results.runfolder import RunFolder

SOURCE = Path(__file__).parents[2] / "src"


class Evil:
    """Whoever unpickles this leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def pickled(mark: Path) -> bytes:
    raw = pickle.dumps(Evil(mark))
    pickle.loads(raw)
    assert mark.exists(), "the file is as dangerous as it looks"
    mark.unlink()
    return raw


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    backbone = create_backbone("tiny", in_chans=1, image_size=8)
    head = LinearHead(backbone.num_features, 2)
    about = Pictures(8, 1, (0.5,), (0.2,))
    save_model(folder, backbone, "tiny", about, short_side=8, head=head, classes=("a", "b"))
    return folder


def rewrite(folder: Path, **values: object) -> None:
    """Change the description of a model as its author could: there is no seal to break."""
    config = read_json(folder / "config.json")
    config = {k: v for k, v in config.items() if k not in ("seal", "weights_sha256")}
    (folder / "config.json").write_text(json.dumps(config | values))


# ---- pickles ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["pickle", "zip of PyTorch's"])
def test_a_pickle_by_the_name_of_safetensors(tmp_path: Path, model: Path, how: str) -> None:
    mark = tmp_path / "ran"
    if how == "pickle":
        (tmp_path / "w.safetensors").write_bytes(pickled(mark))
    else:
        torch.save({"x": Evil(mark)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError):
        read_weights(tmp_path / "w.safetensors")
    rewrite(model)
    (model / "model.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes())
    with pytest.raises(ModelError):
        load_model(model)
    assert not mark.exists()


def test_a_pickle_inside_a_zip_of_images(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "1.png")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as packed:
        for name in ("cat/1.png", "dog/1.png"):
            packed.write(tmp_path / "1.png", name)
        for name in ("cat/w.pth", "data.pkl", "labels.npz"):
            packed.writestr(name, pickled(mark))
    assert list(read_source(tmp_path / "photos.zip").paths) == ["cat/1.png", "dog/1.png"]
    with pytest.raises(ModelError):
        read_weights(tmp_path / "photos.zip")
    (tmp_path / "photos.pth").write_bytes((tmp_path / "photos.zip").read_bytes())
    with pytest.raises(ModelError):
        read_weights(tmp_path / "photos.pth")
    assert not mark.exists()


def test_arrays_of_objects_are_not_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    objects = np.array([Evil(mark), Evil(mark)], dtype=object)
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 4, 4), np.uint8), labels=objects)
    with pytest.raises(FewlabelsError):
        read_source(tmp_path / "a.npz")
    assert not mark.exists()


def test_an_extension_type_of_arrow_is_not_unpickled(tmp_path: Path) -> None:
    """CVE-2023-47248: PyArrow up to 14.0.0 unpickled the metadata of such a column."""
    mark = tmp_path / "ran"
    about = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickled(mark),
    }
    field = pa.field("label", pa.string(), metadata=about)
    rows = pa.table([["1.png"], ["a"]], schema=pa.schema([pa.field("path", pa.string()), field]))
    pyarrow.parquet.write_table(rows, tmp_path / "t.parquet")
    with contextlib.suppress(FewlabelsError):
        read_source(tmp_path / "t.parquet")
    assert not mark.exists()


# ---- safetensors and their description -----------------------------------------------------


def header(about: object, body: bytes = b"\0" * 8) -> bytes:
    text = json.dumps(about).encode()
    return struct.pack("<Q", len(text)) + text + body


def tensor(shape: list[int], place: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": place}


BOMBS = {
    "a header of 2^60 bytes": struct.pack("<Q", 2**60) + b"{}",
    "a header of 2^64 - 1 bytes": struct.pack("<Q", 2**64 - 1) + b"{}",
    "a terabyte in 8 bytes": header({"a": tensor([2**38], [0, 2**40])}),
    "a shape that overflows": header({"a": tensor([2**40, 2**40], [0, 8])}),
    "a shape without its bytes": header({"a": tensor([2**20], [0, 8])}),
    "two tensors in one place": header({"a": tensor([2], [0, 8]), "b": tensor([2], [0, 8])}),
    "offsets that lead back": header({"a": tensor([2], [8, 0])}),
    "offsets below nought": header({"a": tensor([2], [-8, 0])}),
    "an unknown kind of number": header({"a": tensor([2], [0, 8], "PICKLE")}),
    "no end": struct.pack("<Q", 100_000) + b"[" * 100_000,
}


@pytest.mark.parametrize("what", sorted(BOMBS))
def test_headers_that_lie(tmp_path: Path, model: Path, what: str) -> None:
    (tmp_path / "w.safetensors").write_bytes(BOMBS[what])
    with pytest.raises(ModelError) as caught:
        read_weights(tmp_path / "w.safetensors")
    assert caught.value.exit_code == 4
    rewrite(model)
    (model / "model.safetensors").write_bytes(BOMBS[what])
    with pytest.raises(ModelError):
        load_model(model)


HUGE: dict[str, dict[str, Any]] = {
    "head": {"head": {"kind": "linear", "features": 20_000, "num_classes": 10_000}},
    "backbone": {"backbone": "conv-32-64-64", "options": {"channels": [10**5, 10**5]}},
    "numbers beyond any": {"short_side": float("inf")},
    "no division": {"pictures": {"size": 0, "channels": 1, "mean": [0.5], "std": [0.2]}},
}


@pytest.mark.parametrize("what", sorted(HUGE))
def test_a_description_that_asks_for_gigabytes(model: Path, what: str) -> None:
    resource = pytest.importorskip("resource")
    rewrite(model, **HUGE[what])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError):
        load_model(model)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "os.system"},
        {"backbone": "../../../etc/passwd"},
        {"backbone": "hf-hub:evil/model"},
        {"backbone": "local-dir:/etc"},
        {"options": {"pretrained": True}},
        {"options": {"activation": "os.system"}},
        {"options": {"pretrained_cfg_overlay": {"file": "/etc/passwd"}}},
        {"head": {"kind": "builtins.eval"}},
        {"head": {"kind": "linear", "features": "__import__('os')", "num_classes": 2}},
    ],
    ids=lambda change: json.dumps(change)[:40],
)
def test_a_description_that_names_code_or_files(model: Path, change: dict[str, Any]) -> None:
    load_model(model)
    rewrite(model, **change)
    with pytest.raises(ModelError):
        load_model(model)


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "os.system"},
        {"architecture": "../../evil"},
        {"model_args": {"act_layer": "os.system"}},
        {"pretrained_cfg": {"file": "/etc/passwd", "url": "http://127.0.0.1:9/w.pth"}},
    ],
    ids=lambda change: json.dumps(change)[:40],
)
def test_a_folder_of_timms_that_names_code_or_files(tmp_path: Path, change: dict[str, Any]) -> None:
    from fewlabels.models.loading import whole

    config: dict[str, Any] = {"architecture": "test_resnet", "num_classes": 3}
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    (tmp_path / "model.safetensors").write_bytes(header({"a": tensor([2], [0, 8])}))
    with pytest.raises(ModelError) as caught:
        whole(find(str(tmp_path)))
    assert caught.value.code != "model.download"


# ---- YAML --------------------------------------------------------------------------------------

BILLIONS = "\n".join(
    ["a: &a0 {x: y}", *(f"b{n}: &a{n} {{p: *a{n - 1}, q: *a{n - 1}}}" for n in range(1, 64))]
)
YAML: dict[str, Callable[[Path], str]] = {
    "an object": lambda mark: f"seed: !!python/object/apply:pathlib.Path.touch [{mark}]",
    "a name": lambda mark: "seed: !!python/name:os.system",
    "a module": lambda mark: "seed: !!python/module:os",
    "billions": lambda mark: f"{BILLIONS}\nchange: *a63",
    "no end": lambda mark: "[" * 1500,
    "a bool that is none": lambda mark: "seed: !!bool perhaps",
    "a number that is none": lambda mark: "seed: !!int ''",
    "a time that is none": lambda mark: "seed: !!timestamp never",
}


@pytest.mark.parametrize("what", sorted(YAML))
def test_settings_are_plain_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    mark, path = tmp_path / "ran", tmp_path / "c.yaml"
    path.write_text(YAML[what](mark))
    assert main(["finetune", "digits", "--from", "scratch", "--config", str(path)]) == 2
    assert "error[usage.config]" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(YAML[what](mark))
    with pytest.raises(ModelError, match=r"config\.yaml"):
        RunFolder(tmp_path / "run").config()
    assert not mark.exists()


# ---- what has no reader --------------------------------------------------------------------


def test_no_onnx_is_read(tmp_path: Path) -> None:
    """Its external data may name any path; there is no reader it could be led through."""
    (tmp_path / "net.onnx").write_bytes(b"\x08\x09location../../../etc/passwd")
    with pytest.raises(ModelError, match="no file of weights"):
        read_weights(tmp_path / "net.onnx")
    with pytest.raises(ModelError, match="no file of weights"):
        find(str(tmp_path / "net.onnx"))


FORBIDDEN = r"^\s*(import|from)\s+(onnx\w*|dill|cloudpickle|joblib|marshal|shelve)\b"
CALLED = r"(?<![\w.])(eval|exec|compile|__import__)\(|pickle\.loads?\(|yaml\.(unsafe|full)_load"
CALLED += r"|allow_pickle=True|weights_only=False|extractall\(|os\.system\(|shell=True"


def test_nothing_in_the_package_could_run_what_a_file_says() -> None:
    found = [
        f"{path.name}:{number}: {line.strip()}"
        for path in sorted(SOURCE.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(FORBIDDEN, line) or re.search(CALLED, line)
    ]
    assert found == []


# ---- no network, and every file on the list ----------------------------------------------

OFFLINE = """
import os, sys
asked = []
def watch(event, about):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto"):
        if event != "socket.connect" or isinstance(about[1], tuple):
            asked.append(f"{event} {about}")
            raise OSError("no network in this test")
sys.addaudithook(watch)
from fewlabels.cli import main
for line in sys.stdin.read().splitlines():
    code = main(line.split())
    assert code == 0, (line, code)
assert not asked, asked
print("quiet")
"""
COMMANDS = """--help
inspect digits --json
pretrain digits --method autoencoder --backbone tiny --budget 2steps --device cpu --out encoder
finetune digits --from encoder --labels 1 --budget 2steps --device cpu --out model
evaluate model
models tiny
report model
compare digits --arms pixels,random+centroid --baseline pixels --labels 1 --seeds 2 --out compared
cache"""


@pytest.mark.slow
def test_offline_commands_ask_no_network_and_write_what_is_listed(tmp_path: Path) -> None:
    known = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "FEWLABELS_"))}
    known |= {"FEWLABELS_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE],
        input=COMMANDS,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=known,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.endswith("quiet\n")
    patterns = listed()
    for top in ("encoder", "model", "compared", "cache"):
        for path in (tmp_path / top).rglob("*"):
            name = path.relative_to(tmp_path / top).as_posix()
            known_name = any(re.fullmatch(pattern, name) for pattern in patterns)
            assert path.is_dir() or known_name, f"{top}/{name} is not in docs/files.md"
    assert {path.name for path in tmp_path.iterdir()} <= {
        *("encoder", "model", "compared", "cache", "home")
    }


def listed() -> list[str]:
    """Return what docs/files.md lists, as patterns; a folder stands for all that lies in it."""
    text = (SOURCE.parent / "docs" / "files.md").read_text(encoding="utf-8")
    names = [
        name
        for row in re.findall(r"^\| (`.*?) \|", text, flags=re.M)
        for name in re.findall(r"`([^`]+)`", row)
    ]
    return [
        re.sub(r"<[^>]+>|\\\*", "[^/]+", re.escape(name)) + (".*" if name.endswith("/") else "")
        for name in names
    ]
