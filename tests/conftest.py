"""Fixtures every test may use: a cache of its own, no network, and the real data sets."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image, ImageEnhance

from fewlabels.results.lock import Lock

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores; torch reads this when it is first imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Deadlines measure the machine's load, and a drawn seed makes a red build that cannot be repeated.
settings.register_profile("fewlabels", deadline=None, derandomize=True, database=None)
settings.load_profile("fewlabels")

WITHOUT_DATA = "data set not found"


@pytest.fixture(autouse=True, scope="session")
def _apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tests out of the user's cache and off the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWLABELS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="session")
def cifar10() -> Path:
    """CIFAR-10 as JPEG files: ``train|test/<class>/*.jpg``, 32x32."""
    return _data_set("cifar10")


@pytest.fixture(scope="session")
def clothing() -> Path:
    """3,781 photos of clothing: ``train|validation|test/<class>/*.jpg``, about 400x533."""
    return _data_set("clothing")


@pytest.fixture(scope="session")
def zips() -> dict[str, Path]:
    """Archives of both, as they were downloaded."""
    for folder in _places():
        found = {name: folder / f"{name}.zip" for name in ("cifar10", "clothing")}
        if all(path.is_file() for path in found.values()):
            return found
    pytest.skip(f"{WITHOUT_DATA}: no cifar10.zip and clothing.zip; set FEWLABELS_DATA")


@pytest.fixture(scope="session")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a table of 200 grey pictures of a bar, and of its tilt: made here, 12x12 pixels.

    120 are for training, of which 30 carry no number, 20 for validation and 60 for test.
    """
    folder = tmp_path_factory.mktemp("bars")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:12j, -1:1:12j]
    lines = ["path,tilt (deg),split"]
    for number in range(200):
        tilt = float(rng.uniform(-60, 60))
        angle = np.deg2rad(tilt)
        away = np.abs(x * np.cos(angle) + y * np.sin(angle))
        picture = 230 * np.exp(-((away / 0.3) ** 2)) + rng.uniform(0, 25, x.shape)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{number:03d}.png")
        split = "train" if number < 120 else "val" if number < 140 else "test"
        known = "" if 90 <= number < 120 else f"{tilt:.2f}"
        lines.append(f"{number:03d}.png,{known},{split}")
    (folder / "bars.csv").write_text("\n".join(lines) + "\n")
    return folder / "bars.csv"


def _data_set(name: str) -> Path:
    for folder in _places():
        if (folder / name / "train").is_dir():
            return folder / name
        if (folder / f"{name}.zip").is_file():
            return _unpacked(folder / f"{name}.zip")
    looked = " or ".join(str(folder) for folder in _places())
    pytest.skip(f"{WITHOUT_DATA}: no {name} in {looked}; set FEWLABELS_DATA")


def _places() -> list[Path]:
    named = os.environ.get("FEWLABELS_DATA")
    shared = Path(__file__).parents[2] / "shared" / "data"
    return [Path(named), shared] if named else [shared]


def _unpacked(archive: Path) -> Path:
    """Unpack once, outside the repository; whole or not at all, whoever else tries."""
    about = archive.stat()
    place = Path(tempfile.gettempdir()) / f"fewlabels-test-data-{_user()}"
    done = place / f"{archive.stem}-{about.st_size}-{int(about.st_mtime)}"
    place.mkdir(mode=0o700, exist_ok=True)
    with Lock(place / f"{archive.stem}.lock", wait=300):
        if not done.is_dir():
            partial = place / f"partial-{uuid.uuid4().hex}"
            try:
                with zipfile.ZipFile(archive) as packed:
                    packed.extractall(partial)
                partial.rename(done)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return _root(done)


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else os.environ.get("USERNAME", "me")


def _root(folder: Path) -> Path:
    """Return the folder that holds ``train/``: the archive's own, or the one folder in it."""
    return folder if (folder / "train").is_dir() else next(folder.glob("*/train")).parent


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly which tests found no data, since a skipped proof is no proof."""
    skipped = terminalreporter.stats.get("skipped", [])
    without = sum(WITHOUT_DATA in str(report.longrepr) for report in skipped)
    if without:
        terminalreporter.section("real images not found", yellow=True)
        terminalreporter.line(
            f"{without} tests on real images were SKIPPED: set FEWLABELS_DATA to a folder with "
            "cifar10.zip and clothing.zip (or the unpacked folders)"
        )


@pytest.fixture(scope="session")
def photo() -> Callable[..., Image.Image]:
    """Return a function that draws coloured noise with the spectrum of photographs."""

    def draw(seed: int, side: int = 32) -> Image.Image:
        rng = np.random.default_rng(seed)
        f = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
        f[0, 0] = 1
        noise = np.fft.fft2(rng.normal(size=(3, side, side)))
        waves = np.fft.ifft2(noise / f * (f <= 0.35)).real
        mixed = np.tensordot([[1, 0.3, 0.1], [1, -0.1, 0.2], [1, -0.3, -0.3]], waves, 1)
        pixels = (120 + 38 * mixed / mixed.std()).clip(0, 255)
        return Image.fromarray(pixels.astype(np.uint8).transpose(1, 2, 0))

    return draw


@pytest.fixture(scope="session")
def altered() -> Callable[[Image.Image, str], Image.Image]:
    """Return a function that makes a near-copy: `jpeg30`, `half`, `double`, `crop`, ..."""

    def alter(image: Image.Image, how: str) -> Image.Image:
        width, height = image.size
        if how.startswith("jpeg"):
            file = io.BytesIO()
            image.save(file, "JPEG", quality=int(how[4:]))
            return Image.open(file).convert("RGB")
        if how in ("half", "double"):
            factor = 0.5 if how == "half" else 2
            return image.resize((round(width * factor), round(height * factor)))
        if how == "crop":
            return image.crop((0, 1, round(0.95 * width), 1 + round(0.95 * height)))
        return ImageEnhance.Brightness(image).enhance({"bright": 1.2, "dark": 0.8}[how])

    return alter
