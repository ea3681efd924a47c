"""The data path: views a second, its share of a step, decoding, and memory by number of images.

    FEWLABELS_DATA=... python benchmarks/data_path.py
    FEWLABELS_DATA=... python benchmarks/data_path.py views share --repeats 20

FEWLABELS_DATA is a folder that holds ``cifar10/`` and ``clothing/``. The stores are made in a
temporary cache of their own. Writes ``benchmarks/data_path.csv``; low and high are the least
and the largest of the repeats. Nothing else should run on the machine meanwhile.

views   slice + two augmented views + normalise, one thread, at 32 and at 224 pixels
share   the same work as a share of a whole SimCLR step of the tiny CNN
decode  60,000 CIFAR-10 JPEGs into a fresh store, and opening it again
memory  anonymous memory with 10,000, 100,000 and 1,000,000 synthetic images; the last needs
        about 4 GB of disk and several minutes (`--scratch` names the place)
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from record import Record

from fewlabels.core.types import Batch, Pictures
from fewlabels.data.augment import POLICIES, augment
from fewlabels.data.dataset import Dataset, open_dataset
from fewlabels.data.loader import Batches
from fewlabels.data.policies import Policy
from fewlabels.methods import create_method, simclr
from fewlabels.models.backbones import create_backbone
from fewlabels.training.loop import Plan, default_bf16, fresh_seed, train

PARTS = ("views", "share", "decode", "memory")
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
VIEWS = POLICIES["natural"].views
SYNTHETIC = (10_000, 100_000, 1_000_000)


def main() -> None:
    """Measure the parts named on the command line, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--images", type=int, nargs="+", default=list(SYNTHETIC))
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child is not None:
        sys.stdout.write(json.dumps(memory_of(chosen.child)) + "\n")
        return
    record = Record("data_path", "python benchmarks/data_path.py")
    measure: dict[str, Callable[[], None]] = {
        "views": lambda: views(record, chosen.repeats),
        "share": lambda: share(record, chosen.repeats),
        "decode": lambda: decode(record, min(chosen.repeats, 3)),
        "memory": lambda: memory(record, chosen.images, chosen.scratch),
    }
    for part in chosen.parts or PARTS:
        measure[part]()


def data(name: str) -> Path:
    """Return the folder of a data set."""
    return Path(os.environ["FEWLABELS_DATA"]) / name


@contextmanager
def fresh_cache(place: Path | None = None) -> Iterator[None]:
    """Keep the store of a measurement apart from the user's, and remove it."""
    before = os.environ.get("FEWLABELS_CACHE")
    with tempfile.TemporaryDirectory(dir=place) as folder:
        os.environ["FEWLABELS_CACHE"] = folder
        try:
            yield
        finally:
            os.environ.pop("FEWLABELS_CACHE")
            if before is not None:
                os.environ["FEWLABELS_CACHE"] = before


def two_views(batch: Batch, pictures: Pictures) -> None:
    """Do what SimCLR does with a batch before the network sees it."""
    augment(batch, pictures, VIEWS, seed=0, views=2)


