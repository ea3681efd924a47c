"""Arms that learn from unlabelled images: computed, described, paid for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewlabels.pipeline.stages import finetune_method, new_backbone
from fewlabels.pipeline.task import Task
from fewlabels.results.files import read_json
from fewlabels.results.schema import validate
from fewlabels.study import cells, paces
from fewlabels.study.paces import measure_costs
from fewlabels.study.parsing import parse_arm, parse_arms
from fewlabels.transfer.parameters import SCRATCH
from fewlabels.transfer.unlabelled import FineTuneBoth, with_unlabelled

pytestmark = pytest.mark.medium

ARMS = ("scratch", "scratch+fixmatch", "scratch+pseudo", "autoencoder+pseudo", "random+freematch")


@pytest.fixture(scope="module")
def found(
    compare_shortly: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("unlabelled") / "run"
    return compare_shortly(
        out,
        steps=3,
        unlabelled=2,
        arms=ARMS,
        baseline="scratch",
        budget="20steps",
        select="first",
    )


def test_every_arm_gets_its_cells_and_its_row(found: dict[str, Any]) -> None:
    validate("compare", found)
    rows = {cell["arm"]: cell for cell in found["cells"]}
    assert rows.keys() == set(ARMS)
    assert not any(row["failed"] for row in rows.values())
    told = {arm["name"]: arm["unlabelled"] for arm in found["arms"]}
    assert [told[name] for name in ARMS] == ["none", "fixmatch", "pseudo", "pseudo", "freematch"]
    assert len({row["id"] for row in rows.values()}) == len(ARMS)
    assert len({arm["description"] for arm in found["arms"]}) == len(ARMS)


def test_cells_count_the_images_of_both_kinds(found: dict[str, Any]) -> None:
    rows = {cell["arm"]: cell for cell in found["cells"]}
    each = with_unlabelled(SCRATCH, "fixmatch").images
    assert rows["scratch"]["images_seen"] == 3 * 64
    assert rows["scratch+fixmatch"]["images_seen"] == 2 * each
    adds = read_json(Path(found["run"]) / "plan.json")["multiply_adds"]
    assert rows["scratch+fixmatch"]["multiply_adds"] == 2 * adds["step:scratch+fixmatch"]
    assert adds["step:scratch+fixmatch"] > adds["step:scratch+pseudo"] > adds["step:scratch"]


def test_a_step_is_timed_for_each_loss(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def pace(_task: Task, backbone: str, _count: int, loss: str) -> float:
        asked.append((backbone, loss))
        return {"none": 0.01}.get(loss, 0.03)

    monkeypatch.setattr(paces, "_finetune_pace", pace)
    monkeypatch.setattr(paces, "_extraction_seconds", lambda *_: 0.5)
    arms = parse_arms(["scratch", "scratch+fixmatch", "simclr+fixmatch", "simclr+pseudo"])
    costs = measure_costs(task, arms, [10])
    assert sorted(asked) == [("tiny", "fixmatch"), ("tiny", "none"), ("tiny", "pseudo")]
    assert costs.finetune == {"tiny": 0.01, "tiny+fixmatch": 0.03, "tiny+pseudo": 0.03}
    assert costs.steps.keys() == {"none", "fixmatch", "pseudo"}
    fits = [costs.fit(arm, task) for arm in arms]
    assert fits == [0.01, 0.03, 0.03, 0.03]
    steps = costs.steps["fixmatch"]
    assert costs.transfer("tiny", trains=True) == pytest.approx(0.5 + 0.03 * steps)


def test_scratch_spreads_labels_over_pixels(task: Task) -> None:
    """On digits, whose pixels are good features, most guesses that count are right."""
    rows = task.dataset.visible(4, 0)
    guesses = cells._guesses(parse_arm("scratch+pseudo"), task, rows, None)
    assert guesses is not None
    right = guesses.classes == task.dataset.labels[guesses.rows]
    assert np.average(right, weights=guesses.weights) > 0.85
    assert cells._guesses(parse_arm("scratch+fixmatch"), task, rows, None) is None


@pytest.mark.parametrize("loss", ["fixmatch", "pseudo"])
def test_in_a_cross_validation_the_tested_fold_is_not_learned_from(task: Task, loss: str) -> None:
    fold = task.with_folds(5).with_split(2)
    tested = fold.dataset.rows("test")
    assert len(tested) > 20
    rows = fold.dataset.visible(4, 0)
    arm = parse_arm(f"scratch+{loss}")
    method = finetune_method(
        fold,
        new_backbone(fold, "tiny", 0),
        rows,
        None,
        0,
        with_unlabelled(SCRATCH, loss),
        cells._guesses(arm, fold, rows, None),
    )
    assert isinstance(method, FineTuneBoth)
    assert len(method.pool) > 100
    assert not np.isin(method.pool, tested).any()
