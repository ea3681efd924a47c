"""The plan: seeds dealt out, steps from a budget, and names that say what a cell depends on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fewlabels.core.errors import UsageError
from fewlabels.pipeline.task import Task
from fewlabels.study import plan as module
from fewlabels.study.parsing import parse_arm
from fewlabels.study.plan import (
    Costs,
    Streams,
    Unit,
    cell_id,
    make_units,
    settle_steps,
    training_seed,
)
from fewlabels.training.durations import parse_duration
from fewlabels.transfer.parameters import PRETRAINED
from fewlabels.transfer.unlabelled import with_unlabelled


def units(**changes: Any) -> list[Unit]:
    about = {"given": False, "draws": 6, "pretraining_seeds": 3, "seed": 0, "own_labels": False}
    return make_units(**(about | changes))


def test_on_a_given_split_every_seed_meets_every_draw() -> None:
    made = units(given=True)
    assert [unit.split for unit in made] == [0, 0, 0]
    assert [unit.pretraining for unit in made] == [0, 1, 2]
    assert all(unit.draws == (0, 1, 2, 3, 4, 5) for unit in made)


def test_otherwise_each_seed_has_a_split_and_the_draws_are_dealt_out() -> None:
    made = units()
    assert [unit.split for unit in made] == [unit.pretraining for unit in made] == [0, 1, 2]
    dealt = [draw for unit in made for draw in unit.draws]
    assert sorted(dealt) == list(range(6))


def test_no_unit_is_left_without_a_draw() -> None:
    assert [unit.draws for unit in units(draws=2)] == [(0,), (1,)]
    assert [len(unit.draws) for unit in units(draws=7)] == [3, 2, 2]


def test_the_labels_there_are_leave_nothing_to_draw() -> None:
    assert [unit.draws for unit in units(given=True, own_labels=True)] == [(0,)] * 3
    assert [unit.draws for unit in units(own_labels=True)] == [(0,), (1,), (2,)]


@pytest.mark.parametrize("given", [True, False])
def test_another_seed_shares_no_stream(given: bool) -> None:
    first, second = units(given=given), units(given=given, seed=1)
    for name in ("pretraining", "draws"):
        used = [{getattr(unit, name) for unit in made} for made in (first, second)]
        assert not used[0] & used[1]


@pytest.mark.parametrize("changes", [{"draws": 0}, {"pretraining_seeds": 0}, {"draws": -3}])
def test_seeds_below_one_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="1 or more"):
        units(**changes)


# ---- names -----------------------------------------------------------------------------------

ARM = parse_arm("autoencoder+features")
STREAMS = Streams(split=0, labels=3, pretraining=1, training=99)
STEPS = {"autoencoder:tiny": 20, "fit": 0}


def named(task: Task, **changes: Any) -> str:
    about: dict[str, Any] = {
        "key": "abc",
        "arm": ARM,
        "shots": 4,
        "streams": STREAMS,
        "steps": STEPS,
    }
    return cell_id(task, **(about | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"key": "abd"},
        {"arm": parse_arm("autoencoder+knn")},
        {"arm": parse_arm("denoising+features")},
        {"arm": parse_arm("autoencoder:conv-32-64-64+features")},
        {"shots": 1},
        {"steps": STEPS | {"autoencoder:tiny": 21}},
        {"steps": STEPS | {"fit": 5}},
        *[{"streams": replace(STREAMS, **{name: 7})} for name in ("split", "labels", "training")],
        {"streams": replace(STREAMS, pretraining=None)},
    ],
)
def test_whatever_can_change_a_result_changes_its_name(changes: dict[str, Any], task: Task) -> None:
    assert named(task, **changes) != named(task)


def test_a_name_is_the_same_for_auto_and_what_it_stands_for(task: Task) -> None:
    spelled = parse_arm("autoencoder:tiny+features")
    assert named(task, arm=spelled) == named(task)


def test_scratch_has_one_training_seed_whatever_the_pretraining_seed() -> None:
    units = Unit(0, 0, (0, 1)), Unit(0, 1, (0, 1))
    scratch, ours = parse_arm("scratch"), ARM
    assert len({training_seed(scratch, 4, unit, 0) for unit in units}) == 1
    assert len({training_seed(ours, 4, unit, 0) for unit in units}) == 2
    several = {training_seed(ours, shots, units[0], draw) for shots in (1, 4) for draw in (0, 1)}
    assert len(several) == 4


# ---- steps -----------------------------------------------------------------------------------


def settle(
    task: Task,
    names: list[str],
    budget: str,
    monkeypatch: pytest.MonkeyPatch,
    share: float = 1.0,
) -> module.Steps:
    """Settle steps where a pre-training step takes 10 ms, a fine-tuning step 20 ms."""

    def pretrain_steps(_task: Task, _method: str, _backbone: str, left: Any) -> tuple[int, float]:
        return left.steps(images=200, batch_size=64, seconds_per_step=0.01), 0.01

    monkeypatch.setattr(module, "pretrain_steps", pretrain_steps)

    def finetune_steps(_task: Task, labels: int, *, pretrained: bool) -> int:
        return 50 if pretrained else labels

    monkeypatch.setattr(module, "finetune_steps", finetune_steps)
    arms = [parse_arm(name) for name in names]
    slow = any(arm.method == "kmeans" for arm in arms)
    costs = Costs(
        finetune={"tiny": 0.02} | ({"patches": 0.04} if slow else {}),
        extraction={"tiny": 0.5} | ({"patches": 1.5} if slow else {}),
        labels=(10, 400),
        steps={"none": 50},
        share=share,
    )
    return settle_steps(task, arms, costs, parse_duration(budget))


def fits(steps: module.Steps, name: str, task: Task) -> list[int]:
    """Return the steps of an arm's fine-tune on 10 and on 400 labels."""
    return [steps.of(parse_arm(name), labels, task) for labels in (10, 400)]