def views(record: Record, repeats: int) -> None:
    """Measure views a second on one core, from the store to normalised views."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, size, batch in (("cifar10", 32, 256), ("clothing", 224, 32)):
        with fresh_cache():
            dataset = open_dataset(data(name), image_size=size)
            pace = [_views_a_second(dataset, size, batch, start) for start in range(repeats + 2)]
        record.add(f"views at {size} px", pace[2:], "views/s a core")
    torch.set_num_threads(threads)


def _views_a_second(dataset: Dataset, size: int, batch: int, start: int) -> float:
    pictures = Pictures(size, 3, MEAN, STD)
    batches = Batches(dataset.store, dataset.rows("train"), batch, seed=start)
    steps = max(2, 20_480 // (batch * (size // 32) ** 2))
    _ = batches[0]  # the order of an epoch is drawn once
    began = time.perf_counter()
    for step in range(steps):
        two_views(batches[step], pictures)
    return 2 * batch * steps / (time.perf_counter() - began)


def share(record: Record, repeats: int) -> None:
    """Measure which share of a SimCLR step of the tiny CNN goes into slicing and augmenting."""
    everything = torch.get_num_threads()
    with fresh_cache():
        dataset = open_dataset(data("cifar10"), image_size=32)
        for threads in sorted({1, everything}):
            torch.set_num_threads(threads)
            found = [_one_share(dataset) for _ in range(max(2, repeats // 3))]
            where = f"{threads} thread" + ("s" if threads > 1 else "")
            record.add(f"data path in a SimCLR step, {where}", [s for s, _ in found], "share")
            record.add(f"SimCLR step of tiny at batch 256, {where}", [t for _, t in found], "s")
    torch.set_num_threads(everything)


class _Timed(Batches):
    """Batches that note the time they take."""

    spent = 0.0

    def __getitem__(self, step: int) -> Batch:
        began = time.perf_counter()
        batch = super().__getitem__(step)
        _Timed.spent += time.perf_counter() - began
        return batch


def _one_share(dataset: Dataset, steps: int = 12) -> tuple[float, float]:
    """Return the share of the data path, and the seconds of a step, over a few real steps."""
    cpu, pictures = torch.device("cpu"), Pictures(32, 3, MEAN, STD)
    fresh_seed(0, "benchmark")
    backbone = create_backbone("tiny", in_chans=3, image_size=32)
    backbone = backbone.to(memory_format=torch.channels_last)
    method = create_method("simclr", backbone, pictures, POLICIES["natural"])
    batches = _Timed(dataset.store, dataset.rows("train"), 256, seed=0)
    began = [0.0, 0.0]

    def timed(
        batch: Batch, pictures: Pictures, policy: Policy, *, seed: int, views: int
    ) -> torch.Tensor:
        tick = time.perf_counter()
        view = augment(batch, pictures, policy, seed=seed, views=views)
        _Timed.spent += time.perf_counter() - tick
        return view

    def watch(step: int, _metrics: dict[str, float]) -> None:
        if step == 2:  # the first steps warm up
            _Timed.spent, began[0] = 0.0, time.perf_counter()
        began[1] = time.perf_counter()

    plan = Plan(steps, seed=0, bf16=default_bf16(cpu, 32))
    with mock.patch.object(simclr, "augment", timed):
        train(method, batches, plan, device=cpu, watch=watch)
    total = began[1] - began[0]
    return _Timed.spent / total, total / (steps - 2)


def decode(record: Record, repeats: int) -> None:
    """Measure decoding all of CIFAR-10 into a fresh store, and opening it again."""
    first: list[float] = []
    again: list[float] = []
    for _ in range(repeats):
        with fresh_cache():
            for times in (first, again):
                began = time.perf_counter()
                dataset = open_dataset(data("cifar10"))
                times.append(time.perf_counter() - began)
            count = len(dataset)
            del dataset
    record.add(f"decoding {count} CIFAR-10 JPEGs", first, "s")
    record.add(f"opening the store of {count} again", again, "s")


def memory(record: Record, counts: list[int], scratch: Path) -> None:
    """Measure anonymous memory by number of images, each in a process of its own."""
    for count in counts:
        with tempfile.TemporaryDirectory(dir=scratch) as folder, fresh_cache(scratch):
            write_images(Path(folder), count)
            building, opened = (_child(Path(folder)) for _ in range(2))
        name = f"{count:,} images"
        record.add(f"peak while building the store of {name}", building["peak"] / 1e6, "MB")
        record.add(f"open store of {name}", opened["open"] / 1e6, "MB")
        record.add(f"open store of {name}, a row", opened["open"] / count, "bytes")
        record.add(f"peak while opening {name}", opened["peak"] / 1e6, "MB")
        record.add(f"after reading {name}", opened["read"] / 1e6, "MB")


def write_images(folder: Path, count: int) -> None:
    """Write small grey PNGs, no two alike, in ten classes."""
    rng = np.random.default_rng(0)
    for start in range(0, count, 10_000):
        pixels = rng.integers(0, 256, (min(10_000, count - start), 8, 8), dtype=np.uint8)
        # At most a thousand files to a folder: listing stays quick on every file system.
        part = f"{start // 10_000:03d}"
        for name in range(10):
            (folder / str(name) / part).mkdir(parents=True)
        for number, picture in enumerate(pixels, start):
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
            path = folder / str(number % 10) / part / f"{number:07d}.png"
            path.write_bytes(buffer.getvalue())


def _child(folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def memory_of(folder: Path) -> dict[str, float]:
    """Open a folder and read from it; return anonymous bytes above those of the imports.

    Returns
    -------
    dict
        ``open`` after opening, ``read`` after 400 batches of 256, ``peak`` while opening.
    """
    base, peak, done = anonymous(), [0], threading.Event()

    def sample() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], anonymous())

    watcher = threading.Thread(target=sample)
    watcher.start()
    dataset = open_dataset(folder)
    opened = anonymous()
    done.set()
    watcher.join()
    batches = Batches(dataset.store, dataset.rows("train"), 256, seed=0)
    for step in range(400):
        _ = batches[step]
    return {
        "open": opened - base,
        "read": anonymous() - base,
        "peak": max(peak[0], opened) - base,
    }


def anonymous() -> int:
    """Return the anonymous resident memory of this process in bytes (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this kernel does not tell anonymous memory")


if __name__ == "__main__":
    main()
