"""The arm auto: chosen with the plan, kept in it, and then an arm like any other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fewlabels
from fewlabels.core.errors import UsageError
from fewlabels.pipeline.task import DataOptions, Task
from fewlabels.results.files import read_json
from fewlabels.results.rows import Recipe
from fewlabels.results.runfolder import RunFolder
from fewlabels.study import main_job
from fewlabels.study.arms import Arm, headline, variants
from fewlabels.study.auto import settle_auto, told, with_recipes
from fewlabels.study.conclusion import conclude
from fewlabels.study.engine import begin
from fewlabels.study.grid import Comparison
from fewlabels.study.parsing import parse_arm, parse_arms
from fewlabels.study.plan import Steps
from fewlabels.study.recipes import Conditions
from fewlabels.study.settings import Settings, lay_out, prepare
from fewlabels.training.progress import Reporter

SETTINGS = Settings(
    arms=("auto", "pixels"), baseline="pixels", labels=(1, 4), seeds=2, select="none"
)
TABLE = {"1": {"recipe": "pixels+spreading"}, "4": {"recipe": "autoencoder+features"}}


class Planner:
    """Makes plans: so many steps of SimCLR and from scratch, or a budget too small for it."""

    def __init__(self, simclr: int | None, scratch: int | None) -> None:
        self.simclr = simclr
        self.scratch = scratch
        self.asked: list[list[str]] = []

    def __call__(self, arms: Sequence[Arm]) -> Steps:
        kinds = variants(arms)
        self.asked.append([arm.counted for arm in kinds])
        pretrains = any(arm.method for arm in kinds)
        trains = any(arm.trains for arm in kinds)
        if (pretrains and self.simclr is None) or (trains and self.scratch is None):
            raise UsageError("usage.budget", "too small")
        steps = self.scratch or 0
        found = {"simclr:tiny": self.simclr or 0} if pretrains else {}
        return Steps(found, {"40": 50}, {"40": steps}, {})


def chosen(task: Task, planner: Planner, settings: Settings = SETTINGS) -> dict[str, str]:
    """Return what auto stands for where the images are many enough."""
    arms = parse_arms(list(settings.arms))
    steps = settle_auto(task, arms, settings, planner, Reporter(quiet=True))
    return {shots: row["recipe"] for shots, row in steps.recipes.items()}


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The 200 training images count as enough to pre-train on."""
    original = Conditions.__init__

    def init(self: Conditions, *given: Any, **named: Any) -> None:
        original(self, *given, **{**named, "images": 1_425})

    monkeypatch.setattr(Conditions, "__init__", init)


@pytest.mark.usefixtures("many")
def test_with_time_enough_it_pretrains_and_is_planned_once(task: Task) -> None:
    planner = Planner(300, 300)
    assert chosen(task, planner) == {"1": "simclr+features", "4": "simclr+features"}
    assert planner.asked == [["simclr+features", "pixels"]]


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("simclr", [None, 20])
def test_with_too_little_time_for_that_it_falls_back(task: Task, simclr: int | None) -> None:
    assert set(chosen(task, Planner(simclr, 300)).values()) == {"pixels+spreading"}
    settings = replace(SETTINGS, labels=(4, 18))
    assert chosen(task, Planner(simclr, 300), settings) == {
        "4": "pixels+spreading",
        "18": "scratch",
    }


@pytest.mark.usefixtures("many")
def test_with_no_time_to_train_anything_it_trains_nothing(task: Task) -> None:
    settings = replace(SETTINGS, labels=(18,))
    assert chosen(task, Planner(None, None), settings) == {"18": "pixels+spreading"}


def test_few_images_are_not_pretrained_on(task: Task) -> None:
    assert set(chosen(task, Planner(300, 300)).values()) == {"pixels+spreading"}


def test_without_auto_nothing_is_asked_twice(task: Task) -> None:
    planner = Planner(300, 300)
    arms = parse_arms(["pixels", "scratch"])
    assert settle_auto(task, arms, SETTINGS, planner, Reporter(quiet=True)).recipes == {}
    assert planner.asked == [["pixels", "scratch"]]


