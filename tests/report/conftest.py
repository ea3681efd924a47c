"""Synthetic folders: every number is drawn here and means nothing."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewlabels.results.runfolder import RunFolder

HOSTILE = "<script>alert('x')</script>"
SENTENCE = (
    "With 25 labels per class, SimCLR + frozen features beats training from scratch [synthetic]."
)
ARMS = {  # name: mean at 1, 4, 25 labels per class
    "scratch": (0.31, 0.48, 0.721),
    "pixels": (0.42, 0.58, 0.70),
    "pixels+spreading": (0.47, 0.61, 0.715),
    "random": (0.33, 0.47, 0.66),
    "autoencoder+features": (0.36, 0.51, 0.69),
    "autoencoder+parameters": (0.33, 0.50, 0.738),
    "simclr+features": (0.45, 0.68, 0.812),
    "simclr+parameters": (0.39, 0.66, 0.805),
}
CLOTHES = [
    "t-shirt",
    "長袖シャツ",
    "trousers",
    "фуфайка",
    "dress",
    "coat",
    "pantoufles d'intérieur",
]
CLOTHES += ["shirt", HOSTILE, "hat"]


def comparison(classes: list[str], shots: tuple[int, ...] = (1, 4, 25)) -> dict[str, Any]:
    """Return a synthetic comparison.json with every field filled."""
    rng = np.random.default_rng(0)
    cells, curves, verdicts = [], [], []
    for arm, means in ARMS.items():
        for mean, n in zip(means, (1, 4, 25), strict=True):
            if n not in shots:
                continue
            half = 0.055 / n**0.25
            draws = mean + rng.normal(0, half / 2, 8)
            curves.append(
                {
                    "arm": arm,
                    "shots": n,
                    "seeds": 8,
                    "mean": mean,
                    "low": mean - half,
                    "high": mean + half,
                }
            )
            cells += [_cell(arm, n, seed, float(a)) for seed, a in enumerate(draws)]
            if arm != "scratch":
                verdicts.append(
                    _verdict(arm, "scratch", n, mean - ARMS["scratch"][(1, 4, 25).index(n)])
                )
            if arm.startswith("simclr"):
                verdicts.append(
                    _verdict(
                        arm,
                        "pixels+spreading",
                        n,
                        mean - ARMS["pixels+spreading"][(1, 4, 25).index(n)],
                    )
                )
    primary = _verdict("simclr+features", "scratch", 25, 0.091)
    return {
        "schema": 1,
        "kind": "comparison",
        "name": "synthetic-clothes",
        "command": "fewlabels run synthetic-clothes --labels 1,4,25 --budget 20m --seed 0",
        "declared": {
            "arm": "simclr+features",
            "baseline": "scratch",
            "shots": 25,
            "metric": "accuracy",
        },
        "primary": {**primary, "metric": "accuracy", "p": 0.0002, "sentence": SENTENCE},
        "verdicts": verdicts,
        "arms": [_arm(name) for name in ARMS],
        "cells": cells,
        "curves": curves,
        "forecast": [],
        "label_saving": [
            {
                "arm": "simclr+features",
                "baseline": "scratch",
                "shots": 25,
                "factor": 2.7,
                "low": 1.9,
                "high": None,
            },
            {
                "arm": "simclr+features",
                "baseline": "scratch",
                "shots": 4,
                "factor": None,
                "low": 3.1,
                "high": None,
            },
        ],
        "time_to_baseline": [
            {
                **{"arm": arm, "baseline": "scratch", "shots": 25, "baseline_seconds": 61.0},
                "seconds": 84.7 if mean >= ARMS["scratch"][2] else None,
            }
            for arm, (_, _, mean) in ARMS.items()
            if arm != "scratch"
        ],
        "best": {
            "name": "simclr+features",
            "reason": "cross-validation on the labelled images",
            "candidates": [{"arm": "simclr+features", "score": 0.8, "low": 0.7, "high": 0.9}],
        },
        "design": {
            "splits": 2,
            "draws": 4,
            "pretraining_seeds": 2,
            "budget_seconds": 600,
            "images_train": 3068,
            "images_test": 372,
            "note": "",
        },
        "inspect": inspection(classes),
        "environment": {
            "fewlabels": "0.1.0",
            "python": "3.11.7",
            "torch": "2.15.0",
            "machine": "2 x Synthetic CPU",
            "cpu": "Synthetic CPU",
            "threads": 2,
            "device": "cpu",
            "commit": None,
        },
        "config": {"labels": [1, 4, 25], "seed": 0},
        "seconds": 1142.0,
        "looks_at_test": 1,
        "warnings": ["3 classes have fewer than 25 labelled images; all of theirs are used."],
    }


def _arm(name: str) -> dict[str, Any]:
    start, _, transfer = name.partition("+")
    return {
        "name": name,
        "start": start,
        "backbone": "tiny",
        "transfer": transfer or None,
        "method": start if start in ("simclr", "autoencoder") else None,
        "description": f"a synthetic arm called {name}",
    }


def _cell(arm: str, shots: int, seed: int, accuracy: float) -> dict[str, Any]:
    heavy = arm.startswith(("simclr", "auto"))
    failed = "DivergedError: loss is nan" if (arm, shots, seed) == ("random", 1, 7) else None
    before = 84.0 if heavy else 0.0
    after = 61.0 if "parameters" in arm or arm == "scratch" else 0.7
    return {
        "id": f"{arm}-{shots}-{seed}",
        "arm": arm,
        "shots": shots,
        "seed": seed,
        "streams": {"split": 0, "labels": seed, "pretraining": seed % 2, "training": seed},
        "accuracy": None if failed else accuracy,
        "balanced_accuracy": accuracy,
        "recall_macro": accuracy,
        "f1_macro": accuracy,
        "nll": 1.1,
        "seconds": before + after,
        "pretrain_seconds": before,
        "transfer_seconds": after,
        "steps": 1200,
        "images_seen": 614400 if heavy else None,
        "multiply_adds": 3_500_000_000_000 if heavy else 2_400_000_000,
        "energy_joules": 41.5 * (before + after) if seed else None,
        "peak_memory_mb": 512.0,
        "failed": failed,
    }


def _verdict(arm: str, baseline: str, shots: int, difference: float) -> dict[str, Any]:
    half = 0.028
    verdict = "undecided" if abs(difference) < half else "helps" if difference > 0 else "hurts"
    return {
        "arm": arm,
        "baseline": baseline,
        "shots": shots,
        "difference": difference,
        "low": difference - half,
        "high": difference + half,
        "p": 0.01,
        "p_holm": 0.03,
        "verdict": verdict,
        "detectable": 0.031,
    }


def inspection(classes: list[str]) -> dict[str, Any]:
    """Return a synthetic `inspect` value."""
    counts = {name: 40 + 37 * (i % 9) for i, name in enumerate(classes)}
    return {
        "schema": 1,
        "images": 3781,
        "labelled": sum(counts.values()),
        "unlabelled": 412,
        "classes": counts,
        "splits": {"train": 3068, "val": 341, "test": 372},
        "unreadable": 2,
        "quarantine": [
            {"path": f"train/{HOSTILE}/torn.jpg", "reason": "truncated after 69 bytes"},
            {"path": "train/hat/bomb.png", "reason": "over 50 megapixels"},
        ],
        "duplicates": [["train/hat/a.jpg", "train/hat/copy of a.jpg"]],
        "leaks": [
            {
                "split_a": "train",
                "path_a": "train/coat/1.jpg",
                "split_b": "test",
                "path_b": "test/coat/9.jpg",
            }
        ],
        "imbalance": 8.4,
        "warnings": ["The largest class has 8.4 times the images of the smallest."],
    }


def evaluation(classes: list[str]) -> dict[str, Any]:
    """Return a synthetic `evaluate` value."""
    rng = np.random.default_rng(1)
    size = len(classes)
    matrix = rng.poisson(12 / size, (size, size)) + np.diag(rng.integers(12, 40, size))
    matrix[0, min(3, size - 1)] += 9
    recall = np.diag(matrix) / matrix.sum(axis=1)
    precision = np.diag(matrix) / matrix.sum(axis=0)
    f1 = 2 * recall * precision / (recall + precision)
    interval = {"value": 0.807, "low": 0.764, "high": 0.846}
    return {
        "schema": 1,
        "run": "synthetic",
        "split": "test",
        "n": int(matrix.sum()),
        "accuracy": interval,
        "balanced_accuracy": interval,
        "precision_macro": interval,
        "recall_macro": interval,
        "f1_macro": {"value": 0.79, "low": None, "high": None},
        "nll": 0.612,
        "ece": 0.048,
        "brier": 0.27,
        "looks_at_test": 1,
        "per_class": [
            {"name": name, "n": int(n), "precision": float(p), "recall": float(r), "f1": float(f)}
            for name, n, p, r, f in zip(
                classes, matrix.sum(axis=1), precision, recall, f1, strict=True
            )
        ],
        "confusion": matrix.tolist(),
    }


def _thumbnail(seed: int) -> str:
    rng = np.random.default_rng(seed)
    size = 8 if seed % 4 == 0 else 96
    y, x = np.mgrid[0:size, 0:size] / size
    a, b, c = rng.uniform(2, 9, 3)
    waves = np.stack([np.sin(a * x + b * y), np.cos(c * x * y * 3), np.sin(b * x - c * y)], axis=-1)
    pixels = (127 + 110 * waves).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def write_folder(
    folder: Path, classes: list[str] = CLOTHES, shots: tuple[int, ...] = (1, 4, 25)
) -> Path:
    """Write a whole synthetic run folder with a comparison."""
    rng = np.random.default_rng(2)
    (folder / "figures").mkdir(parents=True)
    found = comparison(classes, shots)
    _dump(folder / "comparison.json", found)
    _dump(
        folder / "results.json",
        {
            "schema": 1,
            "kind": "run",
            "run": "synthetic",
            "inspect": found["inspect"],
            "compare": None,
            "best": "simclr+features",
            "test": evaluation(classes),
        },
    )
    _dump(
        folder / "mistakes.json",
        [
            {
                "path": f"test/{classes[i % len(classes)]}/{i:04d}.jpg",
                "label": classes[i % len(classes)],
                "predicted": classes[(3 * i + 1) % len(classes)],
                "probability": 0.99 - 0.01 * i,
                "thumbnail": _thumbnail(i),
            }
            for i in range(12)
        ],
    )
    labels = rng.integers(0, len(classes), 3200)
    centres = rng.normal(0, 6, (len(classes), 2))
    kinds = rng.choice(["unlabelled", "test"], 3200, p=[0.8, 0.2])
    kinds[:80] = "labelled"
    np.savez(
        folder / "figures" / "embedding.npz",
        xy=(centres[labels] + rng.normal(0, 1.3, (3200, 2))).astype(np.float32),
        label=np.where((kinds == "unlabelled") & (labels % 2 == 0), -1, labels),
        kind=kinds,
    )
    for place, (method, seed) in enumerate([("simclr", 0), ("simclr", 1), ("autoencoder", 0)]):
        _encoder(folder / "encoders" / f"{method}-{seed}-4f2a", method, rng, place)
    (folder / "config.yaml").write_text("data: synthetic-clothes\nlabels: [1, 4, 25]\nseed: 0\n")
    _explanation(folder, classes)
    return folder


def _explanation(folder: Path, classes: list[str], count: int = 3) -> None:
    """Write a synthetic record of `explain`, and what an encoder has painted."""
    rng = np.random.default_rng(4)
    size = 64
    images = [
        {
            "path": f"val/{classes[i]}/{i}.jpg",
            "kind": "mistake",
            "label": classes[i],
            "predicted": classes[(i + 1) % len(classes)],
            "probability": 0.9 - 0.1 * i,
            "explained": classes[i],
            "picture": "0001.png",
            "neighbours": [
                {"path": f"train/{k}.jpg", "label": classes[0] if k else None, "similarity": 0.5}
                for k in range(5)
            ],
        }
        for i in range(min(count, len(classes)))
    ]
    checks = [
        {"map": "grad_cam", "shown": True, "correlation": 0.0625, "reason": ""},
        {"map": "occlusion", "shown": False, "correlation": 0.9, "reason": "withdrawn: alike"},
    ]
    record = {"schema": 1, "run": "synthetic", "split": "val", "looks_at_test": 0}
    record |= {"folder": "elsewhere/records/explain-1", "images": images, "maps": checks}
    with RunFolder(folder) as run:
        run.add_record("explain", record)
    shape = (len(images), size, size)
    place = folder / "records" / "explain-1"
    place.mkdir()
    np.savez(
        place / "arrays.npz",
        views=rng.integers(0, 256, (*shape, 3), dtype=np.uint8),
        grad_cam=rng.random(shape, dtype=np.float32),
        integrated_gradients=rng.normal(size=shape).astype(np.float32),
        near=rng.integers(0, 256, (len(images), 5, 16, 16, 3), dtype=np.uint8),
        filters=rng.integers(0, 256, (30, 3, 3, 3), dtype=np.uint8),
    )
    np.savez(
        folder / "figures" / "paintings.npz",
        picture=rng.integers(0, 256, (8, 32, 32, 1), dtype=np.uint8),
        painted=rng.integers(0, 256, (8, 32, 32, 1), dtype=np.uint8),
    )


def _encoder(folder: Path, method: str, rng: np.random.Generator, place: int) -> None:
    folder.mkdir(parents=True)
    steps = np.arange(10, 1210, 10)
    rows = [
        {
            "step": int(s),
            "seconds": 0.07 * s,
            "loss": float(5 * np.exp(-s / (300 + 90 * place)) + 2 + rng.normal(0, 0.06)),
        }
        for s in steps
    ]
    for row in rows[::12]:
        row["probe"] = 0.3 + 0.4 * (1 - np.exp(-row["step"] / 400)) + 0.01 * place
    text = "\n".join(json.dumps(row) for row in rows) + '\n{"step": 1220, "lo'
    (folder / "metrics.jsonl").write_text(text)
    _dump(folder / "results.json", {"method": method, "backbone": "tiny"})


def _dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a whole synthetic run folder."""
    return write_folder(tmp_path / "run")


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Return the builder of synthetic folders, for other classes and shots."""

    def make(classes: list[str] = CLOTHES, shots: tuple[int, ...] = (1, 4, 25)) -> Path:
        return write_folder(tmp_path / "made", classes, shots)

    return make


@pytest.fixture
def sentence() -> str:
    """Return the primary sentence of the synthetic comparison."""
    return SENTENCE


@pytest.fixture
def hostile() -> str:
    """Return a class name that would run where it is not escaped."""
    return HOSTILE


_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
_ARGUMENTS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    program = os.environ.get("FEWLABELS_CHROMIUM") or shutil.which("chromium")
    if not program:
        pytest.skip("no chromium: install it or set FEWLABELS_CHROMIUM to check the report's looks")
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with driver.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=_ARGUMENTS)
        yield chromium
        chromium.close()


def number_run(target: str = HOSTILE + " (m/s)") -> dict[str, Any]:
    """Return the parts of a synthetic run that predicts a number."""
    rng = np.random.default_rng(3)
    truth = rng.normal(2_000, 40, 400)
    guess = truth + rng.normal(0, 15, 400)
    about = {"name": target, "unit": "m/s"}
    interval = {"value": 225.0, "low": 190.5, "high": 261.25}
    test = {
        **{"schema": 1, "run": "synthetic", "split": "test", "n": 400, "looks_at_test": 1},
        **{"mse": interval, "mae": {"value": 12.0, "low": 10.5, "high": 13.5}},
        **{"r2": {"value": 0.86, "low": None, "high": 0.9}, "spearman": None},
        **{"target": about, "pairs": np.stack([truth, guess], 1).tolist()},
    }
    counts, edges = np.histogram(truth, 12)
    spread = {"count": 500, "missing": 40, "min": 1880.0, "max": 2110.0, "mean": 2000.0}
    inspected = inspection([]) | {
        "target": {
            **about,
            **spread,
            "std": 40.0,
            "quantiles": {"0.5": 2000.0},
            "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
        }
    }
    mistakes = [
        {
            **{"path": f"{HOSTILE}{i}.png", "value": 2_000.0 + i, "predicted": 1_950.5 + i},
            **{"error": -49.5 if i else 49.5, "thumbnail": _thumbnail(i)},
        }
        for i in range(9)
    ]
    return {"test": test, "inspect": inspected, "mistakes": mistakes}


def number_comparison(found: dict[str, Any]) -> dict[str, Any]:
    """Return a synthetic comparison by mean squared error: less is better."""
    means = {"scratch": (900.0, 310.0), "mean": (1_600.0, 1_600.0), "simclr+features": (500, 220)}
    curves = [
        {"arm": arm, "shots": shots, "seeds": 4, "mean": mean, "low": mean - 90, "high": mean + 90}
        for arm, pair in means.items()
        for shots, mean in zip((10, 40), pair, strict=True)
    ]
    verdict = {
        **{"arm": "simclr+features", "baseline": "scratch", "shots": 10, "metric": "mse"},
        **{"difference": 400.0, "low": 310.0, "high": 490.0, "p": 0.001, "p_holm": 0.002},
        **{"verdict": "helps", "detectable": 150.0},
    }
    worse = {**verdict, "arm": "mean", "difference": -700.0, "low": -800.0, "high": -600.0}
    return {
        **comparison([]),
        "arms": [_arm(name) for name in means],
        "declared": {"arm": "simclr+features", "baseline": "scratch", "shots": 10, "metric": "mse"},
        "primary": verdict,
        "verdicts": [verdict, {**worse, "verdict": "hurts"}],
        "curves": curves,
        "cells": [],
        "label_saving": [],
        "best": {"name": "simclr+features", "reason": "least squared error", "shots": 40},
        "inspect": found["inspect"],
        "warnings": [],
    }


@pytest.fixture
def number_folder(tmp_path: Path) -> Path:
    """Return a whole synthetic run folder of a number."""
    folder, found = tmp_path / "number", number_run()
    (folder / "figures").mkdir(parents=True)
    rng = np.random.default_rng(4)
    codes = rng.integers(0, 5, 300)
    np.savez(
        folder / "figures/embedding.npz",
        xy=(rng.normal(0, 1, (300, 2)) + codes[:, None]).astype(np.float32),
        label=codes,
        kind=np.repeat(["labelled", "test"], [40, 260]),
        classes=np.array([f"{i} to {i + 1}" for i in range(5)]),
        ordered=np.array(True),
    )
    compared = number_comparison(found)
    _dump(folder / "comparison.json", compared)
    run = {"schema": 1, "kind": "run", "run": "synthetic", "compare": None, "best": "scratch"}
    _dump(folder / "results.json", run | {"test": found["test"], "inspect": found["inspect"]})
    _dump(folder / "mistakes.json", found["mistakes"])
    return folder
