"""Tiny pictures that a tiny network can tell apart, and runs on them that several tests read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewlabels.pipeline.task import DataOptions
from fewlabels.pipeline.verbs import finetune, pretrain
from fewlabels.training.progress import Reporter

QUIET = Reporter(quiet=True)


def write_pictures(folder: Path, classes: str, each: int, *, size: int = 16) -> Path:
    """Write ``folder/<class>/<n>.png``: stripes, across or along by class, in noise."""
    for code, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            rng = np.random.default_rng([code, number])
            pixels = rng.integers(0, 120, (size, size + number % 3, 3))
            stripes = (slice(None, None, 3),) if code % 2 else (slice(None), slice(None, None, 3))
            pixels[stripes] += 110
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number:03d}.png")
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> DataOptions:
    return DataOptions(str(write_pictures(tmp_path_factory.mktemp("pictures") / "data", "ab", 70)))


@pytest.fixture(scope="session")
def encoder(
    pictures: DataOptions, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """Return the run folder of a short pre-training, and its result."""
    out = tmp_path_factory.mktemp("runs") / "encoder"
    result = pretrain(
        pictures,
        method="autoencoder",
        backbone="tiny",
        budget="16 steps",
        device="cpu",
        out=out,
        reporter=QUIET,
    )
    return out, result


@pytest.fixture(scope="session")
def classifier(
    pictures: DataOptions,
    encoder: tuple[Path, dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, Any]]:
    """Return the run folder of a classifier on that encoder, and its result."""
    out = tmp_path_factory.mktemp("runs") / "classifier"
    result = finetune(
        pictures,
        start=str(encoder[0]),
        transfer="logistic",
        labels=8,
        device="cpu",
        out=out,
        reporter=QUIET,
    )
    return out, result
