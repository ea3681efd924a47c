"""The grid of a comparison: every cell by its name, before anything is computed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewlabels.core.errors import FewlabelsError, UsageError
from fewlabels.core.seeding import stream
from fewlabels.pipeline.keys import data_key
from fewlabels.pipeline.task import Task
from fewlabels.study.arms import Arm, headline
from fewlabels.study.given import digest
from fewlabels.study.plan import (
    OWN_LABELS,
    Steps,
    Streams,
    Unit,
    cell_id,
    training_seed,
)
from fewlabels.study.settings import Settings, label_count
from fewlabels.training.progress import Reporter

Place = tuple[Unit, int, int, str]  # unit, draw, shots, name of the arm


@dataclass(frozen=True, slots=True, eq=False)
class PlannedCell:
    """One cell that is to be computed.

    Attributes
    ----------
    id : str
        The hash of everything that can change its result; names its files.
    arm : Arm
    shots : int
    unit : Unit
        The first one it belongs to; cells that no pre-training seed touches are shared.
    streams : Streams
    """

    id: str
    arm: Arm
    shots: int
    unit: Unit
    streams: Streams

    def describe(self) -> dict[str, Any]:
        """Return what tells people and scripts which cell it is."""
        streams = asdict(self.streams)
        return {"id": self.id, "arm": self.arm.name, "shots": self.shots, "streams": streams}


@dataclass(frozen=True, slots=True, eq=False)
class PlannedChoice:
    """One choice of the best arm, on the labels of one draw, and the cells it is between."""

    unit: Unit
    draw: int
    shots: int
    cells: tuple[PlannedCell, ...]

    @property
    def path(self) -> str:
        """Return the name of its file in the folder of the comparison."""
        unit = self.unit
        return f"choices/{unit.split}-{unit.pretraining}-{self.draw}-{self.shots}.json"

    @property
    def fold_seed(self) -> int:
        """Return the seed of the folds, the same for every arm."""
        return stream(self.draw, "folds") % 2**32


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The cells of a comparison in their order, each once, and the choices between them."""

    cells: list[PlannedCell]
    choices: list[PlannedChoice]

    def named(self, names: Sequence[str], out: Path) -> list[PlannedCell]:
        """Return the cells with these names.

        Raises
        ------
        UsageError
            A name is not in the plan.
        """
        known = {cell.id: cell for cell in self.cells}
        strange = [name for name in names if name not in known]
        if strange:
            raise UsageError(
                "usage.cell",
                f"{', '.join(strange)}: no cell of the comparison in {out}, which has "
                f"{len(known)} (its name holds data, settings, steps, device and version)",
                f"fewlabels compare DATA ... --out {out} --list-cells",
            )
        return [known[name] for name in dict.fromkeys(names)]


