"""Parameter transfer: what is trained, what is kept, and which labels it can see."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from fewlabels.core.types import Pictures
from fewlabels.data.augment import Policy
from fewlabels.data.loader import Batches
from fewlabels.models.backbones import create_backbone
from fewlabels.models.classifier import Classifier
from fewlabels.models.depth import stages
from fewlabels.training.loop import Plan, train
from fewlabels.transfer.parameters import (
    PRETRAINED,
    PUBLISHED,
    SCRATCH,
    FineTune,
    FineTuneConfig,
    at_rate,
    freeze_batch_norm,
    fresh_classifier,
    scratch_of,
)

CPU = torch.device("cpu")
PICTURES = Pictures(8, 1, (0.3,), (0.37,))
DIGITS = load_digits()
IMAGES = np.round(DIGITS.images * (255 / 16)).astype(np.uint8)[..., None]
ROWS = np.arange(100, 180)


class Digits:
    """scikit-learn's digits."""

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, None]:
        return IMAGES[rows], None


def classifier(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return fresh_classifier(create_backbone("tiny", in_chans=1, image_size=8), 10, 128, grid=1)


def method(
    start: Classifier, config: FineTuneConfig = SCRATCH, *, freeze_norm: bool = False
) -> FineTune:
    labels = DIGITS.target[ROWS].astype(np.int64)
    return FineTune(start, ROWS, labels, PICTURES, Policy(), config, freeze_norm=freeze_norm)


def fit(tuned: FineTune, steps: int, rows: np.ndarray = ROWS) -> list[dict[str, float]]:
    seen: list[dict[str, float]] = []
    batches = Batches(Digits(), rows, 32, seed=0)
    train(tuned, batches, Plan(steps, 0), device=CPU, watch=lambda _s, m: seen.append(m))
    return seen


def statistics(tuned: FineTune) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in tuned.classifier.named_buffers() if "running" in k}


def test_it_learns_its_labels() -> None:
    seen = fit(method(classifier()), 60)
    assert seen[0]["loss"] == pytest.approx(np.log(10), abs=0.01)  # the head starts at zero
    assert np.mean([m["train_accuracy"] for m in seen[-5:]]) > 0.9


def test_backbone_and_head_are_both_trained() -> None:
    tuned = method(classifier())
    before = {k: v.clone() for k, v in tuned.classifier.named_parameters()}
    fit(tuned, 3)
    assert all(not torch.equal(v, before[k]) for k, v in tuned.classifier.named_parameters())


def test_the_two_rates_reach_their_parts() -> None:
    tuned = method(classifier(), FineTuneConfig(lr=1e-4, head_lr=1e-2))
    groups = tuned.optimizers()["finetune"].param_groups
    assert [group["lr"] for group in groups] == [1e-4] * 4 + [1e-2]
    head = {id(p) for p in tuned.classifier.head.parameters()}
    assert {id(p) for p in groups[-1]["params"]} == head
    assert PUBLISHED.lr < PRETRAINED.lr < SCRATCH.lr


def test_networks_with_very_wide_layers_learn_slower_from_scratch() -> None:
    """At the rate of small ones AlexNet called nearly all photos of clothing the same."""
    alexnet = create_backbone("torchvision:alexnet", in_chans=3, image_size=64)
    assert scratch_of(alexnet) == at_rate(SCRATCH, SCRATCH.lr / 10)
    for name in ("tiny", "conv-32-64-128", "resnet18", "convnext_atto", "pixels"):
        assert scratch_of(create_backbone(name, in_chans=3, image_size=64)) == SCRATCH


@pytest.mark.parametrize("freeze", [False, True])
def test_frozen_statistics_stay_and_their_weights_learn(freeze: bool) -> None:
    tuned = method(classifier(), freeze_norm=freeze)
    stood = statistics(tuned)
    scales = {k: v.clone() for k, v in tuned.classifier.named_parameters() if "blocks.0.1" in k}
    fit(tuned, 3)
    moved = statistics(tuned)
    assert all(torch.equal(moved[k], stood[k]) == freeze for k in stood)
    assert scales
    learned = dict(tuned.classifier.named_parameters())
    assert all(not torch.equal(learned[k], v) for k, v in scales.items())


def test_freezing_is_for_batch_norm_alone() -> None:
    net = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Dropout(), torch.nn.Conv2d(3, 3, 1))
    net.train()
    freeze_batch_norm(net)
    assert [part.training for part in net] == [False, True, True]


def test_an_image_whose_label_is_hidden_cannot_be_learned_from() -> None:
    tuned = method(classifier())
    with pytest.raises(IndexError):  # no class is called -1, and there is no row beyond the last
        fit(tuned, 1, np.array([50, 51, 52]))


