"""The losses of the methods against their equations, written out as loops in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fewlabels.core.errors import UsageError
from fewlabels.core.types import Pictures
from fewlabels.data.augment import POLICIES
from fewlabels.methods.barlow_twins import barlow_twins_loss
from fewlabels.methods.byol import byol_loss
from fewlabels.methods.dino import DINO, dino_loss
from fewlabels.methods.emp import agreement, coding_rate
from fewlabels.methods.gan import discriminator_loss, generator_loss, gradient_penalty
from fewlabels.methods.kmeans import kmeans_step, whitening
from fewlabels.methods.masked import Masked, at_size, masked_loss, only_visible, patch_targets
from fewlabels.methods.rotation import four_turns
from fewlabels.methods.vae import gaussian_kl
from fewlabels.methods.vicreg import vicreg_terms
from fewlabels.models.backbones import create_backbone
from fewlabels.models.patches import EPSILON, PatchDictionary
from fewlabels.models.small import tiny


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def tensor(x: np.ndarray) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


@pytest.mark.parametrize(("count", "width"), [(2, 3), (7, 4), (16, 16)])
def test_vicreg(count: int, width: int) -> None:
    """Equations 1 to 5 of Bardes et al. 2022, number by number."""
    a, b = draw(count, width), 0.3 * draw(count, width, seed=1) + 2

    def narrow(z: np.ndarray) -> float:
        parts = [max(0.0, 1 - math.sqrt(np.var(z[:, d], ddof=1) + 1e-4)) for d in range(width)]
        return sum(parts) / width

    def correlated(z: np.ndarray) -> float:
        total = 0.0
        for i in range(width):
            for j in range(width):
                if i != j:
                    left, right = z[:, i] - z[:, i].mean(), z[:, j] - z[:, j].mean()
                    total += (float((left * right).sum()) / (count - 1)) ** 2
        return total / width

    invariance, variance, covariance = vicreg_terms(tensor(a), tensor(b))
    assert float(invariance) == pytest.approx(np.mean((a - b) ** 2), rel=1e-5)
    assert float(variance) == pytest.approx((narrow(a) + narrow(b)) / 2, rel=1e-5)
    assert float(covariance) == pytest.approx(correlated(a) + correlated(b), rel=1e-5)


@pytest.mark.parametrize(("count", "width"), [(4, 3), (16, 8)])
def test_barlow_twins(count: int, width: int) -> None:
    """Equations 1 and 2 of Zbontar et al. 2021, entry by entry."""
    a, b = draw(count, width), draw(count, width, seed=1)
    b = 0.5 * a + b
    total = 0.0
    for i in range(width):
        for j in range(width):
            left, right = a[:, i] - a[:, i].mean(), b[:, j] - b[:, j].mean()
            norm = math.sqrt((left**2).sum() * (right**2).sum())
            entry = float((left * right).sum()) / norm
            total += (1 - entry) ** 2 if i == j else 5e-3 * entry**2
    assert float(barlow_twins_loss(tensor(a), tensor(b), 5e-3)) == pytest.approx(total, rel=1e-4)


def test_byol() -> None:
    """Equation 2 of Grill et al. 2020: a squared distance of unit vectors."""
    a, b = draw(6, 5), draw(6, 5, seed=1)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]
    expected = ((unit[0] - unit[1]) ** 2).sum(1).mean()
    assert float(byol_loss(tensor(a), tensor(b))) == pytest.approx(expected, rel=1e-5)


def test_byol_sends_no_gradient_to_the_target() -> None:
    a, b = tensor(draw(6, 5)).requires_grad_(), tensor(draw(6, 5, seed=1)).requires_grad_()
    byol_loss(a, b).backward()
    assert a.grad is not None
    assert b.grad is None


def test_dino() -> None:
    """Equation 3 of Caron et al. 2021 over all pairs of different views."""
    student, teacher = draw(4, 3, 6), draw(2, 3, 6, seed=1)

    def shares(x: np.ndarray, temperature: float) -> np.ndarray:
        grown = np.exp(x / temperature - (x / temperature).max())
        return np.asarray(grown / grown.sum())

    total, pairs = 0.0, 0
    for g in range(2):
        for v in range(4):
            if g == v:
                continue
            pairs += 1
            for image in range(3):
                wanted, said = shares(teacher[g, image], 0.04), shares(student[v, image], 0.1)
                total -= float((wanted * np.log(said)).sum()) / 3
    found = dino_loss(tensor(student), tensor(teacher), student_t=0.1, teacher_t=0.04)
    assert float(found) == pytest.approx(total / pairs, rel=1e-5)


def test_the_divergence_from_the_standard_normal() -> None:
    """Against torch's own distributions."""
    mean, log_variance = tensor(draw(5, 4)), tensor(draw(5, 4, seed=1))
    ours = torch.distributions.Normal(mean, (log_variance / 2).exp())
    standard = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(ours, standard).sum(1).mean()
    assert float(gaussian_kl(mean, log_variance)) == pytest.approx(float(expected), rel=1e-5)


