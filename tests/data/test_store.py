"""The decode-once store: same pixels however it is opened, interrupted or shared."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewlabels.core.errors import DataError, DiskError
from fewlabels.data import build, cache, decode, planning, store
from fewlabels.data.loader import Batches
from fewlabels.data.sources import Source, read_source
from fewlabels.data.store import (
    MappedStore,
    StreamingStore,
    cache_folder,
    cache_size,
    clear_cache,
    open_store,
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWLABELS_CACHE", str(tmp_path / "cache"))


def folder_of(root: Path, sizes: list[tuple[int, int]]) -> Path:
    """Fill two class folders with noise pictures of (width, height)."""
    for place, (width, height) in enumerate(sizes):
        noise = np.random.default_rng(place).integers(0, 256, (height, width, 3), dtype=np.uint8)
        path = root / "ab"[place % 2] / f"{place:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(path)
    return root


@pytest.fixture
def equal(tmp_path: Path) -> Source:
    """Pictures of one size."""
    return read_source(folder_of(tmp_path / "equal", [(16, 12)] * 10))


@pytest.fixture
def mixed(tmp_path: Path) -> Source:
    """Pictures of several sizes, one unreadable, one a panorama."""
    root = folder_of(tmp_path / "mixed", [(40, 30), (30, 40), (20, 20), (90, 20), (16, 12)] * 3)
    (root / "a" / "bad.png").write_bytes(b"no picture")
    return read_source(root)


def open_it(source: Source, *, cap_bytes: int | None = None, verify: bool = False) -> store.Store:
    """Open `source` at a short side of 16 in colour."""
    return open_store(source, short_side=16, channels=3, cap_bytes=cap_bytes, verify=verify)


def stores() -> list[Path]:
    """Return what lies in the cache, locks and tags aside."""
    return sorted(p for p in (cache_folder() / "stores").iterdir() if p.is_dir())


def expected(source: Source, row: int) -> np.ndarray:
    """Decode one picture by the public functions."""
    content = source.read(row)
    assert isinstance(content, bytes)
    return decode.shrink(decode.decode(content, 3), 16)


def test_equal_sizes_make_one_block(equal: Source) -> None:
    opened = open_it(equal)
    assert isinstance(opened, MappedStore)
    rows = np.array([3, 0, 9, 3])
    images, sizes = opened.read(rows)
    assert sizes is None
    assert (images.shape, images.dtype) == ((4, 12, 16, 3), np.uint8)
    assert images.flags.c_contiguous
    assert images.flags.writeable
    for image, row in zip(images, rows.tolist(), strict=True):
        np.testing.assert_array_equal(image, expected(equal, row))


def test_mixed_sizes_lie_in_the_corner_of_a_zero_canvas(mixed: Source) -> None:
    opened = open_it(mixed)
    rows = np.flatnonzero(opened.ok)[::-1]
    images, sizes = opened.read(rows)
    assert sizes is not None
    assert sizes.dtype == np.int64
    assert images.shape[1:3] == tuple(sizes.max(0))
    for image, (height, width), row in zip(images, sizes.tolist(), rows.tolist(), strict=True):
        np.testing.assert_array_equal(image[:height, :width], expected(mixed, row))
        assert image[height:].sum() + image[:, width:].sum() == 0
    assert max(images.shape[1:3]) <= 3 * 16
    same = rows[(sizes == sizes[0]).all(1)]
    assert opened.read(same)[1] is None


def test_what_is_known_of_each_picture(mixed: Source) -> None:
    opened = open_it(mixed)
    bad = [i for i in range(len(mixed)) if mixed.paths[i] == "a/bad.png"]
    assert list(opened.issues) == bad
    assert "not a JPEG" in opened.issues[bad[0]]
    assert (~opened.ok).nonzero()[0].tolist() == bad
    assert opened.notes == {"cropped": 3}
    assert (opened.count, opened.channels, opened.short_side) == (16, 3, 16)
    assert opened.sha256.shape == (16, 32)
    assert len(np.unique(opened.sha256, axis=0)) == 16
    good = int(np.flatnonzero(opened.ok)[0])
    with Image.open(f"{mixed.root}/{mixed.paths[good]}") as image:
        assert (opened.widths[good], opened.heights[good]) == image.size
    assert opened.widths.dtype == np.int32
    with pytest.raises(ValueError, match="unreadable"):
        opened.read(np.array([good, bad[0]]))
    with pytest.raises(IndexError):
        opened.read(np.array([16]))
    with pytest.raises(IndexError):
        opened.read(np.array([-1]))


def test_a_block_with_an_unreadable_picture(equal: Source) -> None:
    (Path(str(equal.root)) / "a" / "000.png").write_bytes(b"")
    source = read_source(Path(str(equal.root)))
    opened = open_it(source)
    rows = np.flatnonzero(opened.ok)
    assert len(rows) == 9
    images, sizes = opened.read(rows)
    assert sizes is None
    for image, row in zip(images, rows.tolist(), strict=True):
        np.testing.assert_array_equal(image, expected(source, row))


def test_streaming_gives_the_same_bits(mixed: Source) -> None:
    mapped, streamed = open_it(mixed), open_it(mixed, cap_bytes=0)
    assert isinstance(mapped, MappedStore)
    assert isinstance(streamed, StreamingStore)
    rows = np.random.default_rng(0).permutation(np.flatnonzero(mapped.ok))
    for part in (rows, rows[:1], rows[:0]):
        for left, right in zip(mapped.read(part), streamed.read(part), strict=True):
            np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(mapped.sha256, streamed.sha256)
    assert (mapped.issues, mapped.notes) == (streamed.issues, streamed.notes)


def test_past_the_cap_no_pixels_are_kept(mixed: Source) -> None:
    streamed = open_it(mixed, cap_bytes=1000)
    assert isinstance(streamed, StreamingStore)
    assert (stores()[0] / cache.PIXELS).stat().st_size == 0
    assert isinstance(open_it(mixed, cap_bytes=10**6), MappedStore)
    assert len(stores()) == 1


def test_an_estimate_that_was_too_low_ends_in_streaming(
    mixed: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "_shapes", lambda *_: [(1, 1)])
    streamed = open_it(mixed, cap_bytes=5000)
    assert isinstance(streamed, StreamingStore)
    assert (stores()[0] / cache.PIXELS).stat().st_size == 0
    assert streamed.read(np.flatnonzero(streamed.ok))[0].any()


def test_streaming_notices_a_changed_file(equal: Source) -> None:
    streamed = open_it(equal, cap_bytes=0)
    path = Path(f"{equal.root}/{equal.paths[0]}")
    Image.new("RGB", (16, 12)).save(path)
    with pytest.raises(DataError, match="has changed"):
        streamed.read(np.array([0]))
    path.unlink()
    with pytest.raises(DataError, match="can no longer be read"):
        streamed.read(np.array([0]))


def test_what_was_begun_ahead_is_decoded_once(
    equal: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = open_it(equal).read(np.arange(10))[0]
    streamed = open_it(equal, cap_bytes=0)
    assert isinstance(streamed, StreamingStore)
    read: list[int] = []
    plain = Source.read
    monkeypatch.setattr(Source, "read", lambda self, row: read.append(row) or plain(self, row))
    before = warnings.filters[:]
    streamed.ahead(np.array([3, 1, 4]))
    np.testing.assert_array_equal(streamed.read(np.array([3, 1, 4]))[0], expected[[3, 1, 4]])
    assert sorted(read) == [1, 3, 4]
    streamed.ahead(np.array([5, 9]))
    np.testing.assert_array_equal(streamed.read(np.array([2, 6]))[0], expected[[2, 6]])
    np.testing.assert_array_equal(streamed.read(np.array([2, 6]))[0], expected[[2, 6]])
    assert warnings.filters == before  # Pillow may speak again


def test_what_fails_ahead_is_said_when_it_is_read(equal: Source) -> None:
    streamed = open_it(equal, cap_bytes=0)
    assert isinstance(streamed, StreamingStore)
    Path(f"{equal.root}/{equal.paths[3]}").unlink()
    streamed.ahead(np.array([2, 3]))
    with pytest.raises(DataError, match="can no longer be read"):
        streamed.read(np.array([2, 3]))
    assert streamed.read(np.array([2]))[0].shape[0] == 1


def test_batches_are_the_same_whether_kept_or_streamed(mixed: Source) -> None:
    mapped, streamed = open_it(mixed), open_it(mixed, cap_bytes=0)
    rows = np.flatnonzero(mapped.ok)
    kept, decoded = (Batches(one, rows, 4, seed=1) for one in (mapped, streamed))
    for step in range(8):
        one, other = kept[step], decoded[step]
        kept.ahead(step + 1, slice(None))
        decoded.ahead(step + 1, slice(None))
        for name in ("images", "sizes", "indices", "epochs"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_reopening_decodes_nothing(equal: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_it(equal).read(np.arange(10))[0]
    monkeypatch.setattr(Source, "read", None)
    np.testing.assert_array_equal(open_it(equal).read(np.arange(10))[0], first)


def test_the_key_follows_listing_and_preprocessing(
    equal: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(str(equal.root))
    open_it(equal)
    open_store(equal, short_side=16, channels=1)
    open_store(equal, short_side=8, channels=3)
    assert len(stores()) == 3
    monkeypatch.setattr(store, "PREPROCESS_VERSION", store.PREPROCESS_VERSION + 1)
    open_it(equal)
    assert len(stores()) == 4
    os.utime(root / "a" / "000.png", ns=(1, 1))
    open_it(read_source(root))
    assert len(stores()) == 5
    (root / "a" / "000.png").rename(root / "a" / "new.png")
    open_it(read_source(root))
    assert len(stores()) == 6


def test_verify_rebuilds_what_changed_unseen(equal: Source) -> None:
    path = Path(f"{equal.root}/{equal.paths[0]}")
    before, stamp = path.read_bytes(), path.stat().st_mtime_ns
    opened = open_it(equal, verify=True)
    old = opened.read(np.array([0]))[0]
    after = bytearray(before)
    Image.new("RGB", (16, 12), "red").save(path)
    after = path.read_bytes().ljust(len(before), b"\0")
    path.write_bytes(after)
    os.utime(path, ns=(stamp, stamp))
    source = read_source(Path(str(equal.root)))
    np.testing.assert_array_equal(open_it(source).read(np.array([0]))[0], old)
    new = open_it(source, verify=True).read(np.array([0]))[0]
    assert new[0, 0, 0].tolist() == [255, 0, 0]
    assert len(stores()) == 1


def test_a_file_that_could_not_be_read_is_tried_again(equal: Source) -> None:
    path = Path(f"{equal.root}/{equal.paths[0]}")
    away = path.rename(path.with_suffix(".away"))
    assert "cannot be read" in open_it(equal).issues[0]
    away.rename(path)
    assert open_it(equal).ok.all()


@pytest.mark.parametrize("name", ["meta.json", "pixels.u8", "ok.npy"])
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_damaged_store_is_rebuilt(equal: Source, name: str, how: str) -> None:
    first = open_it(equal).read(np.arange(10))[0]
    path = stores()[0] / name
    path.unlink()
    if how == "cut":
        path.write_bytes(b"{}")
    np.testing.assert_array_equal(open_it(equal).read(np.arange(10))[0], first)


def test_arrays_and_digits(tmp_path: Path) -> None:
    digits = read_source("digits")
    opened = open_store(digits, short_side=8, channels=1)
    images, sizes = opened.read(np.arange(1797))
    assert sizes is None
    assert images.shape == (1797, 8, 8, 1)
    np.testing.assert_array_equal(images[5], digits.read(5))
    pictures = np.random.default_rng(0).integers(0, 256, (6, 20, 20, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=pictures, labels=np.arange(6) % 2)
    source = read_source(tmp_path / "x.npz")
    images, _ = open_store(source, short_side=20, channels=3).read(np.arange(6))
    np.testing.assert_array_equal(images, pictures)


def test_no_images_at_all(tmp_path: Path) -> None:
    empty = np.zeros(0, np.int64)
    source = Source("none", tmp_path, read_source("digits").paths[:0], [], [], empty, empty)
    opened = open_it(source)
    assert (opened.count, opened.read(empty)[0].shape[0]) == (0, 0)


def test_known_issues_are_not_read_again(equal: Source) -> None:
    source = read_source(Path(str(equal.root)))
    source.issues[2] = "two labels"
    opened = open_it(source)
    assert opened.issues == {2: "two labels"}
    assert not opened.ok[2]


CODE = """
import sys
from fewlabels.data.sources import read_source
from fewlabels.data.store import open_store
opened = open_store(read_source(sys.argv[1]), short_side=16, channels=3)
print(int(opened.read(opened.ok.nonzero()[0])[0].sum()), "torch" in sys.modules)
"""
SLOW = """
from fewlabels.data import build
import time
row = build._row
build._row = lambda *a: (print("row", flush=True), time.sleep(0.05), row(*a))[-1]
"""


def start(root: Path, code: str) -> subprocess.Popen[str]:
    """Open the store of `root` in another process."""
    command = [sys.executable, "-c", code, str(root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.medium
def test_two_processes_build_once_and_agree(mixed: Source) -> None:
    both = [start(Path(str(mixed.root)), SLOW + CODE) for _ in range(2)]
    lines = [process.communicate(timeout=60)[0].split("\n") for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(line.count("row") for line in lines) == [0, len(mixed)]
    assert lines[0][-2] == lines[1][-2]
    assert lines[0][-2].endswith("False")  # torch was never imported
    assert len(stores()) == 1
    assert not list((cache_folder() / "stores").glob("*.lock"))


@pytest.mark.medium
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
def test_a_killed_build_leaves_no_store_and_is_swept_up(mixed: Source, equal: Source) -> None:
    process = start(Path(str(mixed.root)), SLOW + CODE)
    assert process.stdout is not None
    for _ in range(5):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert [p.suffix for p in stores()] == [".building"]
    began = time.monotonic()
    open_it(equal)
    assert [p.suffix for p in stores()] == [""]
    assert time.monotonic() - began < 5
    assert open_it(mixed).ok.sum() == 15


def test_a_failing_build_leaves_nothing(equal: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(build.Writer, "sync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_it(equal)
    assert stores() == []


def test_a_full_disk_is_said_before_building(
    equal: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "_free", lambda: 2000)
    with pytest.raises(DiskError, match=r"need about .* MB, 0 MB free in"):
        open_it(equal, cap_bytes=10**9)
    assert stores() == []


def test_a_disk_that_fills_up_while_building(
    equal: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(build.Writer, "sync", full)
    with pytest.raises(DiskError, match="free in"):
        open_it(equal)
    assert stores() == []


def test_a_cache_that_cannot_be_made(
    equal: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FEWLABELS_CACHE", str(tmp_path / "file"))
    with pytest.raises(DiskError, match="cannot keep decoded images"):
        open_it(equal)


def test_stores_used_longest_ago_give_way(equal: Source, mixed: Source) -> None:
    open_it(equal)
    os.utime(stores()[0] / cache.META, (1, 1))
    assert isinstance(open_it(mixed, cap_bytes=20_000), MappedStore)
    assert len(stores()) == 1
    assert open_it(mixed).count == 16
    assert len(stores()) == 1


def test_clear_cache_removes_only_its_own(equal: Source) -> None:
    open_it(equal)
    root = cache_folder() / "stores"
    (root / "precious").mkdir()
    (root / ("0" * 32)).mkdir()
    (root / ("0" * 32) / "thesis.txt").write_text("years of work")
    (cache_folder() / "other.txt").write_text("kept")
    size = cache_size()
    assert clear_cache() == size > 5000
    assert cache_size() == 0
    assert (root / ("0" * 32) / "thesis.txt").exists()
    assert (root / "precious").is_dir()
    assert (cache_folder() / "other.txt").exists()


def test_clear_cache_without_a_cache() -> None:
    assert (cache_size(), clear_cache()) == (0, 0)
    assert not cache_folder().exists()


def test_the_place_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FEWLABELS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform.startswith("linux"):
        assert cache_folder() == tmp_path / "fewlabels"
    assert cache_folder().name == "fewlabels"


def test_progress_ends_at_the_count(mixed: Source) -> None:
    seen: list[tuple[str, int, int]] = []
    for verify in (False, True):
        open_store(
            mixed, short_side=16, channels=3, verify=verify, progress=lambda *a: seen.append(a)
        )
    assert ("decode", 16, 16) in seen
    assert seen[-1] == ("verify", 16, 16)


def test_several_threads_keep_the_order(mixed: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    one = open_it(mixed)
    rows = np.flatnonzero(one.ok)
    first = one.read(rows)[0]
    clear_cache()
    monkeypatch.setattr(planning, "_SMALL", 0)
    monkeypatch.setattr(planning, "cores", lambda: 4)
    monkeypatch.setattr(build, "CHUNK", 2)
    np.testing.assert_array_equal(open_it(mixed).read(rows)[0], first)


def test_building_holds_a_few_chunks_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = np.zeros((4000, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "x.npz", images=pictures, labels=np.arange(4000) % 2)
    source = read_source(tmp_path / "x.npz")
    source.read(0)
    tracemalloc.start()
    try:
        open_store(source, short_side=32, channels=3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < pictures.nbytes / 3