def test_labels_are_no_part_of_the_model() -> None:
    assert not any("table" in name for name in method(classifier()).state_dict())


def test_the_classifier_that_was_given_is_the_one_trained() -> None:
    start = classifier()
    tuned = method(start)
    assert tuned.encoder is start.backbone
    fit(tuned, 1)
    assert tuned.classifier is start


def test_augmentation_is_keyed_by_the_seed(make: Callable[[int], torch.Tensor]) -> None:
    assert torch.equal(make(0), make(0))
    assert not torch.equal(make(0), make(1))


@pytest.fixture
def make() -> Callable[[int], torch.Tensor]:
    def trained(seed: int) -> torch.Tensor:
        labels = DIGITS.target[ROWS].astype(np.int64)
        policy = Policy(shift=0.2)
        tuned = FineTune(classifier(), ROWS, labels, PICTURES, policy, SCRATCH, freeze_norm=False)
        train(tuned, Batches(Digits(), ROWS, 16, seed=0), Plan(2, seed), device=CPU)
        return torch.cat([p.detach().flatten() for p in tuned.parameters()])

    return trained


def moved_stages(tuned: FineTune, steps: int, total: int) -> list[bool]:
    """Train for `steps` of `total`; return which stages moved, and at last whether the head did."""
    parts = [*stages(tuned.classifier.backbone), list(tuned.classifier.head.parameters())]
    before = [[p.detach().clone() for p in part] for part in parts]

    class Enough(BaseException):
        """Stands for the end of the part that is looked at."""

    def stop(step: int, _metrics: dict[str, float]) -> None:
        if step == steps:
            raise Enough

    with pytest.raises(Enough):
        train(tuned, Batches(Digits(), ROWS, 32, seed=0), Plan(total, 0), device=CPU, watch=stop)
    return [
        any(not torch.equal(p, q) for p, q in zip(part, old, strict=True))
        for part, old in zip(parts, before, strict=True)
    ]


@pytest.mark.parametrize(
    ("tune", "steps", "moved"),
    [
        ("all", 3, [True, True, True, True, True]),
        ("last", 3, [False, False, False, True, True]),
        ("head", 3, [False, False, False, False, True]),
        ("gradual", 2, [False, False, False, False, True]),
        ("gradual", 4, [False, False, False, True, True]),
        ("gradual", 8, [False, True, True, True, True]),
        ("gradual", 10, [True, True, True, True, True]),
    ],
)
def test_only_the_stages_asked_for_learn(tune: str, steps: int, moved: list[bool]) -> None:
    tuned = method(classifier(), FineTuneConfig(tune=tune))
    with torch.no_grad():  # a head of zeros would pass no gradient on
        tuned.classifier.head.linear.weight.normal_()
    assert moved_stages(tuned, steps, 10) == moved


def test_closed_stages_keep_their_statistics() -> None:
    tuned = method(classifier(), FineTuneConfig(tune="last"))
    stood = statistics(tuned)
    fit(tuned, 3)
    changed = {k for k, v in statistics(tuned).items() if not torch.equal(v, stood[k])}
    assert changed
    assert all(".blocks.3." in f".{key}" for key in changed)


def test_rates_fall_towards_the_images() -> None:
    tuned = method(classifier(), FineTuneConfig(lr=1e-3, head_lr=2e-3, layer_decay=0.5))
    rates = [group["lr"] for group in tuned.optimizers()["finetune"].param_groups]
    assert rates == pytest.approx([1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3])


def test_weight_decay_falls_towards_the_images() -> None:
    config = FineTuneConfig(weight_decay=0.08, layer_weight_decay=0.5, layer_decay=0.9)
    groups = method(classifier(), config).optimizers()["finetune"].param_groups
    assert [g["weight_decay"] for g in groups] == pytest.approx([0.01, 0.02, 0.04, 0.08, 0.08])


def test_l2_sp_holds_the_backbone_near_its_start() -> None:
    far = []
    for weight in (0.0, 10.0):
        tuned = method(classifier(), FineTuneConfig(l2_sp=weight))
        before = [p.detach().clone() for p in tuned.classifier.backbone.parameters()]
        fit(tuned, 20)
        after = tuned.classifier.backbone.parameters()
        far.append(
            sum(float((p.detach() - q).square().sum()) for p, q in zip(after, before, strict=True))
        )
    assert far[1] < 0.3 * far[0]


def test_l2_sp_is_half_the_squared_distance() -> None:
    tuned = method(classifier(), FineTuneConfig(l2_sp=1.0))
    first = next(tuned.classifier.backbone.parameters())
    with torch.no_grad():
        first.add_(0.1)
    assert float(tuned._distance().detach()) == pytest.approx(first.numel() * 0.01 / 2, rel=1e-4)
