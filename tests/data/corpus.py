"""Hostile and odd files, one small function a kind, each with what must become of it.

Everything is made here, from Pillow, numpy and bytes. `PICTURES` are files that look like
images; `PLACES` are names, links and folders. The name of a kind is its row in
``docs/odd-files.md``.
"""

from __future__ import annotations

import io
import os
import socket
import struct
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

USED, QUARANTINED, IGNORED, REFUSED = "used", "quarantined", "ignored", "refused"
HEIGHT, WIDTH = 48, 64


@dataclass(frozen=True)
class Picture:
    """A file named like an image.

    Attributes
    ----------
    kind : str
        Its row in the table of the docs.
    data : bytes
    outcome : str
    pixels : ndarray or None
        ``(H, W, 3)`` that must come out, where the kind says so.
    within : int
        By how much any of them may differ.
    reason : str
        What must stand in the quarantine (a regular expression).
    notes : set of str
        What the decoder must say it did.
    suffix : str
    """

    kind: str
    data: bytes
    outcome: str
    pixels: np.ndarray | None = None
    within: int = 0
    reason: str = ""
    notes: frozenset[str] = frozenset()
    suffix: str = ".jpg"


@dataclass(frozen=True)
class Place:
    """A name, link or folder: how to lay it into a folder of classes, and what it gives.

    Attributes
    ----------
    kind : str
        Its row in the table of the docs.
    make : callable
        Lays it into the folder.
    outcome : str
    paths : dict
        For used and quarantined: printable path to class, None without a label.
    warning : str
        What the warnings must say (a regular expression).
    code : str
        For what is refused, the code of the error.
    reason : str
        For what is quarantined.
    """

    kind: str
    make: Callable[[Path], None]
    outcome: str
    paths: dict[str, str | None] = field(default_factory=dict)
    warning: str = ""
    code: str = ""
    reason: str = ""


# ---- pictures ------------------------------------------------------------------------------


