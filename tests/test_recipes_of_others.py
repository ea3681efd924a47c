"""The recipes of others: that they are what was published, and that they are paired with ours."""

from __future__ import annotations

import csv
import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops._utils import split_normalization_params

from fewlabels.pipeline.task import DataOptions, Task, open_task
from fewlabels.results.files import read_json
from fewlabels.study import paces, plan
from fewlabels.training.durations import parse_duration
from fewlabels.training.progress import Reporter

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
OURS: dict[str, dict[str, Any]] = {
    "random": {
        "arms": ["scratch", "pixels"],
        "labels": [4],
        "seeds": 2,
        "pretraining_seeds": 2,
        "budget": "3 steps",
        "select": "none",
    }
}


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        names = ("few_labels", "others", "recipes_of_others")
        found = {name: importlib.import_module(name) for name in names}
        patch.setitem(found["few_labels"].PARTS, "digits", OURS)
        for place in (plan, paces):
            patch.setattr(place, "finetune_steps", lambda *_a, **_k: 3)
        patch.setattr(paces, "_finetune_pace", lambda *_: 0.001)
        yield found


@pytest.fixture(scope="module")
def others(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["others"]


@pytest.fixture(scope="module")
def digits() -> Task:
    reporter = Reporter(quiet=True)
    return open_task(DataOptions("digits"), policy="auto", device="cpu", reporter=reporter)


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ---- what was published ------------------------------------------------------------------------


def test_one_cycle_is_that_of_torch(others: ModuleType) -> None:
    steps, weight = 2_000, [nn.Parameter(torch.zeros(1))]
    mine, theirs = (torch.optim.AdamW(weight, lr=1e-3, betas=(0.95, 0.99)) for _ in range(2))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        theirs, 1e-3, steps, pct_start=0.25, div_factor=25, final_div_factor=1e5 / 25
    )
    for step in range(steps):
        if step % 100 == 0:
            others.one_cycle(mine, step / steps)
            for key in ("lr", "betas"):
                wanted = theirs.param_groups[0][key]
                assert mine.param_groups[0][key] == pytest.approx(wanted, rel=0.02, abs=2e-6)
        theirs.step()
        schedule.step()
    others.one_cycle(mine, 1.0)
    assert mine.param_groups[0]["lr"] == pytest.approx(1e-8)


def test_rates_of_torchvision_are_in_proportion_to_the_batch(others: ModuleType) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=9.0)

    def rate(schedule: Any, progress: float) -> float:
        schedule(optimizer, progress)
        return float(optimizer.param_groups[0]["lr"])

    found = [rate(others.by_thirds, progress) for progress in (0, 0.3, 0.4, 0.7)]
    assert found == pytest.approx([0.0125, 0.0125, 0.00125, 0.000125])
    found = [rate(others.warm_cosine, progress) for progress in (0, 5 / 600, 0.5 + 2.5 / 600, 1)]
    assert found == pytest.approx([0.000625, 0.0625, 0.03125, 0])


def test_what_does_not_decay(others: ModuleType) -> None:
    network = others.torchvision_network(7)
    norms = {id(p) for p in split_normalization_params(network)[0]}
    for biases in (False, True):
        decayed, free = others.in_groups(network, 0.1, biases=biases)
        extra = {id(network.fc.bias)} if biases else set()
        assert {id(p) for p in free["params"]} == norms | extra
        assert len(decayed["params"]) + len(free["params"]) == len(list(network.parameters()))
        assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)


def test_a_change_of_view_takes_corners_where_it_should(others: ModuleType) -> None:
    torch.manual_seed(0)
    source = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]).expand(5, 4, 2)
    target = source + 0.2 * torch.rand(5, 4, 2)
    found = others.projected(source.reshape(5, 2, 2, 2), source, target)
    assert torch.allclose(found.reshape(5, 4, 2), target, atol=1e-5)
    # Straight lines stay straight: the middle of an edge lies on the moved edge.
    middle = others.projected(torch.tensor([[[[-1.0, 0.0]]]]).expand(5, 1, 1, 2), source, target)
    edge, along = target[:, 1] - target[:, 0], middle[:, 0, 0] - target[:, 0]
    assert torch.allclose(edge[:, 0] * along[:, 1], edge[:, 1] * along[:, 0], atol=1e-5)


def test_images_are_changed_each_by_itself(
    others: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 3, 16, 16).expand(32, -1, -1, -1)
    seen, _ = others.aug_transforms(x, torch.zeros(32), 2)
    assert seen.shape == x.shape and seen.min() >= 0 and seen.max() <= 1
    assert len(torch.unique(seen.flatten(1), dim=0)) > 24
    monkeypatch.setattr(others, "often", lambda v, neutral, *_: torch.full_like(v, neutral))
    assert torch.allclose(others.aug_transforms(x, torch.zeros(32), 2)[0], x, atol=1e-4)
    once = lambda v, neutral, share=0.75: v if share == 0.5 else torch.full_like(v, neutral)  # noqa: E731
    monkeypatch.setattr(others, "often", once)
    assert torch.allclose(others.aug_transforms(x, torch.zeros(32), 2)[0], x.flip(3), atol=1e-4)


