"""The convolutional decoder: any size, values of a picture, every weight in use."""

from __future__ import annotations

import pytest
import torch

from fewlabels.models.decoders import ConvDecoder


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 12, 20, 28, 32, 48, 64, 96, 128])
def test_shapes_and_range(size: int, channels: int) -> None:
    painted = ConvDecoder(16, size, channels)(torch.randn(2, 16))
    assert painted.shape == (2, channels, size, size)
    assert painted.min() > 0
    assert painted.max() < 1


def test_the_last_map_is_never_thin() -> None:
    decoder = ConvDecoder(16, 128, 3)
    assert decoder.paint.in_channels == 16


def test_every_weight_gets_a_gradient() -> None:
    decoder = ConvDecoder(16, 32, 3)
    decoder(torch.randn(4, 16)).square().mean().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_the_code_decides_the_picture() -> None:
    decoder = ConvDecoder(16, 16, 1)
    one, other = decoder(torch.randn(2, 16))
    assert (one - other).abs().max() > 1e-4


def test_it_learns_a_picture() -> None:
    torch.manual_seed(0)
    decoder = ConvDecoder(4, 8, 1)
    code, picture = torch.randn(1, 4), torch.rand(1, 1, 8, 8)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=3e-3)
    errors = []
    for _ in range(150):
        loss = (decoder(code) - picture).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(float(loss.detach()))
    assert errors[-1] < 0.2 * errors[0]
