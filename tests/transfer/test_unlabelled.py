"""Labelled and unlabelled images together: the contract, what is learned, what is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from fewlabels.core.arithmetic import MultiplyAdds
from fewlabels.core.types import Pictures
from fewlabels.data.augment import POLICIES, Policy, augment
from fewlabels.data.loader import Batches, PairedBatches
from fewlabels.models.backbones import create_backbone
from fewlabels.models.classifier import Classifier
from fewlabels.training import loop
from fewlabels.training.loop import Plan, take_step, train
from fewlabels.training.measuring import count_multiply_adds
from fewlabels.transfer.confidence import RULES, memory
from fewlabels.transfer.parameters import (
    PRETRAINED,
    SCRATCH,
    FineTune,
    FineTuneConfig,
    fresh_classifier,
)
from fewlabels.transfer.unlabelled import (
    UNLABELLED,
    FineTuneBoth,
    Propagated,
    Teacher,
    propagated,
    with_unlabelled,
)

CPU = torch.device("cpu")
PICTURES = Pictures(8, 1, (0.3,), (0.37,))
DIGITS = load_digits()
IMAGES = np.round(DIGITS.images * (255 / 16)).astype(np.uint8)[..., None]
LABELLED, POOL = np.arange(10), np.arange(200)
LOSSES = [name for name in UNLABELLED if name != "none"]


class Digits:
    """scikit-learn's digits."""

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, None]:
        return IMAGES[rows], None


def build(
    loss: str, seed: int = 0, *, light: Policy | None = None, **changes: object
) -> FineTuneBoth:
    torch.manual_seed(seed)
    backbone = create_backbone("tiny", in_chans=1, image_size=8)
    start = fresh_classifier(backbone, 10, 128, grid=1)
    torch.nn.init.normal_(start.head.linear.weight, std=0.05)
    config = replace(with_unlabelled(SCRATCH, loss), **changes)
    labels = DIGITS.target[LABELLED].astype(np.int64)
    policies = replace(POLICIES["digits"], light=light or POLICIES["digits"].light)
    tuned = FineTune(start, LABELLED, labels, PICTURES, policies.light, config, freeze_norm=False)
    guesses = None
    if loss == "pseudo":
        guesses = Propagated(POOL, DIGITS.target[POOL], np.linspace(0, 1, 200, dtype=np.float32))
    return FineTuneBoth(tuned, POOL, policies, guesses)


def paired(method: FineTuneBoth, size: int = 8) -> PairedBatches:
    labelled = Batches(Digits(), LABELLED, size, seed=3)
    return PairedBatches(labelled, method.pool, method.config.ratio, seed=4)


def tensors(method: FineTuneBoth) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in method.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_no_unlabelled_loss_changes_no_setting() -> None:
    assert with_unlabelled(SCRATCH, "none") == SCRATCH
    assert FineTuneConfig().images == 64
    config = with_unlabelled(SCRATCH, "fixmatch")
    assert config.images == config.batch_size * (1 + config.ratio)


