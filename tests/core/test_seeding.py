"""Random streams: named, repeatable on every machine, and keyed by image rather than by batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewlabels.core.seeding import generator, stream, uniform


def keys(count: int) -> torch.Tensor:
    return torch.arange(count)


def test_a_stream_is_the_same_on_every_machine() -> None:
    assert stream(0, "split") == 3769940940748469125
    assert stream(3, "labels", 0) == 5373304935542631904


def test_streams_differ_by_seed_name_and_number() -> None:
    several = [stream(0, "a"), stream(1, "a"), stream(0, "b"), stream(0, "a", 0), stream(0, "a", 1)]
    assert len(set(several)) == len(several)


def test_a_stream_fits_a_torch_seed() -> None:
    assert all(0 <= stream(seed, "x") < 2**63 for seed in range(200))


def test_a_generator_starts_its_stream_anew() -> None:
    first = torch.rand(5, generator=generator(4, "weights"))
    assert torch.equal(first, torch.rand(5, generator=generator(4, "weights")))
    assert not torch.equal(first, torch.rand(5, generator=generator(5, "weights")))


def test_uniform_numbers_are_the_same_on_every_machine() -> None:
    drawn = uniform(7, torch.tensor([0, 3]), torch.tensor([5, 123_456_789]), 2, view=1)
    expected = [[0.5470283627510071, 0.4324268102645874], [0.1394737958908081, 0.5817170739173889]]
    assert drawn.tolist() == expected


def test_uniform_numbers_do_not_depend_on_the_batch() -> None:
    epochs, indices = keys(50) % 3, keys(50) * 17
    whole = uniform(0, epochs, indices, 8)
    order = torch.randperm(50, generator=generator(0, "order"))
    assert torch.equal(uniform(0, epochs[order], indices[order], 8), whole[order])
    assert torch.equal(uniform(0, epochs[4:5], indices[4:5], 8), whole[4:5])
    assert torch.equal(uniform(0, epochs, indices, 3), whole[:, :3])


@pytest.mark.parametrize("change", ["seed", "epoch", "index", "view"])
def test_every_part_of_the_key_changes_the_numbers(change: str) -> None:
    zeros = torch.zeros(64, dtype=torch.int64)
    plain = uniform(0, zeros, keys(64), 4)
    other = uniform(
        int(change == "seed"),
        zeros + int(change == "epoch"),
        keys(64) + (1_000 if change == "index" else 0),
        4,
        view=int(change == "view"),
    )
    assert (plain == other).float().mean() < 0.01


def test_uniform_numbers_are_uniform() -> None:
    drawn = uniform(1, torch.zeros(20_000, dtype=torch.int64), keys(20_000), 5).numpy()
    assert drawn.min() >= 0.0
    assert drawn.max() < 1.0
    counts = np.histogram(drawn, bins=20, range=(0, 1))[0]
    expected = drawn.size / 20
    # Chi-squared with 19 degrees of freedom: 43.8 is exceeded once in a thousand.
    assert ((counts - expected) ** 2 / expected).sum() < 43.8


def test_neighbouring_keys_are_unrelated() -> None:
    zeros = torch.zeros(20_000, dtype=torch.int64)
    drawn = uniform(1, zeros, keys(20_000), 3)
    later = uniform(1, zeros + 1, keys(20_000), 3)
    second = uniform(1, zeros, keys(20_000), 3, view=1)
    pairs = [
        (drawn[:-1, 0], drawn[1:, 0]),
        (drawn[:, 0], drawn[:, 1]),
        (drawn[:, 0], later[:, 0]),
        (drawn[:, 0], second[:, 0]),
    ]
    for a, b in pairs:
        # One over the square root of 20,000 is 0.007; four of these.
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 0.028