def test_what_is_wrong_with_other_arms_is_said(task: Task) -> None:
    settings = replace(SETTINGS, arms=("auto", "scratch", "pixels"))
    with pytest.raises(UsageError, match="too small"):
        chosen(task, Planner(None, None), settings)


def test_a_choice_is_told_with_its_reason_its_evidence_and_what_it_went_by(task: Task) -> None:
    said: list[str] = []
    reporter = Reporter(quiet=True)
    reporter.say = said.append  # type: ignore[method-assign]
    arms = parse_arms(["auto", "pixels"])
    steps = settle_auto(task, arms, SETTINGS, Planner(300, 300), reporter)
    rows = told(steps.recipes)
    assert [Recipe.model_validate(row).shots for row in rows] == [1, 4]
    assert rows[1]["conditions"]["labels"] == 40
    assert rows[1]["conditions"]["pretrain_steps"] == 300
    assert len(said) == 2
    assert rows[0]["reason"] in said[0]
    assert "no committed table covers 200 training images" in said[0]


def test_it_takes_the_settings_of_the_comparison() -> None:
    settings = replace(SETTINGS, imbalance="weights", backbone="resnet18")
    arm = with_recipes([parse_arm("auto")], {"4": {"recipe": "simclr+parameters"}}, settings)[0]
    assert (arm.name, arm.recipe, arm.backbone) == ("auto", "simclr+parameters", "resnet18")
    assert arm.imbalance == "weights"


def test_it_may_stand_for_another_arm_at_another_number_of_labels() -> None:
    auto, pixels = with_recipes(parse_arms(["auto", "pixels"]), TABLE, SETTINGS)
    assert (auto.at(1).recipe, auto.at(4).recipe) == ("pixels+spreading", "autoencoder+features")
    assert auto.recipe == "autoencoder+features"
    assert pixels.at(1) is pixels
    assert [arm.counted for arm in variants([auto, pixels])] == [
        *(auto.at(n).recipe for n in (1, 4)),
        "pixels",
    ]
    row = auto.describe()
    assert row["description"] == (
        "chosen by rule: pixels+spreading at 1 labels; autoencoder+features at 4 labels"
    )


def test_its_verdict_is_the_declared_one() -> None:
    assert headline(parse_arms(["simclr+features", "auto", "scratch"]), "scratch") == "auto"


def test_numbers_have_no_rules() -> None:
    with pytest.raises(UsageError, match="rules of 'auto' are about classes"):
        parse_arms(["auto", "scratch"], target="age")


# ---- in a comparison -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("auto")


@pytest.fixture(scope="module")
def begun(folder: Path, table: Path) -> Callable[[], tuple[Comparison, dict[str, Any]]]:
    """Begin, or go on with, a comparison in which auto is two different arms."""
    plans = [Steps({"autoencoder:tiny": 4}, {"40": 4}, {"40": 4}, {}, recipes=_rows())]

    def start() -> tuple[Comparison, dict[str, Any]]:
        reporter = Reporter(quiet=True)
        task, arms = prepare(DataOptions(str(table)), SETTINGS, reporter)
        with RunFolder(folder) as run:
            about = (run, task, arms, lay_out(task, SETTINGS), SETTINGS)
            comparison = begin(*about, plans.pop, {"a": 1}, reporter)
            return comparison, conclude(run, comparison, "")

    return start


def _rows() -> dict[str, dict[str, Any]]:
    about = {"reason": "r", "evidence": ["e.csv"], "uncovered": "", "conditions": {"size": 8}}
    return {shots: {**row, **about} for shots, row in TABLE.items()}


