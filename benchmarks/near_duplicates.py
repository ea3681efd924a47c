"""How many planted near-copies are found, how many pairs are none, and how long it takes.

    FEWLABELS_DATA=... python benchmarks/near_duplicates.py --out runs/near
    FEWLABELS_DATA=... python benchmarks/near_duplicates.py --out runs/near time

cifar10   the training images of five classes at 32 pixels: one in five is called test
clothing  the training images of five classes: every other one is called test
time      all 60,000 images of CIFAR-10: test and val against the splits before them

The thresholds (`fewlabels.data.near`) were chosen on the training images of the five other classes
of both, whose copies were made in the same way. First the pairs that are found anyhow are taken
out of the base. Then every test image gets one copy in train, changed in one of the ways of
`CHANGES`, which take turns. A pair that is found and is not a copy with its original is false.
Writes ``benchmarks/near_duplicates.csv``; the last change is harder than what was aimed at, and no
part of the row "every change". Goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance
from record import HERE, made, replace

from fewlabels.core.seeding import stream
from fewlabels.data.dataset import Dataset, open_dataset
from fewlabels.data.near import find_near
from fewlabels.data.splits import OUT, TEST, TRAIN
from fewlabels.evaluation.intervals import wilson

CHANGES = (
    *("JPEG q30", "JPEG q50", "JPEG q70", "JPEG q90"),
    *("resize 0.5", "resize 0.75", "resize 1.5", "resize 2"),
    *("crop 5 %", "brightness -20 %", "brightness +20 %"),
    "crop, brightness and JPEG q70",
)
ALL_AT_ONCE = CHANGES[-1]
KERNELS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
REPORTED = {
    "cifar10": ("dog", "frog", "horse", "ship", "truck"),
    "clothing": ("hat", "outwear", "shirt", "shorts", "t-shirt"),
}
EACH = {"cifar10": 5, "clothing": 2}  # of so many images one is called test
COLUMNS = (
    *("data", "change", "planted", "found", "recall", "low", "high", "false_pairs", "precision"),
    *("images", "removed_before", "seconds", "machine", "commit", "command", "date"),
)


def main() -> None:
    """Measure what the command line names, or all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*REPORTED, "time", []], default=[])
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    os.environ["FEWLABELS_CACHE"] = str(chosen.out.absolute() / "cache")
    for part in chosen.parts or (*REPORTED, "time"):
        write(measure_time() if part == "time" else measure(part, chosen.out / part))


def write(rows: list[dict[str, Any]]) -> None:
    """Write rows in place of older ones of the same data and change."""
    command = made("FEWLABELS_DATA=... python benchmarks/near_duplicates.py --out runs/near")
    whole = [{**dict.fromkeys(COLUMNS, ""), **row, **command} for row in rows]
    replace(HERE / "near_duplicates.csv", COLUMNS, whole, ("data", "change"))
    for row in rows:
        sys.stderr.write(f"{row}\n")


def measure(name: str, folder: Path) -> list[dict[str, Any]]:
    """Plant copies into a cleaned base, look for them, and return the rows of a data set."""
    removed = lay_out(name, folder)
    planted = plant(folder)
    dataset = open_dataset(folder)
    seconds = seconds_to_find(dataset)
    pairs = [[named(dataset, row) for row in pair] for pair in dataset.leaks.near.pairs.tolist()]
    found = Counter(planted[copy] for copy, like in pairs if original_of(copy) == like)
    false = len(pairs) - sum(found.values())
    many = Counter(planted.values())
    rows = [counted(name, change, many[change], found[change]) for change in CHANGES]
    aimed = [change for change in CHANGES if change != ALL_AT_ONCE]
    hits = sum(found[change] for change in aimed)
    every = counted(name, "every change", sum(many[change] for change in aimed), hits)
    every |= {"false_pairs": false, "precision": f"{hits / max(hits + false, 1):.4f}"}
    every |= {"images": len(dataset), "removed_before": removed, "seconds": f"{seconds:.1f}"}
    return [*rows, every]


def counted(name: str, change: str, planted: int, found: int) -> dict[str, Any]:
    """Return a row: recall with Wilson's 95 % interval."""
    low, high = wilson(found, planted)
    row = {"data": name, "change": change, "planted": planted, "found": found}
    return {**row, "recall": f"{found / planted:.4f}", "low": f"{low:.4f}", "high": f"{high:.4f}"}


