"""What ten minutes of one data-centre GPU reach on CIFAR-10 with few suggested labels.

    python benchmarks/gpu.py --data cifar10.tar.xz
    python benchmarks/gpu.py --dry-run        # all of it on digits, on a CPU, in seconds

Nothing external: an encoder is pre-trained on the training images without labels; 10, 40, 250 and
1,000 of them in all are suggested for labelling as `fewlabels suggest` does, each number keeping
the images of the one before; a classifier is fine-tuned on these labels and, by consistency, on
all training images. A cell is the opening of the data, the pre-training, the suggestion and one
fine-tune, and ``seconds`` holds all of them. Several numbers of labels share the pre-training, and
the time that is left up to ``--limit``. No validation labels: fixed settings, the last weights.

Every row is written to the table as soon as it is there: accuracy on the whole test split with its
95 % Wilson interval, and that of the frozen features. Rows that the table holds are not measured
again, nor is an encoder trained again that lies in ``--out``: the same command goes on where it
was cut.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import HERE, MADE, made
from record import replace as replace_rows
from torch import nn

from fewlabels.core.errors import FewlabelsError
from fewlabels.core.seeding import stream
from fewlabels.core.types import Backbone, Method
from fewlabels.data.loader import Batches
from fewlabels.evaluation.intervals import wilson
from fewlabels.methods import BATCH_SIZES
from fewlabels.models.classifier import save_model
from fewlabels.pipeline.frozen import feature_space, features, fit_head, shares_of
from fewlabels.pipeline.guessing import propagate
from fewlabels.pipeline.stages import finetune, finetune_pace, new_method, on_device, score
from fewlabels.pipeline.starts import open_model
from fewlabels.pipeline.task import DataOptions, Task, open_task
from fewlabels.results.environment import describe
from fewlabels.results.files import write_atomic
from fewlabels.study.suggest import auto_strategy
from fewlabels.training.durations import Duration, parse_duration
from fewlabels.training.loop import Plan, Watch, train
from fewlabels.training.measuring import calibrate
from fewlabels.training.progress import Reporter
from fewlabels.transfer.features import Space
from fewlabels.transfer.parameters import PRETRAINED
from fewlabels.transfer.picks import BY_DOUBT, STRATEGIES
from fewlabels.transfer.pool import Pool, choose
from fewlabels.transfer.unlabelled import PSEUDO, UNLABELLED, with_unlabelled

WANTED = {10: 0.70, 40: 0.80, 250: 0.86, 1000: 0.90}  # labels in all, and the accuracy hoped for
SAME = ("shots", "seed", "draw", "method", "loss")
COLUMNS = (
    *("shots", "seed", "draw", "accuracy", "low", "high", "frozen", "classes_found"),
    *("method", "backbone", "loss", "pretrain_steps", "finetune_steps", "pretrain_seconds"),
    *("finetune_seconds", "seconds", "images_seen", "device", *MADE),
)
FEW = 25  # labels a class: with fewer, the head learns what neighbours say of other images as well
GUESSED = 5_000  # of those other images
SCORING = 8.0  # seconds kept for what comes before and after a fine-tune


class Clock:
    """Seconds since the start, and where the script is."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def spent(self) -> float:
        """Return the seconds that are gone."""
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        """Tell where the script is."""
        sys.stderr.write(f"{self.spent:5.0f} s  {text}\n")
        sys.stderr.flush()

    def watch(self, title: str, steps: int) -> Watch:
        """Return what tells of a training, every tenth of it."""
        every = max(1, steps // 10)

        def told(step: int, metrics: dict[str, float]) -> None:
            if step % every == 0:
                values = ", ".join(f"{name} {value:.3g}" for name, value in metrics.items())
                self.say(f"{title}: {step:,} of {steps:,}, {values}")

        return told


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """A pre-trained encoder, and what it took."""

    encoder: Backbone
    steps: int
    images: int
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """The data, what was asked for, and the time; `opened` are the seconds that opening took."""

    task: Task
    chosen: argparse.Namespace
    clock: Clock
    opened: float


@dataclass(slots=True, eq=False)
class Cells:
    """What all numbers of labels of an encoder share, and what is left to do.

    `pace` are the seconds of a step of a fine-tune, None where none was taken yet, and `left` is
    how many fine-tunes are still to come, those of other encoders included.
    """

    seed: int
    draw: int
    start: Start
    space: Space
    picks: dict[int, np.ndarray]
    test: torch.Tensor
    shared: float
    left: int
    pace: float | None = None


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the table lacks."""
    clock, chosen = Clock(), options(arguments)
    if not chosen.dry_run and not chosen.table.exists() and (HERE / "gpu.csv").exists():
        shutil.copyfile(HERE / "gpu.csv", chosen.table)
    clock.say("opening the data")
    where = DataOptions(chosen.data)
    task = open_task(where, policy="auto", device=chosen.device, reporter=Reporter())
    if task.device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # all batches have one shape
        torch.set_float32_matmul_precision("high")
    bench = Bench(task, chosen, clock, clock.spent)
    kept = type(task.dataset.store).__name__
    clock.say(f"{len(task.dataset.rows('train')):,} training images, {task.device}, {kept}")
    cells = [(seed, draw) for seed in chosen.seeds for draw in chosen.draws]
    todo = [lacking(chosen, *cell) for cell in cells]
    for place, (cell, shots) in enumerate(zip(cells, todo, strict=True)):
        if shots:
            measure(bench, cell, shots, sum(map(len, todo[place:])))
    tell(chosen.table)


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", default="cifar10", help="folder or archive with train/ and test/")
    add("--dry-run", action="store_true", help="digits, a few steps, on the CPU")
    add("--shots", type=numbers, default=tuple(WANTED), help="labels in all")
    add("--seeds", type=numbers, default=(0,), help="of pre-training")
    add("--draws", type=numbers, default=(0,), help="of suggestion and fine-tune")
    add("--method", choices=BATCH_SIZES, default="simclr")
    add("--backbone", default="resnet18")
    add("--batch", type=int, default=512, help="images a step of pre-training")
    add("--pretrain", default="180s", help="how long, in seconds or steps")
    add("--loss", choices=UNLABELLED[1:], default="freematch")
    add("--labelled", type=int, default=64, help="images a step of fine-tuning")
    add("--ratio", type=int, default=7, help="unlabelled images to each of them")
    add("--tune", help="how long a fine-tune; by default its share of what is left")
    add("--limit", default="515s", help="of the whole but for the start of Python")
    add("--device", default="auto")
    add("--out", type=Path, default=Path("runs/gpu"), help="for encoders and picks")
    add("--table", type=Path, default=HERE / "gpu.csv")
    add("--commit", default="", help="where the code lies outside its repository")
    chosen = parser.parse_args(arguments)
    if chosen.dry_run:
        chosen.data, chosen.backbone, chosen.device = "digits", "tiny", "cpu"
        chosen.batch, chosen.labelled, chosen.ratio = 32, 4, 2
        chosen.pretrain, chosen.limit, chosen.tune = "0.2s", "30s", chosen.tune or "3 steps"
        if chosen.table == HERE / "gpu.csv":
            chosen.table = chosen.out / "dry-run.csv"
    chosen.limit = parse_duration(chosen.limit, units=("seconds",)).value
    for place in (chosen.out, chosen.table.parent):
        place.mkdir(parents=True, exist_ok=True)
    return chosen


def numbers(text: str) -> tuple[int, ...]:
    """Read ``10,40``."""
    return tuple(int(part) for part in text.split(","))


def rows_of(table: Path) -> list[dict[str, str]]:
    """Return the rows of a table, none where there is none."""
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def lacking(chosen: argparse.Namespace, seed: int, draw: int) -> list[int]:
    """Return the numbers of labels that the table has no row for."""
    done = {tuple(row[name] for name in SAME) for row in rows_of(chosen.table)}
    rest = (str(seed), str(draw), chosen.method, chosen.loss)
    return [shots for shots in chosen.shots if (str(shots), *rest) not in done]


def measure(bench: Bench, cell: tuple[int, int], todo: list[int], left: int) -> None:
    """Measure some numbers of labels on one encoder; write each row at once."""
    task, clock = bench.task, bench.clock
    start = pretrained(bench, cell[0])
    began = clock.spent
    space = feature_space(task, start.encoder, np.empty(0, np.int64))
    picks = suggested(bench, space, *cell)
    test = features(task, start.encoder, task.dataset.rows("test"))
    shared = bench.opened + start.seconds + clock.spent - began
    clock.say(f"suggested: {', '.join(str(len(rows)) for rows in picks.values())} labels")
    cells = Cells(*cell, start, space, picks, test, shared, left)
    for shots in todo:
        try:
            row = measured(bench, cells, shots)
        except FewlabelsError as error:  # the others may do better
            clock.say(f"{shots} labels: {error}")
        else:
            write(bench, row)
            clock.say(f"{shots} labels: {row['accuracy']:.1%} (frozen {row['frozen']:.1%})")
        cells.left -= 1


def pretrained(bench: Bench, seed: int) -> Start:
    """Return the encoder of a seed: the one that lies there, or a new one."""
    task, chosen, clock = bench.task, bench.chosen, bench.clock
    name = f"{chosen.method}-{chosen.backbone}-{chosen.batch}-{chosen.pretrain}-{seed}"
    place = chosen.out / name.replace(" ", "")
    if (place / "cost.json").exists():
        clock.say(f"the encoder in {place.name} is taken")
        kept = json.loads((place / "cost.json").read_text())
        return Start(on_device(task, open_model(place).backbone), **kept)
    began, rows = clock.spent, task.dataset.pretraining_rows()
    store, size = task.dataset.store, min(chosen.batch, len(rows))
    batches = Batches(store, rows, size, seed=stream(seed, "batches"), device=task.device)

    def build() -> Method:
        return scaled(new_method(task, chosen.method, chosen.backbone, seed), chosen)

    pace = calibrate(build, batches, Plan(1_000, 0, task.bf16), task.device)
    budget = parse_duration(chosen.pretrain, units=("seconds", "steps"))
    steps = budget.steps(images=len(rows), batch_size=size, seconds_per_step=pace)
    clock.say(f"{chosen.method}: {steps:,} steps of {size} images, {1000 * pace:.1f} ms each")
    method, watch = build(), clock.watch(chosen.method, steps)
    plan = Plan(steps, stream(seed, "pretrain"), task.bf16)
    trained = train(method, batches, plan, device=task.device, watch=watch)
    cost: dict[str, Any] = {
        "steps": steps,
        "images": trained.images_seen,
        "seconds": clock.spent - began,
    }
    short = store.short_side
    save_model(place / "model", method.encoder, chosen.backbone, task.pictures, short_side=short)
    write_atomic(place / "cost.json", json.dumps(cost))  # last: then the encoder is whole
    return Start(method.encoder, **cost)


def scaled(method: Method, chosen: argparse.Namespace) -> Method:
    """Scale the rates of a method to the batch, by the root, as suits Adam's steps."""
    factor = math.sqrt(chosen.batch / BATCH_SIZES[chosen.method])
    for optimizer in method.optimizers().values():
        for group in optimizer.param_groups:
            group["lr"] *= factor
    return method


def suggested(bench: Bench, space: Space, seed: int, draw: int) -> dict[int, np.ndarray]:
    """Return the rows to label for each number of labels; a larger one keeps those before."""
    task, chosen = bench.task, bench.chosen
    rows = space.rows[: len(space.bank)]
    labelled = np.zeros(len(rows), bool)
    found: dict[int, np.ndarray] = {}
    rng = np.random.default_rng(stream(draw, "picks"))
    # Also those that are not asked for: by that, the others must not change.
    for shots in sorted({*chosen.shots, *(n for n in WANTED if n < max(chosen.shots))}):
        known = rows[labelled]
        strategy, _ = auto_strategy(task, known)
        shares = None
        if strategy in BY_DOUBT:
            head = fit_head(space, known, task.truth[known], task.num_classes, "features")
            shares = shares_of(head, space.features[: len(rows)])
        pool = Pool(space.bank.numpy(), labelled, shares, task.dataset.classes)
        picks = choose(pool, shots - int(labelled.sum()), STRATEGIES[strategy], rng)
        labelled[[pick.place for pick in picks]] = True
        found[shots] = rows[labelled]
    told = {shots: [int(row) for row in rows] for shots, rows in found.items()}
    write_atomic(chosen.out / f"picks-{chosen.method}-{seed}-{draw}.json", json.dumps(told))
    return found


def measured(bench: Bench, cells: Cells, shots: int) -> dict[str, Any]:
    """Fine-tune on the labels suggested, score, and return the row."""
    task, chosen, clock = bench.task, bench.chosen, bench.clock
    rows, space, start = cells.picks[shots], cells.space, cells.start
    began = clock.spent
    opinion = fit_head(space, rows, task.truth[rows], task.num_classes, "features")
    head = first_head(task, space, rows, opinion)
    config = replace(
        with_unlabelled(PRETRAINED, chosen.loss), batch_size=chosen.labelled, ratio=chosen.ratio
    )
    if cells.pace is None:
        cells.pace = finetune_pace(task, start.encoder, rows, head, config)
    steps = steps_of(bench, cells.pace, cells.left)
    clock.say(f"{shots} labels: {steps:,} steps of {1000 * cells.pace:.1f} ms")
    tuned = finetune(
        task,
        start.encoder,
        rows,
        head=head,
        steps=steps,
        seed=stream(cells.seed, "gpu", cells.draw) % 2**31,
        config=config,
        guesses=propagate(task, space, rows) if chosen.loss == PSEUDO else None,
        watch=clock.watch(f"{shots} labels", steps),
    )
    cells.pace = tuned.trained.seconds / steps
    hits = hit(task, score(task, tuned.classifier, task.dataset.rows("test")))
    low, high = wilson(int(hits.sum()), len(hits))
    return {
        "shots": shots,
        "seed": cells.seed,
        "draw": cells.draw,
        "accuracy": round(float(hits.mean()), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "frozen": round(float(hit(task, shares_of(opinion, cells.test)).mean()), 4),
        "classes_found": len(np.unique(task.truth[rows])),
        "method": chosen.method,
        "backbone": chosen.backbone,
        "loss": chosen.loss,
        "pretrain_steps": start.steps,
        "finetune_steps": steps,
        "pretrain_seconds": round(start.seconds),
        "finetune_seconds": round(tuned.trained.seconds),
        "seconds": round(cells.shared + clock.spent - began),
        "images_seen": start.images + tuned.trained.images_seen,
    }


def first_head(task: Task, space: Space, rows: np.ndarray, opinion: nn.Module) -> nn.Module:
    """Return the linear head that a fine-tune starts from.

    With few labels it is fitted on what `opinion`, which asks the neighbours as well, says of
    other training images.
    """
    labels, classes = task.truth[rows], task.num_classes
    if len(rows) < FEW * classes:
        rows = space.rows[: min(GUESSED, len(space.bank))]
        labels = shares_of(opinion, space.features[: len(rows)]).argmax(1)
    return fit_head(space, rows, labels, classes, task.goal.first_head)


def steps_of(bench: Bench, pace: float, left: int) -> int:
    """Return the steps of the next fine-tune: what was asked for, or its share of the time."""
    seconds = (bench.chosen.limit - bench.clock.spent) / left - SCORING
    asked = Duration(max(seconds, pace), "seconds")
    if bench.chosen.tune:
        asked = parse_duration(bench.chosen.tune, units=("seconds", "steps"))
    return asked.steps(images=0, batch_size=0, seconds_per_step=pace)


def hit(task: Task, shares: np.ndarray) -> np.ndarray:
    """Return which test images got their class, ``(n,)`` bool."""
    right: np.ndarray = shares.argmax(1) == task.truth[task.dataset.rows("test")]
    return right


def write(bench: Bench, row: dict[str, Any]) -> None:
    """Add a row to the table."""
    chosen = bench.chosen
    said = f"--method {chosen.method} --loss {chosen.loss} --pretrain '{chosen.pretrain}'"
    about = made(f"python benchmarks/gpu.py {said} --shots {','.join(map(str, chosen.shots))}")
    about["commit"] = chosen.commit or about["commit"]
    device = describe(str(bench.task.device))["device"]
    replace_rows(chosen.table, COLUMNS, [row | {"device": device} | about], SAME)


def tell(table: Path) -> None:
    """Print the table, beside what was hoped for."""
    for row in rows_of(table):
        wanted = WANTED.get(int(row["shots"]))
        beside = "" if wanted is None else f"  wanted {wanted:.0%}"
        named = f"{row['shots']:>5} labels  seed {row['seed']}  draw {row['draw']}  {row['loss']}"
        interval = f"{float(row['low']):.1%} to {float(row['high']):.1%}"
        print(f"{named}  {float(row['accuracy']):.1%} ({interval})  {row['seconds']} s{beside}")


if __name__ == "__main__":
    main()