def test_the_coding_rate_counts_eigenvalues() -> None:
    """Half the sum of log(1 + D / (B e) eigenvalue), batch by batch."""
    z = draw(3, 7, 4)
    z /= np.linalg.norm(z, axis=2, keepdims=True)
    rates = []
    for batch in z:
        values = np.linalg.eigvalsh(batch.T @ batch)
        rates.append(0.5 * sum(math.log(1 + 4 / (7 * 0.2) * value) for value in values))
    assert float(coding_rate(tensor(z), 0.2)) == pytest.approx(np.mean(rates), rel=1e-5)


def test_agreement_is_the_cosine_with_the_mean_crop() -> None:
    z = draw(3, 5, 4)
    total = 0.0
    for image in range(5):
        centre = z[:, image].mean(0)
        for crop in z[:, image]:
            total += crop @ centre / np.linalg.norm(crop) / np.linalg.norm(centre)
    assert float(agreement(tensor(z))) == pytest.approx(total / 15, rel=1e-5)


def test_the_two_sides_of_the_gan() -> None:
    """The logarithms of Goodfellow et al. 2014, with D a sigmoid of the score."""
    real, forged = draw(9), draw(9, seed=1)

    def genuine(score: np.ndarray) -> np.ndarray:
        return np.asarray(1 / (1 + np.exp(-score)))

    judged = -(np.log(genuine(real)) + np.log(1 - genuine(forged))).mean()
    assert float(discriminator_loss(tensor(real), tensor(forged))) == pytest.approx(judged)
    fooled = -np.log(genuine(forged)).mean()
    assert float(generator_loss(tensor(forged))) == pytest.approx(fooled)


def test_the_gradient_penalty_is_the_slope_squared() -> None:
    """Of a linear score the slope is its weights, wherever it is taken."""
    weights = tensor(draw(2, 4, 4))
    x = tensor(draw(5, 2, 4, 4, seed=1)).requires_grad_()
    found = gradient_penalty((x * weights).sum((1, 2, 3)), x)
    assert float(found) == pytest.approx(float(weights.square().sum()), rel=1e-6)


def test_four_turns_agree_with_numpy() -> None:
    x = draw(2, 3, 5, 5)
    turned, which = four_turns(tensor(x))
    assert which.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    for place, turn in enumerate(which.tolist()):
        assert np.array_equal(turned[place].numpy(), np.rot90(x[place % 2], turn, (1, 2)))


