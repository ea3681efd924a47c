"""What a method makes of one batch, worked out by hand: from bytes to the loss it hands over."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from fewlabels.core.types import Batch, Labels, Pictures
from fewlabels.data.augment import POLICIES
from fewlabels.methods import create_method
from fewlabels.models.backbones import create_backbone

COUNT, SIZE, MEAN, STD = 12, 8, 0.3, 0.4
PICTURES = Pictures(SIZE, 1, (MEAN,), (STD,))
BYTES = np.round(load_digits().images[:COUNT] * (255 / 16)).astype(np.uint8)  # (n, S, S)
CLASSES = load_digits().target[:COUNT]
SHOWN = BYTES / 255  # on the 0-1 scale
SEEN = (SHOWN - MEAN) / STD  # as the network sees it


class Step:
    """A step that keeps the loss instead of following it."""

    index, progress, seed = 0, 0.5, 7
    images, span = COUNT, slice(None)

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(5)
        self.loss = math.nan

    def autocast(self) -> AbstractContextManager[object]:
        return nullcontext()

    def backward(self, loss: Tensor, name: str) -> None:
        self.loss = float(loss.detach())

    def apply(self, name: str) -> None: ...

    def gather(self, x: Tensor) -> Tensor:
        return x


def built(name: str, backbone: str, labels: Labels | None = None) -> Any:
    torch.manual_seed(0)
    net = create_backbone(backbone, in_chans=1, image_size=SIZE)
    return create_method(name, net, PICTURES, POLICIES["none"], labels)


def loss_of(method: Any) -> float:
    images, rows = torch.from_numpy(BYTES)[:, None], torch.arange(COUNT)
    step = Step()
    method.update(Batch(images, None, rows, torch.zeros_like(rows)), step)
    return step.loss


def answers(method: Any, images: np.ndarray) -> np.ndarray:
    """Return the logits of pictures ``(n, S, S)``; the encoder's features are taken as they are."""
    with torch.no_grad():
        features = method.encoder(torch.from_numpy(images).float()[:, None]).double().numpy()
    weight, bias = (p.detach().double().numpy() for p in method.classify.parameters())
    return np.asarray(features @ weight.T + bias)


def surprise(logits: np.ndarray) -> np.ndarray:
    """Return minus the logarithm of each class's probability."""
    return np.asarray(np.log(np.exp(logits).sum(1, keepdims=True)) - logits)


def test_supervised_is_cross_entropy_with_smoothed_labels() -> None:
    """Szegedy et al. 2016, section 7: a tenth of the weight is spread over all classes."""
    method = built("supervised", "tiny", Labels(torch.from_numpy(CLASSES), 10))
    each = surprise(answers(method, SEEN))
    expected = 0.0
    for row, label in zip(each, CLASSES, strict=True):
        expected += 0.9 * row[label] + 0.1 * sum(row) / 10
    assert loss_of(method) == pytest.approx(expected / COUNT, rel=1e-5)


def test_rotation_names_the_turn_of_every_image() -> None:
    """Gidaris et al. 2018, equations 2 and 3: the mean over all four turns of all images."""
    method = built("rotation", "tiny")
    turned = np.concatenate([np.rot90(SEEN, turn, (1, 2)) for turn in range(4)])
    each = surprise(answers(method, turned))
    expected = sum(each[turn * COUNT + image, turn] for turn in range(4) for image in range(COUNT))
    assert loss_of(method) == pytest.approx(expected / (4 * COUNT), rel=1e-5)


def layers(stack: Any, x: np.ndarray) -> np.ndarray:
    """Return what linear layers with ReLU between them make of rows."""
    linear = [part for part in stack if isinstance(part, torch.nn.Linear)]
    for place, part in enumerate(linear):
        weight, bias = (p.detach().double().numpy() for p in part.parameters())
        x = x @ weight.T + bias
        if place < len(linear) - 1:
            x = np.maximum(x, 0)
    return x


def test_the_dense_autoencoder_paints_the_picture_it_saw() -> None:
    """The error is between pictures on the 0-1 scale, not between normalised ones."""
    method = built("dense_autoencoder", "dense")
    code = layers(method.encoder.layers, SEEN.reshape(COUNT, -1))
    assert code.shape == (COUNT, 2)
    painted = 1 / (1 + np.exp(-layers(method.decoder, code)))
    expected = np.mean((painted - SHOWN.reshape(COUNT, -1)) ** 2)
    assert loss_of(method) == pytest.approx(expected, rel=1e-5)


def test_the_vae_is_the_bound_on_the_likelihood() -> None:
    """Kingma and Welling 2014, equation 3, with torch's own distributions.

    The loss is minus the bound, without the constant of the normal distribution.
    """
    method = built("vae", "tiny")
    normal = torch.distributions.Normal
    with torch.no_grad():
        seen = torch.from_numpy(SEEN).float()[:, None]
        stats = method.to_code(method.encoder.forward_features(seen).flatten(1))
        code = normal(*(stats[:, :128], (stats[:, 128:] / 2).exp()))
        noise = torch.randn((COUNT, 128), generator=torch.Generator().manual_seed(5))
        painted = method.decoder(code.mean + code.stddev * noise).double()
    spread = 0.1
    said = normal(painted, spread).log_prob(torch.from_numpy(SHOWN)[:, None]).sum((1, 2, 3))
    constant = -SIZE * SIZE * math.log(spread * math.sqrt(2 * math.pi))
    apart = torch.distributions.kl_divergence(code, normal(0.0, 1.0)).sum(1)
    expected = float((constant - said + apart).mean())
    assert loss_of(method) == pytest.approx(expected, rel=1e-5)
