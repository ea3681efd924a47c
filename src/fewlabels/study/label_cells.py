"""The cells of a labelling study: pick images, reveal their labels, fit a head, score on test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fewlabels.core.errors import ModelError
from fewlabels.core.seeding import stream
from fewlabels.data.listing import escape
from fewlabels.pipeline.frozen import features, fit_head, shares_of
from fewlabels.pipeline.keys import data_key
from fewlabels.pipeline.task import Task, pick_backbone
from fewlabels.results.files import read_json, to_json, write_atomic
from fewlabels.study.arms import Arm
from fewlabels.study.cells import cell_row, load_cell, paid, save_cell
from fewlabels.study.encoders import Encoder, open_encoder, warning_of
from fewlabels.study.given import digest
from fewlabels.study.plan import Steps, Streams, Unit, hashed
from fewlabels.study.suggest import auto_strategy
from fewlabels.training.cost import Meter
from fewlabels.training.progress import Reporter
from fewlabels.transfer.picks import BY_DOUBT, STRATEGIES, balanced
from fewlabels.transfer.pool import Pick, Pool, Strategy, choose

CLASS_BALANCED = "class_balanced"  # it knows the labels that others have to ask for
ARMS = ("auto", *STRATEGIES, CLASS_BALANCED)


@dataclass(frozen=True, slots=True, eq=False)
class LabelStudy:
    """A labelling study under way.

    Attributes
    ----------
    task : Task
    arm : Arm
        The encoder, and the head on its frozen features.
    strategies : tuple of str
        Of `ARMS`.
    budgets : tuple of int
        Labels in all, rising; the picks for one are kept for the next.
    units : list of Unit
    steps : Steps
        Of the pre-training.
    folder : Path
    reporter : Reporter
    metric : str
    """

    task: Task
    arm: Arm
    strategies: tuple[str, ...]
    budgets: tuple[int, ...]
    units: list[Unit]
    steps: Steps
    folder: Path
    reporter: Reporter
    metric: str = "accuracy"

    def streams(self, unit: Unit, draw: int, strategy: str) -> Streams:
        """Return the random streams of a chain of cells."""
        seeded = self.arm.start in ("pretrained", "random")
        own = stream(draw, "labelling", strategy) % 2**31
        return Streams(unit.split, draw, unit.pretraining if seeded else None, own)


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """One strategy on one draw: its picks go on from budget to budget."""

    unit: Unit
    draw: int
    strategy: str
    names: tuple[str, ...]  # of its cells, one for each budget


def chains(study: LabelStudy, unit: Unit) -> list[Chain]:
    """Return what there is to do with one encoder; nothing is trained or applied for it."""
    key = data_key(_task(study, unit))
    weights = digest(study.arm.given.backbone()[1]) if study.arm.given else ""
    return [
        Chain(unit, draw, strategy, tuple(_names(study, unit, draw, strategy, key, weights)))
        for draw, strategy in itertools.product(unit.draws, study.strategies)
    ]


def _task(study: LabelStudy, unit: Unit) -> Task:
    given = study.arm.given
    return study.task.with_split(unit.split) if given is None else given.task_of(unit.split)


def _names(
    study: LabelStudy, unit: Unit, draw: int, strategy: str, key: str, weights: str
) -> Iterator[str]:
    """Yield the hash that names each cell: of everything that can change its result."""
    arm = study.arm
    backbone = pick_backbone(arm.backbone, study.task)
    about: dict[str, Any] = {
        "data": key,
        "encoder": [arm.start, arm.method, backbone, arm.transfer, weights],
        "streams": asdict(study.streams(unit, draw, strategy)),
        "steps": study.steps.pretrain,
        "device": study.task.device.type,
        "strategy": strategy,
    }
    for place in range(len(study.budgets)):
        about["budgets"] = study.budgets[: place + 1]
        yield hashed(about)


def compute_unit(study: LabelStudy, unit: Unit) -> list[dict[str, Any]]:
    """Compute the cells of one encoder that are not there yet, and return the rows of all."""
    cells, todo = study.folder / "cells", chains(study, unit)
    if all(load_cell(cells, name) for chain in todo for name in chain.names):
        return [row for chain in todo for row in _rows(cells, chain)]
    none = np.empty(0, np.int64)
    encoder = open_encoder(
        _task(study, unit), study.arm, unit, study.steps, none, study.folder, study.reporter
    )
    test = encoder.task.dataset.rows("test")
    encoder.test_features = features(encoder.task, encoder.backbone, test)
    rows: list[dict[str, Any]] = []
    with study.reporter.stage("labelling", len(todo), what="strategies") as advance:
        for number, chain in enumerate(todo, 1):
            _follow(study, encoder, chain)
            rows += _rows(cells, chain)
            advance(number)
    return rows


def _rows(cells: Path, chain: Chain) -> Iterator[dict[str, Any]]:
    for name in chain.names:
        row = load_cell(cells, name)
        if row is None:
            raise ModelError("run.damaged", f"cannot read back the cell {name} in {cells}")
        yield row


def _follow(study: LabelStudy, encoder: Encoder, chain: Chain) -> None:
    """Label by a strategy up to each budget in turn, and score what was learned."""
    space, dataset = encoder.space, encoder.task.dataset
    rows = space.rows[: len(space.bank)]
    truth = dataset.labels[rows]
    labelled = np.zeros(len(rows), bool)
    head: nn.Module | None = None
    for name, budget in zip(chain.names, study.budgets, strict=True):
        meter = Meter(encoder.task.device)
        picked = _kept_picks(study.folder, name, rows)
        if picked is None:
            doubts = chain.strategy in ("auto", *BY_DOUBT)
            pool = _pool(encoder, labelled, truth, head if doubts else None)
            rng = np.random.default_rng(stream(chain.draw, "picks", chain.strategy, budget))
            found = _pick(encoder, chain, pool, truth, budget - int(labelled.sum()), rng)
            _keep_picks(study.folder, name, dataset, rows, found)
            picked = np.array([pick.place for pick in found], np.int64)
        labelled[picked] = True
        chosen = rows[labelled]
        head = fit_head(
            space, chosen, dataset.labels[chosen], encoder.task.num_classes, study.arm.transfer
        )
        if load_cell(study.folder / "cells", name) is None:
            _score(study, encoder, chain, (name, budget), head, chosen, meter)


def _pool(
    encoder: Encoder, labelled: np.ndarray, truth: np.ndarray, head: nn.Module | None
) -> Pool:
    """Return what strategies see: labels of the labelled images alone."""
    task, space = encoder.task, encoder.space
    x = space.features[: len(space.bank)]
    several = len(np.unique(truth[labelled])) > 1
    shares = shares_of(head, x) if head is not None and several else None
    names = tuple(escape(name) for name in task.dataset.classes)
    return Pool(space.bank.numpy(), labelled.copy(), shares, names, barred=truth < 0)


def _pick(
    encoder: Encoder,
    chain: Chain,
    pool: Pool,
    truth: np.ndarray,
    count: int,
    rng: np.random.Generator,
) -> list[Pick]:
    """Return the next picks of a chain."""
    name = chain.strategy
    if name == "auto":
        name = auto_strategy(encoder.task, encoder.space.rows[: len(truth)][pool.labelled])[0]
    if name in BY_DOUBT and pool.shares is None:
        name = "uniform"  # as they are begun where they were published
    if name == "uniform":  # the same images whoever begins at random: differences are paired
        before = int(pool.labelled.sum())
        rng = np.random.default_rng(stream(chain.draw, "picks", "uniform", before))
    strategy: Strategy = balanced(truth) if name == CLASS_BALANCED else STRATEGIES[name]
    return choose(pool, count, strategy, rng)


def _picks_path(folder: Path, name: str) -> Path:
    return folder / "picks" / f"{name}.json"


def _keep_picks(
    folder: Path, name: str, dataset: Any, rows: np.ndarray, found: Sequence[Pick]
) -> None:
    """Write which images were picked, in their order, why, and what they turned out to be."""
    told = [
        {
            "path": escape(str(dataset.source.paths[int(rows[pick.place])])),
            "rank": rank,
            "score": pick.score,
            "reason": pick.reason,
            "label": escape(dataset.classes[dataset.labels[rows[pick.place]]]),
            "row": int(rows[pick.place]),
        }
        for rank, pick in enumerate(found, 1)
    ]
    write_atomic(_picks_path(folder, name), to_json(told) + "\n")


def _kept_picks(folder: Path, name: str, rows: np.ndarray) -> np.ndarray | None:
    """Return the places of the picks that an earlier start has made; None without any."""
    path = _picks_path(folder, name)
    if not path.exists():
        return None
    kept = np.array([one["row"] for one in read_json(path)], np.int64)
    order = np.argsort(rows, kind="stable")
    places: np.ndarray = order[np.searchsorted(rows, kept, sorter=order)]
    return places


def _score(
    study: LabelStudy,
    encoder: Encoder,
    chain: Chain,
    cell: tuple[str, int],
    head: nn.Module,
    chosen: np.ndarray,
    meter: Meter,
) -> None:
    """Score a head on the test images, and keep the cell."""
    name, budget = cell
    task = encoder.task
    test = task.dataset.rows("test")
    assert encoder.test_features is not None
    predictions = shares_of(head, encoder.test_features)
    cost = encoder.space_cost + meter.read()
    found = {
        "labels": len(chosen),
        "classes_found": len(np.unique(task.dataset.labels[chosen])),
        **task.goal.point(test, predictions),
        **paid(encoder.cost, cost),
    }
    streams = study.streams(chain.unit, chain.draw, chain.strategy)
    row = {"id": name, **cell_row(chain.strategy, budget, streams, found)}
    scores = task.goal.image_scores(test, predictions, study.metric)
    save_cell(study.folder / "cells", row, scores, task.goal.predicted(predictions))


def encoder_warnings(study: LabelStudy) -> list[str]:
    """Return what is to be said of the encoders: that they collapsed, or know the test images."""
    found = [warning_of(study.folder, study.arm, _task(study, unit), unit) for unit in study.units]
    return list(dict.fromkeys(text for text in found if text))
