"""Multiply-adds against counts by hand, and against PyTorch's own counter."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from fewlabels.core.arithmetic import MultiplyAdds

# (B, C, H, W) = (5, 3, 8, 8) to 4 channels by 3x3, then 4 * 64 features to 10.
CONVOLUTION = 5 * 64 * 4 * 3 * 9
LINEAR = 5 * 4 * 64 * 10


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


def test_forward_and_backward_by_hand() -> None:
    net, x = network(), torch.randn(5, 3, 8, 8)
    counted = MultiplyAdds()
    with counted:
        loss = net(x).square().mean()
    assert counted.total == CONVOLUTION + LINEAR
    with counted:
        loss.backward()
    # Backward forms the gradients of weights and of inputs; images have none.
    assert counted.total == (CONVOLUTION + LINEAR) + (CONVOLUTION + 2 * LINEAR)


def test_nothing_hides_in_inference_mode() -> None:
    net, x = network().eval(), torch.randn(5, 3, 8, 8)
    counted = MultiplyAdds()
    with torch.inference_mode(), counted:
        net(x)
    assert counted.total == CONVOLUTION + LINEAR


def test_as_pytorch_counts() -> None:
    block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)
    x = torch.randn(2, 7, 32, requires_grad=True)
    counted = MultiplyAdds()
    with counted:
        block(x).sum().backward()
    with FlopCounterMode(display=False) as theirs:
        block(x).sum().backward()
    assert counted.total == theirs.get_total_flops() // 2 > 0


def test_distances_and_the_gradient_of_a_gradient() -> None:
    for rows in (3, 30):  # PyTorch takes another way for many rows
        counted = MultiplyAdds()
        with counted:
            torch.cdist(torch.randn(rows, 6), torch.randn(40, 6))
        assert counted.total == rows * 40 * 6
    weight, x = torch.randn(4, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    counted = MultiplyAdds()
    with counted:
        (slope,) = torch.autograd.grad((x @ weight).square().sum(), x, create_graph=True)
        slope.square().sum().backward()
    assert counted.total > 4 * 3 * 4 * 4


def test_counting_changes_no_number() -> None:
    net = network()
    x, y = torch.randn(5, 3, 8, 8), torch.arange(5)
    gradients = []
    for mode in (MultiplyAdds(), torch.enable_grad()):
        net.zero_grad()
        with mode:
            F.cross_entropy(net(x), y).backward()
        gradients.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
