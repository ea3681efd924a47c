"""Run a comparison: unit by unit, encoder by encoder, cell by cell, going on where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fewlabels.core.errors import DataError, FewlabelsError, UsageError, unknown
from fewlabels.pipeline.folders import begin_folder
from fewlabels.pipeline.goals import Classes, Numbers
from fewlabels.pipeline.keys import data_key
from fewlabels.pipeline.parts import refuse_imbalance
from fewlabels.pipeline.task import DataOptions, Task, open_task
from fewlabels.results.files import read_json, to_json, write_atomic
from fewlabels.results.runfolder import RunFolder
from fewlabels.study.arms import DEFAULT_ARMS, Arm, headline, parse_arms
from fewlabels.study.cells import load_cell, save_cell, score_cell
from fewlabels.study.encoders import Encoder, open_encoder, release, start_key, task_of
from fewlabels.study.given import open_given
from fewlabels.study.plan import (
    OWN_LABELS,
    Steps,
    Streams,
    Unit,
    cell_id,
    make_units,
    measure_costs,
    settle_steps,
    training_seed,
)
from fewlabels.study.selection import choose
from fewlabels.training.durations import parse_duration
from fewlabels.training.progress import Reporter
from fewlabels.transfer.imbalance import IMBALANCE, head_remedy


def metric_of(metric: str | None, target: str | None) -> str:
    """Return the metric of the verdicts: as asked for, else accuracy, or the squared error."""
    return metric or ("accuracy" if target is None else "mse")


@dataclass(frozen=True, slots=True)
class Settings:
    """What is compared, as the user said it."""

    arms: tuple[str, ...] = DEFAULT_ARMS
    baseline: str = "scratch"
    labels: tuple[int, ...] | None = None
    seeds: int = 5
    pretraining_seeds: int = 2
    seed: int = 0
    budget: str = "60s"
    metric: str = "accuracy"
    policy: str = "auto"
    backbone: str = "auto"
    device: str = "auto"
    select: str = "first"  # choose the best arm on the "first" draw, on "all", or on "none"
    imbalance: str = "none"


@dataclass(eq=False)
class Comparison:
    """A comparison under way: its task, arms, units and folder."""

    task: Task
    settings: Settings
    arms: list[Arm]
    units: list[Unit]
    steps: Steps
    folder: Path
    reporter: Reporter
    cells: list[dict[str, Any]] = field(default_factory=list)
    choices: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def shots(self) -> tuple[int, ...]:
        """Return the numbers of labels a class; `OWN_LABELS` alone without ``--labels``."""
        return self.settings.labels or (OWN_LABELS,)

    @property
    def declared(self) -> dict[str, Any]:
        """Return the verdict declared before the run."""
        return {
            "arm": headline(self.arms, self.settings.baseline),
            "baseline": self.settings.baseline,
            "shots": min(self.shots),
            "metric": self.settings.metric,
        }

    def run(self) -> None:
        """Compute every cell that is not there yet."""
        for unit in self.units:
            task = self.task.with_split(unit.split)
            encoders: dict[str, Encoder] = {}
            labelled = self._labelled(task, unit)
            for arm in self.arms:
                key = start_key(arm, task)
                if key not in encoders:
                    encoders[key] = open_encoder(
                        task, arm, unit, self.steps, labelled, self.folder, self.reporter
                    )
                    if encoders[key].warning:
                        self.warnings.append(f"{arm.name}: {encoders[key].warning}")
            by_arm = {arm.name: encoders[start_key(arm, task)] for arm in self.arms}
            self._fill_cells(task, unit, by_arm)
            self._choose(task, unit, by_arm)
            for encoder in encoders.values():
                release(encoder)

    def rows(self, task: Task, shots: int, draw: int) -> np.ndarray:
        """Return the visible labelled rows of a draw."""
        return task.dataset.visible(shots or None, draw)

    def _labelled(self, task: Task, unit: Unit) -> np.ndarray:
        drawn = [self.rows(task, max(self.shots), draw) for draw in unit.draws]
        return np.unique(np.concatenate(drawn))

    def _fill_cells(self, task: Task, unit: Unit, encoders: dict[str, Encoder]) -> None:
        todo = list(self._planned(task, unit, encoders))
        title = f"cells (split {unit.split}, seed {unit.pretraining})"
        with self.reporter.stage(title, len(todo), what="cells") as advance:
            for done, (arm, shots, streams, name) in enumerate(todo, 1):
                row = load_cell(self.folder / "cells", name)
                if row is None:
                    row = self._cell(task, arm, shots, streams, name, encoders[arm.name])
                self.cells.append(row)
                advance(done)

    def _planned(
        self, own: Task, unit: Unit, encoders: dict[str, Encoder]
    ) -> Iterator[tuple[Arm, int, Streams, str]]:
        known = {cell["id"] for cell in self.cells}
        tasks = {id(task): task for task in [own, *(e.task for e in encoders.values())]}
        keys = {place: data_key(task) for place, task in tasks.items()}
        for arm in self.arms:
            task = task_of(arm, encoders[arm.name], own)
            key = keys[id(task)]
            for shots in self.shots:
                for draw in unit.draws:
                    starts = arm.start in ("pretrained", "random")
                    streams = Streams(
                        unit.split,
                        draw,
                        unit.pretraining if starts else None,
                        training_seed(arm, shots, unit, draw),
                    )
                    steps = {
                        **({} if not arm.method else self.steps.pretrain),
                        "fit": self._fit_steps(arm, task, shots),
                    }
                    weights = encoders[arm.name].digest
                    name = cell_id(task, key, arm, shots, streams, steps, weights=weights)
                    # Cells that no pre-training seed touches are shared by all units of a split.
                    if name not in known:
                        yield arm, shots, streams, name

    def _fit_steps(self, arm: Arm, task: Task, shots: int) -> int:
        if not arm.trains:
            return 0
        table = self.steps.scratch if arm.at_full_rate else self.steps.finetune
        return table[str(label_count(task, shots))]

    def _cell(
        self,
        own: Task,
        arm: Arm,
        shots: int,
        streams: Streams,
        name: str,
        encoder: Encoder,
    ) -> dict[str, Any]:
        task = task_of(arm, encoder, own)
        rows = self.rows(task, shots, streams.labels)
        test = task.dataset.rows("test")
        try:
            row, predictions = score_cell(task, arm, shots, streams, encoder, rows, self.steps)
        except FewlabelsError as error:
            self.reporter.say(f"cell failed: {arm.name} at {shots} labels: {error}")
            return failed_cell(task, arm, shots, streams, name, str(error.message))
        row = {"id": name, **row}
        goal = task.goal
        scores = goal.image_scores(test, predictions, self.settings.metric)
        save_cell(self.folder / "cells", row, scores, goal.predicted(predictions))
        return row

    def _choose(self, task: Task, unit: Unit, encoders: dict[str, Encoder]) -> None:
        """Choose the best arm on the labels of each draw, or of the first one."""
        every = self.settings.select == "all"
        if self.settings.select == "none" or (self.choices and not every):
            return
        for draw in unit.draws if every else unit.draws[:1]:
            for shots in self.shots:
                path = f"choices/{unit.split}-{unit.pretraining}-{draw}-{shots}.json"
                place = self.folder / path
                if place.exists():
                    found = read_json(place)
                else:
                    rows = self.rows(task, shots, draw)
                    if not every:
                        self.reporter.say(
                            f"choosing the best arm on the {len(rows)} labelled images"
                        )
                    found = choose(task, self.arms, encoders, rows, self.steps, seed=draw)
                    found |= {"shots": shots, "split": unit.split, "draw": draw}
                    write_atomic(place, to_json(found) + "\n")
                self.choices.append(found)


def label_count(task: Task, shots: int) -> int:
    """Return how many labelled images a number of shots comes to."""
    if shots == OWN_LABELS:
        return len(task.dataset.visible(None, 0))
    return task.goal.label_count(shots)


def failed_cell(
    task: Task, arm: Arm, shots: int, streams: Streams, name: str, why: str
) -> dict[str, Any]:
    """Return the row of a cell that could not be computed."""
    costs = ("seconds", "steps", "images_seen", "peak_memory_mb")
    empty = dict.fromkeys([*task.goal.metrics, *costs])
    return {
        "id": name,
        "arm": arm.name,
        "shots": shots,
        "seed": streams.labels,
        "streams": asdict(streams),
        **empty,
        "failed": why,
    }


def prepare(options: DataOptions, settings: Settings, reporter: Reporter) -> tuple[Task, list[Arm]]:
    """Open the data and read the arms; refuse what cannot be compared.

    Raises
    ------
    DataError, UsageError
        For data without labels or test images, and settings out of range.
    """
    arms = parse_arms(list(settings.arms), target=options.target)
    if settings.baseline not in settings.arms:
        raise UsageError(
            "usage.baseline",
            f"the baseline {settings.baseline!r} is not among the arms",
            f"--arms {settings.baseline},{','.join(settings.arms)}",
        )
    known = (Classes if options.target is None else Numbers).metrics
    if settings.metric not in known:
        raise unknown("metric", settings.metric, known)
    if settings.imbalance not in IMBALANCE:
        raise unknown("imbalance", settings.imbalance, IMBALANCE)
    refuse_imbalance(options.target, settings.imbalance)
    arms = [with_imbalance(arm, settings.imbalance) for arm in arms]
    if settings.backbone != "auto":
        arms = [with_backbone(arm, settings.backbone) for arm in arms]
    task = open_task(options, policy=settings.policy, device=settings.device, reporter=reporter)
    task.goal.require()
    if not len(task.dataset.rows("test")):
        raise DataError(
            "data.test",
            "no labelled image fell into the test split, so nothing could be proved",
            "label more images, or give a test/ folder; fewlabels pretrain and finetune make a "
            "classifier without the proof",
        )
    if settings.labels:
        task.goal.refuse_shortage(max(settings.labels))
    return task, [open_arm(arm, options, settings, reporter) for arm in arms]


def open_arm(arm: Arm, options: DataOptions, settings: Settings, reporter: Reporter) -> Arm:
    """Return the arm with its given start opened; any other arm as it is."""
    if arm.source is None:
        return arm
    given = open_given(
        arm.source, options, policy=settings.policy, device=settings.device, reporter=reporter
    )
    return replace(arm, given=given, backbone=given.start.backbone_name)


def lay_out(task: Task, settings: Settings) -> list[Unit]:
    """Return the units: which pre-training seed meets which split and which label draws."""
    return make_units(
        given=task.dataset.splits_given,
        draws=settings.seeds,
        pretraining_seeds=settings.pretraining_seeds,
        seed=settings.seed,
        own_labels=settings.labels is None,
    )


def with_backbone(arm: Arm, backbone: str) -> Arm:
    """Return the arm on the backbone named for all, unless it names its own."""
    keep = arm.start in ("pixels", "given") or arm.backbone != "auto"
    return arm if keep else replace(arm, backbone=backbone)


def with_imbalance(arm: Arm, imbalance: str) -> Arm:
    """Return the arm with what it can do about classes of unequal size."""
    known = imbalance if arm.trains else head_remedy(arm.transfer, imbalance)
    return replace(arm, imbalance=known)


def cell_plan(task: Task, arms: Sequence[Arm], settings: Settings) -> Steps:
    """Settle the steps of a comparison whose budget is that of one cell."""
    counts = label_counts(task, settings)
    budget = parse_duration(settings.budget)
    return settle_steps(task, arms, measure_costs(task, arms, counts), budget)


def label_counts(task: Task, settings: Settings) -> list[int]:
    """Return the numbers of labelled images that will occur."""
    return sorted({label_count(task, shots) for shots in settings.labels or (OWN_LABELS,)})


def begin(
    run: RunFolder,
    task: Task,
    arms: list[Arm],
    units: list[Unit],
    settings: Settings,
    settle: Callable[[], Steps],
    config: dict[str, Any],
    reporter: Reporter,
) -> Comparison:
    """Settle or read the plan, compute all cells, and return the comparison.

    Parameters
    ----------
    settle : callable
        Makes the plan where an earlier start in this folder has left none.

    Raises
    ------
    UsageError, DataError
        The folder was begun with another configuration, or with other data.
    """
    begin_folder(run, task, config)
    plan = run.path / "plan.json"
    steps = Steps(**read_json(plan)) if plan.exists() else settle()
    run.write_json("plan.json", asdict(steps))
    comparison = Comparison(task, settings, arms, units, steps, run.path, reporter)
    said = comparison.declared
    reporter.say(
        f"declared before the run: {said['arm']} against {said['baseline']} at "
        f"{task.goal.said(said['shots'])}, by {said['metric']}"
    )
    began = time.perf_counter()
    comparison.run()
    reporter.say(f"all {len(comparison.cells)} cells done in {time.perf_counter() - began:.0f} s")
    return comparison