def photo(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Return a smooth picture without any symmetry, never mid-grey in its last corner."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    wave = np.sin(7 * x + 5 * y * x + seed)
    return np.stack([255 * x, 255 * y, 60 + 40 * wave], -1).clip(0, 255).astype(np.uint8)


def noise(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Return a picture with many bytes of data."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def packed(array: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    """Return the bytes of an image file."""
    file = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(file, kind, **options)
    return file.getvalue()


def jpeg(array: np.ndarray | Image.Image, **options: object) -> bytes:
    return packed(array, "JPEG", **{"quality": 95, "subsampling": 0, **options})


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(
    size: tuple[int, int],
    rows: bytes,
    depth: int,
    colour: int,
    *,
    extra: bytes = b"",
    interlaced: int = 0,
) -> bytes:
    """Write a PNG that Pillow cannot write; each row begins with its filter byte."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlaced))
    body = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + head + extra + body + chunk(b"IEND", b"")


def filtered(values: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in values)


def interlaced(array: np.ndarray) -> bytes:
    """Write a PNG in the seven passes of Adam7."""
    steps = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)]
    steps += [(2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    passes = b"".join(filtered(array[top::down, left::right]) for top, left, down, right in steps)
    return png((array.shape[1], array.shape[0]), passes, 8, 2, interlaced=1)


def tiff(
    size: tuple[int, int],
    data: bytes,
    *,
    bits: int = 8,
    samples: int = 1,
    photometric: int = 1,
    compression: int = 1,
    more: dict[int, tuple[int, ...]] | None = None,
    tiled: int = 0,
) -> bytes:
    """Write a little-endian TIFF with one strip or tile, tag by tag."""
    tags = {
        256: (size[0],),
        257: (size[1],),
        258: (bits,) * samples,
        259: (compression,),
        262: (photometric,),
        277: (samples,),
    }
    tags |= {322: (tiled,), 323: (tiled,), 325: (len(data),)} if tiled else {}
    tags |= {} if tiled else {278: (size[1],), 279: (len(data),)}
    tags |= more or {}
    place = 324 if tiled else 273
    short = {258, 259, 262, 277, 339}
    start = 8 + 2 + 12 * (len(tags) + 1) + 4
    extra = b""
    entries = b""
    long = sum(2 * len(v) for k, v in tags.items() if k in short and len(v) > 2)
    for tag, values in sorted({**tags, place: (start + long,)}.items()):
        raw = struct.pack(f"<{len(values)}{'H' if tag in short else 'I'}", *values)
        entries += struct.pack("<HHI", tag, 3 if tag in short else 4, len(values))
        entries += raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack("<I", start + len(extra))
        extra += raw if len(raw) > 4 else b""
    head = b"II*\0" + struct.pack("<IH", 8, len(tags) + 1)
    return head + entries + bytes(4) + extra + data


def gif(screen: tuple[int, int], frame: tuple[int, int]) -> bytes:
    """Write a GIF of sizes that Pillow would not write, with next to no data."""
    head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return head + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x4c\x01\0;"


def webp(width: int, height: int) -> bytes:
    """Write an animated WebP whose one frame is smaller than its canvas."""

    def part(name: bytes, body: bytes) -> bytes:
        return name + struct.pack("<I", len(body)) + body

    def three(*values: int) -> bytes:
        return b"".join(struct.pack("<I", value)[:3] for value in values)

    inner = packed(Image.new("RGB", (16, 16)), "WEBP", lossless=True)[12:]
    frame = part(b"ANMF", three(0, 0, 15, 15, 0) + b"\0" + inner)
    canvas = part(b"VP8X", bytes([2, 0, 0, 0]) + three(width - 1, height - 1))
    body = b"WEBP" + canvas + part(b"ANIM", b"\xff\xff\xff\xff\0\0") + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp(width: int, height: int) -> bytes:
    whole = packed(photo(), "BMP")
    return whole[:18] + struct.pack("<ii", width, height) + whole[26:]


def jpeg_of_size(width: int, height: int) -> bytes:
    whole = jpeg(photo())
    frame = whole.index(b"\xff\xc0")
    return whole[: frame + 5] + struct.pack(">HH", height, width) + whole[frame + 9 :]


def ycck(array: np.ndarray) -> bytes:
    """Write a JPEG in YCCK, as Photoshop does: a CMYK one whose planes are luma and chroma."""
    ink = Image.fromarray(255 - array).convert("YCbCr")  # libjpeg turns Y, Cb, Cr into ink
    planes = [Image.fromarray(255 - np.asarray(plane)) for plane in ink.split()]
    whole = jpeg(Image.merge("CMYK", [*planes, Image.new("L", ink.size, 0)]))
    mark = whole.index(b"Adobe")
    return whole[: mark + 11] + b"\x02" + whole[mark + 12 :]


def scans(data: bytes) -> list[int]:
    """Return where the scans of a JPEG begin."""
    found, place = [], data.find(b"\xff\xda")
    while place >= 0:
        found.append(place)
        place = data.find(b"\xff\xda", place + 2)
    return found


def apart(array: np.ndarray) -> bytes:
    """Return a JPEG whose components come one after the other, each in a scan of its own."""
    planes = [jpeg(plane) for plane in Image.fromarray(array).convert("YCbCr").split()]
    first = planes[0]
    frame, tables = first.index(b"\xff\xc0"), first.index(b"\xff\xc4")
    size = first[frame + 5 : frame + 9]
    three = b"".join(bytes([one, 0x11, 0]) for one in (1, 2, 3))
    head = first[:frame] + b"\xff\xc0\0\x11\x08" + size + b"\x03" + three
    body = first[tables : scans(first)[0]]
    for one, plane in enumerate(planes, 1):
        body += b"\xff\xda\0\x08\x01" + bytes([one, 0, 0, 63, 0]) + plane[scans(plane)[0] + 10 : -2]
    return head + body + b"\xff\xd9"


def scan_bomb(count: int) -> bytes:
    """Repeat the last scan of a flat progressive JPEG."""
    whole = jpeg(Image.new("RGB", (64, 64), (90, 30, 200)), progressive=True)
    last = whole[scans(whole)[-1] : -2]
    return whole[:-2] + last * count + whole[-2:]


def oriented(turn: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = turn
    return exif.tobytes()


def turned(turn: int, kind: str) -> bytes:
    """Return a picture that is upright again when its EXIF orientation is applied."""
    a = photo()
    stored = {
        1: a,
        2: a[:, ::-1],
        3: a[::-1, ::-1],
        4: a[::-1],
        5: a.swapaxes(0, 1),
        6: np.rot90(a, 1),
        7: a[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(a, -1),
    }[turn]
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    return packed(np.ascontiguousarray(stored), kind, exif=oriented(turn), **options)


def animated(kind: str) -> bytes:
    first, second = Image.fromarray(photo()), Image.fromarray(255 - photo())
    options = {"lossless": True} if kind == "WEBP" else {}
    return packed(first, kind, save_all=True, append_images=[second], **options)


def on_palette(clear: int | None) -> bytes:
    """Return a palette PNG of two colours, of which one may be transparent."""
    image = Image.fromarray((np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 2).astype(np.uint8))
    image.putpalette([10, 200, 30, 200, 10, 30])
    options = {} if clear is None else {"transparency": clear}
    return packed(image, "PNG", **options)


def text_bomb() -> bytes:
    whole = packed(photo(), "PNG")
    text = chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(80 << 20), 9))
    return whole[:33] + text + whole[33:]


def profile_bomb() -> bytes:
    whole = packed(photo(), "PNG")
    profile = chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(80 << 20), 9))
    return whole[:33] + profile + whole[33:]


