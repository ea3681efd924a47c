"""Neighbours, filters and drawing, against computations of our own."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from fewlabels.core.types import Pictures
from fewlabels.explain import pictures
from fewlabels.explain.filters import MOST, first_filters
from fewlabels.explain.neighbours import nearest
from fewlabels.models.backbones import create_backbone

COLOUR = Pictures(16, 3, (0.5,) * 3, (0.25,) * 3)


# ---- neighbours ------------------------------------------------------------------------------


def test_neighbours_by_hand() -> None:
    rng = np.random.default_rng(0)
    bank = rng.normal(size=(60, 5)) * [9, 3, 1, 1, 0.5]
    queries = rng.normal(size=(7, 5)) * [9, 3, 1, 1, 0.5]
    mean = bank.mean(0)
    values, axes = np.linalg.eigh(np.cov(bank.T))
    turned = [(x - mean) @ axes * values**-0.25 for x in (bank, queries)]
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in turned]
    likeness = unit[1] @ unit[0].T
    expected = np.argsort(-likeness, axis=1)[:, :4]
    places, similarity = nearest(torch.tensor(queries).float(), torch.tensor(bank).float(), 4)
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_allclose(
        similarity, np.take_along_axis(likeness, expected, axis=1), atol=1e-5
    )


def test_an_image_is_not_its_own_neighbour_and_few_are_enough() -> None:
    bank = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    places, similarity = nearest(bank[:2], bank, 9, own=np.array([0, -1]))
    assert places.shape == (2, 3)
    assert 0 not in places[0]
    assert places[1, 0] == 1
    assert similarity[1, 0] == pytest.approx(1)


# ---- filters ---------------------------------------------------------------------------------


def test_filters_are_the_weights_of_the_first_convolution() -> None:
    backbone = create_backbone("conv-32-64-64", in_chans=3, image_size=16)
    weight = backbone.get_parameter("blocks.0.0.weight").detach().numpy()
    found = first_filters(backbone, COLOUR)
    assert found is not None and found.shape == (32, 3, 3, 3)
    one = weight[5].transpose(1, 2, 0)
    np.testing.assert_allclose(found[5], 128 + 127 * one / np.abs(one).max(), atol=0.51)


def test_filters_of_dense_layers_dictionaries_and_none() -> None:
    grey = Pictures(8, 1, (0.5,), (0.25,))
    dense = create_backbone("dense", in_chans=1, image_size=8)
    patches = create_backbone("patches", in_chans=3, image_size=16)
    pixels = create_backbone("pixels", in_chans=3, image_size=16)
    rows, entries = first_filters(dense, grey), first_filters(patches, COLOUR)
    assert rows is not None and rows.shape == (MOST, 8, 8, 1)
    assert entries is not None and entries.shape == (MOST, 6, 6, 3)
    assert first_filters(pixels, COLOUR) is None


# ---- drawing ---------------------------------------------------------------------------------


def test_an_overlay_shows_sign_and_strength() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    values = np.zeros((4, 4))
    values[0, 0], values[0, 1] = 1.0, -1.0
    signed = pictures.overlay(grey, values, signed=True).astype(int)
    assert signed[0, 0, 0] > signed[0, 0, 2] + 50  # vermilion
    assert signed[0, 1, 2] > signed[0, 1, 0] + 50  # blue
    assert len(set(signed[2, 2])) == 1  # nothing there: grey
    plain = pictures.overlay(grey[:, :, :1], np.clip(values, 0, 1), signed=False).astype(int)
    assert plain[0, 0].sum() > plain[2, 2].sum()
    assert len(set(plain[2, 2])) == 1


def test_an_overlay_of_nothing_is_the_grey_image() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    for signed in (True, False):
        drawn = pictures.overlay(picture, np.zeros((5, 6)), signed=signed)
        assert (drawn == drawn[..., :1]).all()


def test_small_pictures_are_enlarged_without_blur() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (4, 4, 1), dtype=np.uint8)
    wide = pictures.enlarged(picture, 12)
    np.testing.assert_array_equal(wide[:, :, 0], np.kron(picture[:, :, 0], np.ones((3, 3))))
    assert pictures.enlarged(np.zeros((100, 50, 3), np.uint8), 20).shape == (20, 10, 3)


def test_a_sheet_survives_any_words() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    long = "長袖シャツ" * 40
    drawn = pictures.sheet([(long, [("x" * 300, picture)]), ("", [("", picture), ("b", picture)])])
    assert drawn.shape[1] == 10 + 2 * 170
    read = np.asarray(Image.open(io.BytesIO(pictures.png(drawn))))
    np.testing.assert_array_equal(read, drawn)


def test_a_grid_and_a_map_hold_all_they_are_given() -> None:
    tiles = np.full((7, 3, 3, 1), 10, np.uint8)
    drawn = pictures.grid(tiles, side=6, gap=2)
    assert (drawn == 10).sum() == 7 * 36 * 3
    kind = np.array(["labelled", "unlabelled", "test"])
    found = pictures.scatter(
        np.array([[0.0, 0], [1, 1], [2, 0]]), np.array([0, -1, 1]), kind, ("a", "b")
    )
    assert found.shape == (640, 640, 3)
    blue = (found == np.array([0, 114, 178])).all(2)
    _, columns = np.nonzero(blue)
    assert columns.mean() < 60  # the first class lies on the left
    assert pictures.scatter(np.zeros((1, 2)), np.array([-1]), kind[:1]).min() < 255