@pytest.mark.parametrize("config", [SCRATCH, PRETRAINED])
def test_an_unlabelled_loss_leaves_the_rates(config: FineTuneConfig) -> None:
    changed = with_unlabelled(config, "pseudo")
    assert (changed.lr, changed.head_lr) == (config.lr, config.head_lr)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_weight_that_learns_has_one_optimizer(loss: str) -> None:
    method = build(loss)
    groups = method.optimizers()["finetune"].param_groups
    trained = [id(p) for group in groups for p in group["params"]]
    assert len(trained) == len(set(trained))
    assert set(trained) == {id(p) for p in method.parameters() if p.requires_grad}
    assert method.encoder is method.classifier.backbone


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("loss", LOSSES)
def test_a_killed_training_ends_in_the_same_weights_and_thresholds(
    loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_SECONDS", -1.0)
    plan, whole = Plan(5, seed=5), build(loss)
    train(whole, paired(whole), plan, device=CPU)

    def kill(step: int, _metrics: dict[str, float]) -> None:
        if step == 3:
            raise Killed

    stopped, again = build(loss), build(loss, seed=9)
    with pytest.raises(Killed):
        train(stopped, paired(stopped), plan, device=CPU, folder=tmp_path, watch=kill)
    train(again, paired(again), plan, device=CPU, folder=tmp_path)
    assert same(tensors(again), tensors(whole))
    assert not same(tensors(again), tensors(build(loss)))


@pytest.mark.parametrize("loss", LOSSES)
def test_steps_take_the_same_arithmetic(loss: str) -> None:
    method = build(loss)
    counted = []
    for index in (0, 7):
        adds = MultiplyAdds()
        with adds:
            take_step(method, paired(method), Plan(8, 5), index, CPU, share=0.02)
        counted.append(adds.total)
    assert counted[0] == counted[1]
    whole = count_multiply_adds(lambda: build(loss), paired(method), Plan(8, 5), CPU)
    assert whole == 8 * counted[0]


def test_unlabelled_images_cost_what_they_should() -> None:
    """A teacher sees them once forward, the network forward and back."""
    each = {}
    for loss in ("fixmatch", "pseudo"):
        method = build(loss)
        each[loss] = count_multiply_adds(lambda: method, paired(method), Plan(1, 5), CPU)  # noqa: B023
    forward = MultiplyAdds()
    with forward, torch.no_grad():
        build("pseudo").classifier(torch.zeros(24, 1, 8, 8))
    assert each["fixmatch"] - each["pseudo"] == forward.total


@pytest.mark.parametrize("loss", sorted(RULES))
def test_the_teacher_is_a_running_mean_and_is_what_is_kept(loss: str) -> None:
    method = build(loss)
    student, teacher = method.tuned.classifier, method.classifier
    assert student is not teacher
    wanted = [p.detach().clone() for p in teacher.parameters()]
    batches = paired(method)
    for index in range(3):
        take_step(method, batches, Plan(3, 5), index, CPU, share=1.0)
        for mine, its in zip(wanted, student.parameters(), strict=True):
            mine.mul_(memory(index)).add_(its.detach(), alpha=1 - memory(index))
    for mine, found in zip(wanted, teacher.parameters(), strict=True):
        torch.testing.assert_close(found, mine)
    moved = [not torch.equal(p, q) for p, q in zip(student.parameters(), wanted, strict=True)]
    assert all(moved)
    for mine, its in zip(teacher.buffers(), student.buffers(), strict=True):
        assert torch.equal(mine, its)
    assert not any(p.requires_grad for p in teacher.parameters())


def test_guesses_are_those_of_the_teacher_on_light_views() -> None:
    method = build("freematch", light=Policy(shift=0.2))
    seen: list[Tensor] = []
    guess = method.guesser.guess

    def spy(batch, step):  # type: ignore[no-untyped-def]
        x = augment(batch, PICTURES, Policy(shift=0.2), seed=step.seed, view=1)
        with torch.no_grad():
            seen.append(method.classifier.eval()(x).argmax(1))
        found = guess(batch, step)
        assert torch.equal(found[0], seen[-1])
        return found

    method.guesser.guess = spy
    take_step(method, paired(method), Plan(3, 5), 1, CPU, share=1.0)
    assert len(seen[0]) == 24


def test_the_network_learns_strong_views_of_guesses_that_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = build("fixmatch")
    weights = torch.linspace(0, 1, 24)
    classes = torch.arange(24) % 10
    monkeypatch.setattr(method.guesser, "guess", lambda *_: (classes, weights))
    logits: list[Tensor] = []
    forward = method.tuned.classifier.forward

    def keep(x: Tensor) -> Tensor:
        logits.append(forward(x))
        return logits[-1]

    monkeypatch.setattr(method.tuned.classifier, "forward", keep)
    told = take_step(method, paired(method), Plan(3, 5), 2, CPU, share=0.0)
    assert logits[0].shape == (32, 10)
    known, strong = logits[0].detach().split([8, 24])
    each = F.cross_entropy(strong, classes, reduction="none")
    wanted = sum(float(w * e) for w, e in zip(weights, each, strict=True)) / 24
    assert told["unlabelled_loss"] == pytest.approx(wanted, rel=1e-5)
    batch = paired(method)[2]
    own = F.cross_entropy(known, torch.from_numpy(DIGITS.target)[batch.indices[:8]])
    assert told["loss"] == pytest.approx(float(own) + wanted, rel=1e-5)
    assert told["used"] == pytest.approx(0.5)


def test_the_unlabelled_loss_rises_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = []
    for index in (0, 1, 2, 9):
        method = build("pseudo")
        told = take_step(method, paired(method), Plan(10, 5), index, CPU, share=0.0)
        alone = build("pseudo")
        monkeypatch.setattr(alone, "_loss", lambda *_: torch.zeros(()))
        less = take_step(alone, paired(alone), Plan(10, 5), index, CPU, share=0.0)
        parts.append((told["loss"] - less["loss"]) / told["unlabelled_loss"])
    assert parts == pytest.approx([0.0, 0.5, 1.0, 1.0], abs=1e-5)


def test_under_logit_adjustment_guesses_are_learned_at_the_frequencies_of_guesses() -> None:
    method = build("fixmatch", imbalance="logits")
    assert isinstance(method.guesser, Teacher)
    frequencies = torch.linspace(1, 19, 10) / 100
    method.guesser.running.shares.copy_(frequencies)
    logits, classes = torch.randn(6, 10), torch.arange(6)
    wanted = F.cross_entropy(logits + frequencies.log(), classes)
    torch.testing.assert_close(method._loss(logits, classes, torch.ones(6)), wanted)
    plain = build("fixmatch")
    torch.testing.assert_close(
        plain._loss(logits, classes, torch.ones(6)), F.cross_entropy(logits, classes)
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_labels_that_are_hidden_are_not_read(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the pool's own labels are, nothing changes; what `pseudo` is given is a guess."""
    method = build(loss)
    known = method.tuned.table[torch.from_numpy(LABELLED)]
    assert torch.equal(known, torch.from_numpy(DIGITS.target[LABELLED]))
    assert len(method.tuned.table) == len(LABELLED)  # no row beyond them has a place


def test_visible_labels_stand_beside_propagated_ones() -> None:
    shares = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])
    found = propagated(np.array([5, 7, 9]), shares, np.array([9, 2]), np.array([0, 1]))
    assert found.rows.tolist() == [5, 7, 9]
    assert found.classes.tolist()[0::2] == [0, 0]
    assert found.weights[0] == pytest.approx(1 + (0.9 * np.log2(0.9) + 0.1 * np.log2(0.1)))
    assert found.weights[1:].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("loss", LOSSES)
def test_results_tell_how_much_was_used_and_of_which_class(loss: str) -> None:
    method = build(loss)
    train(method, paired(method), Plan(2, 5), device=CPU)
    told = method.told()
    assert (told["loss"], told["images"]) == (loss, 200)
    assert 0 <= told["used"] <= 1
    assert sum(told["shares"]) == pytest.approx(1, abs=1e-5)
    if loss == "pseudo":
        assert told["used"] == pytest.approx(0.5)
        named = np.bincount(DIGITS.target[POOL], minlength=10) / 200
        assert told["shares"] == pytest.approx(named.tolist())


def test_pseudo_labels_must_be_made_before_training() -> None:
    method = build("fixmatch")
    method.tuned.config = replace(method.config, unlabelled="pseudo")
    with pytest.raises(ValueError, match="before training"):
        FineTuneBoth(method.tuned, POOL, POLICIES["digits"])


def accuracy(classifier: Classifier, rows: np.ndarray) -> float:
    images = torch.from_numpy(IMAGES[rows]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        called = classifier.eval()((images - 0.3) / 0.37).argmax(1).numpy()
    return float((called == DIGITS.target[rows]).mean())


@pytest.mark.medium
@pytest.mark.parametrize("loss", LOSSES)
def test_unlabelled_images_are_learned_from(loss: str) -> None:
    """Ten labels and 200 images; of the other images most are then known."""
    method = build(loss)
    train(method, paired(method, size=16), Plan(60, 5), device=CPU)
    assert accuracy(method.classifier, np.arange(200, 600)) > 0.45
