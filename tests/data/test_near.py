"""Near-copies between splits: what is found, what is not, and what is done about them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from fewlabels.core.errors import DataError
from fewlabels.data import near
from fewlabels.data.codes import SCALE, WIDTH, encode, thumbnail
from fewlabels.data.dataset import Dataset, open_dataset
from fewlabels.data.leaks import copied, near_leaks
from fewlabels.data.near import Near, candidates, find_near
from fewlabels.data.overlay import agreement
from fewlabels.data.sources import read_source
from fewlabels.data.store import open_store

Photo = Callable[..., Image.Image]
Altered = Callable[[Image.Image, str], Image.Image]
WAYS = ("jpeg30", "jpeg90", "half", "double", "crop", "bright", "dark")


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).reshape(image.height, image.width, -1)


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture(params=[32, 96])
def planted(request: pytest.FixtureRequest, tmp_path: Path, photo: Photo, altered: Altered) -> Path:
    """Return a folder with a near-copy of each of seven test images, and others, in train."""
    for number, way in enumerate(WAYS):
        original = photo(number, request.param)
        save(original, tmp_path / f"test/{'ab'[number % 2]}/{number}.png")
        save(altered(original, way), tmp_path / f"train/{'ab'[number % 2]}/{way}.png")
    for number in range(40):
        save(
            photo(100 + number, request.param), tmp_path / f"train/{'ab'[number % 2]}/{number}.png"
        )
        if number < 8:
            save(photo(200 + number, request.param), tmp_path / f"test/a/{number + 100}.png")
            save(photo(300 + number, request.param), tmp_path / f"val/a/{number}.png")
    return tmp_path


def told(dataset: Dataset) -> dict[str, str]:
    return {row["path_a"]: row["path_b"] for row in dataset.report["leaks"]}


def test_each_kind_of_copy_is_found_and_nothing_else(planted: Path) -> None:
    dataset = open_dataset(planted)
    assert told(dataset) == {
        f"train/{'ab'[n % 2]}/{way}.png": f"test/{'ab'[n % 2]}/{n}.png"
        for n, way in enumerate(WAYS)
    }
    rows = dataset.report["leaks"]
    assert {row["kind"] for row in rows} == {"near"}
    assert all(0.95 <= row["likeness"] <= 1 for row in rows)
    assert dataset.report["splits"] == {"train": 40, "val": 8, "test": 15, "out": 7}
    assert dataset.report["label_conflicts"] == []
    assert any("7 near-copies of held-out images" in text for text in dataset.report["warnings"])
    with pytest.raises(DataError, match="7 of them as near-copies") as stopped:
        open_dataset(planted, leaks="stop")
    assert stopped.value.exit_code == 3
    kept = open_dataset(planted, leaks="keep")
    assert kept.report["leaks"] == rows
    test = kept.rows("test")
    assert [kept.source.paths[row] for row in test[copied(kept, test)]] == sorted(
        told(dataset).values()
    )
    assert not copied(dataset, dataset.rows("test")).any()


def test_they_are_found_without_a_store_of_pixels_too(planted: Path) -> None:
    source = read_source(planted)
    side = open_dataset(planted).store.short_side
    kept = open_store(source, short_side=side, channels=3)
    split = open_dataset(planted).assigned
    streamed = open_store(source, short_side=side, channels=3, cap_bytes=0)
    np.testing.assert_array_equal(find_near(kept, split).pairs, find_near(streamed, split).pairs)


def test_more_images_change_no_finding(planted: Path, photo: Photo) -> None:
    before = told(open_dataset(planted))
    for number in range(30):
        save(photo(500 + number, 32), planted / f"train/b/more-{number}.png")
        save(photo(600 + number, 32), planted / f"test/b/more-{number}.png")
    assert told(open_dataset(planted)) == before


def test_looked_for_once_a_split(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_dataset(planted)
    monkeypatch.setattr(near, "_search", None)
    again = open_dataset(planted)
    np.testing.assert_array_equal(again.leaks.pairs, first.leaks.pairs)
    np.testing.assert_array_equal(again.leaks.likeness, first.leaks.likeness)
    with pytest.raises(TypeError):
        find_near(first.store, np.roll(first.assigned, 1))
    (file,) = first.store.folder.glob("near-*.npy")
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(TypeError):
        open_dataset(planted)


def test_too_many_images_are_said_to_be_too_many(
    planted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near, "MOST_PAIRS", 100)
    dataset = open_dataset(planted)
    assert not len(dataset.leaks)
    assert any("too many images to look for near-copies" in w for w in dataset.report["warnings"])


def test_labels_of_copies_that_differ_are_listed(
    tmp_path: Path, photo: Photo, altered: Altered
) -> None:
    for number in range(12):
        save(photo(number), tmp_path / f"train/{'ab'[number % 2]}/{number}.png")
        save(photo(50 + number), tmp_path / f"test/{'ab'[number % 2]}/{number}.png")
    save(altered(photo(50), "jpeg90"), tmp_path / "train/b/copy.png")
    save(photo(0), tmp_path / "train/b/twin.png")
    report = open_dataset(tmp_path).report
    exact, alike = report["label_conflicts"]
    assert exact == {
        **{"path_a": "train/a/0.png", "label_a": "a", "path_b": "train/b/twin.png"},
        **{"label_b": "b", "kind": "exact", "likeness": 1.0},
    }
    likeness = alike.pop("likeness")
    assert 0.95 < likeness <= 1
    assert alike == {
        **{"path_a": "train/b/copy.png", "label_a": "b", "path_b": "test/a/0.png"},
        **{"label_b": "a", "kind": "near"},
    }
    assert any("1 pairs of near-copies carry different labels" in w for w in report["warnings"])


def test_flat_small_and_small_grey_pictures_have_no_code(photo: Photo) -> None:
    def code(image: Image.Image) -> np.ndarray:
        return encode(thumbnail(pixels(image))[None])[0]

    assert np.linalg.norm(code(photo(1))) == pytest.approx(SCALE, rel=0.03)
    assert np.linalg.norm(code(photo(1, 64).convert("L"))) == pytest.approx(SCALE, rel=0.03)
    without = (photo(1, 15), photo(1, 63).convert("L"), Image.new("RGB", (40, 40), (90, 200, 30)))
    assert not any(code(image).any() for image in without)
    assert len(code(photo(1))) == WIDTH == 47


def test_agreement_tells_copies_from_their_like(photo: Photo, altered: Altered) -> None:
    original = photo(3, 64)
    patched, other = original.copy(), photo(4, 64)
    ImageDraw.Draw(patched).ellipse((10, 10, 24, 24), fill=(250, 250, 250))
    red, green, blue = original.split()
    recoloured = Image.merge("RGB", (green, blue, red))
    copy = altered(altered(original, "crop"), "dark").resize((64, 64))
    images = [copy, patched, recoloured, other]
    batch = np.stack([pixels(image) for image in images]).astype(np.float32)
    found = agreement(np.repeat(pixels(original)[None].astype(np.float32), 4, 0), batch)
    assert found.likeness[0] > 0.98 > 0.95 > found.likeness[3]
    assert found.unlike[0] < 0.05 < 0.3 < found.unlike[1]
    assert found.colour[0] < 0.05 < near.COLOUR < found.colour[2]


def test_candidates_are_the_nearest_by_code(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal((3, 0, 0, 0, 0, 0), size=(90, 6))
    codes = np.rint(SCALE * x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.int8)
    monkeypatch.setattr(near, "_POOL", 7)
    monkeypatch.setattr(near, "CANDIDATES", 3)
    held, pool = np.arange(0, 20), np.arange(20, 90)
    expected = set()
    whole = codes.astype(int)
    for row in held:
        alike = whole[pool] @ whole[row]
        best = pool[np.lexsort((pool, -alike))][:3]
        expected |= {(int(b), int(row)) for b in best if whole[b] @ whole[row] >= 0.8 * SCALE**2}
    found = candidates(codes, held, pool)
    assert {tuple(pair) for pair in found.tolist()} == expected
    assert len(found) == len(expected) > 20


PAIRS = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11), st.floats(0.95, 1)), max_size=30)


@given(PAIRS)
def test_after_dropping_no_near_copy_is_left_and_test_is_whole(
    drawn: list[tuple[int, int, float]],
) -> None:
    split = np.repeat([0, 1, 2], 4).astype(np.int8)
    kept = {(a, b): x for a, b, x in drawn if split[a] < split[b]}
    found = Near(np.array(list(kept), np.int64).reshape(-1, 2), np.array(list(kept.values())))
    chosen = found.pairs[near_leaks(found, split, np.array([0]))]
    assert len(set(chosen[:, 0].tolist())) == len(chosen)
    used = np.ones(12, bool)
    used[[0, *chosen[:, 0]]] = False
    assert not used[found.pairs].all(1).any()
    assert used[split == 2].all()
    for copy, like in chosen.tolist():
        rivals = [
            x for (a, b), x in kept.items() if a == copy and split[b] == split[like] and used[b]
        ]
        assert kept[copy, like] == max(rivals)
