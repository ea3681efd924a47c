"""Feed spoilt files to whatever reads files of strangers: only errors of ours may come out.

    python benchmarks/fuzz.py archive --minutes 5
    python benchmarks/fuzz.py all --minutes 1 --out runs/fuzz

Each case takes a valid small file, changes some of its bytes or words, and hands it to the code
that reads such files, as a command would. Case number n is always the same, and numbers go on
where the last start in ``--out`` ended. Anything but a `FewlabelsError` (or, for pictures, the
`ValueError` that puts a file into ``quarantine.csv``) is a finding, and so is a case that takes
more than ten seconds or ends the process: its bytes, cut down where that is cheap, are kept in
``OUT/ENTRY/findings``. Writes ``benchmarks/fuzz.csv``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import signal
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import typer
from PIL import Image
from record import Record

from fewlabels.cli.commands import build
from fewlabels.core.errors import FewlabelsError, UsageError
from fewlabels.core.types import Pictures
from fewlabels.data import decode
from fewlabels.data.manifest import COLUMNS, Manifest
from fewlabels.data.source import Source
from fewlabels.data.sources import read_source
from fewlabels.models.backbones import create_backbone
from fewlabels.models.classifier import load_model, save_model
from fewlabels.models.heads import LinearHead
from fewlabels.models.weights import read_weights
from fewlabels.report import write_report

SECONDS = 10
WORDS: tuple[bytes, ...] = (
    *(b"", b"0", b"-1", b"1e999", b"NaN", b"Infinity", b"null", b"true", b"[]", b"{}", b'""'),
    *(b"9" * 30, str(2**63).encode(), b"-0.0", b"\xff\xfe", b"\0", b"\n", b"a" * 5000),
    *(b"[" * 3000, b"{[" * 2000, b"../../etc/passwd", b"/dev/zero", b"*a", b"&a ", b"!!int "),
    *(b"!!python/object/apply:os.system", b"!!bool ", b"\xed\xb2\x80", b'"\\udc80"', b"nan"),
    *(b"os.system", b"%s", b"{0}"),
)
Seeds = list[tuple[str, bytes]]


def main() -> None:
    """Fuzz one entry point, or all in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("entry", choices=[*ENTRIES, "all"])
    parser.add_argument("--minutes", type=float, default=5.0, help="of each entry point")
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"), help="to go on in")
    chosen = parser.parse_args()
    os.environ["FEWLABELS_CACHE"] = str((chosen.out / "cache").absolute())
    record = Record("fuzz", f"python benchmarks/fuzz.py ENTRY --minutes {chosen.minutes:g}")
    for entry in ENTRIES if chosen.entry == "all" else [chosen.entry]:
        place = chosen.out / entry
        cases = fuzz(entry, place, 60 * chosen.minutes)
        record.add(f"{entry}: cases", cases, "cases")
        found = len(list((place / "findings").glob("*.txt")))
        record.add(f"{entry}: findings", found, "cases")


def fuzz(entry: str, place: Path, seconds: float) -> int:
    """Run cases until time is up; return how many there have been in all."""
    (place / "findings").mkdir(parents=True, exist_ok=True)
    seeds, read = ENTRIES[entry]()
    counter, running = place / "next", place / "running"
    number = int(counter.read_text()) if counter.exists() else 0
    if running.exists():  # the process did not survive it
        name, data = case(seeds, number)
        keep(place, number, name, data, "the process ended\n")
        number += 1
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        counter.write_text(str(number))
        running.touch()
        name, data = case(seeds, number)
        if said := tried(read, name, data):
            keep(place, number, name, smaller(read, name, data, said), said)
        running.unlink()
        number += 1
    counter.write_text(str(number))
    return number


def case(seeds: Seeds, number: int) -> tuple[str, bytes]:
    """Return the file of a case: a valid one, spoilt."""
    draw = random.Random(number)
    name, data = draw.choice(seeds)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        data = draw.choice(CHANGES)(draw, data, draw.choice(seeds)[1])
    return name, data


