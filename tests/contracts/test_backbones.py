"""The same methods on backbones that are not ours: they learn, or say that they do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from fewlabels.core.errors import UsageError
from fewlabels.core.types import Labels, Method, Pictures
from fewlabels.data.augment import POLICIES
from fewlabels.data.loader import Batches
from fewlabels.methods import LABELLED, METHODS, OWN_BACKBONE, create_method
from fewlabels.models.backbones import create_backbone
from fewlabels.training.loop import Plan, fresh_seed, train

COUNT, SIZE = 16, 64
# One of a kind: plain residual, normalised over channels, squeeze-and-excitation, tokens.
QUICK = ("test_resnet", "test_convnext", "test_efficientnet", "test_vit")
# And others, some of which bring layers behind their last map, windows, or one size only.
MORE = (
    "resnet10t",
    "test_nfnet",
    "mobilenetv3_small_050",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "torchvision:alexnet",
    "torchvision:squeezenet1_1",
    "torchvision:shufflenet_v2_x0_5",
)
# What does not fit, and is said before anything is trained.
REFUSED = {
    ("masked", "test_vit"),
    ("masked", "vit_tiny_patch16_224"),
    ("masked", "swin_tiny_patch4_window7_224"),
    ("masked", "torchvision:alexnet"),
    ("dino", "vit_tiny_patch16_224"),
    ("dino", "swin_tiny_patch4_window7_224"),
    ("dino", "torchvision:alexnet"),
    ("gan", "mobilenetv3_small_050"),
}
FREE = sorted(METHODS.keys() - OWN_BACKBONE.keys())
CASES = [
    pytest.param(backbone, name, marks=mark)
    for names, mark in ((QUICK, pytest.mark.medium), (MORE, pytest.mark.slow))
    for backbone in names
    for name in FREE
]


class Enlarged:
    """The first handwritten digits, eight times as large and in three channels."""

    def __init__(self) -> None:
        images = np.round(load_digits().images[:COUNT] * (255 / 16)).astype(np.uint8)
        self.images = np.repeat(images.repeat(8, 1).repeat(8, 2)[..., None], 3, 3)

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, None]:
        return self.images[rows], None


def build(backbone: str, name: str) -> Method:
    fresh_seed(0, "weights")
    net = create_backbone(backbone, in_chans=3, image_size=SIZE)
    labels = Labels(torch.from_numpy(load_digits().target[:COUNT]), 10)
    pictures = Pictures(SIZE, 3, (0.3,) * 3, (0.4,) * 3)
    known = labels if name in LABELLED else None
    return create_method(name, net, pictures, POLICIES["digits"], known)


def test_every_method_is_tried() -> None:
    assert {name for name, _ in REFUSED} <= set(FREE)
    assert {backbone for _, backbone in REFUSED} <= {*QUICK, *MORE}
    assert set(FREE) | OWN_BACKBONE.keys() == METHODS.keys()


@pytest.mark.parametrize(("backbone", "name"), CASES)
def test_it_learns_or_is_refused(backbone: str, name: str) -> None:
    """After three steps every weight up to the last map has moved, and all are numbers."""
    if (name, backbone) in REFUSED:
        with pytest.raises(UsageError) as caught:
            build(backbone, name)
        assert caught.value.hint
        return
    method = build(backbone, name)
    before = {k: v.clone() for k, v in method.encoder.named_parameters()}
    losses: list[float] = []
    batches = Batches(Enlarged(), np.arange(COUNT), COUNT, seed=3)
    train(
        method,
        batches,
        Plan(3, seed=5),
        device=torch.device("cpu"),
        watch=lambda _step, metrics: losses.append(metrics["loss"]),
    )
    assert len(losses) == 3
    assert np.isfinite(losses).all()
    after = dict(method.encoder.named_parameters())
    assert all(bool(torch.isfinite(value).all()) for value in after.values())
    still = {k for k, v in before.items() if torch.equal(v, after[k])}
    assert still <= behind_the_map(method)
    assert len(still) < len(before)


def behind_the_map(method: Method) -> set[str]:
    """Return the weights that `forward_features` does not use: methods that paint leave them."""
    encoder = method.encoder
    encoder.zero_grad()
    encoder.forward_features(torch.randn(2, 3, SIZE, SIZE)).square().sum().backward()
    return {k for k, v in encoder.named_parameters() if v.grad is None}
