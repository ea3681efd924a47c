from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fewlabels.core.cache import cache_folder


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("linux", "/home/ann/.cache/fewlabels"),
        ("darwin", "/home/ann/Library/Caches/fewlabels"),
        ("win32", "/home/ann/AppData/Local/fewlabels"),
    ],
)
def test_platform_places(monkeypatch: pytest.MonkeyPatch, system: str, expected: str) -> None:
    for name in ("FEWLABELS_CACHE", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/invalid")
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ann"))
    assert cache_folder() == Path(expected)


def test_chosen_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("FEWLABELS_CACHE", "")
    assert cache_folder() == tmp_path / "fewlabels"
    monkeypatch.setenv("FEWLABELS_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