def test_a_comparison_keeps_what_was_chosen(
    begun: Callable[[], tuple[Comparison, dict[str, Any]]], folder: Path
) -> None:
    comparison, result = begun()
    cells = {(cell.arm.name, cell.shots): cell.arm for cell in comparison.grid.cells}
    assert cells["auto", 1].recipe == "pixels+spreading"
    assert cells["auto", 4].method == "autoencoder"
    rows = [row for row in result["cells"] if row["arm"] == "auto"]
    assert {row["shots"]: row["pretrain_seconds"] > 0 for row in rows} == {1: False, 4: True}
    assert all(row["accuracy"] > 0.1 for row in rows)
    assert [row["recipe"] for row in result["auto"]] == ["pixels+spreading", "autoencoder+features"]
    assert result["config"]["plan"]["recipes"] == _rows()
    assert read_json(folder / "plan.json")["recipes"] == _rows()
    assert result["primary"]["arm"] == "auto"
    # Nobody chooses again: there is no second plan to be had.
    again, found = begun()
    assert [cell.id for cell in again.grid.cells] == [cell.id for cell in comparison.grid.cells]
    assert found["cells"] == result["cells"]


def test_pretraining_is_counted_once_where_auto_shares_it(
    begun: Callable[[], tuple[Comparison, dict[str, Any]]],
) -> None:
    _, result = begun()
    seeds = {
        row["streams"]["pretraining"]: row["pretrain_seconds"]
        for row in result["cells"]
        if row["pretrain_seconds"]
    }
    transfers = sum(row["transfer_seconds"] for row in result["cells"])
    assert result["seconds"] == pytest.approx(transfers + sum(seeds.values()))


# ---- one classifier ----------------------------------------------------------------------------


@pytest.fixture
def planner(monkeypatch: pytest.MonkeyPatch) -> Planner:
    """The main job's plan takes no time, and leaves none for pre-training."""
    found = Planner(None, 300)
    monkeypatch.setattr(main_job, "_run_plan", lambda _task, arms, *_: (found(arms), 1.0))
    return found


@pytest.mark.usefixtures("planner")
def test_a_run_with_a_recipe_makes_one_scored_classifier(table: Path, tmp_path: Path) -> None:
    about: dict[str, Any] = {"recipe": "auto", "labels": 4, "out": tmp_path / "run"}
    result = fewlabels.run(str(table), **about)
    assert result["recipe"]["recipe"] == "pixels+spreading"
    assert result["recipe"]["shots"] == 4
    assert result["best"] == "auto"
    assert len(result["compare"]["cells"]) == 1
    assert result["test"]["accuracy"]["low"] > 0.5
    assert result["test"]["accuracy"]["value"] == result["compare"]["cells"][0]["accuracy"]
    # Nothing is held out to choose by, and nothing is claimed that was not compared.
    assert result["compare"]["choices"][0]["candidates"] == []
    assert (result["compare"]["primary"], result["compare"]["verdicts"]) == (None, [])
    assert (tmp_path / "run" / "model" / "config.json").exists()
    page = (tmp_path / "run" / "report.html").read_text()
    assert "compared with nothing" in page
    assert result["recipe"]["reason"] in page
    assert fewlabels.run(str(table), **about)["already_done"]


@pytest.mark.usefixtures("planner")
def test_a_dry_run_tells_what_auto_would_be(table: Path) -> None:
    plan = fewlabels.run(str(table), recipe="auto", labels=4, dry_run=True)
    assert [row["stage"] for row in plan["plan"]] == ["auto at 4 labels"]
    assert plan["plan"][0]["note"] == "1 cells of pixels+spreading"
    assert "compared with nothing" in plan["precision"]["said"]


def test_a_recipe_may_be_any_arm(table: Path, planner: Planner, tmp_path: Path) -> None:
    result = fewlabels.run(str(table), recipe="pixels", labels=1, out=tmp_path)
    assert (result["recipe"], result["best"]) == (None, "pixels")
    assert planner.asked == [["pixels"]]


@pytest.mark.parametrize("beside", [{"arms": ["scratch", "pixels"]}, {"baseline": "scratch"}])
def test_a_recipe_beside_arms_is_refused(table: Path, beside: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="one classifier"):
        fewlabels.run(str(table), recipe="auto", **beside)


def test_a_comparison_of_one_arm_is_still_refused(table: Path) -> None:
    with pytest.raises(UsageError, match="two arms or more"):
        fewlabels.compare(str(table), arms=["auto"], baseline="auto")
