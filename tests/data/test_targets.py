"""What `inspect` says of numbers to be predicted, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewlabels.core.errors import DataError, UsageError
from fewlabels.data.dataset import Dataset, open_dataset
from fewlabels.data.targets import require_numbers, unit
from fewlabels.results.schema import InspectResult

Open = Callable[..., Dataset]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """Return a function that writes pictures with these numbers and opens them."""

    def make(values: Sequence[object], *, name: str = "height (cm)", same: int = 0) -> Dataset:
        lines = [f"path,{name},class"]
        for number, value in enumerate(values):
            rng = np.random.default_rng(0 if number < same else number)
            pixels = rng.integers(0, 256, (9, 9), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{number:03d}.png")
            lines.append(f"{number:03d}.png,{value},{'ab'[number % 2]}")
        (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
        return open_dataset(tmp_path / "t.csv", target=name)

    return make


def test_numbers_are_summarised(opened: Open) -> None:
    values = np.random.default_rng(0).normal(170, 10, 100).round(2)
    texts = ["" if number % 5 == 0 else str(value) for number, value in enumerate(values)]
    report = opened(texts).report
    InspectResult.model_validate(report)
    json.dumps(report, allow_nan=False)
    known = values[np.arange(100) % 5 != 0]
    target = report["target"]
    assert (target["name"], target["unit"]) == ("height (cm)", "cm")
    assert (target["count"], target["missing"]) == (80, 20)
    assert (report["labelled"], report["unlabelled"]) == (80, 20)
    assert target["mean"] == pytest.approx(known.mean())
    assert target["std"] == pytest.approx(known.std())
    assert (target["min"], target["max"]) == (known.min(), known.max())
    for share, value in target["quantiles"].items():
        assert value == pytest.approx(np.quantile(known, float(share)))
    assert sum(target["histogram"]["counts"]) == 80
    assert len(target["histogram"]["edges"]) == len(target["histogram"]["counts"]) + 1
    assert report["imbalance"] is None


def test_classes_in_the_same_table_are_not_read(opened: Open) -> None:
    dataset = opened(range(60))
    assert dataset.classes == ()
    assert np.all(dataset.labels == -1)
    assert dataset.report["classes"] == {}
    np.testing.assert_array_equal(dataset.truth, np.arange(60.0))


def test_classes_have_no_summary_of_numbers() -> None:
    report = open_dataset("digits").report
    assert report["target"] is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["5"] * 40, "all 40 values of 'height (cm)' are 5: nothing to learn"),
        ([""] * 40, "no image has a number in 'height (cm)'"),
        (["inf", "-inf", *range(58)], "2 values of 'height (cm)' are infinite: taken as unknown"),
        (range(12), "12 images have a number: too few"),
        (["1", "2", "3"] * 20, "takes 3 values only: if they name classes, use --label-column"),
        ([*range(59), "-9999"], "far outside the rest, first -9999 (059.png)"),
    ],
)
def test_odd_numbers_are_said(opened: Open, values: Sequence[object], said: str) -> None:
    assert any(said in text for text in opened(values).report["warnings"])


def test_sound_numbers_raise_no_warning(opened: Open) -> None:
    warnings = opened(range(300)).report["warnings"]  # 30 of them to test on
    assert warnings == []


def test_copies_with_other_numbers_are_said(opened: Open) -> None:
    warnings = opened(range(60), same=2).report["warnings"]
    assert any("1 pictures carry different numbers in their copies" in text for text in warnings)


def test_infinite_numbers_are_never_learned_from(opened: Open) -> None:
    dataset = opened(["inf", *range(59)])
    assert np.isfinite(dataset.truth[dataset.visible(None, 0)]).all()


@pytest.mark.parametrize(
    ("values", "code"), [([""] * 30, "data.labels"), ([3] * 30, "data.target")]
)
def test_what_cannot_be_learned_is_refused(
    opened: Open, values: Sequence[object], code: str
) -> None:
    with pytest.raises(DataError) as caught:
        require_numbers(opened(values))
    assert caught.value.code == code


def test_text_is_no_number(opened: Open) -> None:
    with pytest.raises(DataError, match=r"row 3: height \(cm\) is 'tall', not a number"):
        opened([1, "tall", 3])


def test_a_class_and_a_number_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--label-column class"):
        open_dataset(tmp_path, label_column="class", target="age")


def test_the_draw_does_not_depend_on_the_numbers(opened: Open) -> None:
    """Permuting the numbers of the others leaves the draw, nested over budgets, as it was."""
    dataset = opened(range(100))
    ten, forty = (set(dataset.visible(n, 3).tolist()) for n in (10, 40))
    assert len(ten) == 10
    assert ten < forty
    assert forty <= set(dataset.rows("train").tolist())
    assert dataset.targets is not None
    dataset.targets[:] = dataset.targets[::-1].copy()
    assert set(dataset.visible(10, 3).tolist()) == ten
    assert set(dataset.visible(10, 4).tolist()) != ten


@pytest.mark.parametrize(
    ("name", "found"),
    [("age", ""), ("age (years)", "years"), ("a (b) [mm] ", "mm"), ("f(x) of y", ""), ("", "")],
)
def test_units_stand_in_brackets(name: str, found: str) -> None:
    assert unit(name) == found
