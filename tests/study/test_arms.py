"""Arms as users write them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fewlabels.core.errors import UsageError
from fewlabels.methods import LABELLED, METHODS
from fewlabels.study.arms import (
    AUTO,
    DEFAULT_ARMS,
    FIXED_ORDER,
    LOSSES,
    NUMBER_ARMS,
    RECOMMENDED,
    TRANSFERS,
    Arm,
)
from fewlabels.study.parsing import parse_arm, parse_arms
from fewlabels.study.settings import with_imbalance


@pytest.mark.parametrize(
    ("text", "start", "method", "backbone", "transfer"),
    [
        ("scratch", "scratch", None, "auto", "parameters"),
        ("scratch:resnet18", "scratch", None, "resnet18", "parameters"),
        ("pixels", "pixels", None, "pixels", "logistic"),
        ("pixels+spreading", "pixels", None, "pixels", "spreading"),
        ("random", "random", None, "auto", "features"),
        ("random+knn", "random", None, "auto", "knn"),
        ("simclr+features", "pretrained", "simclr", "auto", "features"),
        ("simclr:conv-32-64-64+parameters", "pretrained", "simclr", "conv-32-64-64", "parameters"),
        ("denoising+logistic", "pretrained", "denoising", "auto", "logistic"),
    ],
)
def test_arms_are_read(
    text: str, start: str, method: str | None, backbone: str, transfer: str
) -> None:
    assert parse_arm(text) == Arm(text, start, method, backbone, transfer)


@pytest.mark.parametrize(
    ("text", "source", "transfer"),
    [
        ("runs/source+features", "runs/source", "features"),
        ("runs/a+b/c+parameters", "runs/a+b/c", "parameters"),
        ("resnet18.a1_in1k+knn", "resnet18.a1_in1k", "knn"),
    ],
)
def test_an_arm_may_start_from_a_run_or_published_weights(
    text: str, source: str, transfer: str
) -> None:
    assert parse_arm(text) == Arm(text, "given", None, "auto", transfer, source)
    assert source in str(parse_arm(text).describe()["description"])


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        ("simcrl+features", "usage.arm", "simclr+features"),
        ("simclr+feature", "usage.transfer", "features"),
        ("simclr", "usage.arm", "simclr+features"),
        ("pixels+parameters", "usage.arm", "pixels+logistic"),
        ("pixels:resnet18", "usage.arm", "pixels+logistic"),
        ("scratch+features", "usage.arm", "scratch"),
        ("supervised+features", "usage.arm", "pretrain SOURCE"),
        ("runs/source", "usage.arm", "runs/source+features"),
        ("simclr+knn:tiny", "usage.transfer", "knn"),
        ("random+structure", "usage.arm", "simclr+structure"),
        ("", "usage.arm", ""),
    ],
)
def test_anything_else_is_refused_with_a_way_on(text: str, code: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_arm(text)
    assert caught.value.code == code
    assert hint in caught.value.hint


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("start", "full"), [("scratch:tiny", True), ("simclr", False), ("runs/a+b", False)]
)
def test_an_unlabelled_loss_stands_for_a_transfer_that_trains(
    start: str, full: bool, loss: str
) -> None:
    arm = parse_arm(f"{start}+{loss}")
    assert (arm.transfer, arm.unlabelled, arm.trains) == ("parameters", loss, True)
    assert arm.at_full_rate is full
    row = arm.describe()
    assert row["unlabelled"] == loss
    plain = parse_arm(f"{start}+parameters").describe()
    assert plain["unlabelled"] == "none"
    assert str(row["description"]).startswith(str(plain["description"]))
    assert row["description"] != plain["description"]


def test_losses_are_arms_of_their_own() -> None:
    names = ["scratch", *(f"scratch+{loss}" for loss in LOSSES)]
    assert len(parse_arms(names)) == len(names)
    with pytest.raises(UsageError, match="the same arm"):
        parse_arms(["scratch+pseudo", "scratch:auto+pseudo"])
    with pytest.raises(UsageError, match="fixmatch tells classes apart"):
        parse_arms(["scratch", "simclr+fixmatch"], target="age")
    with pytest.raises(UsageError, match="pixels have no weights"):
        parse_arm("pixels+fixmatch")
    with pytest.raises(UsageError, match="fixmatch:tiny"):
        parse_arm("simclr+fixmatch:tiny")


def test_scratch_may_take_the_whole_budget() -> None:
    plain, long = parse_arms(["scratch:tiny", "scratch:tiny+long"])
    assert (plain.long, long.long) == (False, True)
    assert replace(long, name=plain.name, long=False) == plain
    assert str(long.describe()["description"]).endswith("for the whole budget")
    for text in ("simclr+long", "scratch+long:tiny", "pixels+long"):
        with pytest.raises(UsageError, match="long"):
            parse_arm(text)


def test_structure_may_name_the_network_it_carries_into() -> None:
    arm = parse_arm("runs/source+structure:conv-32-64-64")
    assert (arm.source, arm.transfer, arm.into) == ("runs/source", "structure", "conv-32-64-64")
    assert arm.at_full_rate
    assert not parse_arm("simclr+parameters").at_full_rate


def test_a_comparison_needs_two_different_arms() -> None:
    with pytest.raises(UsageError, match="two arms"):
        parse_arms(["scratch"])
    with pytest.raises(UsageError, match="named twice"):
        parse_arms(["scratch", "pixels", "scratch"])
    assert [arm.name for arm in parse_arms(["pixels", "scratch"])] == ["pixels", "scratch"]
    assert len(parse_arms(["runs/a+features", "runs/b+features"])) == 2
    assert len(parse_arms(["runs/a+structure", "runs/a+structure:tiny"])) == 2


def test_the_default_arms_are_sound() -> None:
    parsed = parse_arms(list(DEFAULT_ARMS))
    assert RECOMMENDED in DEFAULT_ARMS
    assert set(FIXED_ORDER) == {AUTO, *DEFAULT_ARMS, *NUMBER_ARMS}
    assert {arm.start for arm in parsed} == {"scratch", "pixels", "random", "pretrained"}
    assert {arm.method for arm in parsed if arm.method} <= set(METHODS)


@pytest.mark.parametrize("method", sorted(METHODS.keys() - LABELLED))
@pytest.mark.parametrize("transfer", TRANSFERS)
def test_every_method_meets_every_transfer(method: str, transfer: str) -> None:
    arm = parse_arm(f"{method}+{transfer}")
    assert arm.trains == (transfer in ("parameters", "structure"))
    row = arm.describe()
    assert row["name"] == f"{method}+{transfer}"
    assert method in str(row["description"])


def test_descriptions_tell_the_default_arms_apart() -> None:
    words = [parse_arm(name).describe()["description"] for name in DEFAULT_ARMS]
    assert len(set(words)) == len(words)


@pytest.mark.parametrize(
    ("text", "asked", "does"),
    [
        ("scratch", "sampling", "sampling"),
        ("simclr+parameters", "logits", "logits"),
        ("pixels", "sampling", "weights"),
        ("simclr+features", "logits", "logits"),
        ("simclr+ridge", "logits", "none"),
        ("pixels+spreading", "weights", "none"),
    ],
)
def test_every_arm_does_what_it_can_about_unequal_classes(text: str, asked: str, does: str) -> None:
    arm = with_imbalance(parse_arm(text), asked)
    assert arm.imbalance == does
    assert arm.describe()["imbalance"] == does


def test_weights_of_torchvision_are_a_start() -> None:
    for source in ("torchvision:alexnet", "alexnet", "torchvision:resnet50.imagenet1k_v1"):
        arm = parse_arm(f"{source}+features")
        assert (arm.start, arm.source, arm.transfer) == ("given", source, "features")
    with pytest.raises(UsageError, match="unknown arm"):
        parse_arm("torchvision:alexnte+features")