def test_pretraining_and_transfer_together_take_the_budget(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = settle(task, ["scratch", "simclr+parameters"], "10s", monkeypatch)
    assert steps.pretrain == {"simclr:tiny": 850}  # 10 s less half a second and 50 steps of 20 ms
    assert fits(steps, "simclr+parameters", task) == [50, 50]
    assert fits(steps, "scratch", task) == [10, 400]


def test_frozen_features_leave_more_time(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = settle(task, ["scratch", "simclr+features"], "10s", monkeypatch)
    assert steps.pretrain == {"simclr:tiny": 950}


def test_scratch_never_takes_more_than_the_budget(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = settle(task, ["scratch", "simclr+features"], "3s", monkeypatch)
    assert fits(steps, "scratch", task) == [10, 150]


def test_all_methods_get_the_same_time(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["scratch", "simclr+features", "autoencoder+parameters", "autoencoder+features"]
    steps = settle(task, names, "10s", monkeypatch)
    assert steps.pretrain == {"simclr:tiny": 850, "autoencoder:tiny": 850}


def test_a_slow_backbone_costs_the_others_nothing(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["scratch", "simclr+parameters", "kmeans+features", "kmeans+parameters"]
    steps = settle(task, [*names, "scratch:patches"], "10s", monkeypatch)
    assert steps.pretrain == {"simclr:tiny": 850, "kmeans:patches": 650}
    # Nor does it cut their fits: of 20 ms, and its own of 40.
    assert fits(steps, "scratch", task) == [10, 400]
    assert fits(steps, "scratch:patches", task) == [10, 250]
    assert steps.seconds["finetune:tiny"] == 0.02
    assert steps.seconds["extraction:patches"] == 1.5


def test_a_budget_that_leaves_nothing_is_refused(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="too little for pre-training") as caught:
        settle(task, ["scratch", "simclr+parameters"], "1.6s", monkeypatch)
    assert caught.value.hint.startswith("--budget")


@pytest.mark.parametrize(
    ("budget", "pretrain", "scratch"),
    [
        ("300 steps", 250, 300),  # less the 50 steps of the longest fine-tune
        ("2000 steps", 1_950, 400),
        ("19200 images", 250, 300),  # 16,000 images in batches of 64
        ("96 epochs", 250, 300),  # passes over 200 images
    ],
)
def test_a_budget_is_that_of_the_whole_cell_in_every_unit(
    budget: str, pretrain: int, scratch: int, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = settle(task, ["scratch", "simclr+parameters"], budget, monkeypatch)
    assert steps.pretrain == {"simclr:tiny": pretrain}
    assert fits(steps, "simclr+parameters", task) == [50, 50]
    assert fits(steps, "scratch", task) == [10, scratch]


@pytest.mark.parametrize("budget", ["300 steps", "19200 images", "96 epochs"])
def test_frozen_features_take_no_steps_of_a_budget(
    budget: str, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = settle(task, ["scratch", "simclr+features"], budget, monkeypatch)
    assert steps.pretrain == {"simclr:tiny": 300}


@pytest.mark.parametrize(
    ("budget", "words", "hint"),
    [
        ("60 steps", "a budget of 60 steps leaves too little", "--budget 151steps"),
        ("3300 images", "takes about 3200 images", "--budget 9601images"),
        ("16 epochs", r"16 epochs \(3200 images\) leaves too little", "--budget 9601images"),
    ],
)
def test_a_budget_too_small_for_the_transfer_is_refused(
    budget: str, words: str, hint: str, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        settle(task, ["scratch", "simclr+parameters"], budget, monkeypatch)
    assert caught.value.hint == hint
    enough = hint.removeprefix("--budget ")
    assert settle(task, ["scratch", "simclr+parameters"], enough, monkeypatch).pretrain


def test_less_than_a_batch_is_refused(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="199 images leaves too little for pre-training"):
        settle(task, ["pixels", "simclr+features"], "199 images", monkeypatch)  # all 200 are one
    with pytest.raises(UsageError, match="63 images is less than one batch of 64"):
        settle(task, ["pixels", "scratch"], "63 images", monkeypatch)


def test_without_a_pretraining_any_budget_will_do(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A given start may need nearly all of it, and is cut to it like scratch."""
    names = ["scratch", "random+features", "pixels"]
    assert fits(settle(task, names, "0.55s", monkeypatch), "scratch", task) == [10, 27]
    steps = settle(task, ["scratch", "random+parameters"], "20 steps", monkeypatch)
    assert fits(steps, "random+parameters", task) == [20, 20]
    assert fits(steps, "scratch", task) == [10, 20]


def with_losses(
    task: Task, names: list[str], budget: str, monkeypatch: pytest.MonkeyPatch, share: float = 1.0
) -> module.Steps:
    """Settle steps where one with unlabelled images takes 50 ms, and one by FreeMatch 60."""

    def pretrain_steps(_task: Task, _method: str, _backbone: str, left: Any) -> tuple[int, float]:
        return left.steps(images=200, batch_size=64, seconds_per_step=0.01), 0.01

    def unlabelled_steps(*, pretrained: bool) -> int:
        return 100 if pretrained else 300

    monkeypatch.setattr(module, "pretrain_steps", pretrain_steps)
    monkeypatch.setattr(module, "unlabelled_steps", unlabelled_steps)
    monkeypatch.setattr(
        module, "finetune_steps", lambda _task, labels, *, pretrained: 50 if pretrained else labels
    )
    costs = Costs(
        finetune={"tiny": 0.02, "tiny+fixmatch": 0.05, "tiny+freematch": 0.06},
        extraction={"tiny": 0.5},
        labels=(10, 400),
        steps={"none": 50} | ({"freematch": 100} if "simclr+freematch" in names else {}),
        share=share,
    )
    return settle_steps(task, [parse_arm(name) for name in names], costs, parse_duration(budget))


LOSS_ARMS = ["scratch", "simclr+features", "scratch+fixmatch", "simclr+freematch"]


def test_unlabelled_images_take_their_time_from_pretraining(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = with_losses(task, LOSS_ARMS, "10s", monkeypatch)
    assert fits(steps, "scratch+fixmatch", task) == [200, 200]
    assert fits(steps, "simclr+freematch", task) == [100, 100]
    assert steps.pretrain == {"simclr:tiny": 350}  # 10 s less half a second and 100 of 60 ms
    assert fits(steps, "scratch", task) == [10, 400]  # of 20 ms: others' pace does not cut them
    assert steps.seconds["finetune:tiny+fixmatch"] == 0.05
    # From scratch nothing is taken from pre-training.
    alone = with_losses(task, LOSS_ARMS[:3], "10s", monkeypatch)
    assert alone.pretrain == {"simclr:tiny": 950}


@pytest.mark.parametrize(("budget", "most"), [("10s", 500), ("400 steps", 400)])
def test_a_long_scratch_takes_what_the_budget_holds(
    task: Task, monkeypatch: pytest.MonkeyPatch, budget: str, most: int
) -> None:
    steps = with_losses(task, [*LOSS_ARMS[:2], "scratch+long"], budget, monkeypatch)
    assert fits(steps, "scratch+long", task) == [most, most]
    assert fits(steps, "scratch", task) == [10, 400]


@pytest.mark.parametrize(("budget", "scratch"), [("400 steps", 300), ("60000 images", 300)])
def test_unlabelled_images_are_part_of_every_budget(
    task: Task, monkeypatch: pytest.MonkeyPatch, budget: str, scratch: int
) -> None:
    steps = with_losses(task, LOSS_ARMS, budget, monkeypatch)
    each = with_unlabelled(PRETRAINED, "freematch").images
    left = {"400 steps": 300, "60000 images": (60_000 - 100 * each) // 64}[budget]
    assert steps.pretrain == {"simclr:tiny": left}
    assert fits(steps, "scratch+fixmatch", task) == [scratch, scratch]
    assert fits(steps, "simclr+freematch", task) == [100, 100]
    short = with_losses(task, [*LOSS_ARMS[:1], "scratch+fixmatch"], "2560 images", monkeypatch)
    assert fits(short, "scratch+fixmatch", task) == [2_560 // each] * 2
    assert fits(short, "scratch", task) == [10, 40]


def test_steps_are_those_of_the_arm(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = with_losses(task, LOSS_ARMS, "10s", monkeypatch, share=0.5)
    trained = [name for name in LOSS_ARMS if "features" not in name]
    found = {name: steps.of(parse_arm(name), 40, task) for name in trained}
    assert found == {"scratch": 200, "scratch+fixmatch": 150, "simclr+freematch": 50}
    assert steps.of(parse_arm("simclr+parameters"), 10, task) == 25


def test_a_plan_of_before_the_paces_keeps_its_steps(task: Task) -> None:
    """Its tables were cut when it was made, and cells are named by what they say."""
    old = module.Steps({}, {"10": 20}, {"10": 10}, {}, unlabelled={"scratch+fixmatch": 7})
    assert fits(old, "scratch", task) == [10, 10]
    assert fits(old, "scratch+fixmatch", task) == [7, 7]


def test_a_loss_names_other_cells_and_no_loss_the_same_as_ever(task: Task) -> None:
    streams = module.Streams(0, 0, None, 1)
    arms = [parse_arm(name) for name in ("scratch", "scratch+fixmatch", "scratch+pseudo")]
    names = [module.cell_id(task, "key", arm, 4, streams, {"fit": 3}) for arm in arms]
    assert len(set(names)) == 3
    plain = replace(arms[1], unlabelled="none")
    assert module.cell_id(task, "key", plain, 4, streams, {"fit": 3}) == names[0]


def test_a_short_budget_cuts_every_fine_tune_alike(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["scratch", "simclr+parameters"]
    steps = settle(task, names, "10s", monkeypatch, share=0.5)
    assert fits(steps, "simclr+parameters", task) == [25, 25]
    assert fits(steps, "scratch", task) == [5, 200]
    assert steps.pretrain == {"simclr:tiny": 900}
    none = settle(task, names, "10s", monkeypatch, share=0.0)
    assert fits(none, "simclr+parameters", task) == [1, 1]
