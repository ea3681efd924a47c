"""Archives are read as the folder they would unpack to, and cannot do more than that."""

from __future__ import annotations

import bz2
import io
import os
import stat
import struct
import subprocess
import sys
import tarfile
import threading
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from fewlabels.core.errors import DataError, DiskError
from fewlabels.data import cache, planning, tarstream
from fewlabels.data.archives import ARCHIVES, is_archive, stem
from fewlabels.data.dataset import open_dataset
from fewlabels.data.members import MAX_BYTES
from fewlabels.data.sources import read_source
from fewlabels.data.store import MappedStore, StreamingStore, open_store

ENDINGS = [".zip", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWLABELS_CACHE", str(tmp_path / "cache"))


def jpeg(seed: int, size: tuple[int, int] = (14, 11)) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "png" if seed % 2 else "jpeg")
    return file.getvalue()


def write(root: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def pack(folder: Path, archive: Path, top: str = "") -> Path:
    """Pack a folder, empty folders too, in an order that is not sorted."""
    entries = sorted(folder.rglob("*"), key=lambda path: path.name, reverse=True)
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
            for path in entries:
                zipped.write(path, top + path.relative_to(folder).as_posix())
        return archive
    mode = archive.suffix[1:] if archive.suffix != ".tar" else ""
    with tarfile.open(archive, f"w:{mode}") as tar:
        for path in entries:
            tar.add(path, top + path.relative_to(folder).as_posix(), recursive=False)
    return archive


def table_rows() -> bytes:
    return b"path,label,split\n0.jpg,01,train\nb/1.jpg,,\n2,x,test\ngone.jpg,x,\n"


def name_of(number: int) -> str:
    return f"{number}.{'png' if number % 2 else 'jpg'}"


LAYOUTS: dict[str, dict[str, bytes]] = {
    "classes": {
        **{f"{c}/{name_of(i)}": jpeg(i + n) for n, c in enumerate("ab") for i in range(30)},
        "unlabelled/x.jpg": jpeg(200),
        "a/deep/er/9.jpg": jpeg(2),
        "a/bad.jpg": b"no picture",
        "a/notes.txt": b"text",
    },
    "splits": {
        **{f"train/{c}/{i}.jpg": jpeg(2 * i) for i, c in enumerate("abab")},
        "validation/a/7.jpg": jpeg(14),
        "test/b/8.jpg": jpeg(16),
        "test/a/9.jpg": jpeg(0),
        "unlabelled/y.jpg": jpeg(18),
    },
    "table": {
        **{path: jpeg(2 * i) for i, path in enumerate(("0.jpg", "b/1.jpg", "b/2.jpg", "3.jpg"))},
        "labels.csv": table_rows(),
    },
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("top", ["", "photos/"])
def test_an_archive_reads_as_its_folder(tmp_path: Path, layout: str, ending: str, top: str) -> None:
    folder = write(tmp_path / "photos", LAYOUTS[layout])
    (folder / "empty").mkdir(exist_ok=True) if layout == "classes" else None
    expected = read_source(folder)
    source = read_source(pack(folder, tmp_path / f"photos{ending}", top))
    assert list(source.paths) == list(expected.paths)
    assert (source.name, source.labels, source.splits) == (
        expected.name,
        expected.labels,
        expected.splits,
    )
    assert (source.issues, source.warnings) == (expected.issues, expected.warnings)
    np.testing.assert_array_equal(source.sizes, expected.sizes)
    if ending != ".zip":  # zips keep the local time, to two seconds
        seconds = source.times // 10**9
        np.testing.assert_array_equal(seconds, expected.times // 10**9)
    for row in range(len(source)):
        if row not in source.issues:
            assert source.read(row) == expected.read(row)
            assert source.head(row, 20) == expected.head(row, 20)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_data_set_from_an_archive_is_the_one_from_the_folder(tmp_path: Path, ending: str) -> None:
    folder = write(tmp_path / "photos", LAYOUTS["classes"])
    expected = open_dataset(folder)
    dataset = open_dataset(pack(folder, tmp_path / f"photos{ending}"))
    assert dataset.manifest.table.equals(expected.manifest.table)
    assert dataset.report == expected.report
    assert dataset.report["unreadable"] == 1
    rows = np.flatnonzero(dataset.store.ok)
    images, _ = dataset.store.read(rows)
    np.testing.assert_array_equal(images, expected.store.read(rows)[0])


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz"])
def test_past_the_cap_images_stream_out_of_the_archive(tmp_path: Path, ending: str) -> None:
    folder = write(tmp_path / "photos", LAYOUTS["classes"])
    source = read_source(pack(folder, tmp_path / f"photos{ending}"))
    mapped = open_store(source, short_side=8, channels=3)
    streamed = open_store(source, short_side=8, channels=3, cap_bytes=0)
    assert isinstance(mapped, MappedStore)
    assert isinstance(streamed, StreamingStore)
    rows = np.random.default_rng(0).permutation(np.flatnonzero(mapped.ok))
    np.testing.assert_array_equal(mapped.read(rows)[0], streamed.read(rows)[0])


@pytest.mark.parametrize("ending", ENDINGS)
def test_threads_read_one_archive_at_once(tmp_path: Path, ending: str) -> None:
    folder = write(tmp_path / "photos", LAYOUTS["classes"])
    source = read_source(pack(folder, tmp_path / f"photos{ending}"))
    expected = [source.read(row) for row in range(len(source))]
    wrong: list[int] = []

    def read(seed: int) -> None:
        for row in np.random.default_rng(seed).permutation(len(source)).tolist():
            if source.read(row) != expected[row]:
                wrong.append(row)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("ending", ENDINGS)
def test_another_archive_under_the_same_name_is_seen(tmp_path: Path, ending: str) -> None:
    first = {"a/1.jpg": jpeg(0), "b/2.jpg": jpeg(2)}
    # Same names, same sizes, same times: only the archive itself shows the change.
    second = {"a/1.jpg": first["b/2.jpg"][:-1] + b"x", "b/2.jpg": first["a/1.jpg"][:-1] + b"x"}
    if len(first["a/1.jpg"]) != len(first["b/2.jpg"]):
        longest = max(map(len, first.values()))
        first = {path: content.ljust(longest, b"\0") for path, content in first.items()}
        second = {"a/1.jpg": first["b/2.jpg"], "b/2.jpg": first["a/1.jpg"]}
    archive = tmp_path / f"x{ending}"
    keys = []
    for time, files in ((1, first), (2, second)):
        folder = write(tmp_path / f"at{time}", files)
        for path in folder.rglob("*.jpg"):
            os.utime(path, (10**9, 10**9))
        pack(folder, archive)
        os.utime(archive, (time, time))
        source = read_source(archive)
        store = open_store(source, short_side=8, channels=3)
        assert source.read(0) == files["a/1.jpg"]
        keys.append(store.sha256.tobytes())
    assert keys[0] != keys[1]


def test_a_folder_that_holds_an_archive_alone(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    zip_of(tmp_path / "f/x.zip", ("cat/1.jpg", b"x"))
    error = refusal(tmp_path / "f")
    assert (error.code, error.hint) == ("data.empty", "give the archive itself")


def test_names_of_archives() -> None:
    assert set(ENDINGS) < set(ARCHIVES)
    for name in ("a.b.ZIP", "a.b.tar.gz", "a.b.tgz", "a.b.Tar", "a.b.txz"):
        assert is_archive(Path(name))
        assert stem(Path(name)) == "a.b"
    assert not is_archive(Path("a.gz"))


@pytest.mark.parametrize(
    ("files", "paths"),
    [
        (["top/mid/cat/1.jpg", "top/mid/dog/2.jpg"], ["cat/1.jpg", "dog/2.jpg"]),
        (["train/cat/1.jpg", "train/dog/2.jpg"], ["train/cat/1.jpg", "train/dog/2.jpg"]),
        (["Unlabelled/a/1.jpg"], ["Unlabelled/a/1.jpg"]),
        (["cat/1.jpg", "cat/2.jpg"], ["cat/1.jpg", "cat/2.jpg"]),
        (["cat/1.jpg", "cat/x/2.jpg"], ["cat/1.jpg", "cat/x/2.jpg"]),
        (["README", "top/cat/1.jpg", "__MACOSX/top/._x.jpg"], ["cat/1.jpg"]),
    ],
)
def test_the_folder_in_which_everything_lies(
    tmp_path: Path, files: list[str], paths: list[str]
) -> None:
    folder = write(tmp_path / "f", dict.fromkeys(files, b"x"))
    assert list(read_source(pack(folder, tmp_path / "f.zip")).paths) == paths


def zip_of(path: Path, *members: tuple[zipfile.ZipInfo | str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, content in members:
            archive.writestr(info, content)
    return path


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def tar_info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def everything_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


UNSAFE = (
    "/abs.jpg",
    "../up.jpg",
    "a/../../up.jpg",
    "C:/x.jpg",
    "//host/x.jpg",
    "d/" * 101 + "1.jpg",
)


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz"])
def test_members_that_lead_outside_are_skipped_and_counted(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"inner/evil{ending}"
    path.parent.mkdir()
    if ending == ".zip":
        zip_of(path, ("cat/1.jpg", jpeg(0)), *((name, jpeg(2)) for name in UNSAFE))
    else:
        tar_of(path, (tar_info("cat/1.jpg"), jpeg(0)), *((tar_info(n), jpeg(2)) for n in UNSAFE))
    source = read_source(path)
    assert list(source.paths) == ["cat/1.jpg"]
    (warning,) = source.warnings
    assert warning.startswith(f"{len(UNSAFE)} members were skipped: with unsafe names")
    outside = {p for p in everything_below(tmp_path) if not p.startswith("cache")}
    assert outside == {"inner", f"inner/evil{ending}"}
    assert not Path("/abs.jpg").exists()


def test_links_devices_and_pipes_of_a_tar_are_skipped_and_counted(tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(jpeg(2))
    path = tar_of(
        tmp_path / "x.tar.gz",
        (tar_info("cat/1.jpg"), jpeg(0)),
        (tar_info("cat/soft.jpg", tarfile.SYMTYPE, str(secret)), b""),
        (tar_info("cat/hard.jpg", tarfile.LNKTYPE, "cat/1.jpg"), b""),
        (tar_info("cat/pipe.jpg", tarfile.FIFOTYPE), b""),
        (tar_info("cat/disk.jpg", tarfile.BLKTYPE), b""),
        (tar_info("out", tarfile.SYMTYPE, "/"), b""),
        (tar_info("out/etc/2.jpg"), jpeg(4)),
    )
    source = read_source(path)
    assert list(source.paths) == ["cat/1.jpg", "out/etc/2.jpg"]  # a label, and no place
    assert source.warnings == (
        "2 symbolic links were not followed",
        "2 members were skipped: devices or pipes",
        "1 members were skipped: hard links",
    )
    assert not Path("/etc/2.jpg").exists()


def test_links_and_pipes_of_a_zip(tmp_path: Path) -> None:
    link, pipe = zipfile.ZipInfo("cat/soft.jpg"), zipfile.ZipInfo("cat/pipe.jpg")
    link.external_attr, pipe.external_attr = (stat.S_IFLNK | 0o777) << 16, stat.S_IFIFO << 16
    path = zip_of(tmp_path / "x.zip", ("cat/1.jpg", jpeg(0)), (link, b"/etc/passwd"), (pipe, b""))
    source = read_source(path)
    assert list(source.paths) == ["cat/1.jpg"]
    assert source.warnings == (
        "1 symbolic links were not followed",
        "1 members were skipped: devices or pipes",
    )


def refusal(path: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        read_source(path)
    assert caught.value.exit_code == 3
    return caught.value


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.zip", ("cat/1.jpg", b"12345"), ("README", b"x"))
    raw = bytearray(path.read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # the flags, in both headers
        raw[raw.index(mark) + place] |= 1
    path.write_bytes(raw)
    error = refusal(path)
    assert error.code == "data.archive"
    assert "cat/1.jpg is encrypted" in error.message
    assert "password" in error.hint


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz"])
def test_two_files_of_one_name_are_refused(tmp_path: Path, ending: str) -> None:
    names = ["cat/1.jpg", "./cat//1.jpg"]
    path = tmp_path / f"x{ending}"
    if ending == ".zip":
        zip_of(path, *((name, jpeg(0)) for name in names))
    else:
        tar_of(path, *((tar_info(name), jpeg(0)) for name in names))
    assert "two files named cat/1.jpg" in refusal(path).message


def test_bombs_in_a_zip_take_neither_time_nor_memory(tmp_path: Path) -> None:
    honest = zip_of(tmp_path / "x.zip", ("cat/1.jpg", jpeg(0)), ("cat/2.jpg", bytes(1 << 24)))
    declared = zip_of(tmp_path / "y.zip", ("cat/1.jpg", jpeg(0)), ("cat/2.jpg", b"0" * 1000))
    raw = bytearray(declared.read_bytes())
    at = raw.rindex(b"PK\1\2")
    raw[at + 24 : at + 28] = (MAX_BYTES + 1).to_bytes(4, "little")
    declared.write_bytes(raw)
    source = read_source(declared)
    assert source.issues == {1: "more than 200 MB"}
    with pytest.raises(OSError, match="more than 200 MB"):
        source.read(1)
    # A member that says it is small and is not.
    raw = bytearray(honest.read_bytes())
    at = raw.rindex(b"PK\1\2")
    raw[at + 24 : at + 28] = (1000).to_bytes(4, "little")
    honest.write_bytes(raw)
    source = read_source(honest)
    tracemalloc.start()
    with pytest.raises(OSError, match="damaged in the archive"):
        source.read(1)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_bomb_in_a_tar_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewlabels.data.tars.MAX_BYTES", 10**6)
    monkeypatch.setattr("fewlabels.data.archives.MAX_BYTES", 10**6)
    path = tar_of(
        tmp_path / "x.tar.gz",
        (tar_info("cat/1.jpg"), bytes(2 * 10**6)),
        (tar_info("cat/2.jpg"), jpeg(0)),
        (tar_info("big.bin"), bytes(2 * 10**6)),
    )
    source = read_source(path)
    assert source.issues == {0: "more than 200 MB"}
    assert source.read(1) == jpeg(0)
    assert cache.cache_size() < 10**5


def test_a_compressed_tar_past_the_cap_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "disk_cap", lambda cap: 1000)
    path = tar_of(tmp_path / "x.tar.gz", *((tar_info(f"c/{i}.jpg"), jpeg(i)) for i in range(9)))
    error = refusal(path)
    assert "unpack to more than" in error.message
    assert ".zip" in error.hint
    assert cache.cache_size() == 0
    assert len(read_source(tar_of(tmp_path / "x.tar", (tar_info("c/1.jpg"), jpeg(1))))) == 1


def test_a_header_that_asks_for_gigabytes(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 33
    path = tmp_path / "x.tar"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    tracemalloc.start()
    assert "a header of" in refusal(path).message
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


def test_a_header_that_leads_back_does_not_go_round_for_ever(tmp_path: Path) -> None:
    back = bytearray(tar_info("cat/1.jpg").tobuf(tarfile.GNU_FORMAT))
    back[124:136] = b"\xff" + (2**88 - 1024).to_bytes(11, "big")  # -1024, in base 256
    back[148:156] = b"%06o\0 " % (sum(back[:148]) + sum(back[156:512]) + 8 * 32)
    path = tmp_path / "x.tar"
    path.write_bytes(tar_info("cat/0.jpg").tobuf() + bytes(back) + bytes(1024))
    assert "leads back" in refusal(path).message


@pytest.mark.parametrize("ending", ENDINGS)
def test_archives_cut_short_or_of_another_kind(tmp_path: Path, ending: str) -> None:
    files = {f"cat/{i}.jpg": jpeg(i, (40, 40)) for i in range(6)}
    path = pack(write(tmp_path / "f", files), tmp_path / f"x{ending}")
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no archive at all" * 100):
        path.write_bytes(content)
        error = refusal(path)
        assert error.code == "data.archive"
        assert error.hint
    assert not [p for p in cache.stores_folder().iterdir() if p.is_dir()]


def test_a_damaged_header_in_the_middle_of_a_tar_is_not_taken_for_its_end(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "x.tar", *((tar_info(f"c/{i}.jpg"), b"x" * 512) for i in range(4)))
    raw = bytearray(path.read_bytes())
    raw[2048 + 10] ^= 0xFF
    path.write_bytes(raw)
    with tarfile.open(path) as tar:
        assert len(tar.getmembers()) == 2  # what tarfile makes of it
    assert "damaged at byte 2048" in refusal(path).message


def test_a_tar_without_its_end_mark_is_read_with_a_warning(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "x.tar", *((tar_info(f"c/{i}.jpg"), b"x" * 512) for i in range(4)))
    path.write_bytes(path.read_bytes()[:4096])
    assert read_source(path).warnings == ("x.tar has no end mark: it may have been cut short",)


def test_a_damaged_member_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    files = {f"{c}/{i}.jpg": jpeg(2 * i) for c in "ab" for i in range(4)}
    path = pack(write(tmp_path / "f", files), tmp_path / "x.zip")
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("a/2.jpg").header_offset
    raw = bytearray(path.read_bytes())
    raw[offset + 200] ^= 0xFF
    path.write_bytes(raw)
    store = open_store(read_source(path), short_side=8, channels=3)
    assert list(store.issues) == [2]
    assert "damaged in the archive" in store.issues[2]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_ways_to_pack_a_member(tmp_path: Path, method: int) -> None:
    content = jpeg(1, (300, 300))
    with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as archive:
        archive.writestr("cat/1.png", content)
    source = read_source(tmp_path / "x.zip")
    assert source.read(0) == content
    assert source.head(0, 1 << 16) == content[: 1 << 16]


def test_a_way_of_packing_that_is_not_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("cat/1.jpg", jpeg(0))
    with pytest.raises(OSError, match="method 14"):
        read_source(tmp_path / "x.zip").read(0)


@pytest.mark.parametrize(
    ("system", "flags", "written", "meant"),
    [
        (3, 0, "chat/é.jpg".encode(), "chat/é.jpg"),  # macOS and Unix: UTF-8 without saying so
        (3, 0, b"chat/\xe9.jpg", os.fsdecode(b"chat/\xe9.jpg")),  # the bytes of an older system
        (3, 0x800, "chat/é.jpg".encode(), "chat/é.jpg"),
        (0, 0, b"chat\\\x82.jpg", "chat/é.jpg"),  # Windows: code page 437 and backslashes
        (0, 0x800, "chat/é.jpg".encode(), "chat/é.jpg"),
        (3, 0, b"chat/a\\b.jpg", "chat/a\\b.jpg"),
    ],
)
def test_names_as_the_system_that_packed_them_meant_them(
    tmp_path: Path, system: int, flags: int, written: bytes, meant: str
) -> None:
    path = tmp_path / "x.zip"
    write_zip_by_hand(path, written, b"x", b"x", 0, system=system, flags=flags)
    source = read_source(path)
    assert list(source.paths) == [meant]
    assert source.labels == ["chat"]
    assert source.read(0) == b"x"


def test_a_parquet_table_inside_an_archive(tmp_path: Path) -> None:
    folder = write(tmp_path / "f", {f"{i}.jpg": jpeg(2 * i) for i in range(3)})
    columns = {"path": ["0.jpg", "1.jpg"], "label": ["a", "b"], "age": [1.5, None]}
    pa.parquet.write_table(pa.table(columns), folder / "labels.parquet")
    source = read_source(pack(folder, tmp_path / "f.tar.gz"), target="age")
    assert source.labels == ["a", "b", None]
    assert source.targets is not None
    np.testing.assert_array_equal(source.targets, [1.5, np.nan, np.nan])


def test_a_table_cannot_name_files_outside_its_archive(tmp_path: Path) -> None:
    write(tmp_path, {"outside.jpg": jpeg(0)})
    rows = f"path,label\n{tmp_path}/outside.jpg,a\n../outside.jpg,b\n1.jpg,c\n"
    folder = write(tmp_path / "f", {"1.jpg": jpeg(2), "labels.csv": rows.encode()})
    source = read_source(pack(folder, tmp_path / "f.zip"))
    assert sorted(source.issues.values()) == ["named in labels.csv but not found"] * 2


def test_the_second_opening_of_a_tar_reads_the_cache_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "photos", LAYOUTS["splits"])
    for ending in (".tar", ".tar.gz"):
        path = pack(folder, tmp_path / f"photos{ending}")
        told: list[tuple[str, int, int]] = []
        first = read_source(path, progress=lambda *what, told=told: told.append(what))
        assert {stage for stage, _, _ in told} == (set() if ending == ".tar" else {"unpack"})

        def refuse(self: object) -> None:
            raise AssertionError("read again")

        with monkeypatch.context() as patch:
            patch.setattr(tarstream.TarStream, "__enter__", refuse)
            again = read_source(path)
        assert list(again.paths) == list(first.paths)
        assert again.read(3) == first.read(3)


def test_clearing_the_cache_removes_what_was_unpacked(tmp_path: Path) -> None:
    folder = write(tmp_path / "photos", LAYOUTS["splits"])
    path = pack(folder, tmp_path / "photos.tar.gz")
    unpacked = int(read_source(path).sizes.sum())
    assert cache.cache_size() >= unpacked
    assert cache.clear_cache() >= unpacked
    assert cache.cache_size() == 0
    assert len(read_source(path)) == len(LAYOUTS["splits"])


def test_room_is_never_made_by_removing_what_is_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "photos", LAYOUTS["classes"])
    source = read_source(pack(folder, tmp_path / "photos.tar.gz"))
    need = len(source) * 14 * 11 * 3
    store = open_store(source, short_side=16, channels=3, cap_bytes=need + 1000)
    assert store.ok.sum() == len(source) - 1


@pytest.mark.medium
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    del resource
    files = {f"c/{i}.jpg": os.urandom(100_000) for i in range(5)}
    path = pack(write(tmp_path / "f", files), tmp_path / "f.tar.gz")
    code = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
from fewlabels.data.sources import read_source
try:
    read_source({str(path)!r})
except Exception as error:
    print(error.exit_code, error.code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == [str(DiskError.exit_code), "disk.full"], done.stderr
    assert not [p for p in cache.stores_folder().iterdir() if p.is_dir()]


def test_the_checks_of_zlib_and_bz2_are_theirs(tmp_path: Path) -> None:
    """Members packed by the compressors alone, without `zipfile`, read the same."""
    content = jpeg(1)
    for method, packed in (
        (8, zlib.compressobj(9, zlib.DEFLATED, -15)),
        (12, bz2.BZ2Compressor()),
    ):
        raw = packed.compress(content) + packed.flush()
        path = tmp_path / f"{method}.zip"
        write_zip_by_hand(path, b"cat/1.png", raw, content, method)
        assert read_source(path).read(0) == content


def write_zip_by_hand(
    path: Path,
    name: bytes,
    raw: bytes,
    content: bytes,
    method: int,
    *,
    system: int = 3,
    flags: int = 0,
) -> None:
    """Write one member as the format's description has it."""
    sizes = (zlib.crc32(content), len(raw), len(content), len(name))
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, flags, method, 0, 33, *sizes, 5)
    head = local + name + b"extra" + raw
    made = system << 8 | 20
    central = struct.pack(
        "<4s6H3I5H2I", b"PK\1\2", made, 20, flags, method, 0, 33, *sizes, 0, 0, 0, 0, 0, 0
    )
    size = len(central) + len(name)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, size, len(head), 0)
    path.write_bytes(head + central + name + end)


@pytest.mark.medium
@pytest.mark.parametrize(("name", "count"), [("cifar10", 60_000), ("clothing", 3_781)])
def test_the_real_zips(zips: dict[str, Path], name: str, count: int) -> None:
    source = read_source(zips[name])
    assert len(source) == count
    with zipfile.ZipFile(zips[name]) as archive:
        named = {info.filename: info for info in archive.infolist()}
        assert set(source.paths) == set(named)
        for row in range(0, count, 97):
            path = source.paths[row]
            split, label, _ = path.split("/")
            assert source.splits[row] == {"validation": "val"}.get(split, split)
            assert source.labels[row] == label
            assert source.sizes[row] == named[path].file_size
            assert source.read(row) == archive.read(path)