def lay_out(name: str, folder: Path) -> int:
    """Copy the base into train/ and test/, and take out what is alike; return how many images."""
    told = folder.with_suffix(".removed")
    if told.exists():
        return int(told.read_text())
    shutil.rmtree(folder, ignore_errors=True)
    root = Path(os.environ["FEWLABELS_DATA"]) / name / "train"
    for one in REPORTED[name]:
        for number, file in enumerate(sorted((root / one).iterdir())):
            split = "train" if number % EACH[name] else "test"
            (folder / split / one).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / split / one / file.name)
    dataset = open_dataset(folder, leaks="keep")
    pairs = [dataset.leaks.near.pairs, dataset.leaks.pairs, alike_in_test(dataset)]
    alike = np.unique(np.concatenate(pairs))
    for row in alike.tolist():
        (folder / dataset.source.paths[row]).unlink()
    told.write_text(str(len(alike)))
    return len(alike)


def alike_in_test(dataset: Dataset) -> np.ndarray:
    """Return the pairs within test, or a copy of one would rightly be found to be like the other.

    Two numbers differ in some binary digit: by each, test is parted as if into train and test.
    """
    rows, pairs = dataset.rows("test"), []
    for digit in range(len(rows).bit_length()):
        split = np.full(len(dataset), OUT, np.int8)
        split[rows] = np.where(np.arange(len(rows)) >> digit & 1, TEST, TRAIN)
        pairs.append(find_near(dataset.store, split).pairs)
    return np.concatenate(pairs)


def plant(folder: Path) -> dict[str, str]:
    """Write a copy of every test image into train; return the change of each by its path."""
    planted = {}
    for number, file in enumerate(sorted((folder / "test").glob("*/*"))):
        change = CHANGES[number % len(CHANGES)]
        suffix = ".jpg" if "JPEG" in change else ".png"
        copy = folder / "train" / file.parent.name / f"copy-{file.stem}{suffix}"
        if not copy.exists():
            rng = np.random.default_rng(stream(0, "planted", file.name))
            copy.write_bytes(changed(Image.open(file).convert("RGB"), change, rng))
        planted[f"train/{file.parent.name}/{copy.stem}"] = change
    return planted


def named(dataset: Dataset, row: int) -> str:
    """Return the path of a row without its suffix, which a copy does not share."""
    return str(Path(dataset.source.paths[row]).with_suffix(""))


def original_of(copy: str) -> str:
    """Return the original of a planted copy, "" for any other path."""
    folder, _, name = copy.rpartition("/copy-")
    return f"test/{folder.removeprefix('train/')}/{name}" if name else ""


def changed(image: Image.Image, change: str, rng: np.random.Generator) -> bytes:
    """Return a changed copy as a file: PNG where the encoding is not what is changed."""
    if change == ALL_AT_ONCE:
        image = brightened(cropped(image, rng), (0.8, 1.2)[rng.integers(2)])
    elif change.startswith("resize"):
        size = [round(side * float(change.split()[1])) for side in image.size]
        image = image.resize((size[0], size[1]), KERNELS[rng.integers(3)])
    elif change.startswith("crop"):
        image = cropped(image, rng)
    elif change.startswith("brightness"):
        image = brightened(image, 0.8 if "-" in change else 1.2)
    file = io.BytesIO()
    if "JPEG" in change:
        image.save(file, "JPEG", quality=int(change.rpartition("q")[2]))
    else:
        image.save(file, "PNG")
    return file.getvalue()


def cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return a window of 95 % of each side, anywhere."""
    width, height = (round(0.95 * side) for side in image.size)
    x, y = (rng.integers(0, a - b + 1) for a, b in zip(image.size, (width, height), strict=True))
    return image.crop((int(x), int(y), int(x) + width, int(y) + height))


def brightened(image: Image.Image, factor: float) -> Image.Image:
    """Return the image with all values multiplied, and cut at white."""
    return ImageEnhance.Brightness(image).enhance(factor)


def measure_time() -> list[dict[str, Any]]:
    """Time the search in all of CIFAR-10."""
    dataset = open_dataset(Path(os.environ["FEWLABELS_DATA"]) / "cifar10", leaks="keep")
    seconds = seconds_to_find(dataset)
    test = dataset.leaks.near.pairs[:, 1]
    held = np.unique(test[dataset.assigned[test] == 2])
    row = {"data": "cifar10, whole", "change": "none", "found": len(held), "images": len(dataset)}
    return [{**row, "seconds": f"{seconds:.1f}"}]


def seconds_to_find(dataset: Dataset) -> float:
    """Return how long the search takes that was not done before."""
    for file in dataset.store.folder.glob("near-*.npy"):
        file.unlink()
    began = time.perf_counter()
    find_near(dataset.store, dataset.assigned)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
