"""What methods paint: of the right shape, repeatable, and leaving the method as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewlabels.core.types import Batch, Labels, Pictures
from fewlabels.data.augment import POLICIES
from fewlabels.explain.paintings import paintings, to_pixels
from fewlabels.explain.pictures import PAINTED, painted_sheet
from fewlabels.methods import LABELLED, METHODS, OWN_BACKBONE, create_method
from fewlabels.models.backbones import create_backbone

PICTURES = Pictures(16, 3, (0.5,) * 3, (0.25,) * 3)
ROWS = {
    "autoencoder": ["picture", "painted"],
    "denoising": ["picture", "seen", "painted"],
    "dense_autoencoder": ["picture", "painted"],
    "vae": ["picture", "painted", "drawn"],
    "gan": ["drawn"],
    "masked": ["picture", "seen", "painted"],
}


def batch() -> Batch:
    images = torch.randint(
        0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return Batch(images, None, torch.arange(4), torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_paints_what_it_can(name: str) -> None:
    torch.manual_seed(0)
    encoder = create_backbone(OWN_BACKBONE.get(name, "tiny"), in_chans=3, image_size=16)
    labels = Labels(torch.tensor([0, 1, 0, 1]), 2) if name in LABELLED else None
    method = create_method(name, encoder, PICTURES, POLICIES["natural"], labels)
    before = {k: v.clone() for k, v in method.state_dict().items() if torch.is_tensor(v)}
    found = paintings(method, batch())
    assert list(found) == ROWS.get(name, [])
    assert found.keys() <= PAINTED.keys()
    for rows in found.values():
        assert rows.shape == (4, 16, 16, 3)
        assert rows.dtype == np.uint8
    again = paintings(method, batch())
    assert all((found[row] == again[row]).all() for row in found)
    after = method.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    if "picture" in found:
        np.testing.assert_array_equal(found["picture"], batch().images.permute(0, 2, 3, 1).numpy())
    if found:
        assert painted_sheet(found).shape[1] == 10 + 4 * 106


def test_masked_paints_holes_alone() -> None:
    torch.manual_seed(0)
    encoder = create_backbone("tiny", in_chans=3, image_size=16)
    found = paintings(create_method("masked", encoder, PICTURES, POLICIES["natural"]), batch())
    kept = (found["seen"] == found["picture"]).all(-1)
    assert 0.2 < kept.mean() < 0.7
    np.testing.assert_array_equal(found["painted"][kept], found["picture"][kept])
    assert (found["painted"][~kept] != found["picture"][~kept]).any()


def test_pixels_are_rounded_and_cut() -> None:
    x = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0]).reshape(1, 1, 1, 5)
    assert to_pixels(x)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]
