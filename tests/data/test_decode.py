"""Every odd kind of picture, each with the decision that was made for it."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from fewlabels.data import decode

TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


def photo(height: int = 48, width: int = 64) -> np.ndarray:
    """Return a smooth picture without any symmetry."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.stack([255 * x, 255 * y, 255 * x * y], -1).astype(np.uint8)


def packed(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return the bytes of an image file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def oriented(turn: int) -> bytes:
    """Return the EXIF block that says `turn`."""
    exif = Image.Exif()
    exif[0x0112] = turn
    return exif.tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_every_format_gives_rgb_and_grey(kind: str) -> None:
    colour = decode.decode(packed(Image.fromarray(photo()), kind), 3)
    grey = decode.decode(packed(Image.fromarray(photo()), kind), 1)
    assert (colour.shape, grey.shape) == ((48, 64, 3), (48, 64, 1))
    assert colour.dtype == np.uint8
    assert colour.flags.c_contiguous
    assert colour.flags.writeable
    assert np.abs(colour.astype(int) - photo()).mean() < 12  # GIF has 256 colours


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_all_eight_orientations_give_the_same_picture(kind: str, turn: int) -> None:
    stored = Image.fromarray(np.ascontiguousarray(TURNS[turn](photo())))
    options = {"lossless": True} if kind == "WEBP" else {}
    options |= {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    data = packed(stored, kind, exif=oriented(turn), **options)
    found = decode.load(data, 3)
    assert (found.width, found.height) == (64, 48)
    assert (decode.probe(data).width, decode.probe(data).height) == (64, 48)
    assert found.notes == (() if turn == 1 else ("exif",))
    if kind == "JPEG":
        assert np.abs(found.pixels.astype(int) - photo()).max() <= 6
    else:
        np.testing.assert_array_equal(found.pixels, photo())


@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation_and_shrinking_commute(turn: int) -> None:
    stored = Image.fromarray(np.ascontiguousarray(TURNS[turn](photo())))
    found = decode.load(packed(stored, "PNG", exif=oriented(turn)), 3, 24)
    np.testing.assert_array_equal(found.pixels, decode.shrink(photo(), 24))


def test_damaged_exif_leaves_the_picture_upright() -> None:
    data = packed(Image.fromarray(photo()), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xffrot")
    found = decode.load(data, 3)
    np.testing.assert_array_equal(found.pixels, photo())


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_by_its_range(kind: str) -> None:
    ramp = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    found = decode.load(packed(Image.fromarray(ramp), kind))
    assert found.notes == ("16-bit",)
    assert np.abs(found.pixels[:, :, 0] - ramp / 257.0).max() <= 0.51
    eight = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    back = decode.decode(packed(Image.fromarray(eight), kind), 1)[:, :, 0]
    np.testing.assert_array_equal(back.ravel(), np.arange(256))


def test_12_bit_scans_are_not_black() -> None:
    scan = np.linspace(0, 4095, 256).reshape(16, 16).astype(np.uint16)
    found = decode.load(packed(Image.fromarray(scan), "PNG"), 1)
    assert found.notes == ("16-bit", "12-bit")
    assert (found.pixels.min(), found.pixels.max()) == (0, 255)


def test_16_bit_rgb_png_is_scaled() -> None:
    values = np.linspace(0, 65535, 8 * 8 * 3).astype(">u2").reshape(8, 8 * 3)
    found = decode.load(png(8, 8, values, depth=16, colour=2), 3)
    assert found.notes == ("16-bit",)
    expected = values.reshape(8, 8, 3) / 257.0
    assert np.abs(found.pixels - expected).max() <= 1


def png(width: int, height: int, rows: np.ndarray, *, depth: int, colour: int) -> bytes:
    """Write a PNG that Pillow cannot write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + check

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_floats_and_32_bit_integers() -> None:
    unit = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    found = decode.load(packed(Image.fromarray(unit / 2), "TIFF"), 1)
    assert (found.pixels.max(), found.notes) == (128, ("32-bit",))
    wide = np.linspace(-1000, 3000, 64).reshape(8, 8).astype(np.int32)
    found = decode.load(packed(Image.fromarray(wide), "TIFF"), 1)
    assert (found.pixels.min(), found.pixels.max()) == (0, 255)
    unit[0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        decode.decode(packed(Image.fromarray(unit), "TIFF"), 1)


def test_transparency_is_laid_on_white() -> None:
    for mode, colour in (("RGBA", (255, 0, 0, 0)), ("LA", (0, 0))):
        found = decode.load(packed(Image.new(mode, (8, 8), colour), "PNG"))
        assert (found.pixels == 255).all(), mode
        assert found.notes == ("alpha",)
        assert found.pixels.shape[2] == (1 if mode == "LA" else 3)
    half = decode.decode(packed(Image.new("RGBA", (8, 8), (255, 0, 0, 128)), "PNG"), 3)
    assert np.abs(half[0, 0].astype(int) - (255, 127, 127)).max() <= 1


def test_opaque_alpha_changes_nothing() -> None:
    full = Image.fromarray(photo()).convert("RGBA")
    found = decode.load(packed(full, "PNG"), 3)
    assert found.notes == ()
    np.testing.assert_array_equal(found.pixels, photo())


def test_palettes_with_and_without_transparency() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    plain = decode.load(packed(image, "PNG"), 3)
    assert plain.pixels[0, 0].tolist() == [10, 200, 30]
    assert plain.notes == ("palette",)
    for kind in ("PNG", "GIF"):
        clear = decode.load(packed(image, kind, transparency=1), 3)
        assert (clear.pixels == 255).all(), kind
        assert "alpha" in clear.notes
    soft = decode.decode(packed(image, "PNG", transparency=bytes([255, 0])), 3)
    assert (soft == 255).all()


def test_transparent_colour_of_rgb_and_grey_png() -> None:
    for mode, colour in (("RGB", (9, 8, 7)), ("L", 7), ("1", 0)):
        data = packed(Image.new(mode, (8, 8), colour), "PNG", transparency=colour)
        assert (decode.decode(data, 3) == 255).all(), mode
    deep = Image.fromarray(np.full((8, 8), 40000, np.uint16))
    assert (decode.decode(packed(deep, "PNG", transparency=40000), 1) == 255).all()


def test_cmyk_and_one_bit() -> None:
    found = decode.load(packed(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"), 3)
    assert np.abs(found.pixels[0, 0].astype(int) - (255, 0, 0)).max() < 8
    assert found.notes == ("cmyk",)
    bits = Image.new("1", (8, 8), 1)
    for kind in ("PNG", "TIFF", "BMP"):
        assert (decode.decode(packed(bits, kind), 1) == 255).all(), kind


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animations_give_their_first_frame(kind: str) -> None:
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    options = {"lossless": True} if kind == "WEBP" else {}
    found = decode.load(packed(first, kind, save_all=True, append_images=[second], **options), 3)
    assert found.pixels[0, 0].tolist() == [255, 0, 0]
    assert "animated" in found.notes


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("short_side", [None, 8])
def test_truncated_files_are_refused(kind: str, short_side: int | None) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    data = packed(Image.fromarray(noise), kind)
    for part in (0.1, 0.3, 0.6, 0.9, 0.98):
        with pytest.raises(ValueError, match=r"truncated|not a|empty"):
            decode.load(data[: int(len(data) * part)], 3, short_side)


def test_truncated_progressive_jpeg_is_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    data = packed(Image.fromarray(noise), "JPEG", progressive=True)
    for part in (0.5, 0.9):
        with pytest.raises(ValueError, match="truncated"):
            decode.decode(data[: int(len(data) * part)], 3)


def test_what_is_no_picture_says_so() -> None:
    heic = b"\0\0\0\x18ftypheic" + bytes(64)
    for data, reason in ((b"", "empty"), (b"just text\n" * 20, "not a JPEG"), (heic, "HEIC")):
        for read in (decode.decode, decode.probe):
            with pytest.raises(ValueError, match=reason):
                read(data)


def test_other_formats_are_never_opened() -> None:
    for kind in ("PPM", "TGA", "PCX", "ICO"):
        with pytest.raises(ValueError, match="not a JPEG"):
            decode.decode(packed(Image.fromarray(photo()), kind), 3)


def test_bombs_are_refused_from_the_header() -> None:
    tiny = np.zeros((1, 4), np.uint8)
    for side in (7072, 10_000, 60_000):  # above our limit, Pillow's warning, Pillow's error
        data = png(side, side, tiny, depth=8, colour=0)
        for read in (decode.probe, decode.decode):
            with pytest.raises(ValueError, match="more than 50 megapixels"):
                read(data)
    assert decode.probe(png(7000, 7000, tiny, depth=8, colour=0)).width == 7000


def test_a_text_bomb_in_a_png_is_refused() -> None:
    body = zlib.compress(bytes(80 << 20), 9)
    text = b"zTXtkey\0\0" + body
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    whole = packed(Image.fromarray(photo()), "PNG")
    data = whole[:33] + chunk + whole[33:]
    with pytest.raises(ValueError, match="damaged"):
        decode.decode(data, 3)


def test_warnings_of_pillow_do_not_leak_from_threads() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    data = packed(image, "PNG", transparency=bytes([255, 0]))
    bomb = png(10_000, 10_000, np.zeros((1, 4), np.uint8), depth=8, colour=0)

    def refused(_: int) -> bool:
        decode.decode(data, 3)
        with pytest.raises(ValueError, match="megapixels"):
            decode.decode(bomb, 3)
        return True

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(refused, range(64)))
        assert warnings.filters == before


def test_flipped_bytes_never_raise_anything_but_value_error() -> None:
    rng = np.random.default_rng(1)
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"):
        whole = packed(Image.fromarray(photo()), kind, exif=oriented(6))
        for _ in range(60):
            data = bytearray(whole)
            for place in rng.integers(0, min(len(data), 400), 4):
                data[place] = rng.integers(0, 256)
            try:
                found = decode.decode(bytes(data), 3)
            except ValueError as error:
                assert str(error)
            else:
                assert found.ndim == 3


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((100, 100), (32, 32)),
        ((100, 150), (32, 48)),
        ((150, 100), (48, 32)),
        ((20, 30), (20, 30)),
        ((100, 1000), (32, 96)),
        ((1000, 100), (96, 32)),
        ((10, 200), (10, 30)),
        ((1, 500), (1, 3)),
        ((333, 500), (32, 48)),
    ],
)
def test_shrink_keeps_the_aspect_up_to_three(
    shape: tuple[int, int], expected: tuple[int, int]
) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    assert decode.shrink(image, 32).shape == (*expected, 3)
    assert decode.shrink(image[:, :, :1], 32).shape == (*expected, 1)
    assert decode.stored_size(shape[1], shape[0], 32) == expected[::-1]


def test_shrink_keeps_the_centre_of_a_panorama() -> None:
    image = np.zeros((10, 100, 1), np.uint8)
    image[:, 35:65] = 200
    assert (decode.shrink(image, 10) == 200).all()


def test_shrink_is_antialiased() -> None:
    checks = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)[..., None]
    small = decode.shrink(checks, 32)
    assert np.abs(small.astype(int) - 128).max() < 10


def test_load_shrinks_as_shrink_does_and_drafts_close_to_it() -> None:
    data = packed(Image.fromarray(photo(96, 128)), "JPEG", quality=95)
    near = decode.load(data, 3, 48)
    np.testing.assert_array_equal(near.pixels, decode.shrink(decode.decode(data, 3), 48))
    far = decode.load(data, 3, 16)
    full = decode.shrink(decode.decode(data, 3), 16)
    assert far.pixels.shape == full.shape
    assert (far.width, far.height) == (128, 96)
    assert np.abs(far.pixels.astype(int) - full).max() <= 6
    np.testing.assert_array_equal(far.pixels, decode.load(data, 3, 16).pixels)


def test_panoramas_are_noted() -> None:
    found = decode.load(packed(Image.fromarray(photo(10, 100)), "PNG"), 3, 8)
    assert (found.notes, found.pixels.shape) == (("cropped",), (8, 24, 3))
    assert (found.width, found.height) == (100, 10)


def test_arrays_take_the_same_path() -> None:
    found = decode.from_array(photo(), 3)
    np.testing.assert_array_equal(found.pixels, photo())
    assert decode.from_array(photo(), 1, 24).pixels.shape == (24, 32, 1)
    assert decode.from_array(photo()[:, :, 0]).pixels.shape == (48, 64, 1)
    assert decode.from_array(photo()[:, :, :1], 3).pixels.shape == (48, 64, 3)
    assert decode.from_array(np.eye(4, dtype=bool), 1).pixels.max() == 255
    assert decode.from_array(np.full((4, 4), 65535, np.uint16), 1).pixels.min() == 255
    clear = np.zeros((4, 4, 4), np.uint8)
    assert (decode.from_array(clear, 3).pixels == 255).all()


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8)],
)
def test_arrays_that_are_no_pictures(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="array"):
        decode.from_array(array, 3)


def test_channels_must_be_1_or_3() -> None:
    with pytest.raises(ValueError, match="channels must be 1 or 3"):
        decode.decode(packed(Image.fromarray(photo()), "PNG"), 4)
