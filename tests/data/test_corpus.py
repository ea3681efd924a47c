"""Every odd file of the corpus meets the end that was decided for it, and the docs say so."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import (
    IGNORED,
    QUARANTINED,
    USED,
    Picture,
    Place,
    flipped,
    giant,
    good_classes,
    jpeg,
    oriented,
    packed,
    photo,
    pictures,
    places,
    png,
    refusals,
    scan_bomb,
    webp,
)
from PIL import Image, UnidentifiedImageError

from fewlabels.core.errors import DataError
from fewlabels.data import decode
from fewlabels.data.dataset import open_dataset
from fewlabels.data.listing import Strings, escape
from fewlabels.data.room import Room
from fewlabels.data.store import StreamingStore, open_store
from fewlabels.pipeline.folders import default_folder
from fewlabels.pipeline.predict import read_picture

PAGE = Path(__file__).parents[2] / "docs" / "odd-files.md"
PICTURES = pictures()
NEEDS_RIGHTS = {"file that may not be read", "folder that may not be listed"}
# Takes from root what lets it read everything, so that the tests see what others see.
HUMBLED = """
import ctypes, os, sys
if os.getuid() == 0:
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        assert ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) == 0  # PR_CAPBSET_DROP
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="rights are dropped as Linux does it")


def numbered(found: list[Picture] | list[Place]) -> list[Any]:
    """Return parameters named after their kind, and counted where there are several."""
    seen: Counter[str] = Counter()
    named = []
    for one in found:
        seen[one.kind] += 1
        named.append(pytest.param(one, id=f"{one.kind} {seen[one.kind]}"))
    return named


@pytest.mark.parametrize("short_side", [None, 16])
@pytest.mark.parametrize("picture", numbered(PICTURES))
def test_every_picture(picture: Picture, short_side: int | None) -> None:
    if picture.outcome == QUARANTINED:
        with pytest.raises(ValueError, match=picture.reason):
            decode.load(picture.data, 3, short_side)
        return
    assert picture.pixels is not None
    found = decode.load(picture.data, 3, short_side)
    assert (found.height, found.width) == picture.pixels.shape[:2]
    assert set(found.notes) - {"cropped"} == picture.notes
    wanted = picture.pixels.astype(np.uint8)
    if short_side is not None:
        wanted = decode.shrink(wanted, short_side)
    assert found.pixels.shape == wanted.shape
    assert np.abs(found.pixels.astype(int) - wanted).max() <= picture.within


