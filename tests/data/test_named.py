"""Data sets by name: torchvision's formats in small, and a hub that is a folder."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import sys
import tarfile
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from fewlabels.core.errors import DataError, DiskError, UsageError
from fewlabels.data import hub, torchvision_sets
from fewlabels.data.dataset import open_dataset
from fewlabels.data.sources import read_source
from fewlabels.data.store import StreamingStore, open_store

datasets = pytest.importorskip("torchvision.datasets")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWLABELS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def raw(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / "cache/datasets/torchvision" / name / "raw"
    folder.mkdir(parents=True)
    return folder


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    """Return an array of bytes in the format of MNIST."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.tobytes()


def md5_of(path: Path) -> str:
    return str(datasets.utils.calculate_md5(path))


def mnist(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = "MNIST") -> dict[str, Any]:
    """Lay down what the server would have given, with the checksums changed to match."""
    parts = {
        "train-images-idx3": noise(0, 30, 28, 28),
        "train-labels-idx1": np.arange(30, dtype=np.uint8) % 10,
        "t10k-images-idx3": noise(1, 10, 28, 28),
        "t10k-labels-idx1": np.arange(10, dtype=np.uint8),
    }
    place = folder / name / "raw"
    place.mkdir(parents=True)
    resources = []
    for key, array in parts.items():
        file = place / f"{key}-ubyte.gz"
        file.write_bytes(gzip.compress(idx(array)))
        resources.append((file.name, md5_of(file)))
    monkeypatch.setattr(getattr(datasets, name), "resources", resources)
    return parts


@pytest.mark.parametrize(
    ("name", "third"), [("MNIST", "3"), ("FashionMNIST", "Dress"), ("KMNIST", "tsu")]
)
def test_mnist_and_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, third: str
) -> None:
    parts = mnist(raw(tmp_path, name), monkeypatch, name)
    source = read_source(f"torchvision:{name.lower()}")
    assert (source.name, len(source), source.root) == (name, 40, None)
    assert source.splits == ["train"] * 30 + ["test"] * 10
    if name != "KMNIST":
        assert source.labels[3] == source.labels[13] == source.labels[33] == third
    assert len(set(source.labels)) == 10
    for row in (0, 29, 30, 39):
        array = parts["train-images-idx3"][row] if row < 30 else parts["t10k-images-idx3"][row - 30]
        np.testing.assert_array_equal(source.read(row), array[..., None])
    assert source.pictures is not None
    assert source.pictures.shape(35) == (28, 28, 1)
    dataset = open_dataset(f"torchvision:{name}")
    assert dataset.report["splits"]["test"] == 10
    assert (dataset.channels, dataset.pictures_size) == (1, 28)
    assert dataset.report["classes"][str(source.labels[3])] == 4


