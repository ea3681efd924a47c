"""Standard recipes of others on the labelled images of ours, in the same time, from random weights.

    FEWLABELS_DATA=... python benchmarks/few_labels.py clothing --only random
    FEWLABELS_DATA=... python benchmarks/recipes_of_others.py clothing

The recipes are in ``others.py``, with what each leaves out. Where one counts epochs, its schedule
is stretched to the steps that the time allows: as long as the budget of a cell of
``few_labels.py``, measured beforehand and kept in ``plan.json``. All see the labelled images at
their full size, and are scored on the same test images with the weights of the last step.

The row of a cell is written as soon as it ends, into ``benchmarks/recipes_of_others.csv``; the same
command goes on where it was cut. Paired verdicts on our arms against each recipe that is whole go
into ``recipes_of_others_verdicts.csv``, once the comparison of ``few_labels.py`` is there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from few_labels import PARTS, STREAMS, as_kept, options, rows_of
from others import RECIPES, Recipe
from record import HERE, MADE, made, replace
from tables import SPREADS, VERDICT
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.core.seeding import stream
from fewlabels.data.decode import decode
from fewlabels.evaluation.cells import design_of
from fewlabels.evaluation.family import adjust
from fewlabels.evaluation.savings import curves
from fewlabels.evaluation.verdicts import Images, verdict_table
from fewlabels.pipeline.keys import test_key
from fewlabels.pipeline.task import Task, open_task
from fewlabels.results.files import read_json, to_json, write_atomic
from fewlabels.results.ledger import look
from fewlabels.study.cells import cell_row, load_cell, load_scores, paid, save_cell
from fewlabels.study.plan import Streams, make_units
from fewlabels.study.summary import sentence
from fewlabels.training.cost import Cost, Meter
from fewlabels.training.durations import Duration, parse_duration
from fewlabels.training.loop import fresh_seed
from fewlabels.training.progress import Reporter

COLUMNS = (
    *("data", "arm", "shots", *STREAMS, "accuracy", "balanced_accuracy", "f1_macro", "nll"),
    *("seconds", "steps", "images_seen", "peak_memory_mb", "id", "looks_at_test", *MADE),
)
SAME = ("data", "arm", "shots", "split", "labels")
VERDICTS = ("data", *VERDICT, *(f"sd_{name}" for name in SPREADS), "looks_at_test", *MADE)
# Steps of a calibration. A burst is three epochs of 100 labels in batches of 32, the last of 4; the
# quicker one counts, as in `fewlabels.training.measuring`.
WARM, BURSTS, TIMED = 3, 2, 12

# ---- training and scoring ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """What is measured on, and where it is kept."""

    task: Task
    data: str
    place: Path
    table: Path
    command: str
    budget: Duration


@dataclass(frozen=True, slots=True)
class Planned:
    """A cell: a recipe on one draw of labels."""

    recipe: str
    shots: int
    split: int
    draw: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, and judge what is whole."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("data", choices=list(PARTS))
    add("--only", choices=list(RECIPES), help="one recipe")
    add("--dry-run", action="store_true", help="say which cells there are, and their seconds")
    add("--out", type=Path, default=Path("runs/few-labels"), help="as of few_labels.py")
    add("--tables", type=Path, default=HERE, help="where the CSV files lie")
    chosen = parser.parse_args(arguments)
    task = open_task(options(chosen.data), policy="auto", device="auto", reporter=Reporter())
    budget = parse_duration(PARTS[chosen.data]["random"]["budget"], units=("seconds", "steps"))
    command = f"python benchmarks/recipes_of_others.py {chosen.data}"
    place, table = chosen.out / chosen.data / "others", chosen.tables / "recipes_of_others.csv"
    bench = Bench(task, chosen.data, place, table, command, budget)
    todo = [chosen.only] if chosen.only else list(RECIPES)
    if chosen.dry_run:
        for name in todo:
            print(f"{name:<16} {len(cells_of(bench, name))} cells of {budget} each")
        return
    for cell in (cell for name in todo for cell in cells_of(bench, name)):
        enter(bench, load_cell(place / "cells", name_of(bench, cell)) or measure(bench, cell))
    judge(bench, chosen.tables / "recipes_of_others_verdicts.csv")


def cells_of(bench: Bench, recipe: str) -> list[Planned]:
    """Return the cells of a recipe: on every draw of labels that our comparison has."""
    asked = PARTS[bench.data]["random"]
    units = make_units(
        given=bench.task.dataset.splits_given,
        draws=asked["seeds"],
        pretraining_seeds=asked["pretraining_seeds"],
        seed=0,
        own_labels=False,
    )
    drawn = dict.fromkeys((unit.split, draw) for unit in units for draw in unit.draws)
    return [Planned(recipe, shots, *pair) for shots in asked["labels"] for pair in drawn]


def name_of(bench: Bench, cell: Planned) -> str:
    """Return the name under which a cell is kept."""
    task = bench.task.with_split(cell.split)
    about = (test_key(task), bench.budget, task.pictures.size)
    key = stream(0, *map(str, about)) % 2**32
    return f"{cell.recipe}-{cell.shots}-{cell.split}-{cell.draw}-{key:08x}"


def measure(bench: Bench, cell: Planned) -> dict[str, Any]:
    """Train and score a cell, keep it, and return its row."""
    task, recipe = bench.task.with_split(cell.split), RECIPES[cell.recipe]
    rows = task.dataset.visible(cell.shots, cell.draw)
    steps = steps_of(bench, cell.recipe, task, rows)
    seed = stream(0, cell.recipe, cell.shots, cell.split, cell.draw) % 2**31
    meter = Meter(task.device)
    model, seen = fit(task, recipe, rows, steps, seed)
    cost = meter.read() + Cost(steps, seen)
    test = task.dataset.rows("test")
    shares = say(task, recipe, model, test)
    found = {"labels": len(rows), **task.goal.point(test, shares), **paid(Cost(), cost)}
    streams = Streams(cell.split, cell.draw, None, seed)
    row = {"id": name_of(bench, cell), **cell_row(cell.recipe, cell.shots, streams, found)}
    scores = task.goal.image_scores(test, shares, metric_of(bench))
    save_cell(bench.place / "cells", row, scores, task.goal.predicted(shares))
    print(f"{row['id']}: {row[metric_of(bench)]:.1%} after {steps:,} steps", flush=True)
    return row


def enter(bench: Bench, row: dict[str, Any]) -> None:
    """Write the row of a cell into the table, unless it is there."""
    if row["id"] not in {kept["id"] for kept in rows_of(bench.table)}:
        about = {"data": bench.data, **made(f"{bench.command} --only {row['arm']}")}
        kept = as_kept({**row, **row["streams"], **about}, COLUMNS)
        replace(bench.table, COLUMNS, [kept], SAME)


def metric_of(bench: Bench) -> str:
    """Return the metric of the verdicts."""
    return str(PARTS[bench.data]["random"].get("metric", "accuracy"))


def steps_of(bench: Bench, name: str, task: Task, rows: np.ndarray) -> int:
    """Return how many steps the time holds, measured once for every recipe and number of labels."""
    budget, path = bench.budget, bench.place / "plan.json"
    if budget.unit == "steps":
        return int(budget.value)
    key = f"{name}, {len(rows)} labels, {budget}"
    plan: dict[str, int] = read_json(path) if path.exists() else {}
    if key not in plan:
        times: list[float] = []
        steps = WARM + BURSTS * TIMED
        fit(task, RECIPES[name], rows, steps, 0, lambda: times.append(time.perf_counter()))
        pace = float(np.diff(times[WARM - 1 :]).reshape(BURSTS, TIMED).mean(1).min())
        plan[key] = budget.steps(images=0, batch_size=0, seconds_per_step=pace)
        write_atomic(path, to_json(plan) + "\n")
    return plan[key]


def fit(
    task: Task,
    recipe: Recipe,
    rows: np.ndarray,
    steps: int,
    seed: int,
    watch: Callable[[], None] = lambda: None,
) -> tuple[nn.Module, int]:
    """Train a network by a recipe on the labels of some rows.

    Parameters
    ----------
    watch : callable
        Called after every step.

    Returns
    -------
    tuple of (nn.Module, int)
        The network, and how many images it saw.
    """
    size, classes, seen = task.pictures.size, task.num_classes, 0
    once, view = recipe.once(size), recipe.view(size)
    images = [once(picture(task, int(row))) for row in rows]
    labels = torch.from_numpy(task.dataset.labels[rows])
    fresh_seed(seed, "others")
    model = recipe.network(classes).to(task.device).to(memory_format=torch.channels_last)
    optimizer = recipe.optimizer(model)
    places = batches(len(rows), recipe.batch, whole=recipe.whole)
    for step in range(steps):
        recipe.rate(optimizer, step / steps)
        batch = next(places)
        x = torch.stack([view(images[place]) for place in batch.tolist()]).to(task.device)
        x, y = recipe.together(x, labels[batch].to(task.device), classes)
        loss = F.cross_entropy(model(x), y, label_smoothing=recipe.smoothing)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seen += len(x)
        watch()
    return model.eval(), seen


def batches(count: int, size: int, *, whole: bool) -> Iterator[Tensor]:
    """Yield the places of batch after batch, in a new order in every epoch."""
    size = min(size, count)
    while True:
        order = torch.randperm(count)
        for start in range(0, count - size + 1 if whole else count, size):
            yield order[start : start + size]


def picture(task: Task, row: int) -> Tensor:
    """Return an image as its file has it, ``(3, H, W)`` uint8."""
    found = task.dataset.source.read(row)
    pixels = decode(found, 3) if isinstance(found, bytes) else found
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).expand(3, -1, -1)


@torch.inference_mode()
def say(task: Task, recipe: Recipe, model: nn.Module, rows: np.ndarray) -> np.ndarray:
    """Return what a network says of images, ``(n, num_classes)``."""
    view, parts = recipe.test(task.pictures.size), []
    for start in range(0, len(rows), 64):
        x = torch.stack([view(picture(task, int(row))) for row in rows[start : start + 64]])
        parts.append(model(x.to(task.device)).softmax(1).cpu().numpy())
    return np.concatenate(parts)


# ---- verdicts ----------------------------------------------------------------------------------


def judge(bench: Bench, table: Path) -> None:
    """Print what whole recipes reached and, where ours is there, write the verdicts."""
    theirs: dict[str, dict[str, Any]] = {}
    for recipe in RECIPES:
        names = [name_of(bench, cell) for cell in cells_of(bench, recipe)]
        rows = [row for name in names if (row := load_cell(bench.place / "cells", name))]
        if len(rows) == len(names):
            theirs |= {row["id"]: row for row in rows}
    if not theirs:
        return
    ours, images = read_ours(bench)
    images |= image_scores(list(theirs.values()), bench.place / "cells")
    looks = count_looks(bench, [*theirs, *(cell["id"] for cell in ours)])
    rows = [row for row in rows_of(bench.table) if row["id"] in theirs]
    replace(bench.table, COLUMNS, [{**row, "looks_at_test": looks} for row in rows], SAME)
    test, train = (len(bench.task.dataset.rows(split)) for split in ("test", "train"))
    cells = [*ours, *theirs.values()]
    design = design_of(cells, overlap=test / train)
    names, metric = list(dict.fromkeys(cell["arm"] for cell in cells)), metric_of(bench)
    for row in curves(cells, names, design=design, metric=metric, images=images):
        print(f"{row['arm']:>20} {row['shots']:>4} labels a class  {row['mean']:.1%}")
    if not ours:
        print("no verdicts yet: they want few_labels.py's comparison of random labels")
        return
    found = verdicts(cells, ours, images, metric, design)
    about = {"data": bench.data, "looks_at_test": looks, **made(bench.command)}
    kept = [
        as_kept({**row, **{f"sd_{k}": row["components"][k] for k in SPREADS}, **about}, VERDICTS)
        for row in found
    ]
    replace(table, VERDICTS, kept, ("data",))
    for row in found:
        print(("declared: " if row["primary"] else "") + sentence(row))


def read_ours(bench: Bench) -> tuple[list[dict[str, Any]], dict[tuple[str, int], Any]]:
    """Return the cells of our comparisons that have ended, every arm once, and their images."""
    cells: list[dict[str, Any]] = []
    images: dict[tuple[str, int], Any] = {}
    for part in ("random", "unlabelled"):
        folder = bench.place.parent / part
        if (folder / "comparison.json").exists():
            known = {cell["arm"] for cell in cells}
            found = read_json(folder / "comparison.json")["cells"]
            new = [cell for cell in found if cell["arm"] not in known and not cell["failed"]]
            cells += new
            images |= image_scores(new, folder / "cells")
    return cells, images


def image_scores(cells: Sequence[dict[str, Any]], folder: Path) -> dict[tuple[str, int], Any]:
    """Return the mean score of each test image, by arm and number of labels, and by split."""
    parts: dict[tuple[str, int], dict[int, list[np.ndarray]]] = {}
    for cell in cells:
        scores = load_scores(folder, cell["id"])
        if scores is not None:
            splits = parts.setdefault((cell["arm"], cell["shots"]), {})
            splits.setdefault(cell["streams"]["split"], []).append(scores)
    return {
        key: {split: np.mean(some, axis=0) for split, some in splits.items()}
        for key, splits in parts.items()
    }


def verdicts(
    cells: Sequence[dict[str, Any]],
    ours: Sequence[dict[str, Any]],
    images: Images,
    metric: str,
    design: Any,
) -> list[dict[str, Any]]:
    """Return the verdict on each arm of ours against each recipe.

    Declared beforehand: our first arm against the first recipe at the fewest labels. All others
    are corrected for their number.
    """
    arms = list(dict.fromkeys(cell["arm"] for cell in ours))
    recipes = [name for name in RECIPES if name in {cell["arm"] for cell in cells}]
    declared = {"arm": arms[0], "shots": min(cell["shots"] for cell in ours), "metric": metric}
    found: list[dict[str, Any]] = []
    for recipe in recipes:
        against = {**declared, "baseline": recipe}
        found += verdict_table(cells, against, arms, recipe, design=design, images=images)
    for row in found:
        row["primary"] = row["primary"] and row["baseline"] == next(iter(RECIPES))
    return adjust(found)


def count_looks(bench: Bench, shown: list[str]) -> int:
    """Count a look at the test split, unless the same cells were shown before."""
    path = bench.place / "looks.json"
    if path.exists():
        before = read_json(path)
        if before["cells"] == sorted(shown):
            return int(before["looks"])
    looks = look(test_key(bench.task), f"benchmarks/recipes_of_others.py {bench.data}")
    write_atomic(path, to_json({"cells": sorted(shown), "looks": looks}) + "\n")
    return looks


if __name__ == "__main__":
    main()