@dataclass(eq=False)
class Comparison:
    """A comparison under way: its task, arms, units, steps and folder; then what was found.

    Attributes
    ----------
    cells : list of dict
        Rows of the cells that are there, failed ones included.
    missing : list of dict
        Cells that are not, as `PlannedCell.describe`.
    choices : list of dict
        What was chosen on which labels.
    warnings : list of str
    errors : list of FewlabelsError
        Why cells failed in this process.
    """

    task: Task
    settings: Settings
    arms: list[Arm]
    units: list[Unit]
    steps: Steps
    folder: Path
    reporter: Reporter
    cells: list[dict[str, Any]] = field(default_factory=list)
    missing: list[dict[str, Any]] = field(default_factory=list)
    choices: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    errors: list[FewlabelsError] = field(default_factory=list)
    _tasks: dict[tuple[str, int], Task] = field(default_factory=dict, repr=False)

    @property
    def shots(self) -> tuple[int, ...]:
        """Return the numbers of labels a class; `OWN_LABELS` alone without ``--labels``."""
        return self.settings.labels or (OWN_LABELS,)

    @property
    def declared(self) -> dict[str, Any]:
        """Return the verdict declared before the run; of one arm, that it has no baseline."""
        return {
            "arm": headline(self.arms, self.settings.baseline),
            "baseline": self.settings.baseline if len(self.arms) > 1 else None,
            "shots": min(self.shots),
            "metric": self.settings.metric,
        }

    @cached_property
    def grid(self) -> Grid:
        """Return every cell and choice; no network is trained or applied for it."""
        return _lay_out(self)

    def own(self, unit: Unit) -> Task:
        """Return the data under the split of a unit."""
        key = ("", unit.split)
        if key not in self._tasks:
            self._tasks[key] = self.task.with_split(unit.split)
        return self._tasks[key]

    def task_of(self, arm: Arm, unit: Unit) -> Task:
        """Return the data under the split of a unit, as an arm's classifier takes them.

        That is the format of a given start, but where its weights are carried into a network
        for the comparison's own images.
        """
        if arm.given is None or arm.transfer == "structure":
            return self.own(unit)
        key = (arm.name, unit.split)
        if key not in self._tasks:
            self._tasks[key] = arm.given.task_of(unit.split)
        return self._tasks[key]

    def rows(self, task: Task, shots: int, draw: int) -> np.ndarray:
        """Return the visible labelled rows of a draw."""
        return task.dataset.visible(shots or None, draw)

    def labelled(self, unit: Unit) -> np.ndarray:
        """Return every row whose label any cell of a unit may use."""
        task = self.own(unit)
        drawn = [self.rows(task, max(self.shots), draw) for draw in unit.draws]
        return np.unique(np.concatenate(drawn))


def _lay_out(comparison: Comparison) -> Grid:
    at = dict(_cells(comparison))
    first: dict[str, PlannedCell] = {}
    for cell in at.values():
        first.setdefault(cell.id, cell)
    choices = [
        PlannedChoice(
            unit,
            draw,
            shots,
            tuple(first[at[unit, draw, shots, arm.name].id] for arm in comparison.arms),
        )
        for unit, draw in _draws_to_choose_on(comparison)
        for shots in comparison.shots
    ]
    return Grid(list(first.values()), choices)


def _cells(comparison: Comparison) -> Iterator[tuple[Place, PlannedCell]]:
    """Yield every cell under each place in the grid that it fills."""
    weights = {arm.name: _digest(arm) for arm in comparison.arms}
    keys: dict[int, str] = {}
    for unit, arm in itertools.product(comparison.units, comparison.arms):
        task = comparison.task_of(arm, unit)
        if id(task) not in keys:
            keys[id(task)] = data_key(task)
        for shots, draw in itertools.product(comparison.shots, unit.draws):
            kind = arm.at(shots)
            streams = _streams(kind, shots, unit, draw)
            steps = _steps(comparison, kind, task, shots)
            name = cell_id(
                task, keys[id(task)], kind, shots, streams, steps, weights=weights[arm.name]
            )
            yield (unit, draw, shots, arm.name), PlannedCell(name, kind, shots, unit, streams)


def _digest(arm: Arm) -> str:
    """Return the hash of the weights that an arm is given, or nothing."""
    if arm.given is None:
        return ""
    # The device that computes need not be here.
    here = replace(arm.given, task=replace(arm.given.task, device=torch.device("cpu")))
    return digest(here.backbone()[1])


def _streams(arm: Arm, shots: int, unit: Unit, draw: int) -> Streams:
    seeded = arm.start in ("pretrained", "random")
    pretraining = unit.pretraining if seeded else None
    return Streams(unit.split, draw, pretraining, training_seed(arm, shots, unit, draw))


def _steps(comparison: Comparison, arm: Arm, task: Task, shots: int) -> dict[str, int]:
    """Return the steps that a cell's name tells of."""
    steps, fit = comparison.steps, 0
    if arm.trains:
        fit = steps.of(arm, label_count(task, shots), task)
    return {**({} if not arm.method else steps.pretrain), "fit": fit}


def _draws_to_choose_on(comparison: Comparison) -> list[tuple[Unit, int]]:
    """Return the units and draws on whose labels the best arm is chosen."""
    if comparison.settings.select == "none":
        return []
    every = [(unit, draw) for unit in comparison.units for draw in unit.draws]
    return every if comparison.settings.select == "all" else every[:1]
