"""Pre-training on images past the store's cap: anonymous memory and speed by number of images.

    python benchmarks/streaming.py
    python benchmarks/streaming.py --images 5000 20000 --steps 40

Synthetic images of 8x8 pixels, a file each, are decoded while `fewlabels pretrain` trains on them
for a fixed number of steps, in a process of its own and with a store that may keep no pixels.
Writes ``benchmarks/streaming.csv``. A million images need about 4 GB of disk and many minutes
(`--scratch` names the place); nothing else should run on the machine meanwhile.

Anonymous memory (RssAnon, Linux) is that above the imports: at the reads of the second half of the
command, which are those of the training, and at its peak. Of the least number of images the same
is timed without decoding the next batch ahead.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from unittest import mock

import numpy as np
from data_path import anonymous, fresh_cache, write_images
from record import Record

import fewlabels
from fewlabels.data import planning
from fewlabels.data.loader import Batches
from fewlabels.data.streaming import StreamingStore
from fewlabels.training.progress import Reporter

IMAGES = (100_000, 1_000_000)
STEPS = 400
STATED = 300  # bytes of anonymous memory an image takes at most, as docs/large-data.md says


def main() -> None:
    """Measure, or be the process that is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=list(IMAGES))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child is not None:
        found = streamed(chosen.child, chosen.steps, ahead=not chosen.alone)
        sys.stdout.write(json.dumps(found) + "\n")
        return
    record = Record("streaming", "python benchmarks/streaming.py")
    measure(record, sorted(chosen.images), chosen.steps, chosen.scratch)


def measure(record: Record, counts: list[int], steps: int, scratch: Path) -> None:
    """Write the figures of every number of images, and what they say together."""
    used = []
    for count in counts:
        with tempfile.TemporaryDirectory(dir=scratch) as folder, fresh_cache(scratch):
            write_images(Path(folder) / "data", count)
            found = _child(Path(folder), steps)
            alone = _child(Path(folder), steps, "--alone") if count == counts[0] else None
        used.append(found["training"])
        name = f"{count:,} images"
        record.add(f"while training on {name}", found["training"] / 1e6, "MB")
        record.add(f"peak of pretrain on {name}", found["peak"] / 1e6, "MB")
        record.add(f"{steps} steps on {name}", found["seconds"], "s")
        record.add(f"images seen of {name}", found["images_seen"], "images")
        if alone is not None:
            record.add(f"{steps} steps on {name}, nothing ahead", alone["seconds"], "s")
    if len(counts) > 1:
        more = counts[-1] - counts[0]
        record.add("an image more", (used[-1] - used[0]) / more, "bytes")
        excess = (used[-1] - STATED * more) / used[0] - 1
        record.add(f"excess beyond {STATED} bytes an image", 100 * excess, "%")


def _child(folder: Path, steps: int, *more: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", str(folder), "--steps", str(steps), *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def streamed(folder: Path, steps: int, *, ahead: bool) -> dict[str, float]:
    """Pre-train on a folder without keeping pixels; return what it took.

    Parameters
    ----------
    folder : Path
        With the images in ``data/``; runs go beside that.
    steps : int
    ahead : bool
        Whether the next batch is decoded while a step is taken.
    """
    planning.DEFAULT_CAP = 0
    if not ahead:
        mock.patch.object(Batches, "ahead", lambda *_: None).start()
    base, at_reads, peak, done = anonymous(), [], [0], threading.Event()
    read = StreamingStore.read

    def noted(store: StreamingStore, rows: np.ndarray) -> object:
        at_reads.append(anonymous() - base)
        return read(store, rows)

    def sample() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], anonymous() - base)

    mock.patch.object(StreamingStore, "read", noted).start()  # this process does nothing else
    watcher = threading.Thread(target=sample)
    watcher.start()
    try:
        result = fewlabels.pretrain(
            folder / "data",
            method="simclr",
            backbone="tiny",
            budget=f"{steps} steps",
            device="cpu",
            out=folder / f"run-{time.monotonic_ns()}",
            reporter=Reporter(quiet=True),
        )
    finally:
        done.set()
        watcher.join()
    return {
        "training": statistics.median(at_reads[len(at_reads) // 2 :]),
        "peak": peak[0],
        "seconds": result["seconds"],
        "images_seen": result["images_seen"],
    }


if __name__ == "__main__":
    main()
