from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fewlabels.results.ledger import look, looks


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("FEWLABELS_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache"


def test_looks_are_counted_by_content() -> None:
    assert looks("abc") == 0
    assert [look("abc", "compare"), look("abc", "evaluate")] == [1, 2]
    assert look("another", "evaluate") == 1
    assert looks("abc") == 2


def test_any_text_is_a_key(cache: Path) -> None:
    assert look("../../etc/ä", "x") == 1
    assert all(path.parent == cache / "ledger" for path in cache.rglob("*.jsonl"))


def test_damaged_lines_are_skipped(cache: Path) -> None:
    look("abc", "compare")
    (page,) = cache.rglob("*.jsonl")
    page.write_bytes(page.read_bytes() + b'\xff\xfe\n[1]\n{"no": 1}\n{"what": "to')
    assert looks("abc") == 1
    assert look("abc", "evaluate") == 2
    assert page.read_bytes().endswith(b"\n")


def test_looks_at_the_same_time_are_all_counted() -> None:
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda _: look("abc", "x"), range(12)))
    assert sorted(counts) == list(range(1, 13))
