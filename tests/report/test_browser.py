"""The page in a real browser: quiet, offline, and never wider than the window."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fewlabels.report import write_report

pytestmark = pytest.mark.medium

_WIDTHS = """() => ({
  body: document.documentElement.scrollWidth, window: window.innerWidth,
  small: [...document.querySelectorAll('svg text')].filter(t => t.getClientRects().length
    && t.getBoundingClientRect().height < 8).length })"""


@pytest.mark.parametrize("classes", [10, 40])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_is_quiet_offline_and_fits(
    browser: Any, make_folder: Callable[..., Path], width: int, scheme: str, classes: int
) -> None:
    long = ["<script>alert(1)</script>", "x" * 200, "長い名前" * 30]
    names = [*long, *(f"species {i}" for i in range(classes - 3))]
    check(browser, write_report(make_folder(names)), width, scheme)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_of_numbers_is_quiet_offline_and_fits(
    browser: Any, number_folder: Path, width: int, scheme: str
) -> None:
    check(browser, write_report(number_folder), width, scheme)


def check(browser: Any, target: Path, width: int, scheme: str) -> None:
    """Open a page and see that it says, asks and overflows nothing."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(target.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    sizes = page.evaluate(_WIDTHS)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [target.as_uri()]
    assert sizes["body"] <= sizes["window"]
    assert sizes["small"] == 0
    assert (background == "rgb(18, 21, 24)") == (scheme == "dark")