def flipped(data: bytes, bit: int) -> bytes:
    copy = bytearray(data)
    copy[bit // 8] ^= 1 << bit % 8
    return bytes(copy)


def spread(size: int) -> tuple[int, ...]:
    """Return places at which to cut a file of `size` bytes."""
    return tuple(sorted({1, 4, 16, *(size * part // 20 for part in range(1, 20)), size - 30}))


def cut(kind: str, data: bytes, reason: str = "truncated|not a") -> Iterator[Picture]:
    for place in spread(len(data)):
        yield Picture(f"{kind}, truncated", data[:place], QUARANTINED, reason=reason)


def used(
    kind: str,
    data: bytes,
    pixels: np.ndarray | None = None,
    within: int = 0,
    notes: str = "",
    suffix: str = ".jpg",
) -> Picture:
    whole = photo() if pixels is None else pixels
    whole = whole if whole.ndim == 3 else np.repeat(whole[:, :, None], 3, 2)
    said = frozenset(notes.split())
    return Picture(kind, data, USED, whole, within, notes=said, suffix=suffix)


def bad(kind: str, data: bytes, reason: str, suffix: str = ".jpg") -> Picture:
    return Picture(kind, data, QUARANTINED, reason=reason, suffix=suffix)


def good_pictures() -> Iterator[Picture]:
    """Yield what is odd and yet a picture."""
    grey = photo()[:, :, 0]
    yield used("JPEG", jpeg(photo()), within=8)
    yield used("JPEG, progressive", jpeg(photo(), progressive=True), within=8)
    yield used("JPEG, grey", jpeg(grey), grey, 4)
    yield used("JPEG with restart marks", jpeg(photo(), restart_marker_blocks=2), within=8)
    yield used("JPEG, colours one after the other", apart(photo()), within=8)
    yield used("JPEG, CMYK", jpeg(Image.fromarray(photo()).convert("CMYK")), within=8, notes="cmyk")
    yield used("JPEG, YCCK", ycck(photo()), within=10, notes="cmyk")
    yield used("JPEG of several pictures", packed_mpo(), within=8)
    yield used(
        "JPEG, flat mid-grey", jpeg(np.full((48, 64, 3), 128, np.uint8)), np.full((48, 64, 3), 128)
    )
    yield used("bytes after the end", jpeg(photo()) + b"PK\3\4" * 50, within=8)
    yield used("bytes after the end", packed(photo(), "PNG") + bytes(500))
    for turn in range(1, 9):
        notes = "" if turn == 1 else "exif"
        yield used("EXIF orientation", turned(turn, "JPEG"), within=8, notes=notes)
        yield used("EXIF orientation", turned(turn, "PNG"), notes=notes, suffix=".png")
        yield used("EXIF orientation", turned(turn, "TIFF"), notes=notes, suffix=".tif")
    yield used("damaged EXIF", packed(photo(), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xffrot"))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    yield used("ICC profile", jpeg(photo(), icc_profile=profile), within=8)
    yield used("ICC profile", packed(photo(), "PNG", icc_profile=b"no profile at all"))
    yield used("wrong ending", packed(photo(), "PNG"), suffix=".jpg")
    yield used("wrong ending", jpeg(photo()), within=8, suffix=".png")
    yield from good_pngs()
    yield from good_tiffs()
    yield used("BMP", packed(photo(), "BMP"))
    yield used("BMP", packed(photo(), "BMP")[:22] + struct.pack("<i", -48) + flipped_rows())
    yield used("1-bit", packed(Image.fromarray(grey > 99), "BMP"), 255 * (grey > 99))
    yield used("WebP", packed(photo(), "WEBP", lossless=True))
    yield used("WebP", packed(photo(), "WEBP", quality=95), within=40)
    clear = np.dstack([photo(), np.where(grey > 99, 255, 0).astype(np.uint8)])
    white = np.where(grey[:, :, None] > 99, photo(), 255)
    yield used("transparency", packed(clear, "WEBP", lossless=True), white, notes="alpha")
    yield used("transparency", packed(clear, "PNG"), white, notes="alpha")
    changed = photo()
    changed[-1, 0, 0] ^= 4  # rows run upwards, and colours are blue, green, red
    bit = 8 * (54 + 2) + 2
    yield used("one bit flipped in another format", flipped(packed(photo(), "BMP"), bit), changed)
    two = np.where(photo()[:, :, :1] > 99, (10, 200, 30), (200, 10, 30)).astype(np.uint8)
    yield used("GIF", packed(two, "GIF"), two, notes="palette")
    yield used("GIF without an end mark", packed(two, "GIF")[:-1], two, notes="palette")
    for kind in ("PNG", "WEBP", "TIFF"):
        yield used("animation or several pages", animated(kind), notes="animated")
    yield used("animation or several pages", animated("GIF"), within=40, notes="animated palette")
    dot = np.full((1, 1, 3), (9, 180, 40), np.uint8)
    for kind, within in (("PNG", 0), ("JPEG", 4), ("BMP", 0), ("TIFF", 0), ("GIF", 0)):
        yield used("1 pixel", packed(dot, kind), dot, within, "palette" if kind == "GIF" else "")
    for size in ((1, 4000), (4000, 1), (3, 900)):
        line = photo(0, *size)
        yield used("extreme aspect", packed(line, "PNG"), line)


def flipped_rows() -> bytes:
    """Return the rest of a BMP whose rows run from the top."""
    whole = packed(photo(), "BMP")
    rows = np.frombuffer(whole[54:], np.uint8).reshape(HEIGHT, -1)
    return whole[26:54] + rows[::-1].tobytes()


def packed_mpo() -> bytes:
    first, second = Image.fromarray(photo()), Image.fromarray(255 - photo())
    more = {"quality": 95, "subsampling": 0}
    return packed(first, "MPO", save_all=True, append_images=[second], **more)


def good_pngs() -> Iterator[Picture]:
    grey = photo()[:, :, 0]
    deep = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    eighth = np.rint(deep / 257)
    yield used("PNG", packed(photo(), "PNG"))
    yield used("PNG, interlaced", interlaced(photo()))
    yield used("PNG with a gamma", packed(photo(), "PNG")[:33] + gamma())
    yield used("16-bit grey", packed(deep, "PNG"), eighth, notes="16-bit")
    wide = np.stack([deep, deep[::-1], deep[:, ::-1]], -1)
    rows = filtered(wide.astype(">u2").reshape(HEIGHT, -1))
    colour = np.rint(wide / 257)
    yield used("16-bit colour", png((WIDTH, HEIGHT), rows, 16, 2), colour, 1, "16-bit")
    both = np.stack([deep, np.full_like(deep, 65535)], -1).astype(">u2").reshape(HEIGHT, -1)
    yield used("16-bit grey", png((WIDTH, HEIGHT), filtered(both), 16, 4), eighth, 1, "16-bit")
    scan = (deep // 16).astype(np.uint16)
    low = np.rint(scan / 4095 * 255)
    yield used("12 bits in 16", packed(scan, "PNG"), low, 1, "16-bit 12-bit")
    yield used("1-bit", packed(Image.fromarray(grey > 99), "PNG"), 255 * (grey > 99))
    fours = np.repeat((grey // 17)[:, :, None], 1, 2)[:, :, 0]
    nibbles = (fours[:, ::2] << 4 | fours[:, 1::2]).astype(np.uint8)
    yield used("PNG", png((WIDTH, HEIGHT), filtered(nibbles), 4, 0), fours * 17)
    first, second = np.array([10, 200, 30]), np.array([200, 10, 30])
    odd = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1) % 2).astype(bool)
    yield used("palette", on_palette(None), np.where(odd, second, first), notes="palette")
    white = np.where(odd, 255, first)
    yield used("palette with transparency", on_palette(1), white, notes="palette alpha")
    clear = chunk(b"tRNS", struct.pack(">HHH", *photo()[0, 0].tolist()))
    corner = np.where((photo() == photo()[0, 0]).all(-1, keepdims=True), 255, photo())
    whole = packed(photo(), "PNG")
    yield used("transparency", whole[:33] + clear + whole[33:], corner, notes="alpha")


def gamma() -> bytes:
    return chunk(b"gAMA", struct.pack(">I", 100_000)) + packed(photo(), "PNG")[33:]


def good_tiffs() -> Iterator[Picture]:
    grey = photo()[:, :, 0]
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd"):
        yield used("TIFF", packed(photo(), "TIFF", compression=compression), suffix=".tif")
    yield used("TIFF", packed(photo(), "TIFF", compression="jpeg", quality=95), within=40)
    bits = Image.fromarray(grey > 99)
    yield used("1-bit", packed(bits, "TIFF", compression="group4"), 255 * (grey > 99))
    deep = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    yield used("16-bit grey", packed(deep, "TIFF"), np.rint(deep / 257), notes="16-bit")
    wide = np.stack([deep, deep[::-1], deep[:, ::-1]], -1)
    data = wide.astype("<u2").tobytes()
    colour = tiff((WIDTH, HEIGHT), data, bits=16, samples=3, photometric=2)
    yield used("16-bit colour", colour, np.rint(wide / 257), 1, "16-bit")
    negative = tiff((WIDTH, HEIGHT), deep.astype("<u2").tobytes(), bits=16, photometric=0)
    yield used("TIFF in which 0 is white", negative, 255 - np.rint(deep / 257), 1, "16-bit")
    negative = tiff((WIDTH, HEIGHT), grey.tobytes(), photometric=0)
    yield used("TIFF in which 0 is white", negative, 255 - grey)
    unit = np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    yield used("32 bits", packed(unit / 2, "TIFF"), np.rint(unit * 127.5), 1, "32-bit")
    whole = np.linspace(-1000, 3000, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.int32)
    yield used("32 bits", packed(whole, "TIFF"), np.rint((whole + 1000) / 4000 * 255), 1, "32-bit")
    cmyk = Image.fromarray(photo()).convert("CMYK")
    yield used("TIFF, CMYK", packed(cmyk, "TIFF"), within=1, notes="cmyk")


def bad_pictures() -> Iterator[Picture]:
    """Yield what must be left out and named."""
    yield bad("empty file", b"", "empty")
    yield bad("text", b"just text\n" * 20, "not a JPEG")
    yield bad("web page", b"<!DOCTYPE html><title>404</title>" * 9, "not a JPEG")
    yield bad("archive", b"PK\3\4" + bytes(400), "not a JPEG", ".png")
    heic = b"\0\0\0\x18ftypheic" + bytes(64)
    yield bad("HEIC, AVIF or video", heic, "HEIC")
    yield bad("HEIC, AVIF or video", packed(photo(), "AVIF"), "HEIC", ".png")
    yield from cut("JPEG", jpeg(noise()))
    yield from cut("progressive JPEG", jpeg(noise(), progressive=True))
    yield from cut("PNG", packed(noise(), "PNG"))
    yield from cut("WebP", packed(noise(), "WEBP"))
    yield from cut("WebP", packed(noise(), "WEBP", lossless=True))
    yield from cut("BMP", packed(noise(), "BMP"))
    yield from cut("TIFF", packed(noise(), "TIFF"))
    yield from cut("TIFF", packed(noise(), "TIFF", compression="tiff_lzw"))
    yield from cut("GIF", packed(noise(), "GIF"))
    whole = jpeg(noise(), quality=60)
    start = scans(whole)[0] + 14
    for part in (0.0, 0.2, 0.5, 0.8, 0.95):
        short = whole[: start + int(part * (len(whole) - start))]
        yield bad("JPEG, truncated, with an end mark", short + b"\xff\xd9", "data of the JPEG")
    several = jpeg(photo(), progressive=True)
    for place in scans(several)[1:]:
        cut_off = several[:place] + b"\xff\xd9"
        yield bad("JPEG, scans missing", cut_off, "scans of the JPEG are missing")
    several = apart(photo())
    for place in scans(several)[1:]:
        cut_off = several[:place] + b"\xff\xd9"
        yield bad("JPEG, scans missing", cut_off, "scans of the JPEG are missing")
    sound = packed(photo(), "PNG")
    pixels = sound.index(b"IDAT")
    for bit in range(8 * 8, 8 * len(sound) - 8 * 12, 997):
        yield bad("PNG, one bit flipped", flipped(sound, bit), "truncated|damaged|not a|megapixels")
    yield bad("PNG, one bit flipped", flipped(sound, 8 * pixels + 200), "checksum in IDAT")
    yield from bad_headers()
    yield from bombs()
    yield from others()


def bad_headers() -> Iterator[Picture]:
    yield bad("0 pixels", png((0, 0), b"", 8, 2), "without pixels", ".png")
    yield bad("0 pixels", png((0, 9), b"", 8, 2), "without pixels", ".png")
    yield bad("0 pixels", jpeg_of_size(0, 9), "without pixels")
    yield bad("0 pixels", jpeg_of_size(9, 0), "without pixels")
    yield bad("0 pixels", bmp(0, 9), "without pixels", ".bmp")
    yield bad("0 pixels", tiff((0, 0), bytes(64)), "without pixels", ".tif")
    yield bad("0 pixels", gif((8, 8), (0, 0)), "damaged", ".gif")
    whole = jpeg(photo())
    frame = whole.index(b"\xff\xc0")
    twelve = whole[: frame + 4] + b"\x0c" + whole[frame + 5 :]
    yield bad("12-bit or lossless JPEG", twelve, "rare kind")
    lossless = whole[: frame + 1] + b"\xc3" + whole[frame + 2 :]
    yield bad("12-bit or lossless JPEG", lossless, "damaged")
    many = tiff((8, 8), bytes(768), bits=32, samples=3, photometric=2, more={339: (3, 3, 3)})
    yield bad("TIFF of a rare layout", many, "rare kind", ".tif")
    rare = packed(photo(), "TIFF", compression="lzma")
    yield bad("TIFF of a rare compression", rare, "compression 34925", ".tif")
    ojpeg = tiff((8, 8), bytes(64), samples=3, photometric=6, compression=6)
    yield bad("TIFF of a rare compression", ojpeg, "compression 6", ".tif")
    missing = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    missing[3, 3] = np.nan
    yield bad("values that are not numbers", packed(missing, "TIFF"), "not finite", ".tif")


def bombs() -> Iterator[Picture]:
    """Yield small files that ask for much memory or time."""
    large = "more than 50 megapixels"
    for side in (7072, 10_000, 60_000):  # above our limit, Pillow's warning, Pillow's error
        yield bad("bomb: PNG", png((side, side), bytes(9), 8, 2), large, ".png")
    yield bad("bomb: JPEG", jpeg_of_size(65_500, 65_500), large)
    yield bad("bomb: GIF", gif((65_535, 65_535), (4, 4)), large, ".gif")
    yield bad("bomb: GIF", gif((4, 4), (65_535, 65_535)), large, ".gif")
    yield bad("bomb: WebP", webp(16_383, 16_383), large, ".webp")
    yield bad("bomb: BMP", bmp(60_000, 60_000), large, ".bmp")
    yield bad("bomb: BMP", bmp(60_000, -60_000), large, ".bmp")
    sized = tiff((60_000, 60_000), bytes(64), samples=3, photometric=2, compression=5)
    yield bad("bomb: TIFF", sized, large, ".tif")
    for compression in (1, 5, 7, 8):
        tile = tiff(
            (16, 16), bytes(64), samples=3, photometric=2, compression=compression, tiled=20_000
        )
        yield bad("bomb: tiles of a TIFF", tile, "tiles of more than 16", ".tif")
    yield bad("bomb: text or profile in a PNG", text_bomb(), "damaged", ".png")
    yield bad("bomb: text or profile in a PNG", profile_bomb(), "damaged", ".png")
    yield bad("bomb: scans of a JPEG", scan_bomb(200), "more than 100 scans")


def others() -> Iterator[Picture]:
    """Yield formats that Pillow could read, and that are never tried."""
    kind = "any other format"
    names = (
        "EPS",
        "ICNS",
        "PPM",
        "TGA",
        "PCX",
        "ICO",
        "JPEG2000",
        "PDF",
        "DDS",
        "SGI",
        "QOI",
        "DIB",
    )
    for name in names:
        yield bad(kind, packed(photo(), name), "not a JPEG")
    psd = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 8, 8, 8, 3) + bytes(12 + 2 + 192)
    yield bad(kind, psd, "not a JPEG")
    cards = [b"SIMPLE  =                    T", b"BITPIX  =                    8"]
    cards += [b"NAXIS   =                    2", b"NAXIS1  =                    8"]
    cards += [b"NAXIS2  =                    8", b"END"]
    fits = b"".join(card.ljust(80) for card in cards).ljust(2880)
    yield bad(kind, fits + bytes(2880), "not a JPEG")
    yield bad(kind, b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not a JPEG", ".png")
    yield bad(
        kind, b"/* XPM */\nstatic char *a[] = {\n" + b'"1 1 1 1",\n"a c red",\n"a"};', "not a"
    )


def pictures() -> list[Picture]:
    """Return all files that look like images."""
    return [*good_pictures(), *bad_pictures()]


# ---- places --------------------------------------------------------------------------------


def put(root: Path, *paths: str | bytes) -> None:
    """Write pictures, each with noise of its own, at paths below a folder."""
    for path in paths:
        raw = path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")
        file = root / os.fsdecode(raw)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(packed(noise(zlib.crc32(raw), 16, 16), "PNG"))


def good_classes(root: Path, count: int = 3) -> None:
    """Write two classes with nothing odd about them."""
    put(root, *(f"{name}/{i}.png" for name in ("cat", "dog") for i in range(count)))


def used_name(kind: str, name: str | bytes, shown: str | None = None) -> Place:
    raw = name if isinstance(name, bytes) else name.encode()
    path = f"cat/{shown or raw.decode()}"
    return Place(kind, lambda root: put(root, b"cat/" + raw), USED, {path: "cat"})


def used_class(kind: str, name: str | bytes, shown: str | None = None) -> Place:
    raw = name if isinstance(name, bytes) else name.encode()
    label = shown or raw.decode()
    images = [b"%s/%d.png" % (raw, number) for number in range(3)]
    paths: dict[str, str | None] = {f"{label}/{number}.png": label for number in range(3)}
    return Place(kind, lambda root: put(root, *images), USED, paths)


def link(name: str, target: str) -> Callable[[Path], None]:
    return lambda root: (root / name).symlink_to(target)


def ignored(kind: str, *paths: str, warning: str = "") -> Place:
    return Place(kind, lambda root: put(root, *paths), IGNORED, warning=warning)


def twins(first: str, second: str) -> Callable[[Path], None]:
    return lambda root: put(root, f"{first}/1.png", f"{second}/2.png")


def unreadable_file(root: Path) -> None:
    put(root, "cat/locked.png")
    (root / "cat/locked.png").chmod(0)


def unreadable_folder(root: Path) -> None:
    put(root, "locked/1.png")
    (root / "locked").chmod(0)


def giant(root: Path) -> None:
    with (root / "cat/giant.png").open("wb") as file:
        file.write(packed(photo(), "PNG"))
        file.truncate(2 << 30)  # a hole: it takes no disk


def table_pipe(root: Path) -> None:
    os.mkfifo(root / "labels.csv")


def listening(root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        here = Path.cwd()
        os.chdir(root)  # the path of a socket is short
        try:
            end.bind("cat/socket.png")
        finally:
            os.chdir(here)


def broken_class(root: Path) -> None:
    for number in range(2):
        (root / "owl").mkdir(exist_ok=True)
        (root / f"owl/{number}.jpg").write_bytes(b"no picture")


def all_broken(root: Path) -> None:
    for file in root.rglob("*.png"):
        file.write_bytes(b"no picture")


def mostly_broken(root: Path) -> None:
    for file in root.rglob("*.png"):
        if file.name != "0.png":
            file.write_bytes(file.read_bytes()[:-40])


def places() -> list[Place]:
    """Return what lies beside good pictures and leaves them as they are."""
    links = r"\d+ symbolic links were not followed"
    pipes = r"\d+ pipes, sockets or devices were left alone"
    owls = {f"owl/{number}.jpg": "owl" for number in range(2)}
    return [
        used_name("name that is not UTF-8", b"caf\xe9.png", "caf\\xe9.png"),
        used_name("name of 255 bytes", "\N{LATIN SMALL LETTER E WITH ACUTE}" * 125 + "x.png"),
        used_name("name with a line break", "a\n  try: b.png", "a\\n  try: b.png"),
        used_name("name with HTML", "<script>alert(1)<img src=x onerror=alert(2)>.png"),
        used_name("name with terminal controls", "a\x1b[2J\x07.png", "a\\x1b[2J\\x07.png"),
        used_name("name with marks of direction", "a\u202egpj.png", "a\\u202egpj.png"),
        used_name("name with quotes and commas", "a,\"b\";'c' $(d) `e` %s {f}.png"),
        used_name("ending in capitals", "LOUD.PNG"),
        used_class("class name that is not UTF-8", b"\xff\xfe", "\\xff\\xfe"),
        used_class("class name with HTML", "<script>alert(3)<b>"),
        used_class("class name with a line break", "o\nx", "o\\nx"),
        Place(
            "hard link",
            lambda root: (root / "cat/again.png").hardlink_to(root / "cat/0.png"),
            USED,
            {"cat/again.png": "cat"},
        ),
        Place(
            "folders in a class",
            lambda root: put(root, "cat/deep/er/1.png"),
            USED,
            {"cat/deep/er/1.png": "cat"},
        ),
        Place(
            "nested classes",
            lambda root: put(root, "bird/owl/1.png", "bird/owl/2.png", "bird/rook/1.png"),
            USED,
            {"bird/owl/1.png": "bird", "bird/owl/2.png": "bird", "bird/rook/1.png": "bird"},
            r"the folders in bird \(owl/, rook/\) are taken as one class, 'bird'",
        ),
        Place(
            "folder named like an image",
            lambda root: put(root, "cat/album.jpg/1.png"),
            USED,
            {"cat/album.jpg/1.png": "cat"},
        ),
        Place(
            "images beside the class folders",
            lambda root: put(root, "loose.png"),
            USED,
            {"loose.png": None},
            "1 images lie beside the class folders: taken as unlabelled",
        ),
        Place(
            "file that may not be read",
            unreadable_file,
            QUARANTINED,
            {"cat/locked.png": "cat"},
            reason="cannot be read .Permission denied",
        ),
        Place("file above 200 MB", giant, QUARANTINED, {"cat/giant.png": "cat"}, reason="200 MB"),
        Place(
            "name with HTML",
            lambda root: (root / "cat/<script>alert(4).jpg").write_bytes(b"no picture"),
            QUARANTINED,
            {"cat/<script>alert(4).jpg": "cat"},
            reason="not a JPEG",
        ),
        Place(
            "class without a readable image",
            broken_class,
            QUARANTINED,
            owls,
            r"1 class \('owl'\) without a readable image: left out",
            reason="not a JPEG",
        ),
        Place(
            "empty class", lambda root: (root / "none").mkdir(), IGNORED, warning="none holds no"
        ),
        Place("link to an image", link("cat/link.png", "0.png"), IGNORED, warning=links),
        Place("link to a folder", link("kitten", "cat"), IGNORED, warning=links),
        Place("dangling link", link("dog/gone.png", "nowhere.png"), IGNORED, warning=links),
        Place("loop of links", link("dog/loop", ".."), IGNORED, warning=links),
        Place("loop of links", link("dog/me.png", "me.png"), IGNORED, warning=links),
        Place("pipe", lambda root: os.mkfifo(root / "cat/pipe.png"), IGNORED, warning=pipes),
        Place("pipe", table_pipe, IGNORED, warning=pipes),
        Place("socket", listening, IGNORED, warning=pipes),
        ignored("hidden file", "cat/._1.png", "dog/.DS_Store", ".hidden.png"),
        ignored("hidden folder", ".git/1.png", ".ipynb_checkpoints/1.png", "cat/.thumbnails/1.png"),
        ignored("folder of a system", "__MACOSX/1.png", "$RECYCLE.BIN/1.png", "lost+found/1.png"),
        ignored("folder of a system", "cat/@eaDir/1.png", "System Volume Information/1.png"),
        ignored("file that is no image", "cat/Thumbs.db", "cat/notes.txt", warning="are no images"),
        ignored("file that is no image", "dog/1.heic", "dog/README", warning="are no images"),
    ]


def refusals() -> list[Place]:
    """Return what a folder with good pictures is refused for."""
    nfc = "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
    nfd = unicodedata.normalize("NFD", nfc)
    clash, layout = "data.class_clash", "data.layout"
    return [
        Place("class names that differ in case", twins("Cat", "Dog"), REFUSED, code=clash),
        Place("class names that differ in Unicode form", twins(nfc, nfd), REFUSED, code=clash),
        Place("split named twice", twins("train/cat", "Train/cat"), REFUSED, code=layout),
        Place("splits beside classes", twins("train/cat", "test/cat"), REFUSED, code=layout),
        Place("nothing to be read", all_broken, REFUSED, code="data.unreadable"),
        Place("most files damaged", mostly_broken, REFUSED, code="data.unreadable"),
        Place("folder that may not be listed", unreadable_folder, REFUSED, code="data.folder"),
    ]
