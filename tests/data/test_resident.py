"""Images on the device: the same batches as from the map, without it; and no other memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewlabels.data.dataset import open_dataset
from fewlabels.data.loader import Batches, load
from fewlabels.data.resident import Resident, resident
from fewlabels.data.store import MappedStore


@pytest.fixture(scope="module")
def store() -> MappedStore:
    found = open_dataset("digits").store
    assert isinstance(found, MappedStore)
    return found


def test_batches_are_those_of_the_map(store: MappedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Resident(store, "cpu")
    rows = np.array([5, 1_796, 5, 0])
    expected = load(store, rows, epochs=torch.arange(4))
    ordered = Batches(store, np.arange(900), 32, seed=3)[50]
    monkeypatch.delattr(Resident, "read")  # nothing is read on the host any more
    found = load(here, rows, epochs=torch.arange(4))
    assert found.sizes is expected.sizes is None
    for name in ("images", "indices", "epochs"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    assert found.images.stride() == expected.images.stride()
    drawn = Batches(here, np.arange(900), 32, seed=3)[50]
    assert torch.equal(drawn.images, ordered.images)


def test_another_device_gets_its_images_from_the_map(store: MappedStore) -> None:
    away = Resident(store, "meta")
    assert away.is_on("meta")
    assert not away.is_on("cpu")
    rows = np.array([3, 7])
    assert torch.equal(load(away, rows).images, load(store, rows).images)
    assert away.take(torch.empty(6, dtype=torch.int64, device="meta")).shape == (6, 1, 8, 8)


def test_what_makes_no_block_stays_where_it_is(tmp_path: Path, store: MappedStore) -> None:
    for name, size in {"a": (12, 10), "b": (10, 12), "c": (10, 10)}.items():
        (tmp_path / name).mkdir()
        for number in range(4):
            noise = np.random.default_rng(number).integers(0, 255, (*size, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / name / f"{number}.png")
    uneven = open_dataset(tmp_path).store
    assert isinstance(uneven, MappedStore)
    assert uneven.block is None
    assert resident(uneven, torch.device("cuda")) is uneven
    with pytest.raises(ValueError, match="size"):
        Resident(uneven, "cpu")
    assert resident(store, torch.device("cpu")) is store


def test_a_store_goes_to_a_gpu_that_has_room(
    store: MappedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = 1_797 * 64
    built = lambda store, device: ("on", str(device))  # noqa: E731
    monkeypatch.setattr("fewlabels.data.resident.Resident", built)
    for free, expected in ((11 * need, ("on", "cuda")), (9 * need, store)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, free))
        assert resident(store, torch.device("cuda")) == expected
