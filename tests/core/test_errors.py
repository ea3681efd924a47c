"""The names that are offered instead of one that nobody knows."""

from __future__ import annotations

import pytest

from fewlabels.core.errors import nearest, unknown

SETS = ["CIFAR10", "CIFAR100", "DTD", "FashionMNIST", "KMNIST", "MNIST", "STL10", "SVHN", "USPS"]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("cifar", {"CIFAR10", "CIFAR100"}),
        ("stl", {"STL10"}),
        ("mnist10", {"MNIST", "KMNIST", "FashionMNIST"}),
        ("svnh", {"SVHN"}),
        ("zzzz", set()),
    ],
)
def test_what_is_alike(name: str, near: set[str]) -> None:
    assert set(nearest(name, SETS)) == near


def test_a_prefix_makes_no_names_alike() -> None:
    error = unknown("dataset", "mnist10", SETS, prefix="torchvision:")
    assert "'torchvision:mnist10'" in error.message
    assert "torchvision:FashionMNIST" in error.hint
    assert "DTD" not in error.hint


def test_what_is_said_where_nothing_is_alike() -> None:
    assert unknown("backbone", "zzzz", SETS, otherwise="look there").hint == "look there"
    assert unknown("backbone", "zzzz", SETS).hint.startswith("one of: CIFAR10")