def test_masked_pixels_alone_count() -> None:
    painted, x = draw(2, 3, 8, 8), draw(2, 3, 8, 8, seed=1)
    hidden = np.array([[[[True, False], [False, True]]], [[[False, False], [True, False]]]])
    target = patch_targets(tensor(x), 2)
    total, pixels = 0.0, 0
    for image, row, column in np.ndindex(2, 2, 2):
        if not hidden[image, 0, row, column]:
            continue
        box = np.s_[image, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        wanted = (x[box] - x[box].mean()) / math.sqrt(x[box].var() + 1e-6)
        total += ((painted[box] - wanted) ** 2).sum()
        pixels += 48
    found = masked_loss(tensor(painted), target, torch.from_numpy(hidden))
    assert float(found) == pytest.approx(total / pixels, rel=1e-5)


@pytest.mark.parametrize(("size", "cells"), [(7, 3), (10, 4), (9, 8)])
def test_patches_of_unequal_sides(size: int, cells: int) -> None:
    """Where the map's side does not divide the image's, pixel by pixel."""
    x, painted = draw(2, 3, size, size), draw(2, 3, size, size, seed=1)
    hidden = np.random.default_rng(2).random((2, 1, cells, cells)) < 0.5
    side = [index * cells // size for index in range(size)]
    squares = []
    for image, row, column in np.argwhere(hidden[:, 0]):
        rows = [i for i in range(size) if side[i] == row]
        columns = [i for i in range(size) if side[i] == column]
        box = np.ix_([image], range(3), rows, columns)
        wanted = (x[box] - x[box].mean()) / math.sqrt(x[box].var() + 1e-6)
        squares += list((painted[box] - wanted).flatten() ** 2)
    found = masked_loss(tensor(painted), patch_targets(tensor(x), cells), torch.tensor(hidden))
    assert float(found) == pytest.approx(np.mean(squares), rel=1e-5)


@pytest.mark.medium
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet10t", 70),
        ("torchvision:alexnet", 96),
        ("test_convnext", 100),
        ("test_efficientnet", 96),
        ("tiny", 28),
    ],
)
def test_the_stated_share_is_hidden_and_leaks_nowhere(name: str, size: int) -> None:
    """Also where the map's side does not divide the image's, as 3 and 70."""
    torch.manual_seed(0)
    pictures = Pictures(size, 3, (0.0,) * 3, (1.0,) * 3)
    method = Masked(create_backbone(name, in_chans=3, image_size=size), pictures, POLICIES["none"])
    hidden = method.hide(4, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert 0.5 <= float(hidden.float().mean()) <= 0.7
    x = torch.randn(4, 3, size, size)
    holes = at_size(hidden, x)
    assert abs(float(holes.float().mean()) - 0.6) < 0.15
    other = torch.where(holes, torch.randn_like(x), x)
    painted = method._fill_in(method.encoder, x, hidden)
    assert painted.shape == x.shape
    again = method._fill_in(method.encoder, other, hidden)
    assert torch.equal(painted, again)  # what is hidden changes nothing
    seen = torch.where(holes, x, torch.randn_like(x))
    changed = method._fill_in(method.encoder, seen, hidden)
    assert (painted - changed).abs().max() > 1e-5


@pytest.mark.medium
@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("dense", 16, "numbers"),
        ("test_vit", 96, "tokens"),
        ("swin_tiny_patch4_window7_224", 96, "windows"),
        ("vgg11", 32, "a single cell"),
    ],
)
def test_what_has_no_cells_to_hide(name: str, size: int, said: str) -> None:
    backbone = create_backbone(name, in_chans=3, image_size=size)
    pictures = Pictures(size, 3, (0.0,) * 3, (1.0,) * 3)
    with pytest.raises(UsageError, match=said):
        Masked(backbone, pictures, POLICIES["none"])


@pytest.mark.medium
@pytest.mark.parametrize("name", ["dense", "vit_tiny_patch16_224"])
def test_dino_says_what_takes_no_small_crops(name: str) -> None:
    backbone = create_backbone(name, in_chans=3, image_size=96)
    pictures = Pictures(96, 3, (0.0,) * 3, (1.0,) * 3)
    with pytest.raises(UsageError, match="does not take 48x48 images"):
        DINO(backbone, pictures, POLICIES["none"])