def _flip(draw: random.Random, data: bytes, _: bytes) -> bytes:
    at = draw.randrange(len(data) or 1)
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :] if data else data


def _set(draw: random.Random, data: bytes, _: bytes) -> bytes:
    at = draw.randrange(len(data) + 1)
    few = draw.choice((b"\0", b"\xff", b"\x7f", b"\xff" * 4, b"\0" * 8, b"\xff\xff\xff\x7f"))
    return data[:at] + few + data[at + len(few) :]


def _cut(draw: random.Random, data: bytes, _: bytes) -> bytes:
    at = draw.randrange(len(data) + 1)
    return data[:at] + data[at + draw.choice((1, 2, 8, 64, len(data))) :]


def _repeat(draw: random.Random, data: bytes, _: bytes) -> bytes:
    at = draw.randrange(len(data) + 1)
    part = data[at : at + draw.choice((1, 4, 32, 256))]
    return data[:at] + part * draw.choice((1, 3, 50)) + data[at:]


def _word(draw: random.Random, data: bytes, _: bytes) -> bytes:
    at = draw.randrange(len(data) + 1)
    return data[:at] + draw.choice(WORDS) + data[at + draw.choice((0, 0, 1, 2, 5)) :]


def _value(draw: random.Random, data: bytes, _: bytes) -> bytes:
    """Put a word in place of what stands between two marks, as a value in JSON does."""
    marks = [at for at, byte in enumerate(data[:20_000]) if byte in b',:"[]{}\n ']
    if len(marks) < 2:
        return data
    at = draw.randrange(len(marks) - 1)
    return data[: marks[at] + 1] + draw.choice(WORDS) + data[marks[at + 1] :]


def _splice(draw: random.Random, data: bytes, other: bytes) -> bytes:
    at = draw.randrange(len(other) + 1)
    return data[: draw.randrange(len(data) + 1)] + other[at:]


CHANGES = (_flip, _set, _cut, _repeat, _word, _value, _splice)


def tried(read: Callable[[str, bytes], None], name: str, data: bytes) -> str:
    """Return what came out of reading a file that should not have; empty when all is well."""

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        read(name, data)
    except FewlabelsError:
        return ""
    except Exception as error:
        return "".join(traceback.format_exception(error)[-6:])
    finally:
        signal.alarm(0)
    return ""


def smaller(read: Callable[[str, bytes], None], name: str, data: bytes, said: str) -> bytes:
    """Cut pieces out while the same line still fails, for a few seconds."""
    end, size = time.monotonic() + 5, max(1, len(data) // 2)
    while size and time.monotonic() < end:
        at = 0
        while at < len(data) and time.monotonic() < end:
            less = data[:at] + data[at + size :]
            if _where(tried(read, name, less)) == _where(said):
                data = less
            else:
                at += size
        size //= 2
    return data


def _where(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("  File ")][-1:]


def keep(place: Path, number: int, name: str, data: bytes, said: str) -> None:
    """Keep a finding, unless one of the same line is there."""
    for old in (place / "findings").glob("*.txt"):
        if said.strip() and _where(old.read_text()) == _where(said) != []:
            return
    (place / "findings" / f"{number}-{name}").write_bytes(data)
    (place / "findings" / f"{number}-{name}.txt").write_text(said)


# ---- what is read ------------------------------------------------------------------------------


def picture(kind: str = "PNG", mode: str = "RGB", side: int = 8) -> bytes:
    """Return a small valid picture."""
    noise = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, kind)
    return file.getvalue()


def _folder() -> Path:
    """Return a folder that goes when this process does."""
    held = tempfile.TemporaryDirectory(prefix="fewlabels-fuzz-")
    _HELD.append(held)
    return Path(held.name)


_HELD: list[tempfile.TemporaryDirectory[str]] = []
TABLE = b"path,label,split,age\n1.png,cat,train,3\n2.png,dog,test,4.5\nsub/3.png,,val,\n"