def cifar(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Make the archive of CIFAR-10, pickles and all, with 6 pictures a batch."""
    cls = datasets.CIFAR10
    files = {name: noise(i, 6, 3072) for i, (name, _) in enumerate(cls.train_list + cls.test_list)}
    content = {
        name: pickle.dumps({"data": data, "labels": [i % 10 for i in range(6)]}, protocol=2)
        for name, data in files.items()
    }
    names = [f"class {i}" for i in range(10)]
    content["batches.meta"] = pickle.dumps({"label_names": names}, protocol=2)
    archive = folder / cls.filename
    with tarfile.open(archive, "w:gz") as tar:
        for name, blob in content.items():
            info = tarfile.TarInfo(f"{cls.base_folder}/{name}")
            info.size = len(blob)
            tar.addfile(info, io.BytesIO(blob))

    def md5(blob: bytes) -> str:
        (folder / "md5").write_bytes(blob)
        return md5_of(folder / "md5")

    train = [[name, md5(content[name])] for name, _ in cls.train_list]
    monkeypatch.setattr(cls, "train_list", train)
    monkeypatch.setattr(cls, "test_list", [["test_batch", md5(content["test_batch"])]])
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": md5(content["batches.meta"])})
    monkeypatch.setattr(cls, "tgz_md5", md5_of(archive))
    return files


def test_cifar10_out_of_its_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = cifar(raw(tmp_path, "CIFAR10"), monkeypatch)
    source = read_source("torchvision:CIFAR10")
    assert source.splits == ["train"] * 30 + ["test"] * 6
    assert source.labels[:2] == ["class 0", "class 1"]
    assert list(source.paths[:1]) == ["train/000000"]
    expected = files["data_batch_2"][1].reshape(3, 32, 32).transpose(1, 2, 0)
    np.testing.assert_array_equal(source.read(7), expected)


def test_pickles_of_another_checksum_are_never_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Boom:
        def __reduce__(self) -> Any:
            return (print, ("was run",))

    folder = raw(tmp_path, "CIFAR10")
    cifar(folder, monkeypatch)
    place = folder / "cifar-10-batches-py"
    place.mkdir()
    for name in [*(n for n, _ in datasets.CIFAR10.train_list), "test_batch", "batches.meta"]:
        (place / name).write_bytes(pickle.dumps(Boom()))
    (folder / datasets.CIFAR10.filename).write_bytes(b"another archive")
    loaded: list[Any] = []
    monkeypatch.setattr(pickle, "load", lambda *a, **k: loaded.append(a))
    with pytest.raises(DataError) as caught:
        read_source("torchvision:CIFAR10")
    assert caught.value.code == "data.download"
    assert not loaded


def test_the_second_opening_needs_no_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mnist(raw(tmp_path, "MNIST"), monkeypatch)
    first = read_source("torchvision:MNIST")
    images = [first.read(row) for row in range(40)]
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    again = read_source("torchvision:MNIST")
    assert again.labels == first.labels
    for row, image in enumerate(images):
        np.testing.assert_array_equal(again.read(row), image)
    mapped = open_store(again, short_side=28, channels=1)
    streamed = open_store(again, short_side=28, channels=1, cap_bytes=0)
    assert isinstance(streamed, StreamingStore)
    rows = np.arange(40)[::-1]
    np.testing.assert_array_equal(mapped.read(rows)[0], streamed.read(rows)[0])


def test_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    folder = raw(tmp_path, "SVHN")
    parts = {"train": noise(0, 32, 32, 3, 12), "test": noise(1, 32, 32, 3, 5)}
    listed = dict(datasets.SVHN.split_list)
    for split, images in parts.items():
        file = folder / f"{split}_32x32.mat"
        savemat(file, {"X": images, "y": np.arange(images.shape[3]).reshape(-1, 1) % 10 + 1})
        listed[split] = [listed[split][0], file.name, md5_of(file)]
    monkeypatch.setattr(datasets.SVHN, "split_list", listed)
    source = read_source("torchvision:SVHN")
    assert source.splits == ["train"] * 12 + ["test"] * 5
    assert source.labels[8:11] == ["9", "0", "1"]  # the files call the digit 0 a 10
    np.testing.assert_array_equal(source.read(13), parts["test"][..., 1])


def test_stl10_and_its_unlabelled_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = raw(tmp_path, "STL10")
    place = folder / "stl10_binary"
    place.mkdir()
    images = {
        name: noise(i, n, 96, 96, 3)
        for i, (name, n) in enumerate({"train": 4, "test": 3, "unlabeled": 5}.items())
    }
    for name, array in images.items():  # planes, and columns before rows
        (place / f"{name}_X.bin").write_bytes(array.transpose(0, 3, 2, 1).tobytes())
        (place / f"{name}_y.bin").write_bytes(bytes(i % 10 + 1 for i in range(len(array))))
    names = [f"class {i}" for i in range(10)]
    (place / "class_names.txt").write_text("\n".join(names))
    for listing in ("train_list", "test_list"):
        found = [[n, md5_of(place / n)] for n, _ in getattr(datasets.STL10, listing)]
        monkeypatch.setattr(datasets.STL10, listing, found)
    source = read_source("torchvision:STL10")
    assert source.splits == ["train"] * 4 + ["test"] * 3 + [None] * 5
    assert source.labels == [*names[:4], *names[:3], *[None] * 5]
    for row, image in (
        (1, images["train"][1]),
        (6, images["test"][2]),
        (11, images["unlabeled"][4]),
    ):
        np.testing.assert_array_equal(source.read(row), image)


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(seed, 40, 50, 3)).save(path)


def test_data_sets_of_files_stay_files(tmp_path: Path) -> None:
    folder = raw(tmp_path, "EuroSAT")
    for seed, name in enumerate(("Forest/1.jpg", "Forest/0.jpg", "River/1.jpg")):
        picture(folder / "eurosat/2750" / name, seed)
    source = read_source("torchvision:EuroSAT")
    heads = [f"raw/eurosat/2750/{name}" for name in ("Forest/0.jpg", "Forest/1.jpg", "River/1.jpg")]
    assert list(source.paths) == heads
    assert source.labels == ["Forest", "Forest", "River"]
    assert source.splits == [None] * 3
    assert source.read(1) == (folder / "eurosat/2750/Forest/1.jpg").read_bytes()
    assert source.sizes[1] == len(source.read(1))
    (folder / "eurosat/2750/Forest/1.jpg").unlink()
    assert read_source("torchvision:EuroSAT").issues == {1: "it was there and is gone"}


def test_food101_by_its_lists(tmp_path: Path) -> None:
    folder = raw(tmp_path, "Food101") / "food-101"
    lists = {
        "train": {"pie": ["pie/1", "pie/2"], "egg": ["egg/1"]},
        "test": {"pie": ["pie/3"], "egg": []},
    }
    (folder / "meta").mkdir(parents=True)
    for split, listed in lists.items():
        (folder / f"meta/{split}.json").write_text(json.dumps(listed))
        for seed, name in enumerate(n for names in listed.values() for n in names):
            picture(folder / f"images/{name}.jpg", seed)
    source = read_source("torchvision:Food101")
    found = sorted(zip(source.paths, source.labels, source.splits, strict=True))
    assert [(p.rpartition("images/")[2], *rest) for p, *rest in found] == [
        ("egg/1.jpg", "egg", "train"),
        ("pie/1.jpg", "pie", "train"),
        ("pie/2.jpg", "pie", "train"),
        ("pie/3.jpg", "pie", "test"),
    ]


def test_imagenet_laid_down_by_hand(tmp_path: Path) -> None:
    import torch

    with pytest.raises(DataError) as caught:
        read_source("torchvision:ImageNet")
    assert "ILSVRC2012_devkit_t12.tar.gz" in caught.value.message
    folder = tmp_path / "cache/datasets/torchvision/ImageNet/raw"
    assert str(folder) in caught.value.hint
    names = {"n01": ("tench", "Tinca tinca"), "n02": ("crane",), "n03": ("crane",)}
    torch.save((names, ["n01"]), folder / "meta.bin")
    for seed, wnid in enumerate(names):
        picture(folder / "train" / wnid / f"{wnid}_1.JPEG", seed)
        picture(folder / "val" / wnid / "v.JPEG", seed + 9)
    source = read_source("torchvision:ImageNet")
    assert source.labels == ["tench, Tinca tinca", "crane (n02)", "crane (n03)"] * 2
    assert source.splits == ["train"] * 3 + ["test"] * 3


def test_every_name_is_one_of_torchvision() -> None:
    import inspect

    for name, parts in torchvision_sets.DATASETS.items():
        takes = inspect.signature(getattr(datasets, name).__init__).parameters
        variadic = any(p.kind is p.VAR_KEYWORD for p in takes.values())
        for arguments in parts.values():
            assert set(arguments) <= set(takes)
        assert name in torchvision_sets._IN_ARRAYS or "loader" in takes or variadic
        assert name in torchvision_sets._BY_HAND or "download" in takes


def test_a_failed_download_says_what_to_do(tmp_path: Path) -> None:
    for name in ("CIFAR10", "MNIST", "SVHN", "Flowers102"):
        with pytest.raises(DataError) as caught:
            read_source(f"torchvision:{name}")
        assert (caught.value.code, caught.value.exit_code) == ("data.download", 3)
        assert f"torchvision:{name}" in caught.value.message
        assert str(tmp_path / "cache/datasets/torchvision" / name / "raw") in caught.value.hint
        assert not (tmp_path / "cache/datasets/torchvision" / name / "rows.parquet").exists()


def test_a_full_disk_is_no_missing_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datasets.CIFAR10, "download", full)
    with pytest.raises(DiskError, match="No space left"):
        read_source("torchvision:CIFAR10")


@pytest.mark.parametrize(
    "name", ["torchvision:CIFAR11", "torchvision:", "hf:mnist", "hf:a/../b", "hf:"]
)
def test_names_that_do_not_exist(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_source(name)
    assert caught.value.code == "usage.dataset"
    if "CIFAR" in name:
        assert "torchvision:CIFAR10" in caught.value.hint


@pytest.mark.parametrize("name", ["Torchvision:CIFAR11", "TORCHVISION:CIFAR11", "HF:mnist"])
def test_a_prefix_in_capitals_is_no_path(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_source(name)
    assert caught.value.code == "usage.dataset"


def test_columns_are_refused_where_there_are_none() -> None:
    with pytest.raises(DataError, match="only tables have columns"):
        read_source("torchvision:CIFAR10", label_column="x")


def hub_folder(root: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        file = io.BytesIO()
        Image.fromarray(noise(seed, 9, 9, 3)).save(file, "png")
        cells = [{"bytes": file.getvalue(), "path": None}]
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pa.table({"image": cells, "label": ["a"]}), root / name)
    root.mkdir(exist_ok=True)
    return root


def fake_hub(
    monkeypatch: pytest.MonkeyPatch, branches: dict[str | None, Path]
) -> list[tuple[str, Any]]:
    """Let `snapshot_download` return a folder; keep what was asked of it."""
    asked: list[tuple[str, Any]] = []

    def download(repo_id: str, *, repo_type: str, revision: str | None, allow_patterns: Any) -> str:
        assert repo_type == "dataset"
        asked.append((repo_id, allow_patterns))
        return str(branches[revision])

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return asked


def test_the_parquet_files_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = hub_folder(tmp_path / "h", "data/train-0.parquet", "data/test-0.parquet")
    (root / "README.md").write_text("x")
    asked = fake_hub(monkeypatch, {None: root})
    source = read_source("hf:owner/photos")
    assert asked == [("owner/photos", ["*.parquet"])]
    assert (source.name, source.splits) == ("photos", ["test", "train"])
    assert open_dataset("hf:owner/photos").report["images"] == 2


def test_links_as_the_hub_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_folder(tmp_path / "blobs", "one.parquet").joinpath("one.parquet").rename(tmp_path / "b3f")
    (tmp_path / "h").mkdir()
    (tmp_path / "h/train-0.parquet").symlink_to(tmp_path / "b3f")
    fake_hub(monkeypatch, {None: tmp_path / "h"})
    source = read_source("hf:owner/photos")
    assert isinstance(source.read(0), bytes)
    assert list(source.paths) == ["train-0.parquet/000000"]


def test_the_converted_branch_and_a_folder_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = hub_folder(tmp_path / "c", "big/train/0.parquet", "small/train/0.parquet")
    asked = fake_hub(monkeypatch, {None: hub_folder(tmp_path / "empty"), hub.CONVERTED: root})
    with pytest.raises(DataError, match="several data sets: big, small") as caught:
        read_source("hf:owner/photos")
    assert "hf:owner/name/folder" in caught.value.hint
    source = read_source("hf:owner/photos/small")
    assert asked[-1] == ("owner/photos", ["small/*.parquet"])
    assert (source.name, source.splits) == ("small", ["train"])


def test_a_repository_without_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = hub_folder(tmp_path / "empty")
    pyarrow.parquet.write_table(pa.table({"text": ["x"]}), empty / "train.parquet")
    fake_hub(monkeypatch, {None: empty, hub.CONVERTED: empty})
    with pytest.raises(DataError) as caught:
        read_source("hf:owner/texts")
    assert caught.value.code == "data.hub"


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError) as caught:  # HF_HUB_OFFLINE is set for all tests
        read_source("hf:owner/photos")
    assert (caught.value.code, caught.value.exit_code) == ("data.download", 3)
    assert "https://huggingface.co/datasets/owner/photos" in caught.value.hint


def test_without_the_hubs_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError) as caught:
        read_source("hf:owner/photos")
    assert (caught.value.code, caught.value.exit_code) == ("usage.extra", 2)
    assert caught.value.hint == "pip install huggingface_hub"
