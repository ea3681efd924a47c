"""Small real data for comparisons, and steps that take no time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from fewlabels.pipeline.task import DataOptions, Task
from fewlabels.results.runfolder import RunFolder
from fewlabels.study.engine import begin
from fewlabels.study.grid import Comparison
from fewlabels.study.plan import Steps
from fewlabels.study.settings import Settings, lay_out, prepare
from fewlabels.training.progress import Reporter

ARMS = ("pixels", "autoencoder+features")
STEPS = Steps(
    pretrain={"autoencoder:tiny": 20, "simclr:tiny": 20},
    finetune={"10": 4, "40": 4},
    scratch={"10": 4, "40": 4},
    seconds={},
)


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 real digits with a split of their own: 200 for training, 30 and 70 held out."""
    x, y = load_digits(return_X_y=True)
    chosen = np.random.default_rng(0).permutation(len(x))[:300]
    place = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(
        place,
        images=np.round(x[chosen] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8),
        labels=y[chosen].astype(str),
        splits=np.repeat(["train", "val", "test"], [200, 30, 70]),
    )
    return place


@pytest.fixture(scope="session")
def settings() -> Settings:
    return Settings(
        arms=ARMS, baseline="pixels", labels=(1, 4), seeds=2, pretraining_seeds=2, budget="20 steps"
    )


@pytest.fixture(scope="session")
def task(table: Path, settings: Settings) -> Task:
    """The digits, opened."""
    return prepare(DataOptions(str(table)), settings, Reporter(quiet=True))[0]


@pytest.fixture
def start(table: Path, settings: Settings) -> Callable[..., Comparison]:
    """Return a function that begins, or goes on with, a comparison in a folder."""

    def run(folder: Path, *, with_settings: Settings = settings, data: Path = table) -> Comparison:
        reporter = Reporter(quiet=True)
        task, arms = prepare(DataOptions(str(data)), with_settings, reporter)
        config: dict[str, Any] = {"data": str(data), "settings": repr(with_settings)}
        with RunFolder(folder) as run_folder:
            return begin(
                run_folder,
                task,
                arms,
                lay_out(task, with_settings),
                with_settings,
                lambda: STEPS,
                config,
                reporter,
            )

    return run


@pytest.fixture(scope="session")
def whole(
    table: Path, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Comparison]:
    """A comparison that nothing interrupted; its folder must not be changed."""
    reporter = Reporter(quiet=True)
    task, arms = prepare(DataOptions(str(table)), settings, reporter)
    with RunFolder(tmp_path_factory.mktemp("whole") / "run") as folder:
        yield begin(
            folder,
            task,
            arms,
            lay_out(task, settings),
            settings,
            lambda: STEPS,
            {"data": str(table), "settings": repr(settings)},
            reporter,
        )