def test_other_decoders_are_never_called(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    def refuse(name: str) -> Any:
        def factory(*_: object) -> None:
            called.append(name)
            raise SyntaxError

        return factory, None

    Image.init()
    for name in set(Image.OPEN) - set(decode.FORMATS):
        monkeypatch.setitem(Image.OPEN, name, refuse(name))
    for picture in PICTURES:
        with contextlib.suppress(ValueError):
            decode.load(picture.data, 3)
        with contextlib.suppress(ValueError):
            decode.probe(picture.data)
    assert called == []
    with pytest.raises(UnidentifiedImageError):  # so that the test can fail
        Image.open(io.BytesIO(b"no picture"))
    assert len(called) > 20


def test_a_cut_file_is_refused_or_whole() -> None:
    """At every byte: never a picture with something else in it than was there."""
    small = photo(0, 12, 16)
    kinds = {
        "PNG": {},
        "JPEG": {},
        "GIF": {},
        "BMP": {},
        "TIFF": {"compression": "tiff_lzw"},
        "WEBP": {"lossless": True},
    }
    for kind, options in kinds.items():
        data = packed(small, kind, **options)
        whole = decode.decode(data, 3)
        read = []
        for place in range(len(data)):
            try:
                found = decode.decode(data[:place], 3)
            except ValueError:
                continue
            read.append(place)
            np.testing.assert_array_equal(found, whole, err_msg=f"{kind} cut at {place}")
        assert len(read) <= 20, kind  # at most an end mark is missing


def test_a_flipped_bit_of_a_png_is_refused_or_changes_nothing() -> None:
    data = packed(photo(0, 12, 16), "PNG")
    whole = decode.decode(data, 3)
    for bit in range(8 * len(data)):
        try:
            found = decode.decode(flipped(data, bit), 3)
        except ValueError:
            continue
        np.testing.assert_array_equal(found, whole, err_msg=f"bit {bit}")


def test_flipped_bits_of_other_formats_end_in_order() -> None:
    for kind in ("JPEG", "WEBP", "BMP", "TIFF", "GIF"):
        data = packed(photo(0, 12, 16), kind)
        for bit in range(0, 8 * len(data), 5):
            try:
                found = decode.decode(flipped(data, bit), 3)
            except ValueError as error:
                assert str(error)
            else:
                assert found.dtype == np.uint8


def test_whole_jpegs_are_never_taken_for_cut_ones() -> None:
    """Those that end in mid-grey are decoded twice: in every way that encoders write them."""
    ways = ({}, {"quality": 5}, {"quality": 100}, {"optimize": True}, {"restart_marker_blocks": 3})
    ways += ({"progressive": True}, {"progressive": True, "quality": 100}, {"subsampling": 2})
    for seed, side in enumerate((1, 7, 8, 9, 16, 17, 33, 130)):
        pixels = photo(seed, side, side + 3)
        pixels[side // 2 :] = 128
        for mode in ("RGB", "L", "CMYK"):
            for way in ways:
                data = jpeg(Image.fromarray(pixels).convert(mode), **way)
                decode.load(data, 3)
                decode.load(data, 3, 8)
                decode.load(data + b"\xff\xd9 a trailer", 3)


def test_scans_of_a_jpeg_are_counted() -> None:
    assert decode.decode(scan_bomb(80), 3).shape == (64, 64, 3)
    with pytest.raises(ValueError, match="100 scans"):
        decode.decode(scan_bomb(100), 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    good_classes(tmp_path / "photos")
    return tmp_path / "photos"


def lay(place: Place, root: Path) -> None:
    try:
        place.make(root)
    except (OSError, UnicodeError) as error:
        pytest.skip(f"this file system does not take it: {error}")


@pytest.mark.parametrize("place", numbered([p for p in places() if p.kind not in NEEDS_RIGHTS]))
def test_every_place(place: Place, folder: Path) -> None:
    before = open_dataset(folder).report
    lay(place, folder)
    report = open_dataset(folder).report
    dataset = open_dataset(folder)
    found = dict(
        zip(
            dataset.manifest.column("path"),
            zip(dataset.manifest.column("label"), dataset.manifest.column("issue"), strict=True),
            strict=True,
        )
    )
    good = {f"{name}/{i}.png" for name in ("cat", "dog") for i in range(3)}
    assert set(found) == good | set(place.paths)
    for path, label in place.paths.items():
        assert found[path][0] == label
        assert (found[path][1] is None) == (place.outcome == USED)
        if place.outcome == QUARANTINED:
            assert re.search(place.reason, str(found[path][1]))
    assert re.search(place.warning, "\n".join(report["warnings"]))
    if place.outcome == IGNORED:
        assert report["classes"] == before["classes"]


@pytest.mark.parametrize("place", numbered([p for p in refusals() if p.kind not in NEEDS_RIGHTS]))
def test_every_refusal(place: Place, folder: Path) -> None:
    lay(place, folder)
    if place.code == "data.class_clash" and len(list(folder.iterdir())) < 4:
        pytest.skip("this file system merges the names")
    with pytest.raises(DataError) as refused:
        open_dataset(folder)
    assert (refused.value.code, refused.value.exit_code) == (place.code, 3)


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Return content, rights, size and time of everything below a folder, links not followed."""
    state: dict[str, tuple[object, ...]] = {}
    for where, folders, files in os.walk(root):
        for path in (Path(where, name) for name in (*folders, *files)):
            about = path.lstat()
            content: object = None
            if path.is_symlink():
                content = path.readlink()
            elif path.is_file() and about.st_size < 1 << 30 and os.access(path, os.R_OK):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            state[str(path)] = (about.st_mode, about.st_size, about.st_mtime_ns, content)
    return state


def humbled(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python as somebody who may not read everything."""
    command = [sys.executable, "-c", HUMBLED, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole corpus among good pictures, more of these than of the others."""
    root = tmp_path_factory.mktemp("corpus") / "photos"
    good_classes(root, 220)
    for number, picture in enumerate(PICTURES):
        name = "cat" if number % 2 else "dog"
        (root / name / f"odd-{number:03d}{picture.suffix}").write_bytes(picture.data)
    for place in places():
        try:
            place.make(root)
        except (OSError, UnicodeError):
            pytest.skip(f"this file system does not take: {place.kind}")
    return root


def expected(root: Path) -> tuple[dict[str, str], dict[str, int]]:
    """Return the reasons by quarantined path, and how many images of each class are used."""
    reasons: dict[str, str] = {}
    classes: Counter[str] = Counter({"cat": 220, "dog": 220})
    for number, picture in enumerate(PICTURES):
        name = "cat" if number % 2 else "dog"
        if picture.outcome == USED:
            classes[name] += 1
        else:
            reasons[f"{name}/odd-{number:03d}{picture.suffix}"] = picture.reason
    for place in places():
        for path, label in place.paths.items():
            if place.outcome == QUARANTINED:
                reasons[path] = place.reason
            elif label is not None:
                classes[label] += 1
    return reasons, dict(classes)


@pytest.mark.medium
def test_an_archive_and_a_stream_give_what_the_folder_gives(tmp_path: Path) -> None:
    folder, archive = tmp_path / "photos", tmp_path / "photos.zip"
    good_classes(folder, 220)
    for number, picture in enumerate(PICTURES):
        (folder / f"cat/odd-{number:03d}{picture.suffix}").write_bytes(picture.data)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed_files:
        for file in sorted(folder.rglob("*.*")):
            packed_files.write(file, file.relative_to(folder))
    first, second = open_dataset(folder), open_dataset(archive)
    assert first.report["quarantine"] == second.report["quarantine"]
    assert first.manifest.table.equals(second.manifest.table)
    streamed = open_store(
        first.source, short_side=first.store.short_side, channels=3, cap_bytes=0, verify=True
    )
    assert isinstance(streamed, StreamingStore)
    rows = np.flatnonzero(first.store.ok)
    np.testing.assert_array_equal(streamed.ok, first.store.ok)
    for start in range(0, len(rows), 100):
        some = rows[start : start + 100]
        for store in (second.store, streamed):
            np.testing.assert_array_equal(store.read(some)[0], first.store.read(some)[0])


@linux
@pytest.mark.medium
def test_inspect_of_the_whole_corpus(whole: Path) -> None:
    before = snapshot(whole)
    done = humbled("-m", "fewlabels", "inspect", str(whole), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    reasons, classes = expected(whole)
    assert {row["path"] for row in report["quarantine"]} == set(reasons)
    for row in report["quarantine"]:
        assert re.search(reasons[row["path"]], row["reason"]), row
    assert report["classes"] == classes
    assert report["unlabelled"] == 1
    assert report["images"] == sum(classes.values()) + 1 + len(reasons)
    said = "\n".join(report["warnings"])
    for place in places():
        assert re.search(place.warning, said), place.kind
    assert "cannot be read: see the quarantine" in said
    assert snapshot(whole) == before
    shown = humbled("-m", "fewlabels", "inspect", str(whole))
    assert shown.returncode == 0, shown.stderr
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", shown.stdout)


@linux
@pytest.mark.slow
def test_a_run_on_the_whole_corpus(whole: Path, tmp_path: Path) -> None:
    before = snapshot(whole)
    out = tmp_path / "run"
    words = ["run", str(whole), "--out", str(out), "--budget", "40s", "--image-size", "16"]
    words += ["--arms", "random+features,pixels", "--baseline", "pixels", "--seeds", "2", "--json"]
    done = humbled("-m", "fewlabels", *words)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["inspect"]
    reasons, classes = expected(whole)
    assert found["classes"] == classes
    assert {row["path"] for row in found["quarantine"]} == set(reasons)
    with (out / "quarantine.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == found["quarantine"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<img src=x" not in page
    for shown in ("&lt;script&gt;alert(3)&lt;b&gt;", "cat/&lt;script&gt;alert(4).jpg", "o\\nx"):
        assert shown in page, shown
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", page)
    assert snapshot(whole) == before


MEASURE = """
import sys
from pathlib import Path
from fewlabels.data import decode
from fewlabels.data.dataset import open_dataset

def memory(field):
    (line,) = (l for l in Path("/proc/self/status").read_text().splitlines() if field in l)
    return int(line.split()[1]) / 1024

def peak(call, *given):
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    call(*given)
    return memory("VmHWM") - before

def load(path):
    try:
        decode.load(path.read_bytes(), 3, 146)
    except ValueError:
        pass

folder = Path(sys.argv[1])
open_dataset(folder / "plain")
for path in sorted((folder / "single").iterdir()):
    print(path.stem, peak(load, path))
if (folder / "mixed").exists():
    print("opened", peak(open_dataset, folder / "mixed"))
"""


def peaks(folder: Path) -> dict[str, float]:
    """Return by how many MB memory rose at most, for each file and for a folder of all."""
    good_classes(folder / "plain")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {name: float(mb) for name, mb in map(str.split, done.stdout.splitlines())}


@linux
@pytest.mark.medium
def test_bombs_take_little_memory(tmp_path: Path) -> None:
    good_classes(tmp_path / "mixed", 20)
    (tmp_path / "single").mkdir()
    bombs = [picture for picture in PICTURES if picture.kind.startswith("bomb")]
    for number, bomb in enumerate(bombs):
        for where in ("single", "mixed/cat"):
            (tmp_path / where / f"{number}{bomb.suffix}").write_bytes(bomb.data)
    giant(tmp_path / "mixed")
    found = peaks(tmp_path)
    assert len(found) == len(bombs) + 1
    assert max(found.values()) < 200, found


@linux
@pytest.mark.medium
def test_the_largest_pictures_take_20_bytes_a_pixel(tmp_path: Path) -> None:
    side, single = 7000, tmp_path / "single"
    single.mkdir()
    row = bytes(1 + 4 * side)
    (single / "webp.webp").write_bytes(webp(side, side))
    clear = Image.new("RGBA", (side, side), (9, 9, 9, 100))
    options = {"lossless": True, "method": 0, "exif": oriented(6)}
    (single / "worst.webp").write_bytes(packed(clear, "WEBP", **options))
    (single / "alpha.png").write_bytes(png((side, side), row * side, 8, 6))
    (single / "deep.png").write_bytes(png((side, side), row[: 1 + 2 * side] * side, 16, 0))
    (single / "bits.png").write_bytes(png((side, side), row[: 1 + side // 8] * side, 1, 0))
    found = peaks(tmp_path)
    assert max(found["webp"], found["worst"]) < 20 * side**2 / 2**20 + 20
    assert max(found["alpha"], found["deep"]) < 12 * side**2 / 2**20 + 50
    assert found["bits"] < 200


def test_threads_share_the_room_for_pixels() -> None:
    room, held, most = Room(10), [0], [0]

    def work(pixels: int) -> None:
        with room.take(pixels):
            held[0] += pixels
            most[0] = max(most[0], held[0])
            time.sleep(0.001)
            held[0] -= pixels

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [10, 1, 4, 6, 3, 3, 3, 10, 2, 5] * 5))
    assert most[0] <= 10
    assert held[0] == 0


def test_a_file_above_200_mb_is_not_read_by_predict(folder: Path) -> None:
    giant(folder)
    assert read_picture(folder / "cat/giant.png", 3, 16) == "more than 200 MB"
    assert isinstance(read_picture(folder / "cat/0.png", 3, 16), np.ndarray)


def test_a_folder_with_a_long_name_gets_a_run_folder() -> None:
    assert len(default_folder("run", "x" * 255).name) < 150


def test_names_are_shown_on_one_line() -> None:
    names = Strings.of(["plain", "b\nd", "x\u202ey", "caf\udce9", "\u0646\u200c\u0645"])
    shown = ["plain", "b\\nd", "x\\u202ey", "caf\\xe9", "\u0646\u200c\u0645"]
    assert names.printable().to_pylist() == shown
    assert [escape(name) for name in names] == shown
    assert list(names[:2]) == ["plain", "b\nd"]


ROW = re.compile(r"^\| ([^|]+) \| (used|quarantined|ignored|refused)\b", re.M)


def test_the_table_of_the_docs_is_the_corpus() -> None:
    decided: dict[str, set[str]] = {}
    for one in (*PICTURES, *places(), *refusals()):
        decided.setdefault(one.kind, set()).add(one.outcome)
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    assert len(rows) == len({kind for kind, _ in rows})
    assert {kind for kind, _ in rows} == set(decided)
    for kind, outcome in rows:
        assert outcome in decided[kind], kind
    assert len(rows) >= 60


@linux
@pytest.mark.medium
def test_a_folder_that_may_not_be_listed(folder: Path) -> None:
    (place,) = (place for place in refusals() if place.kind == "folder that may not be listed")
    place.make(folder)
    done = humbled("-m", "fewlabels", "inspect", str(folder), "--json")
    (folder / "locked").chmod(0o700)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"error[{place.code}]: cannot list the folder" in done.stderr