def manifests() -> tuple[Seeds, Callable[[str, bytes], None]]:
    """Take tables beside images, Parquet with images, and the manifest of a run."""
    folder = _folder()
    for name in ("1.png", "2.png"):
        (folder / name).write_bytes(picture())
    rows = [{"image": {"bytes": picture(side=4 + n), "path": None}, "label": n} for n in range(2)]
    names = {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    about = {b"huggingface": json.dumps({"info": {"features": names}}).encode()}
    blank = {name: [None] for name in COLUMNS.names} | {"path": ["a.png"], "sha256": ["00" * 32]}
    seeds = [
        ("t.csv", TABLE),
        ("t.csv", TABLE.replace(b",", b"\t").replace(b"cat", b'"c,\na"')),
        ("t.parquet", _parquet(pa.Table.from_pylist(rows).replace_schema_metadata(about))),
        ("t.parquet", _parquet(pa.table({"path": ["1.png", "2.png"], "label": ["a", "b"]}))),
        ("manifest.parquet", _parquet(pa.table(blank, schema=COLUMNS))),
    ]

    def read(name: str, data: bytes) -> None:
        (folder / name).write_bytes(data)
        if name.startswith("manifest"):
            Manifest.load(folder / name).column("path")
            return
        _read_some(read_source(folder / name))
        if name == "t.csv":
            _read_some(read_source(folder / name, target="age"))

    return seeds, read


def _read_some(source: Source) -> None:
    for row in range(min(len(source), 5)):
        if source.files is not None:
            with contextlib.suppress(OSError):  # a damaged one goes into quarantine.csv
                source.files(row)


def _parquet(table: pa.Table) -> bytes:
    out = pa.BufferOutputStream()
    pyarrow.parquet.write_table(table, out)
    return bytes(out.getvalue().to_pybytes())


def configs() -> tuple[Seeds, Callable[[str, bytes], None]]:
    """Take ``--config FILE.yaml``, read as the command line reads it."""
    path = _folder() / "c.yaml"
    verb: Any = typer.main.get_command(build())
    command = verb.commands["finetune"]
    usage: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "UsageError")
    seeds = [
        ("c.yaml", b"data: digits\nfrom: scratch\nbudget: 5m\nlabels: 4\nseed: 1\n"),
        ("c.yaml", b"from: runs/a\nstages: [1, 2]\nchange: {depth: 2, activation: gelu}\n"),
    ]

    def read(_: str, data: bytes) -> None:
        path.write_bytes(data)
        try:
            command.make_context("finetune", ["digits", "--config", str(path)])
        except usage as error:  # which the command line turns into an error of ours
            raise UsageError("usage.arguments", str(error)) from error

    return seeds, read