def test_a_visible_patch_is_seen_alone_wherever_it_stands() -> None:
    """As by a sparse convolution: neither its place nor the hidden cells around it matter."""
    torch.manual_seed(0)
    encoder = tiny(3, 32)
    patch = torch.randn(3, 3, 8, 8)
    hidden, dense = [], []
    for row, column in ((0, 0), (2, 1)):
        x = torch.zeros(3, 3, 32, 32)
        x[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = patch
        visible = torch.zeros(3, 1, 4, 4, dtype=torch.bool)
        visible[:, 0, row, column] = True
        with only_visible(encoder, visible):
            seen = encoder.forward_features(x)
        assert seen[~visible.expand_as(seen)].abs().max() == 0
        hidden.append(seen[:, :, row, column])
        dense.append(encoder.forward_features(x)[:, :, row, column])
    assert torch.allclose(hidden[0], hidden[1], atol=1e-5)
    assert hidden[0].abs().max() > 0
    assert not torch.allclose(dense[0], dense[1], atol=1e-2)  # without it both do matter
    assert all("forward" not in vars(module) for module in encoder.modules())


def test_visible_norm_is_batch_norm_of_the_visible() -> None:
    """Where everything is visible, nothing changes, running statistics included."""
    torch.manual_seed(0)
    one, other = tiny(3, 32), tiny(3, 32)
    other.load_state_dict(one.state_dict())
    x = torch.randn(4, 3, 32, 32)
    with only_visible(one, torch.ones(4, 1, 4, 4, dtype=torch.bool)):
        seen = one.forward_features(x)
    assert torch.allclose(seen, other.forward_features(x), atol=1e-5)
    for name, value in one.state_dict().items():
        assert torch.allclose(value, other.state_dict()[name], atol=1e-5), name


def test_a_first_step_of_k_means_is_lloyds() -> None:
    points, centres = draw(40, 3), draw(5, 3, seed=1)
    nearest = [min(range(5), key=lambda k: float(((p - centres[k]) ** 2).sum())) for p in points]
    moved, counts = kmeans_step(tensor(points), tensor(centres), torch.zeros(5).double())
    for k in range(5):
        won = points[np.array(nearest) == k]
        assert int(counts[k]) == len(won)
        expected = won.mean(0) if len(won) else centres[k]
        assert np.allclose(moved[k].numpy(), expected)


def test_later_steps_keep_the_mean_of_all_points_won() -> None:
    centres, counts = tensor(np.array([[0.0], [10.0]])), torch.zeros(2).double()
    for batch in ([1.0, 9.0], [2.0, 11.0, 12.0]):
        centres, counts = kmeans_step(tensor(np.array(batch)[:, None]), centres, counts)
    assert centres[:, 0].tolist() == pytest.approx([1.5, 32 / 3])
    assert counts.tolist() == [2, 3]


def test_whitened_patches_have_unit_covariance() -> None:
    x = draw(500, 4) @ draw(4, 4, seed=1)
    covariance = np.cov(x.T)
    white = x @ whitening(tensor(covariance), 0.0).double().numpy()
    assert np.allclose(np.cov(white.T), np.eye(4), atol=1e-3)


def test_a_patch_dictionary_answers_patch_by_patch() -> None:
    torch.manual_seed(0)
    net = PatchDictionary(1, 8, entries=5)
    net.mean.normal_()
    net.whiten.normal_()
    x = torch.randn(1, 1, 8, 8)
    answers = net.forward_features(x)
    assert answers.shape == (1, 5, 6, 6)
    for row, column in ((0, 0), (2, 5), (5, 3)):
        patch = x[0, 0, row : row + 3, column : column + 3].flatten().double().numpy()
        patch = (patch - patch.mean()) / math.sqrt(patch.var(ddof=1) + EPSILON)
        z = (patch - net.mean.numpy()) @ net.whiten.numpy()
        distance = np.sqrt(((z - net.dictionary.numpy()) ** 2).sum(1))
        expected = np.maximum(distance.mean() - distance, 0)
        assert np.allclose(answers[0, :, row, column].numpy(), expected, atol=1e-4)
    pooled = net(x)
    assert pooled.shape == (1, 20)
    corner = answers[0, 2, :3, 3:].mean()
    assert torch.allclose(pooled.view(5, 2, 2)[2, 0, 1], corner)
