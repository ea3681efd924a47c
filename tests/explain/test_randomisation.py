"""A map that does not change with the weights is found out; one that does is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from fewlabels.explain.randomisation import LIMIT, check, randomised, rank_correlation
from fewlabels.explain.saliency import MAPS, grad_cam
from fewlabels.models.backbones import create_backbone
from fewlabels.models.classifier import Classifier
from fewlabels.models.heads import LinearHead

pytestmark = pytest.mark.medium

Squares = Callable[[int, int], tuple[Tensor, Tensor, np.ndarray]]


def edges(_classifier: Classifier, x: Tensor, _targets: Tensor) -> Tensor:
    """Draw the edges of the image and ask no network."""
    kernel = torch.tensor([[[[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]]]])
    return F.conv2d(x.mean(1, keepdim=True), kernel, padding=1)[:, 0].abs()


def nothing(_classifier: Classifier, x: Tensor, _targets: Tensor) -> Tensor:
    return torch.zeros(len(x), *x.shape[2:])


def test_edges_and_nothing_are_withdrawn(knowing: Classifier, squares: Squares) -> None:
    x, labels, _ = squares(4, 5)
    for pretender in (edges, nothing):
        found = check(pretender, knowing, x, labels)
        assert found.correlation > 0.999
        assert not found.passed


def test_a_sign_that_turns_does_not_hide_edges(knowing: Classifier, squares: Squares) -> None:
    x, labels, _ = squares(4, 5)

    def turning(classifier: Classifier, x: Tensor, targets: Tensor) -> Tensor:
        sign = 1.0 if classifier is knowing else -1.0
        return sign * edges(classifier, x, targets)

    assert not check(turning, knowing, x, labels).passed


def test_maps_of_what_was_learned_pass(knowing: Classifier, squares: Squares) -> None:
    x, labels, _ = squares(6, 5)
    for name, method in MAPS.items():
        found = check(method, knowing, x, labels)
        assert found.passed, (name, found)
        assert found.images == 6


def test_one_image_is_enough_for_the_check(knowing: Classifier, squares: Squares) -> None:
    x, labels, _ = squares(1, 5)
    assert -1 <= check(grad_cam, knowing, x, labels).correlation <= 1


def test_random_weights_know_nothing_and_leave_the_original_alone(
    knowing: Classifier, squares: Squares
) -> None:
    x, labels, _ = squares(200, 9)
    before = {k: v.clone() for k, v in knowing.state_dict().items()}
    with torch.no_grad():
        hits = [
            float((randomised(knowing, x[:32], seed)(x).argmax(1) == labels).float().mean())
            for seed in range(6)
        ]
    assert abs(np.mean(hits) - 0.5) < 0.2
    after = knowing.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_signals_survive_random_weights_without_normalisation() -> None:
    torch.manual_seed(0)
    backbone = create_backbone("conv-32-64-128", in_chans=3, image_size=16)
    classifier = Classifier(backbone, LinearHead(128, 2)).eval()
    x = torch.randn(8, 3, 16, 16)
    with torch.no_grad():
        first = classifier.backbone(x).std()
        drawn = randomised(classifier, x, 0).backbone(x).std()
    assert 0.1 < float(drawn / first) < 10


def test_the_same_seed_draws_the_same_weights(knowing: Classifier, squares: Squares) -> None:
    x, _, _ = squares(4, 5)
    one, same, other = (randomised(knowing, x, seed).state_dict() for seed in (1, 1, 2))
    weight = "backbone.blocks.0.0.weight"
    assert torch.equal(one[weight], same[weight])
    assert not torch.equal(one[weight], other[weight])


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    a = np.maximum(rng.normal(size=(12, 12)), 0)  # with ties, as Grad-CAM has them
    b = a + rng.normal(size=(12, 12))
    expected = spearmanr(a.ravel(), b.ravel()).statistic
    assert abs(rank_correlation(a, b) - expected) < 1e-12
    assert 0 < expected < LIMIT + 0.4
