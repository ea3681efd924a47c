"""Augmentation: what each operation does, that it is keyed by image, that it resamples right."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fewlabels.core.types import Batch, Pictures
from fewlabels.data import augment as module
from fewlabels.data.augment import GREY, POLICIES, Policy, augment, auto_policy, normalise, plain
from fewlabels.data.resample import resample

COLOUR = Pictures(32, 3, (0.48, 0.45, 0.4), (0.25, 0.24, 0.26))
RAW = Pictures(32, 3, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
EVERYTHING = Policy(
    crop=(0.3, 1.0),
    ratio=1.3,
    flip=0.5,
    shift=0.1,
    rotate=20.0,
    scale=(0.8, 1.2),
    brightness=0.3,
    contrast=0.3,
    saturation=0.4,
    hue=0.1,
    jitter=0.8,
    grey=0.2,
    blur=0.5,
    noise=0.1,
    cutout=0.3,
)
SINGLE = {
    "crop": Policy(crop=(0.2, 0.8)),
    "ratio": Policy(crop=(0.5, 0.6), ratio=2.0),
    "flip": Policy(flip=1.0),
    "shift": Policy(shift=0.2),
    "rotate": Policy(rotate=30.0),
    "scale": Policy(scale=(0.6, 0.9)),
    "brightness": Policy(brightness=0.4),
    "contrast": Policy(contrast=0.4),
    "saturation": Policy(saturation=0.4),
    "hue": Policy(hue=0.2),
    "jitter": Policy(brightness=0.5, jitter=1.0),
    "grey": Policy(grey=1.0),
    "blur": Policy(blur=1.0),
    "noise": Policy(noise=0.2),
    "cutout": Policy(cutout=0.4),
}


def smooth(count: int, height: int, width: int, channels: int = 3, seed: int = 0) -> Tensor:
    """Return random pictures without fine grain, ``(B, C, H, W)`` uint8, channels-last."""
    key = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 5, 5, generator=key)
    fine = F.interpolate(coarse, (height, width), mode="bicubic").clamp(0.02, 0.98)
    return (fine * 255).byte().contiguous(memory_format=torch.channels_last)


def batch_of(images: Tensor, sizes: Tensor | None = None, epoch: int = 0) -> Batch:
    indices = torch.arange(len(images)) * 7 + 3
    return Batch(images, sizes, indices, torch.full_like(indices, epoch))


def some(batch: Batch, chosen: list[int]) -> Batch:
    sizes = None if batch.sizes is None else batch.sizes[chosen]
    return Batch(batch.images[chosen], sizes, batch.indices[chosen], batch.epochs[chosen])


def luma(x: Tensor) -> Tensor:
    return torch.einsum("bchw,c->bhw", x, torch.tensor(GREY))


def close(a: Tensor, b: Tensor, within: float = 2e-5) -> bool:
    return a.shape == b.shape and float((a - b).abs().max()) <= within


# ---- what stays ------------------------------------------------------------------------------


def test_the_identity_returns_the_normalised_picture() -> None:
    images = smooth(4, 32, 32)
    view = augment(batch_of(images), COLOUR, Policy(), seed=0)
    assert close(view, normalise(images.float() / 255, COLOUR), 1e-6)


def test_the_identity_keeps_black_and_white() -> None:
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    images[1] = 255
    view = augment(batch_of(images), RAW, Policy(brightness=1e-9), seed=0)
    assert view[0].abs().max() == 0
    assert torch.all(view[1] == 1)


def test_a_view_stays_between_black_and_white() -> None:
    view = augment(batch_of(smooth(40, 32, 32)), COLOUR, replace(EVERYTHING, noise=0.5), seed=0)
    mean, std = (torch.tensor(v)[:, None, None] for v in (COLOUR.mean, COLOUR.std))
    unit = view * std + mean
    assert unit.min() >= -1e-5
    assert unit.max() <= 1 + 1e-5
    assert unit.max() > 0.999  # the noise did reach the end of the scale


def test_views_are_channels_last_float() -> None:
    view = augment(batch_of(smooth(3, 40, 50)), COLOUR, EVERYTHING, seed=0)
    assert view.shape == (3, 3, 32, 32)
    assert view.dtype == torch.float32
    assert view.is_contiguous(memory_format=torch.channels_last)


# ---- what it is keyed by ---------------------------------------------------------------------


@pytest.mark.parametrize("padded", [False, True])
def test_a_view_does_not_depend_on_the_batch(padded: bool) -> None:
    sizes = torch.tensor([[40, 40], [30, 40], [40, 33], [25, 25], [40, 21], [38, 40]])
    batch = batch_of(smooth(6, 40, 40), sizes if padded else None)
    whole = augment(batch, COLOUR, EVERYTHING, seed=5, view=1)
    for chosen in ([2], [5, 0, 3], [1, 1, 4]):
        part = augment(some(batch, chosen), COLOUR, EVERYTHING, seed=5, view=1)
        assert close(part, whole[chosen], 1e-5)


def test_a_view_does_not_depend_on_the_cache_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(smooth(9, 32, 32))
    whole = augment(batch, COLOUR, EVERYTHING, seed=0)
    monkeypatch.setattr(module, "CHUNK", 2 * 3 * 32 * 32)
    assert close(augment(batch, COLOUR, EVERYTHING, seed=0), whole, 1e-5)


@pytest.mark.parametrize("padded", [False, True])
def test_several_views_are_the_single_ones_one_after_the_other(padded: bool) -> None:
    sizes = torch.tensor([[40, 40], [30, 40], [40, 33], [25, 25], [40, 21], [38, 40]])
    batch = batch_of(smooth(6, 40, 40), sizes if padded else None)
    for policy in (EVERYTHING, POLICIES["natural"].views, POLICIES["digits"].views):
        together = augment(batch, COLOUR, policy, seed=5, view=2, views=3)
        alone = [augment(batch, COLOUR, policy, seed=5, view=view) for view in (2, 3, 4)]
        assert together.shape == (18, 3, COLOUR.size, COLOUR.size)
        assert close(together, torch.cat(alone), 1e-5)
        assert together.is_contiguous(memory_format=torch.channels_last)


def test_a_view_changes_with_seed_epoch_and_number() -> None:
    images = smooth(8, 32, 32)
    first = augment(batch_of(images), COLOUR, EVERYTHING, seed=0)
    others = [
        augment(batch_of(images), COLOUR, EVERYTHING, seed=1),
        augment(batch_of(images, epoch=1), COLOUR, EVERYTHING, seed=0),
        augment(batch_of(images), COLOUR, EVERYTHING, seed=0, view=1),
    ]
    for other in others:
        assert torch.all((other - first).abs().amax((1, 2, 3)) > 0.05)
    assert torch.equal(augment(batch_of(images), COLOUR, EVERYTHING, seed=0), first)


def test_equal_pictures_get_different_views() -> None:
    one = smooth(1, 32, 32).expand(6, -1, -1, -1)
    view = augment(batch_of(one), COLOUR, POLICIES["natural"].views, seed=0)
    apart = (view[:, None] - view[None]).abs().amax((2, 3, 4))
    assert apart[~torch.eye(6, dtype=torch.bool)].min() > 0.05


# ---- what each operation does ----------------------------------------------------------------


def test_every_setting_of_a_policy_has_its_own_test() -> None:
    assert set(SINGLE) == {field.name for field in fields(Policy)}


@pytest.mark.parametrize("name", sorted(SINGLE))
def test_each_operation_changes_the_picture(name: str) -> None:
    images = smooth(16, 32, 32)
    plain_view = augment(batch_of(images), RAW, Policy(), seed=0)
    changed = (augment(batch_of(images), RAW, SINGLE[name], seed=0) - plain_view).abs()
    assert (changed.amax((1, 2, 3)) > 1e-4).float().mean() > 0.9
    assert changed.max() > 0.03


def test_jitter_is_the_share_of_pictures_whose_colour_changes() -> None:
    images = smooth(400, 8, 8)
    pictures = replace(RAW, size=8)
    view = augment(batch_of(images), pictures, Policy(brightness=0.4, jitter=0.3), seed=0)
    changed = (view - images.float() / 255).abs().amax((1, 2, 3)) > 1e-4
    assert 0.2 < changed.float().mean() < 0.4


def test_a_flip_mirrors_left_and_right() -> None:
    images = smooth(4, 32, 32)
    straight = augment(batch_of(images), COLOUR, Policy(), seed=0)
    assert close(augment(batch_of(images), COLOUR, Policy(flip=1.0), seed=0), straight.flip(3))


def test_half_of_the_pictures_are_flipped() -> None:
    images = smooth(200, 8, 8)
    pictures = replace(RAW, size=8)
    straight = augment(batch_of(images), pictures, Policy(), seed=0)
    view = augment(batch_of(images), pictures, Policy(flip=0.5), seed=0)
    kept = (view - straight).abs().amax((1, 2, 3)) < 1e-4
    turned = (view - straight.flip(3)).abs().amax((1, 2, 3)) < 1e-4
    assert torch.all(kept ^ turned)
    assert 0.35 < turned.float().mean() < 0.65


@pytest.mark.parametrize("policy", [Policy(flip=1.0, rotate=1e-6), Policy(flip=1.0)])
def test_a_flip_is_the_same_with_and_without_rotation(policy: Policy) -> None:
    images = smooth(4, 32, 32)
    straight = augment(batch_of(images), RAW, Policy(), seed=0)
    assert close(augment(batch_of(images), RAW, policy, seed=0), straight.flip(3), 1e-4)


def test_a_quarter_turn_is_exact() -> None:
    images = smooth(2, 32, 32)
    box = torch.tensor([[0.0, 0.0, 32.0, 32.0]]).expand(2, 4)
    turned = resample(images, None, box, 32, angle=torch.tensor([math.pi / 2, -math.pi / 2]))
    upright = images.float() / 255
    assert close(turned[0], upright[0].rot90(1, (1, 2)), 1e-4)
    assert close(turned[1], upright[1].rot90(-1, (1, 2)), 1e-4)


def test_a_shift_moves_no_further_than_its_share() -> None:
    images = torch.zeros(200, 3, 32, 32, dtype=torch.uint8)
    images[:, :, 14:18, 14:18] = 255
    view = luma(augment(batch_of(images), RAW, Policy(shift=0.1), seed=0))
    place = torch.arange(32) + 0.5
    mass = view.sum((1, 2))
    for side in (1, 2):
        centre = (view.sum(3 - side) * place).sum(1) / mass - 16
        assert centre.abs().max() <= 3.2 + 1e-3
        assert centre.abs().max() > 2.5
        assert abs(float(centre.mean())) < 0.5


def test_a_zoom_magnifies_by_its_factor() -> None:
    images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    images[:, :, 12:20, 12:20] = 255
    view = luma(augment(batch_of(images), RAW, Policy(scale=(1.5, 1.5)), seed=0))
    assert torch.allclose(view.sum((1, 2)), torch.tensor(64 * 1.5**2), rtol=0.02)


def test_a_crop_keeps_its_share_of_the_area() -> None:
    # Coordinates painted as colours tell which part of the picture a view shows.
    ramp = torch.arange(64)
    images = torch.zeros(300, 3, 64, 64, dtype=torch.uint8)
    images[:, 0] = (ramp * 3)[:, None]
    images[:, 1] = (ramp * 3)[None, :]
    view = augment(batch_of(images), RAW, Policy(crop=(0.25, 0.5), ratio=4 / 3), seed=0) * 255 / 3
    height = (view[:, 0, 24, 16] - view[:, 0, 8, 16]) * 2
    width = (view[:, 1, 16, 24] - view[:, 1, 16, 8]) * 2
    area = height * width / 64**2
    assert area.min() > 0.24
    assert area.max() < 0.51
    assert area.max() - area.min() > 0.2
    ratio = width / height
    assert ratio.max() < 4 / 3 + 0.02
    assert ratio.min() > 3 / 4 - 0.02
    assert ratio.max() > 1.2


def test_brightness_scales_within_its_range() -> None:
    images = torch.full((300, 3, 8, 8), 128, dtype=torch.uint8)
    view = augment(batch_of(images), replace(RAW, size=8), Policy(brightness=0.4), seed=0)
    factor = view.mean((1, 2, 3)) / (128 / 255)
    assert factor.min() >= 0.6 - 1e-4
    assert factor.max() <= 1.4 + 1e-4
    assert factor.max() - factor.min() > 0.7


@pytest.mark.parametrize("channels", [1, 3])
def test_contrast_keeps_the_mean_grey(channels: int) -> None:
    images = smooth(20, 32, 32, channels) // 4 + 96  # far from black and white
    pictures = Pictures(32, channels, (0.0,) * channels, (1.0,) * channels)
    view = augment(batch_of(images), pictures, Policy(contrast=0.4), seed=0)
    raw = images.float() / 255
    grey = luma if channels == 3 else (lambda x: x[:, 0])
    assert close(grey(view).mean((1, 2)), grey(raw).mean((1, 2)))
    spread = grey(view).std((1, 2)) / grey(raw).std((1, 2))
    assert spread.min() > 0.59
    assert spread.max() < 1.41
    assert spread.max() - spread.min() > 0.4


@pytest.mark.parametrize("policy", [Policy(hue=0.1), Policy(saturation=0.5), Policy(grey=1.0)])
def test_hue_and_saturation_keep_the_luma(policy: Policy) -> None:
    images = smooth(20, 32, 32) // 4 + 96
    view = augment(batch_of(images), RAW, policy, seed=0)
    raw = images.float() / 255
    assert close(luma(view), luma(raw))
    assert (view - raw).abs().max() > 0.01


def test_a_half_turn_of_the_hue_inverts_the_chroma() -> None:
    matrix = module._hue_matrix(torch.tensor([0.5]), torch.tensor([1.0]))[0]
    colour = torch.tensor([0.7, 0.4, 0.5])
    grey = (colour @ torch.tensor(GREY)).expand(3)
    assert torch.allclose(matrix @ colour, 2 * grey - colour, atol=1e-5)
    whole = module._hue_matrix(torch.tensor([1.0]), torch.tensor([1.0]))[0]
    assert torch.allclose(whole, torch.eye(3), atol=1e-5)


def test_grey_drops_the_colour() -> None:
    view = augment(batch_of(smooth(8, 32, 32)), RAW, Policy(grey=1.0), seed=0)
    assert close(view[:, 0], view[:, 1])
    assert close(view[:, 0], view[:, 2])


def test_blur_keeps_the_mean_and_smooths() -> None:
    images = torch.zeros(30, 3, 32, 32, dtype=torch.uint8)
    images[:, :, 12:20, 12:20] = 200
    view = augment(batch_of(images), RAW, Policy(blur=1.0), seed=0)
    raw = images.float() / 255
    assert torch.allclose(view.mean((1, 2, 3)), raw.mean((1, 2, 3)), rtol=5e-3)
    assert torch.all(view.std((1, 2, 3)) <= raw.std((1, 2, 3)) + 1e-6)
    assert view.std((1, 2, 3)).min() < 0.9 * raw.std((1, 2, 3)).min()
    flat = torch.full((5, 3, 32, 32), 77, dtype=torch.uint8)
    assert close(augment(batch_of(flat), RAW, Policy(blur=1.0), seed=0), flat.float() / 255)


def test_blur_leaves_the_pictures_it_is_not_for() -> None:
    images = smooth(200, 8, 8)
    pictures = replace(RAW, size=8)
    view = augment(batch_of(images), pictures, Policy(blur=0.0, flip=0.0), seed=0)
    some_blurred = augment(batch_of(images), pictures, Policy(blur=0.3), seed=0)
    untouched = (some_blurred - view).abs().amax((1, 2, 3)) < 1e-6
    assert 0.6 < untouched.float().mean() < 0.9


def test_noise_has_the_strength_it_says() -> None:
    images = torch.full((200, 3, 32, 32), 128, dtype=torch.uint8)
    view = augment(batch_of(images), COLOUR, Policy(noise=0.1), seed=0)
    std = torch.tensor(COLOUR.std)[:, None, None]
    noise = (view - normalise(images.float() / 255, COLOUR)) * std
    strength = noise.std((1, 2, 3))
    assert strength.max() < 0.105
    assert strength.max() > 0.09
    assert strength.min() < 0.02
    assert abs(float(noise.mean())) < 1e-3


def test_cutout_sets_a_square_to_the_mean() -> None:
    images = torch.full((100, 3, 32, 32), 255, dtype=torch.uint8)
    view = augment(batch_of(images), COLOUR, Policy(cutout=0.5), seed=0)
    hole = (view == 0).all(1)
    assert torch.equal(hole.sum((1, 2)), torch.full((100,), 256))
    assert torch.all(hole.any(1).sum(1) == 16)  # 16 columns wide, hence a square
    assert len(torch.unique(hole.flatten(1), dim=0)) > 50


# ---- resampling ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, 32, 70])
@pytest.mark.parametrize("shape", [(40, 40), (32, 50), (31, 17)])
def test_resampling_agrees_with_torch(shape: tuple[int, int], size: int) -> None:
    images = smooth(2, *shape)
    box = torch.tensor([[0.0, 0.0, *map(float, shape)]]).expand(2, 4)
    theirs = F.interpolate(
        images.float() / 255, (size, size), mode="bilinear", antialias=True, align_corners=False
    )
    assert close(resample(images, None, box, size), theirs, 1e-4)


@pytest.mark.parametrize("size", [12, 32])
@pytest.mark.parametrize("box", [(3.0, 5.0, 20.0, 30.0), (0.5, 7.25, 9.5, 6.75), (10, 0, 38, 60)])
def test_resampling_a_box_agrees_with_pillow(
    box: tuple[float, float, float, float], size: int
) -> None:
    images = smooth(1, 48, 60)
    top, left, height, width = box
    theirs = Image.fromarray(images[0].permute(1, 2, 0).numpy()).resize(
        (size, size), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height)
    )
    ours = resample(images, None, torch.tensor([box]), size)[0].permute(1, 2, 0) * 255
    # Pillow rounds to whole numbers after each of its two passes.
    assert np.abs(ours.numpy() - np.asarray(theirs, np.float32)).max() < 1.5


def test_edges_repeat_beyond_the_picture() -> None:
    images = smooth(1, 16, 16)
    box = torch.tensor([[-16.0, -16.0, 48.0, 48.0]])
    x = resample(images, None, box, 48)
    raw = images.float() / 255
    assert close(x[:, :, 16:32, 16:32], raw)
    assert close(x[:, :, :15, 20], raw[:, :, :1, 4].expand(-1, -1, 15))
    assert close(x[:, :, 40, 36:], raw[:, :, -1, -1:].expand(-1, -1, 12))


def test_pictures_above_255_pixels_are_resampled() -> None:
    images = smooth(1, 300, 400)
    box = torch.tensor([[0.0, 0.0, 300.0, 400.0]])
    theirs = F.interpolate(images.float() / 255, (64, 64), mode="bilinear", antialias=True)
    assert close(resample(images, None, box, 64), theirs, 1e-4)


@pytest.mark.parametrize(
    "policy", [EVERYTHING, POLICIES["natural"].views, POLICIES["digits"].views, Policy()]
)
def test_padding_never_leaks_into_a_view(policy: Policy) -> None:
    sizes = torch.tensor([[40, 40], [22, 40], [40, 29], [17, 23], [33, 33], [40, 16]])
    dark, bright = smooth(6, 40, 40), smooth(6, 40, 40)
    for picture, (height, width) in enumerate(sizes.tolist()):
        for canvas, value in ((dark, 0), (bright, 255)):
            canvas[picture, :, height:] = value
            canvas[picture, :, :, width:] = value
    views = [augment(batch_of(canvas, sizes), COLOUR, policy, seed=2) for canvas in (dark, bright)]
    assert torch.equal(*views)
    shown = [plain(batch_of(canvas, sizes), COLOUR) for canvas in (dark, bright)]
    assert torch.equal(*shown)


def test_padding_never_leaks_into_a_batch_of_one() -> None:
    sizes = torch.tensor([[20, 26]])
    canvas = torch.full((1, 3, 40, 40), 255, dtype=torch.uint8)
    canvas[:, :, :20, :26] = 0
    assert plain(batch_of(canvas, sizes), RAW).max() == 0
    assert augment(batch_of(canvas, sizes), RAW, Policy(crop=(0.5, 1.0)), seed=0).max() == 0


def test_a_padded_picture_is_seen_as_without_its_padding() -> None:
    canvas, alone = torch.zeros(1, 3, 40, 50, dtype=torch.uint8), smooth(1, 30, 44)
    canvas[:, :, :30, :44] = alone
    sizes = torch.tensor([[30, 44]])
    for policy in (EVERYTHING, POLICIES["natural"].views):
        a = augment(batch_of(canvas, sizes), COLOUR, policy, seed=0)
        assert close(a, augment(batch_of(alone), COLOUR, policy, seed=0), 1e-4)


# ---- the evaluation view ---------------------------------------------------------------------


def test_the_evaluation_view_is_the_picture() -> None:
    images = smooth(3, 32, 32)
    assert close(plain(batch_of(images), COLOUR), normalise(images.float() / 255, COLOUR), 1e-6)


@pytest.mark.parametrize("shape", [(48, 32), (32, 48), (80, 64)])
def test_the_evaluation_view_is_the_central_square(shape: tuple[int, int]) -> None:
    images = smooth(2, *shape)
    side = min(shape)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    square = images[:, :, top : top + side, left : left + side].float() / 255
    theirs = F.interpolate(square, (32, 32), mode="bilinear", antialias=True)
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))  # the filter looks over the edge
    assert close(plain(batch_of(images), RAW)[inner], theirs[inner], 1e-4)


def test_the_evaluation_view_can_zoom_in() -> None:
    images = smooth(2, 64, 64)
    zoomed = plain(batch_of(images), RAW, zoom=0.5)
    assert close(zoomed, images[:, :, 16:48, 16:48].float() / 255)


def test_the_evaluation_view_follows_the_crop_of_the_weights() -> None:
    images, cropped = smooth(2, 64, 64), replace(RAW, crop=0.5)
    expected = plain(batch_of(images), RAW, zoom=0.5)
    assert torch.equal(plain(batch_of(images), cropped), expected)
    assert torch.equal(plain(batch_of(images), cropped, zoom=2.0), plain(batch_of(images), RAW))


# ---- policies --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(POLICIES))
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 32])
def test_every_policy_takes_grey_and_colour(name: str, channels: int, size: int) -> None:
    images = smooth(5, size + 4, size, channels)
    pictures = Pictures(size, channels, (0.5,) * channels, (0.2,) * channels)
    for policy in (POLICIES[name].views, POLICIES[name].light, POLICIES[name].strong):
        view = augment(batch_of(images), pictures, policy, seed=0)
        assert view.shape == (5, channels, size, size)
        assert torch.isfinite(view).all()


def test_light_changes_are_lighter() -> None:
    images = smooth(60, 32, 32)
    straight = augment(batch_of(images), RAW, Policy(), seed=0)
    for name in ("natural", "digits", "medical"):
        views, strong, light = (
            (augment(batch_of(images), RAW, policy, seed=0) - straight).abs().mean()
            for policy in (POLICIES[name].views, POLICIES[name].strong, POLICIES[name].light)
        )
        assert light < views
        assert 1.2 * light < strong


@pytest.mark.parametrize(("name", "size"), [("natural", 32), ("digits", 8), ("medical", 32)])
def test_strong_changes_hide_a_square(name: str, size: int) -> None:
    policy = POLICIES[name].strong
    images = torch.full((40, 1, size, size), 255, dtype=torch.uint8)
    pictures = Pictures(size, 1, (0.25,), (1.0,))
    hidden = augment(batch_of(images), pictures, Policy(cutout=policy.cutout), seed=0) == 0
    share = hidden.float().mean((1, 2, 3)).sqrt()
    assert (share - policy.cutout).abs().max() <= 1 / size
    places = hidden.float().mean(0)[0]
    assert (places > 0).float().mean() > 0.5  # elsewhere in every image


def tilts(policy: Policy) -> np.ndarray:
    """Return by how many degrees an upright bar leans in 60 views, by its second moments."""
    picture = torch.zeros(60, 3, 32, 32, dtype=torch.uint8)
    picture[:, :, 6:26, 14:18] = 255
    light = augment(batch_of(picture), RAW, policy, seed=1).mean(1).clamp(min=0).numpy()
    y, x = np.mgrid[:32, :32]
    found = []
    for one in light:
        weight = one / one.sum()
        dx, dy = x - (weight * x).sum(), y - (weight * y).sum()
        across, up, both = ((weight * w).sum() for w in (dx * dx, dy * dy, dx * dy))
        found.append(np.degrees(0.5 * np.arctan2(2 * both, up - across)))
    return np.array(found)


def test_photos_are_turned_only_where_that_was_asked_for() -> None:
    straight = {"brightness": 0.0, "contrast": 0.0, "crop": (1.0, 1.0)}
    plain_tilts = tilts(replace(POLICIES["natural"].light, **straight))
    turned = tilts(replace(POLICIES["turned"].light, **straight))
    assert np.abs(plain_tilts).max() < 0.5
    assert 10 < np.abs(turned).max() <= 16
    assert (turned > 3).any() and (turned < -3).any()
    natural, other = POLICIES["natural"], POLICIES["turned"]
    for mine, theirs in ((other.views, natural.views), (other.light, natural.light)):
        assert replace(mine, rotate=0.0, shift=0.0) == theirs
    strong = replace(other.strong, rotate=natural.strong.rotate, shift=natural.strong.shift)
    assert strong == natural.strong


def test_writing_is_never_mirrored() -> None:
    digits = POLICIES["digits"]
    assert digits.views.flip == digits.light.flip == digits.strong.flip == 0.0


def test_the_policy_is_chosen_by_the_pictures() -> None:
    assert auto_policy(3, 32) == auto_policy(3, 224) == "natural"
    assert auto_policy(1, 8) == auto_policy(1, 32) == "digits"
    assert auto_policy(1, 224) == "medical"
