"""A method so small that a hundred steps take no time, and the data it learns from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewlabels.core.types import Batch, Step
from fewlabels.data.loader import Batches
from fewlabels.training.loop import fresh_seed


class Tone(nn.Module):
    """Learns the mean grey of an image, with everything that must survive a resume:

    two optimizers of different kinds, dropout from the step's generator, a buffer, and
    batch normalisation.
    """

    def __init__(self, seed: int = 0, lr: float = 0.05) -> None:
        super().__init__()
        fresh_seed(seed, "tone")
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()
        )
        self.encoder.to(memory_format=torch.channels_last)
        self.head = nn.Linear(64, 1)
        self.register_buffer("average", torch.zeros(1))
        self._optimizers = {
            "encoder": torch.optim.AdamW(self.encoder.parameters(), lr=lr),
            "head": torch.optim.SGD(self.head.parameters(), lr=lr, momentum=0.9),
        }

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return dict(self._optimizers)

    def update(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        x = batch.images.float() / 255
        kept = torch.rand(x.shape, generator=step.generator) > 0.1
        with step.autocast():
            said = self.head(self.encoder(x * kept))[:, 0]
        loss = (said.float() - x.mean((1, 2, 3))).square().mean()
        step.backward(loss, "encoder")
        step.apply("encoder")
        step.apply("head")
        with torch.no_grad():
            self.average.mul_(0.9).add_(said.mean().float(), alpha=0.1)
        return {"loss": loss.detach()}


class Squares:
    """40 grey images of 4x4."""

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, None]:
        images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1), dtype=np.uint8)
        return images[rows], None


@pytest.fixture
def batches() -> Batches:
    return Batches(Squares(), np.arange(40), 8, seed=2)


@pytest.fixture
def make() -> Callable[..., Any]:
    return Tone


@pytest.fixture
def weights() -> Callable[[nn.Module], dict[str, Tensor]]:
    return lambda method: {k: v.clone() for k, v in method.state_dict().items()}
