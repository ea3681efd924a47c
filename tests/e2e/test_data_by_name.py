"""Archives, Parquet and names on the command line: the same journey as from a folder."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from fewlabels.cli import main


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEWLABELS_CACHE", str(tmp_path / "cache"))


def png(seed: int) -> bytes:
    """Draw noise that is brighter on the left or on the right."""
    pixels = np.random.default_rng(seed).integers(0, 60, (10, 10), dtype=np.uint8)
    pixels[:, 5 * (seed % 2) : 5 * (seed % 2) + 5] += 150
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def make(kind: str) -> str:
    """Lay down 60 labelled pictures; return what to call them on the command line."""
    if kind == "photos.zip":
        with zipfile.ZipFile(kind, "w") as archive:
            for seed in range(60):
                archive.writestr(f"photos/{'ab'[seed % 2]}/{seed}.png", png(seed))
        return kind
    cells = [{"bytes": png(seed), "path": f"{seed}.png"} for seed in range(60)]
    labels = ["ab"[seed % 2] for seed in range(60)]
    table = pa.table({"image": cells, "label": labels})
    Path("hub").mkdir()
    pyarrow.parquet.write_table(table, "hub/0000.parquet", row_group_size=10)
    return kind


def call(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    capsys.readouterr()
    try:
        ended: Any = main([*words, "--json"])
    except SystemExit as end:
        ended = end.code
    said = capsys.readouterr()
    assert (ended or 0) == code, said.err
    return said.err if code else json.loads(said.out)


@pytest.mark.medium
@pytest.mark.parametrize("kind", ["photos.zip", "hub", "hf:owner/photos"])
def test_the_journey(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: "hub")
    data = make(kind)
    assert call(capsys, "inspect", data)["classes"] == {"a": 30, "b": 30}
    budget = ("--budget", "5steps", "--device", "cpu")
    first = call(capsys, "pretrain", data, "--method", "autoencoder", "--out", "encoder", *budget)
    assert first["steps"] == 5
    words = ("--from", "encoder", "--transfer", "features", "--labels", "2", "--out", "model")
    tuned = call(capsys, "finetune", data, *words, *budget)
    assert tuned["labels"] == {"a": 2, "b": 2}
    assert call(capsys, "evaluate", "model")["accuracy"]["value"] == 1.0


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        ("torchvision:CIFAR11", 2, "error[usage.dataset]: unknown dataset 'torchvision:CIFAR11'"),
        ("hf:mnist", 2, "error[usage.dataset]: hf:mnist names no data set"),
        ("hf:owner/name", 3, "error[data.download]: cannot download hf:owner/name"),
        ("torchvision:ImageNet", 3, "error[data.download]: cannot download torchvision:ImageNet"),
        ("broken.zip", 3, "error[data.archive]: cannot read the archive broken.zip"),
        ("photos.rar", 3, "error[data.kind]: photos.rar is neither"),
        ("gone.zip", 3, "error[data.missing]: gone.zip does not exist"),
    ],
)
def test_what_cannot_be_had(
    capsys: pytest.CaptureFixture[str], data: str, code: int, said: str
) -> None:
    for name in ("broken.zip", "photos.rar"):
        Path(name).write_bytes(b"PK nothing")
    assert said in call(capsys, "inspect", data, code=code)