def models() -> tuple[Seeds, Callable[[str, bytes], None]]:
    """Take model folders without seal and checksum, and files of weights."""
    import torch
    from safetensors.torch import save

    folder = _folder()
    net = create_backbone("tiny", in_chans=1, image_size=8)
    about = Pictures(8, 1, (0.5,), (0.2,))
    head = LinearHead(net.num_features, 2)
    save_model(folder, net, "tiny", about, short_side=8, head=head, classes=("a", "b"))
    config = json.loads((folder / "config.json").read_text())
    config = {k: v for k, v in config.items() if k not in ("seal", "weights_sha256")}
    whole = {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": (folder / "model.safetensors").read_bytes(),
    }
    pth = io.BytesIO()
    torch.save({"state_dict": {"a": torch.ones(3), "b": torch.zeros(2, 2)}}, pth)
    # The header is what says anything; in a small file most changes meet it.
    small = save({"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2)})
    seeds = [*whole.items(), ("config.json", whole["config.json"]), ("w.pth", pth.getvalue())]
    seeds += [("w.safetensors", small)]

    def read(name: str, data: bytes) -> None:
        if name in whole:
            for other, raw in whole.items():
                (folder / other).write_bytes(data if other == name else raw)
            load_model(folder)
        else:
            (folder / name).write_bytes(data)
            read_weights(folder / name)

    return seeds, read


def results() -> tuple[Seeds, Callable[[str, bytes], None]]:
    """Take ``results.json`` and ``comparison.json``, read for the report."""
    folder = _folder()
    score = {"value": 0.5, "low": 0.4, "high": 0.6}
    cell = {"id": "c", "arm": "a", "shots": 4, "seed": 0, "streams": {"split": 0, "labels": 0}}
    cell |= {"accuracy": 0.5, "seconds": 1.0, "steps": 5, "images_seen": 9, "failed": None}
    verdict = {"arm": "a", "baseline": "b", "shots": 4, "difference": 0.1, "low": 0.0, "high": 0.2}
    verdict |= {"verdict": "undecided", "detectable": 0.2}
    compared: dict[str, Any] = {"schema": 1, "kind": "compare", "name": "x", "warnings": ["w"]}
    compared |= {"arms": [{"name": n, "start": n, "transfer": "t"} for n in "ab"]}
    compared |= {"cells": [cell, {**cell, "arm": "b"}], "verdicts": [verdict], "primary": verdict}
    compared |= {"curves": [{"arm": "a", "shots": 4, "seeds": 2, "mean": 0.5, "low": 0, "high": 1}]}
    compared |= {"label_saving": [], "forecast": [], "looks_at_test": 1}
    single: dict[str, Any] = {"schema": 1, "kind": "finetune", "name": "x", "final": {"loss": 0.1}}
    single |= {
        "val": {"n": 4, "accuracy": score, "confusion": [[1, 1], [1, 1]]},
        "labels": {"a": 2},
    }
    single["val"]["per_class"] = [
        {"name": n, "n": 2, "precision": 0.5, "recall": 0.5, "f1": 0.5} for n in "ab"
    ]
    seeds = [
        ("comparison.json", json.dumps(compared).encode()),
        ("results.json", json.dumps(single).encode()),
        ("metrics.jsonl", b'{"step": 1, "seconds": 1.0, "loss": 0.5}\n{"step": 2, "loss": 0.4}\n'),
    ]

    def read(name: str, data: bytes) -> None:
        for other in folder.iterdir():
            other.unlink()
        if name == "metrics.jsonl":
            (folder / "results.json").write_bytes(seeds[1][1])
        (folder / name).write_bytes(data)
        write_report(folder)

    return seeds, read


def images() -> tuple[Seeds, Callable[[str, bytes], None]]:
    """Take pictures of every format that is decoded."""
    kinds = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
    seeds = [("p", picture(kind, side=16)) for kind in kinds]
    seeds += [("p", picture(kind, mode)) for kind, mode in (("PNG", "P"), ("JPEG", "CMYK"))]
    seeds += [("p", picture("TIFF", "L")), ("p", picture("PNG", "1")), ("p", picture("PNG", "LA"))]

    def read(_: str, data: bytes) -> None:
        for work in (decode.probe, lambda raw: decode.load(raw, 3, 4)):
            try:
                work(data)
            except ValueError:  # its reason goes into quarantine.csv
                continue

    return seeds, read


def archives() -> tuple[Seeds, Callable[[str, bytes], None]]:
    """Take zips and tars; the members are listed, and some read."""
    folder = _folder()
    members = {"x/cat/1.png": picture(), "x/dog/2.png": picture(side=5), "x/labels.txt": b"n"}
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    tars = {}
    for ending, mode in (
        ("tar", "w"),
        ("tar.gz", "w:gz"),
        ("tar.bz2", "w:bz2"),
        ("tar.xz", "w:xz"),
    ):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode=mode) as tar:  # type: ignore[call-overload]
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        tars[ending] = file.getvalue()
    seeds = [("a.zip", zipped.getvalue()), ("a.zip", zipped.getvalue())]
    seeds += [(f"a.{ending}", data) for ending, data in tars.items()]
    seeds += [("a.tar", tars["tar"])] * 2

    def read(name: str, data: bytes) -> None:
        (folder / name).write_bytes(data)
        _read_some(read_source(folder / name))

    return seeds, read


ENTRIES: dict[str, Callable[[], tuple[Seeds, Callable[[str, bytes], None]]]] = {
    "manifest": manifests,
    "config": configs,
    "model": models,
    "json": results,
    "image": images,
    "archive": archives,
}

if __name__ == "__main__":
    main()
