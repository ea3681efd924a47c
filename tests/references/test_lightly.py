"""The losses against lightly's: other people's code, written from the same papers.

lightly is installed for this alone; nothing in ``src`` may import it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabels.methods.barlow_twins import barlow_twins_loss
from fewlabels.methods.byol import byol_loss
from fewlabels.methods.dino import dino_loss
from fewlabels.methods.emp import agreement, coding_rate
from fewlabels.methods.simclr import nt_xent
from fewlabels.methods.vicreg import vicreg_terms

loss = pytest.importorskip("lightly.loss", reason="lightly is not installed: make setup")

pytestmark = pytest.mark.medium

Pair = Callable[[Tensor, Tensor], Tensor]


def simclr(a: Tensor, b: Tensor) -> Tensor:
    return nt_xent(torch.cat([a, b]), 0.2)


def vicreg(a: Tensor, b: Tensor) -> Tensor:
    invariance, variance, covariance = vicreg_terms(a, b)
    return 25 * invariance + 25 * variance + covariance


def barlow_twins(a: Tensor, b: Tensor) -> Tensor:
    return barlow_twins_loss(a, b, 5e-3)


def byol(a: Tensor, b: Tensor) -> Tensor:
    # Two unit vectors: their squared distance is 2 - 2 cos, and lightly gives -cos.
    return (byol_loss(a, b) - 2) / 2


def emp(a: Tensor, b: Tensor) -> Tensor:
    z = torch.stack([a, b])
    return coding_rate(z, 0.2) - 200 * agreement(z)


def dino(a: Tensor, b: Tensor) -> Tensor:
    # Three views, the first two of which the teacher saw; its centre is still at zero.
    student, teacher = torch.stack([a, b, a + b]), torch.stack([b, a]).detach()
    return dino_loss(student, teacher, student_t=0.1, teacher_t=0.04)


def lightly_dino(a: Tensor, b: Tensor) -> Tensor:
    theirs = loss.DINOLoss(output_dim=a.shape[1], teacher_temp=0.04, student_temp=0.1)
    return theirs([b.detach(), a.detach()], [a, b, a + b], teacher_temp=0.04)


LOSSES: dict[str, tuple[Pair, Pair]] = {
    "simclr": (simclr, lambda a, b: loss.NTXentLoss(temperature=0.2)(a, b)),
    "vicreg": (vicreg, lambda a, b: loss.VICRegLoss()(a, b)),
    "barlow_twins": (barlow_twins, lambda a, b: loss.BarlowTwinsLoss()(a, b)),
    "byol": (byol, lambda a, b: loss.NegativeCosineSimilarity()(a, b.detach())),
    "emp": (emp, lambda a, b: loss.EMPSSLLoss()([a, b])),
    "dino": (dino, lightly_dino),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("count", "width", "scale"), [(6, 4, 1.0), (33, 16, 3.0), (64, 8, 0.1)])
def test_value_and_gradients_agree(name: str, count: int, width: int, scale: float) -> None:
    """To 1e-5 of the value, and to 1e-5 of the largest gradient."""
    ours, theirs = LOSSES[name]
    draws = torch.Generator().manual_seed(count)
    first, second = scale * torch.randn(2, count, width, generator=draws) + 0.5
    if name == "emp":  # both take unit vectors
        first, second = F.normalize(first, dim=1), F.normalize(second, dim=1)
    found = []
    for function in (ours, theirs):
        a, b = first.clone().requires_grad_(), second.clone().requires_grad_()
        value = function(a, b)
        value.backward()
        found.append((float(value.detach()), a.grad))
    (value, slope), (expected, expected_slope) = found
    assert value == pytest.approx(expected, rel=1e-5)
    assert slope is not None
    assert expected_slope is not None
    largest = float(expected_slope.abs().max())
    assert largest > 0
    assert float((slope - expected_slope).abs().max()) <= 1e-5 * largest
