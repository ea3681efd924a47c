"""Pictures of noise in which one bright square decides the class, and networks that know it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabels.models.classifier import Classifier
from fewlabels.models.heads import LinearHead
from fewlabels.models.small import SmallCNN

SIZE, SQUARE = 24, 6


Squares = Callable[[int, int], tuple[Tensor, Tensor, np.ndarray]]


@pytest.fixture(scope="session")
def squares() -> Squares:
    """Return a function of a number of images and a seed."""
    return draw_squares


def draw_squares(count: int, seed: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """Return images ``(n, 3, 24, 24)``, classes, and where the square lies ``(n, 24, 24)`` bool.

    The square is red in class 0 and blue in class 1, at a random place.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 0.5, (count, 3, SIZE, SIZE)).astype(np.float32)
    labels = rng.integers(0, 2, count)
    inside = np.zeros((count, SIZE, SIZE), bool)
    for place, label in enumerate(labels):
        top, left = rng.integers(0, SIZE - SQUARE + 1, 2)
        x[place, 2 * label, top : top + SQUARE, left : left + SQUARE] += 3.0
        inside[place, top : top + SQUARE, left : left + SQUARE] = True
    return torch.from_numpy(x), torch.from_numpy(labels), inside


@pytest.fixture(scope="session")
def knowing() -> Classifier:
    """Return a small CNN, trained in a second to tell the squares apart."""
    torch.manual_seed(0)
    backbone = SmallCNN((16, 24, 32), (1, 2, 1))
    classifier = Classifier(backbone, LinearHead(32, 2)).train()
    adam = torch.optim.Adam(classifier.parameters(), 3e-3)
    for step in range(60):
        x, labels, _ = draw_squares(32, step)
        loss = F.cross_entropy(classifier(x), labels)
        adam.zero_grad()
        loss.backward()
        adam.step()
    x, labels, _ = draw_squares(64, 1_000)
    with torch.no_grad():
        assert (classifier.eval()(x).argmax(1) == labels).float().mean() > 0.95
    return classifier
