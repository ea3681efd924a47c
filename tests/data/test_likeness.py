"""Unlabelled images of the same world are not flagged, those of another one are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from fewlabels.data.dataset import open_dataset
from fewlabels.data.likeness import (
    APART,
    IMAGES,
    LEVEL,
    areas,
    between,
    compare,
    held_out_scores,
    pixel_features,
    swatches,
    vendi_score,
    warnings,
)
from fewlabels.results.schema import InspectResult


def test_scores_and_areas_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 90))
    groups = np.stack([rng.permutation(np.repeat([0.0, 1.0], [25, 35])) for _ in range(3)], 1)
    folds = rng.permutation(60) % 5
    scores = held_out_scores(x, groups, folds)
    for column in range(3):
        for fold in range(5):
            out = folds == fold
            model = Ridge(alpha=90.0).fit(x[~out], groups[~out, column])
            wanted = model.predict(x[out]) - groups[~out, column].mean()
            np.testing.assert_allclose(scores[out, column], wanted, atol=1e-9)
    wanted_areas = [roc_auc_score(groups[:, c], scores[:, c]) for c in range(3)]
    np.testing.assert_allclose(areas(scores, groups), wanted_areas)


def test_the_level_holds_where_both_groups_are_one() -> None:
    """At a level of 5 % about one in twenty is found apart; never as a warning."""
    found = []
    for trial in range(60):
        rng = np.random.default_rng(trial)
        x = rng.normal(size=(90, 12)) * rng.uniform(0.2, 3, 12)
        found.append(compare(x[:30], x[30:]))
    alarms = sum(one["p"] <= 0.05 for one in found)
    assert alarms <= 9  # 3 are expected; more than 9 of 60 come once in 2,000 times
    assert np.mean([one["p"] for one in found]) == pytest.approx(0.5, abs=0.12)
    assert not any(one["auc"] >= APART and one["p"] <= LEVEL for one in found)


def test_the_level_cannot_be_below_what_permutations_allow() -> None:
    rng = np.random.default_rng(0)
    found = compare(rng.normal(size=(40, 5)), 4 + rng.normal(size=(40, 5)))
    assert (found["auc"], found["p"]) == (1.0, 1 / 200)
    assert found["compared"] == {"labelled": 40, "unlabelled": 40}


def test_variety_counts_different_images() -> None:
    rng = np.random.default_rng(0)
    many = rng.normal(size=(60, 400))
    few = np.repeat(rng.normal(size=(3, 400)), 20, axis=0) + 0.01 * rng.normal(size=(60, 400))
    assert vendi_score(many) > 50
    assert vendi_score(few) == pytest.approx(3, abs=0.2)
    found = compare(many, few)
    assert found["variety"]["unlabelled"] < 0.5 * found["variety"]["labelled"]
    assert any("much alike" in text for text in warnings({**found, "farthest": ["a", "b"]}))


def test_features_see_colour_and_roughness() -> None:
    flat = np.full((32, 32, 3), 128, np.uint8)
    rough = flat.copy()
    rough[::2] += 60
    red = flat.copy()
    red[..., 0] += 60
    base = pixel_features(flat)
    assert base.shape == (64 * 3 + 16,)
    assert np.abs(pixel_features(rough)[-16:] - base[-16:]).min() > 0.1
    assert np.abs(pixel_features(red)[:192] - base[:192]).max() == pytest.approx(60 / 255)
    assert pixel_features(flat[..., :1]).shape == (64 + 16,)


def scenes(folder: Path, seeds: range, *, colour: tuple[int, int, int]) -> None:
    """Write pictures of a bright block somewhere on a noisy ground."""
    folder.mkdir(parents=True)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        pixels = rng.integers(0, 60, (24 + seed % 5, 24, 3)) + rng.integers(0, 60, 3)
        y, x = rng.integers(0, 14, 2)
        pixels[y : y + 8, x : x + 8] = np.array(colour) + rng.integers(-30, 30, 3)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{seed}.png")


def looked(folder: Path) -> dict[str, Any]:
    report = open_dataset(folder).report
    InspectResult.model_validate(report)
    return report


def test_the_same_world_is_not_flagged_and_digits_are(tmp_path: Path) -> None:
    same = tmp_path / "same"
    scenes(same / "a", range(60), colour=(200, 80, 80))
    scenes(same / "b", range(60, 120), colour=(80, 80, 200))
    scenes(same / "unlabelled/x", range(200, 240), colour=(200, 80, 80))
    scenes(same / "unlabelled/y", range(300, 340), colour=(80, 80, 200))
    found = looked(same)
    assert found["likeness"]["auc"] < 0.7
    assert not any("world" in text for text in found["warnings"])

    other = tmp_path / "other"
    scenes(other / "a", range(60), colour=(200, 80, 80))
    scenes(other / "b", range(60, 120), colour=(80, 80, 200))
    (other / "unlabelled").mkdir()
    for place, digit in enumerate(load_digits().images[:80]):
        grey = np.kron(digit * 15.9, np.ones((3, 3))).astype(np.uint8)
        Image.fromarray(grey).convert("RGB").save(other / "unlabelled" / f"{place:02d}.png")
    found = looked(other)
    assert found["likeness"]["auc"] > 0.95
    assert found["likeness"]["p"] == 1 / 200
    told = [text for text in found["warnings"] if "another world" in text]
    assert len(told) == 1
    assert "unlabelled/" in told[0]
    assert all(path.startswith("unlabelled/") for path in found["likeness"]["farthest"])


def test_data_sets_are_compared_by_what_was_kept_of_them(tmp_path: Path) -> None:
    kept = []
    for name, seeds in (("here", range(60)), ("there", range(100, 160))):
        scenes(tmp_path / name / "a", seeds, colour=(200, 80, 80))
        data = open_dataset(tmp_path / name)
        kept.append(swatches(data, data.rows("train")))
    assert kept[0].dtype == np.uint8
    assert kept[0].shape[1] == 64 * 3 + 16
    same = between(*kept)
    assert same is not None
    assert same["auc"] < APART
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (32, 32, 1), dtype=np.uint8) for _ in range(60)]
    grey = np.rint(255 * np.stack([pixel_features(one) for one in noise])).astype(np.uint8)
    other = between(kept[0], grey)  # in colour and grey: by brightness
    assert other is not None
    assert other["auc"] > 0.95
    assert other["p"] <= LEVEL
    assert between(kept[0], grey[:9]) is None


def test_too_few_of_a_group_are_not_compared(tmp_path: Path) -> None:
    scenes(tmp_path / "a", range(30), colour=(200, 80, 80))
    scenes(tmp_path / "b", range(30, 60), colour=(80, 80, 200))
    assert looked(tmp_path)["likeness"] is None
    scenes(tmp_path / "unlabelled", range(100, 108), colour=(80, 80, 200))
    assert looked(tmp_path)["likeness"] is None


@pytest.mark.medium
def test_on_photos_of_clothing(clothing: Path, tmp_path: Path) -> None:
    """Clothing without labels is not flagged; digits are, also where only two in three are."""
    photos = sorted((clothing / "train").glob("*/*.jpg"))[::8]
    digits = load_digits().images

    def folder(name: str, foreign: int) -> Path:
        place = tmp_path / name
        (place / "unlabelled").mkdir(parents=True)
        for number, path in enumerate(photos):
            kept = place / ("unlabelled" if number % 3 == 0 else path.parent.name)
            kept.mkdir(exist_ok=True)
            (kept / f"{number}.jpg").write_bytes(path.read_bytes())
        for number in range(foreign):
            Image.fromarray((digits[number] * 15.9).astype(np.uint8)).resize((90, 90)).save(
                place / "unlabelled" / f"digit-{number}.png"
            )
        return place

    plain, mixed = looked(folder("plain", 0)), looked(folder("mixed", 260))
    assert plain["likeness"]["compared"]["labelled"] <= IMAGES
    assert plain["likeness"]["auc"] < APART
    assert not any("world" in text for text in plain["warnings"])
    assert any("world" in text for text in mixed["warnings"])
    assert all("digit" in path for path in mixed["likeness"]["farthest"])
