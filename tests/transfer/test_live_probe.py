"""The live probe: rank of the embedding, leave-one-out k-NN, and the collapse said aloud."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewlabels.core.types import Pictures
from fewlabels.data.dataset import Dataset, open_dataset
from fewlabels.models.backbones import create_backbone
from fewlabels.transfer.live_probe import (
    LiveProbe,
    effective_rank,
    leave_one_out_knn,
    leave_one_out_knn_r2,
    leave_one_out_means,
)

CPU = torch.device("cpu")
PICTURES = Pictures(8, 1, (0.3,), (0.37,))


@pytest.mark.parametrize("rank", [1, 2, 5, 20])
def test_the_rank_counts_equal_directions(rank: int) -> None:
    key = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(200, rank, dtype=torch.float64, generator=key))[0]
    centred = torch.linalg.qr(basis - basis.mean(0))[0]  # equal singular values, mean zero
    mixed = centred @ torch.randn(rank, 30, dtype=torch.float64, generator=key).T.T
    orthogonal = centred @ torch.linalg.qr(torch.randn(30, rank, dtype=torch.float64))[0].T
    assert effective_rank(orthogonal) == pytest.approx(rank, rel=1e-3)
    assert effective_rank(mixed) <= rank + 1e-6


def test_the_rank_ignores_scale_and_place() -> None:
    x = torch.randn(60, 10, generator=torch.Generator().manual_seed(0))
    assert effective_rank(x * 100 + 7) == pytest.approx(effective_rank(x), rel=1e-3)


def test_equal_features_have_rank_one() -> None:
    assert effective_rank(torch.full((10, 4), 3.0)) == 1.0


def slow_knn(x: Tensor, labels: np.ndarray, k: int) -> float:
    """Leave each image out in turn and let the others vote."""
    unit = (x - x.mean(0)).double().numpy()
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    right = 0
    for one in range(len(labels)):
        others = [(float(unit[one] @ unit[j]), j) for j in range(len(labels)) if j != one]
        votes = np.zeros(int(labels.max()) + 1)
        for similar, other in sorted(others, reverse=True)[:k]:
            votes[labels[other]] += np.exp(similar / 0.1)
        right += int(votes.argmax() == labels[one])
    return right / len(labels)


@pytest.mark.parametrize("k", [1, 5, 100])
def test_leave_one_out_agrees_with_a_loop(k: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    x = torch.tensor(rng.normal(size=(40, 5)) + labels[:, None], dtype=torch.float32)
    found = leave_one_out_knn(x, labels, k=k)
    assert found == pytest.approx(slow_knn(x, labels, k))
    assert 0.3 < found < 1


def test_an_image_never_votes_for_itself() -> None:
    x = torch.eye(6)
    assert leave_one_out_knn(x, np.arange(6)) == 0.0


def test_one_image_tells_nothing() -> None:
    assert np.isnan(leave_one_out_knn(torch.ones(1, 3), np.array([0])))


@pytest.mark.parametrize("k", [1, 5, 100])
def test_numbers_agree_with_a_loop(k: int) -> None:
    """Against scikit-learn, one image left out at a time."""
    from sklearn.metrics import r2_score
    from sklearn.neighbors import KNeighborsRegressor

    rng = np.random.default_rng(0)
    numbers = rng.normal(100, 20, 40)
    x = torch.tensor(rng.normal(size=(40, 5)) + numbers[:, None] / 15, dtype=torch.float32)
    unit = (x - x.mean(0)).double().numpy()
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    # Of unit vectors the squared distance is 2 - 2 times the cosine.
    model = KNeighborsRegressor(
        min(k, 39), weights=lambda d: np.exp((1 - d**2 / 2) / 0.1), algorithm="brute"
    )
    expected = []
    for one in range(40):
        kept = np.arange(40) != one
        expected.append(model.fit(unit[kept], numbers[kept]).predict(unit[[one]])[0])
    means = leave_one_out_means(x, numbers, k=k)
    assert means is not None
    np.testing.assert_allclose(means, expected, rtol=1e-4)
    found = leave_one_out_knn_r2(x, numbers, k=k)
    assert found == pytest.approx(r2_score(numbers, expected), abs=1e-4)


def test_numbers_that_do_not_vary_have_no_r2() -> None:
    assert np.isnan(leave_one_out_knn_r2(torch.eye(4), np.ones(4)))
    assert np.isnan(leave_one_out_knn_r2(torch.eye(1), np.ones(1)))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_dataset("digits")


class Constant(nn.Module):
    """An encoder that has collapsed: all images get nearly the same features."""

    num_features = 16
    num_channels = 16

    def forward_features(self, x: Tensor) -> Tensor:
        grey = x.mean((1, 2, 3))
        return grey[:, None, None, None].expand(-1, 16, 2, 2)

    def forward_head(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def test_a_collapse_is_said_aloud(digits: Dataset) -> None:
    probe = LiveProbe(digits, PICTURES, CPU)
    rank, warning = probe.verdict(Constant())
    assert rank == pytest.approx(1.0, abs=0.1)
    assert "collapsed" in warning
    torch.manual_seed(0)
    healthy = create_backbone("tiny", in_chans=1, image_size=8)
    rank, warning = probe.verdict(healthy)
    assert rank > 3
    assert warning == ""


class Code(Constant):
    """An encoder of two numbers: brightness above and below, or the same number twice."""

    num_features = num_channels = 2

    def __init__(self, *, dead: bool) -> None:
        super().__init__()
        self.dead = dead

    def forward_features(self, x: Tensor) -> Tensor:
        above, below = x[:, :, :4].mean((1, 2, 3)), x[:, :, 4:].mean((1, 2, 3))
        return torch.stack([above, above if self.dead else below], 1)

    def forward_head(self, x: Tensor) -> Tensor:
        return x


def test_a_code_of_two_numbers_is_judged_by_its_own_length(digits: Dataset) -> None:
    probe = LiveProbe(digits, PICTURES, CPU)
    rank, warning = probe.verdict(Code(dead=False))
    assert 1.5 < rank <= 2
    assert warning == ""
    rank, warning = probe.verdict(Code(dead=True))
    assert rank == pytest.approx(1.0, abs=0.01)
    assert "span about 1.0 directions" in warning


def test_the_probe_reads_the_visible_labels_only(digits: Dataset) -> None:
    rows = digits.visible(4, 0)
    torch.manual_seed(0)
    encoder = create_backbone("pixels", in_chans=1, image_size=8)
    before = LiveProbe(digits, PICTURES, CPU, rows=rows)(encoder)
    hidden = np.setdiff1d(np.arange(len(digits)), rows)
    kept = digits.labels[hidden].copy()
    try:
        digits.labels[hidden] = (kept + 1) % 10
        assert LiveProbe(digits, PICTURES, CPU, rows=rows)(encoder) == before
    finally:
        digits.labels[hidden] = kept
    assert before["knn"] > 0.3
    assert LiveProbe(digits, PICTURES, CPU)(encoder).keys() == {"rank"}


def test_the_probe_looks_at_training_images_only(digits: Dataset) -> None:
    sample = LiveProbe(digits, PICTURES, CPU).sample
    assert set(sample.tolist()) <= set(digits.rows("train").tolist())
    assert len(set(sample.tolist())) == len(sample) > 100