@pytest.mark.parametrize("name", ["torchvision", "torchvision-new", "fastai"])
def test_views_have_the_size(others: ModuleType, name: str) -> None:
    recipe = others.RECIPES[name]
    image = torch.randint(0, 256, (3, 60, 45), dtype=torch.uint8)
    x = torch.stack([recipe.view(32)(recipe.once(32)(image)) for _ in range(4)])
    assert x.shape == (4, 3, 32, 32) and x.is_floating_point()
    side = 41 if name == "torchvision-new" else 32  # it tests at 224 what it trains at 176
    assert recipe.test(32)(image).shape == (3, side, side)
    x, y = recipe.together(x, torch.tensor([0, 1, 2, 3]), 5)
    assert x.shape == (4, 3, 32, 32) and len(y) == 4
    assert recipe.network(5).eval()(x).shape == (4, 5)


# ---- how they are measured ---------------------------------------------------------------------


def test_an_epoch_shows_every_image_once(modules: dict[str, ModuleType]) -> None:
    batches = modules["recipes_of_others"].batches
    drawn = batches(10, 4, whole=False)
    for _ in range(3):
        epoch = [next(drawn) for _ in range(3)]
        assert [len(part) for part in epoch] == [4, 4, 2]
        assert sorted(torch.cat(epoch).tolist()) == list(range(10))
    drawn = batches(10, 4, whole=True)
    assert [len(next(drawn)) for _ in range(5)] == [4] * 5
    assert len(next(batches(3, 64, whole=True))) == 3


def test_the_time_becomes_steps_once(
    modules: dict[str, ModuleType], digits: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = modules["recipes_of_others"]
    bench = module.Bench(digits, "digits", tmp_path, tmp_path / "t", "", parse_duration("10s"))
    # Warm-up, a burst that something disturbed, and one of steps that are not all alike.
    burst = [0.03, 0.03, 0.01, 0.01] * (module.TIMED // 4)
    clock = iter(np.cumsum([1.0] * module.WARM + [*burst[1:], 9.0] + burst))

    def fit(*stage: Any) -> None:
        for _ in range(stage[3]):
            stage[5]()

    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(module, "fit", fit)
    rows = digits.dataset.visible(4, 0)
    assert module.steps_of(bench, "fastai", digits, rows) == pytest.approx(500, abs=1)
    monkeypatch.setattr(module, "fit", None)  # it is kept
    assert module.steps_of(bench, "fastai", digits, rows) == pytest.approx(500, abs=1)


@pytest.mark.medium
def test_they_meet_our_arms_on_the_same_labels(
    modules: dict[str, ModuleType],
    digits: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = modules["recipes_of_others"]
    monkeypatch.setenv("FEWLABELS_CACHE", str(tmp_path / "cache"))  # with looks of its own
    where = ["digits", "--out", str(tmp_path / "runs"), "--tables", str(tmp_path)]
    learned: list[tuple[int, ...]] = []
    fit = module.fit

    def watched(task: Task, recipe: Any, rows: np.ndarray, *rest: Any) -> Any:
        learned.append(tuple(rows.tolist()))
        return fit(task, recipe, rows, *rest)

    monkeypatch.setattr(module, "fit", watched)
    module.main([*where, "--dry-run"])
    assert not learned
    module.main([*where, "--only", "fastai"])
    assert "no verdicts yet" in capsys.readouterr().out
    assert not (tmp_path / "recipes_of_others_verdicts.csv").exists()
    modules["few_labels"].main([*where, "--only", "random"])
    module.main(where)

    # Two splits with a draw each; every recipe learned from what our arms learned from.
    drawn = [tuple(digits.with_split(n).dataset.visible(4, n).tolist()) for n in range(2)]
    assert learned == drawn * 3
    rows = rows_of(tmp_path / "recipes_of_others.csv")
    assert {row["arm"] for row in rows} == {"torchvision", "torchvision-new", "fastai"}
    assert [row["steps"] for row in rows] == ["3"] * 6
    assert len({row["looks_at_test"] for row in rows}) == 1 and rows[0]["looks_at_test"]
    assert all(math.isfinite(float(row["nll"])) for row in rows)
    verdicts = rows_of(tmp_path / "recipes_of_others_verdicts.csv")
    pairs = {(row["arm"], row["baseline"]) for row in verdicts}
    assert pairs == {(a, b) for a in ("scratch", "pixels") for b in module.RECIPES}
    assert all(row["n"] == "2" for row in verdicts)
    primary = [row for row in verdicts if row["primary"] == "True"]
    assert [(row["arm"], row["baseline"]) for row in primary] == [("scratch", "torchvision")]
    ours = read_json(tmp_path / "runs" / "digits" / "random" / "comparison.json")["cells"]
    mean = np.mean([cell["accuracy"] for cell in ours if cell["arm"] == "scratch"])
    theirs = np.mean([float(row["accuracy"]) for row in rows if row["arm"] == "torchvision"])
    assert float(primary[0]["difference"]) == pytest.approx(mean - theirs, abs=1e-5)

    monkeypatch.setattr(module, "fit", None)
    module.main(where)  # nothing is left to do, and no further look is taken
    assert rows_of(tmp_path / "recipes_of_others.csv") == rows
    # Cut after a cell was kept, and before its row was written.
    lines = (tmp_path / "recipes_of_others.csv").read_text().splitlines(keepends=True)
    (tmp_path / "recipes_of_others.csv").write_text("".join(lines[:-1]))
    module.main(where)
    assert rows_of(tmp_path / "recipes_of_others.csv") == rows
