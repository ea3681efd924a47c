"""Every default of a method stands on its page, where the page says where it comes from."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from fewlabels.methods import BATCH_SIZES, METHODS

PAGES = Path(__file__).parents[2] / "docs" / "methods"
PAGE_OF = {"denoising": "autoencoder"}  # a page that tells of two methods


def table(name: str) -> str:
    page = (PAGES / f"{PAGE_OF.get(name, name)}.md").read_text(encoding="utf-8")
    part = page.partition("## Defaults")[2].partition("\n## ")[0]
    assert part, f"the page of {name} has no table of defaults"
    if name == "vae":  # "the plain autoencoder's", with a link
        part += table("autoencoder")
    return part


def defaults(name: str) -> dict[str, Any]:
    """Return the settings of a method: numbers, and the numbers in tuples."""
    found: dict[str, Any] = {"batch": BATCH_SIZES[name]}
    module = inspect.getmodule(METHODS[name])
    for kind in vars(module).values():
        if dataclasses.is_dataclass(kind) and kind.__module__ == module.__name__:
            for field in dataclasses.fields(kind):
                values = field.default if isinstance(field.default, tuple) else (field.default,)
                found |= {f"{field.name} {place}": v for place, v in enumerate(values)}
    return {key: v for key, v in found.items() if isinstance(v, int | float) and v not in (0, 1)}


def written(value: float) -> set[str]:
    """Return how a page may write a number."""
    exponent = re.sub(r"e-0?", "e-", f"{value:.0e}")
    share = f"{100 * value:g}"
    return {f"{value:g}", f"{value:,}", str(value), exponent, share}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_default_is_on_the_page(name: str) -> None:
    said = set(re.findall(r"\d[\d,]*\.?\d*(?:e-\d+)?", table(name).replace("-", " - ")))
    said |= set(re.findall(r"\d+(?:\.\d+)?e-\d+", table(name)))
    said = {word.rstrip(".,") for word in said}
    missing = {key: v for key, v in defaults(name).items() if not written(v) & said}
    assert not missing
