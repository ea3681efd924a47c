"""Every Python block of the pages runs as it stands, on data made beforehand.

What a block takes for granted (photos, a run folder) is made here, and verbs that would take
minutes get few steps or cheap arms. A block that cannot run has its reason in `NOT_RUN`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fewlabels
from fewlabels.training.progress import Reporter

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.S | re.M)
Place = tuple[str, int]
# Why it cannot: it would need the network, or published weights.
NOT_RUN: dict[Place, str] = {}
ELSEWHERE = {  # where it runs
    ("docs/suggest.md", 0): "tests/study/test_suggest.py",
    ("docs/suggest.md", 1): "tests/study/test_suggest.py",
    ("docs/tables.md", 0): "tests/report/test_paper.py",
}


def blocks() -> dict[Place, str]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return {
        (page.relative_to(ROOT).as_posix(), number): block
        for page in pages
        for number, block in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
    }


def write_photos(folder: Path, count: int, *, kind: str = "png") -> list[str]:
    """Write pictures of two colours under noise, in two folders; return their paths."""
    rng = np.random.default_rng(0)
    written = []
    for name, colour in (("cat", (200, 90, 60)), ("dog", (60, 90, 200))):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.array(colour) + rng.integers(-50, 50, (16, 16, 3))
            path = folder / name / f"{number}.{kind}"
            Image.fromarray(pixels.astype(np.uint8)).save(path)
            written.append(path.as_posix())
    return written


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with ``photos/`` and ``new/``, in which a block is run."""
    monkeypatch.chdir(tmp_path)
    write_photos(Path("photos"), 40)
    Path("new").mkdir()
    for name in ("1.jpg", "2.jpg", "a.jpg"):
        Image.new("RGB", (16, 16), (190, 90, 70)).save(Path("new") / name)
    yield tmp_path


def in_steps(monkeypatch: pytest.MonkeyPatch, verb: str, **tiny: Any) -> Callable[..., Any]:
    """Give a verb of the package other settings than it is called with."""
    whole = getattr(fewlabels, verb)
    fixed = {"device": "cpu", "reporter": Reporter(quiet=True), **tiny}
    monkeypatch.setattr(fewlabels, verb, lambda *given, **named: whole(*given, **named | fixed))
    changed: Callable[..., Any] = getattr(fewlabels, verb)
    return changed


def readme(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing is pre-trained, which would take all the time that there is.
    arms = {"arms": ("random+features", "pixels"), "baseline": "pixels"}
    in_steps(monkeypatch, "run", budget="2m", seeds=2, pretraining_seeds=2, **arms)


def auto(monkeypatch: pytest.MonkeyPatch) -> None:
    in_steps(monkeypatch, "run", budget="2m")


def getting_started(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"{path},{path.split('/')[1]},p{i % 40}" for i, path in enumerate(_photos())]
    Path("labels.csv").write_text("path,label,patient\n" + "\n".join(rows) + "\n")
    in_steps(monkeypatch, "compare", budget="10 steps", seeds=1, pretraining_seeds=1)


def compare(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {"budget": "6 steps", "seeds": 2, "pretraining_seeds": 2}
    verb = in_steps(monkeypatch, "compare", **tiny)
    about = {"arms": ["simclr+features", "pixels"], "baseline": "pixels", "labels": [4]}
    verb("photos/", **about, out="back/shared")  # what comes back from another machine


def regression(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"{path},{i % 7 + 1}" for i, path in enumerate(_photos())]
    Path("leaves.csv").write_text("path,area (cm2)\n" + "\n".join(rows) + "\n")
    readme(monkeypatch)


def large_data(monkeypatch: pytest.MonkeyPatch) -> None:
    in_steps(monkeypatch, "pretrain", budget="2 steps")


def explain(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = {"device": "cpu", "reporter": Reporter(quiet=True)}
    method = {"method": "autoencoder", "budget": "2 steps"}
    fewlabels.pretrain("photos/", **method, out="runs/encoder", **quiet)
    _classifier(start="runs/encoder")


def weights(monkeypatch: pytest.MonkeyPatch) -> None:
    _classifier(start="random", backbone="resnet10t")
    fewlabels.export("runs/classifier", format="timm", out="classifier-timm")


def _classifier(**about: Any) -> None:
    quiet = {"device": "cpu", "reporter": Reporter(quiet=True)}
    fewlabels.finetune("photos/", budget="2 steps", out="runs/classifier", **about, **quiet)


def _photos() -> list[str]:
    return [path.as_posix() for path in sorted(Path("photos").rglob("*.png"))]


PREPARED: dict[Place, Callable[[pytest.MonkeyPatch], None]] = {
    ("README.md", 0): readme,
    ("docs/auto.md", 0): auto,
    ("docs/compare.md", 0): compare,
    ("docs/explain.md", 0): explain,
    ("docs/getting-started.md", 0): getting_started,
    ("docs/large-data.md", 0): large_data,
    ("docs/regression.md", 0): regression,
    ("docs/weights.md", 0): weights,
}
QUICK = ("docs/large-data.md", "docs/weights.md")


def test_no_block_is_left_out() -> None:
    assert set(blocks()) == {*PREPARED, *NOT_RUN, *ELSEWHERE}
    assert not set(PREPARED) & {*NOT_RUN, *ELSEWHERE}
    for place, file in ELSEWHERE.items():
        assert Path(place[0]).name in (ROOT / file).read_text(encoding="utf-8")


def test_every_block_is_found_by_its_fence() -> None:
    """Blocks of Python under another mark would be run by nobody."""
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for mark, block in re.findall(
            r"^ *```([^\n]*)\n(.*?)```", page.read_text("utf-8"), re.S | re.M
        ):
            python = re.search(r"^ *(import|from) \w+", block, re.M)
            assert not python or mark == "python", (page.name, block)


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(place, id=place[0], marks=getattr(pytest.mark, kind))
        for place in PREPARED
        for kind in ["medium" if place[0] in QUICK else "slow"]
    ],
)
def test_the_block_runs(place: Place, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PREPARED[place](monkeypatch)
    exec(compile_block(place), {})


def compile_block(place: Place) -> Any:
    return compile(blocks()[place], f"{place[0]}, block {place[1]}", "exec")
