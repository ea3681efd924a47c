"""Whether maps depend on what was learned, on one backbone of each family: the randomisation check.

    FEWLABELS_DATA=... python benchmarks/saliency_check.py clothing

Each backbone is trained from scratch on all training labels, scored on validation images, and each
kind of map is compared with that of the same network with random weights. The test split stays
closed. Writes ``benchmarks/saliency_check_<data>.csv``: one row a backbone and map; a backbone that
is not clearly above chance says nothing about maps, and its row tells so. Rows of a
backbone that is checked again are replaced.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from record import replace

from fewlabels.core.errors import ModelError, UsageError
from fewlabels.data.augment import plain
from fewlabels.data.loader import load
from fewlabels.evaluation.intervals import wilson
from fewlabels.explain import pictures
from fewlabels.explain.randomisation import DRAWS, LIMIT, check
from fewlabels.explain.saliency import MAPS
from fewlabels.pipeline.stages import finetune, new_backbone, score
from fewlabels.pipeline.task import DataOptions, Task, open_task
from fewlabels.results.environment import describe
from fewlabels.training.progress import Reporter

HERE = Path(__file__).parent
# The smallest of each family. Inception's last map is a single cell below 128 pixels.
BACKBONES: tuple[str, ...] = (
    "tiny",
    "conv-32-64-128",
    "conv-32-64-64",
    "resnet18",
    "vgg11_bn",
    "alexnet",
)
BACKBONES += ("inception_v3", "convnext_atto")
# Most of the 120 million weights of VGG's dense layers are left out: no map is made of them.
OPTIONS = {"vgg11_bn": {"mlp_ratio": 1 / 16}}
COLUMNS: tuple[str, ...] = (
    "backbone",
    "image_size",
    "steps",
    "seed",
    "val_accuracy",
    "low",
    "high",
    "chance",
)
COLUMNS += ("map", "correlation", "limit", "images", "draws", "verdict")
COLUMNS += ("train_seconds", "machine", "commit")


def main() -> None:
    """Train, score and check every backbone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a folder in FEWLABELS_DATA, a path, or digits")
    parser.add_argument("--backbones", default=",".join(BACKBONES))
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=1_500)
    parser.add_argument("--images", type=int, default=12, help="that the check looks at")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=Path, help="folder for a sheet of maps a backbone")
    chosen = parser.parse_args()
    root = Path(os.environ.get("FEWLABELS_DATA", "")) / chosen.data
    options = DataOptions(str(root if root.exists() else chosen.data), chosen.image_size)
    reporter = Reporter()
    task = open_task(options, policy="auto", device="auto", reporter=reporter)
    about = describe(str(task.device))
    made = {"machine": about["machine"], "commit": about.get("commit", "")}
    out = HERE / f"saliency_check_{task.dataset.name}.csv"
    for backbone in chosen.backbones.split(","):
        for row in rows_of(
            task, backbone, chosen.steps, chosen.images, chosen.seed, chosen.pictures
        ):
            replace(out, COLUMNS, [row | made], ("backbone", "map"))
            reporter.say(" ".join(f"{k}={v}" for k, v in row.items()))


def rows_of(
    task: Task, backbone: str, steps: int, images: int, seed: int, folder: Path | None
) -> Iterator[dict[str, object]]:
    """Train one backbone and yield a row for each kind of map."""
    row: dict[str, object] = {"backbone": backbone, "image_size": task.pictures.size, "map": ""}
    row |= {"steps": steps, "seed": seed, "limit": LIMIT}
    began = time.perf_counter()
    try:
        fresh = new_backbone(task, backbone, seed, OPTIONS.get(backbone))
    except UsageError as error:  # not in this version, or not at this size
        yield row | {"verdict": f"not possible: {error.message}"}
        return
    labelled = task.dataset.labelled_rows("train")
    tuned = finetune(task, fresh, labelled, head=None, steps=steps, seed=seed)
    classifier = tuned.classifier
    row["train_seconds"] = round(time.perf_counter() - began, 1)
    held = task.dataset.rows("val")
    labels = task.dataset.labels[held]
    right = int((score(task, classifier, held).argmax(1) == labels).sum())
    low, high = wilson(right, len(held))
    chance = float(np.bincount(labels).max() / len(held))  # always naming the largest class
    row |= {"val_accuracy": round(right / len(held), 4), "low": round(low, 4)}
    row |= {"high": round(high, 4), "chance": round(chance, 4)}
    even = held[np.linspace(0, len(held) - 1, min(images, len(held))).astype(np.int64)]
    x = plain(load(task.dataset.store, even, task.device), task.pictures)
    with torch.no_grad():
        targets = classifier.eval()(x).argmax(1)
    maps = {}
    for name, draw in MAPS.items():
        try:
            found = check(draw, classifier, x, targets)
        except ModelError as error:
            yield row | {"map": name, "verdict": f"not possible: {error.message}"}
            continue
        maps[name] = draw(classifier, x, targets).numpy()
        said = "passed" if found.passed else "withdrawn"
        said = said if low > chance else f"{said}, but the network is not above chance"
        about = {"images": found.images, "draws": DRAWS, "verdict": said}
        yield row | {"map": name, "correlation": round(found.correlation, 4), **about}
    if folder is not None:
        titles = [
            f"called {task.dataset.classes[said]}, is {task.dataset.classes[true]}"
            for said, true in zip(targets.tolist(), task.dataset.labels[even], strict=True)
        ]
        save_sheet(folder / f"{backbone}.png", pixels_of(x, task), maps, titles)


def pixels_of(x: torch.Tensor, task: Task) -> np.ndarray:
    """Return normalised images ``(B, C, S, S)`` as ``(B, S, S, C)`` uint8."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (task.pictures.mean, task.pictures.std))
    shown = ((x.cpu() * std + mean) * 255).round().clamp(0, 255)
    return shown.to(torch.uint8).permute(0, 2, 3, 1).numpy()


def save_sheet(
    path: Path, views: np.ndarray, maps: dict[str, np.ndarray], titles: list[str]
) -> None:
    """Draw every image beside its maps, withdrawn ones too: a benchmark hides nothing."""
    rows = []
    for place, view in enumerate(views):
        drawn = [
            (
                pictures.MAP_NAMES[name],
                pictures.overlay(view, found[place], signed=pictures.is_signed(name, number=False)),
            )
            for name, found in maps.items()
        ]
        rows.append((titles[place], [("", view), *drawn]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pictures.png(pictures.sheet(rows)))


if __name__ == "__main__":
    main()
