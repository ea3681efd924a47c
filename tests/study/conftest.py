"""Small real data for comparisons, and steps that take no time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from fewlabels.pipeline.task import DataOptions, Task
from fewlabels.results.runfolder import RunFolder
from fewlabels.study import paces, plan
from fewlabels.study.compare import compare
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
def write_digits(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that writes real digits into a table."""

    def write(
        count: int, *, seed: int | None = None, classes: int = 10, splits: Sequence[int] = ()
    ) -> Path:
        """Write some digits: the first ones, or such as are drawn at random.

        With `splits` the table says which are for training, validation and test: so many each.
        """
        x, y = load_digits(n_class=classes, return_X_y=True)
        chosen = np.arange(count)
        if seed is not None:
            chosen = np.random.default_rng(seed).permutation(len(x))[:count]
        arrays = {
            "images": np.round(x[chosen] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8),
            "labels": y[chosen].astype(str),
        }
        if splits:
            arrays["splits"] = np.repeat(["train", "val", "test"], splits)
        place = tmp_path_factory.mktemp("digits") / "digits.npz"
        np.savez(place, **arrays)
        return place

    return write


@pytest.fixture(scope="session")
def table(write_digits: Callable[..., Path]) -> Path:
    """300 real digits with a split of their own: 200 for training, 30 and 70 held out."""
    return write_digits(300, seed=0, splits=[200, 30, 70])


@pytest.fixture(scope="session")
def settings() -> Settings:
    return Settings(
        arms=ARMS, baseline="pixels", labels=(1, 4), seeds=2, pretraining_seeds=2, budget="20 steps"
    )


@pytest.fixture(scope="session")
def task(table: Path, settings: Settings) -> Task:
    """The digits, opened."""
    return prepare(DataOptions(str(table)), settings, Reporter(quiet=True))[0]


@pytest.fixture(scope="session")
def start(table: Path, settings: Settings) -> Callable[..., Comparison]:
    """Return a function that begins, or goes on with, a comparison in a folder."""

    def run(
        folder: Path,
        *,
        with_settings: Settings = settings,
        data: Path = table,
        steps: Steps = STEPS,
    ) -> Comparison:
        reporter = Reporter(quiet=True)
        task, arms = prepare(DataOptions(str(data)), with_settings, reporter)
        units = lay_out(task, with_settings)
        config: dict[str, Any] = {"data": str(data), "settings": repr(with_settings)}
        with RunFolder(folder) as place:
            return begin(place, task, arms, units, with_settings, lambda: steps, config, reporter)

    return run


@pytest.fixture(scope="session")
def whole(start: Callable[..., Comparison], tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """A comparison that nothing interrupted; its folder must not be changed."""
    return start(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="session")
def compare_shortly(table: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that compares arms on the digits, by fits of a few steps."""

    def run(out: Path, *, steps: int, unlabelled: int = 2, **asked: Any) -> dict[str, Any]:
        about = {"labels": [4], "seeds": 1, "pretraining_seeds": 1, "device": "cpu"}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FEWLABELS_CACHE", str(out.parent / "cache"))  # with looks of its own
            for module in (plan, paces):
                patch.setattr(module, "finetune_steps", lambda *_a, **_k: steps)
                patch.setattr(module, "unlabelled_steps", lambda **_k: unlabelled)
            patch.setattr(paces, "_finetune_pace", lambda *_: 0.001)
            return compare(
                DataOptions(str(table)), **about | asked, out=out, reporter=Reporter(quiet=True)
            )

    return run
