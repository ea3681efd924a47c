"""A comparison of regressors: on a real run of small arms, and on cells made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as reference

from fewlabels.core.errors import DataError, UsageError
from fewlabels.data.dataset import open_dataset
from fewlabels.models.classifier import load_model
from fewlabels.models.heads import RegressionHead
from fewlabels.pipeline.task import DataOptions
from fewlabels.results.files import read_json
from fewlabels.results.ledger import looks
from fewlabels.results.schema import validate
from fewlabels.study.arms import NUMBER_ARMS, default_arms
from fewlabels.study.compare import compare
from fewlabels.study.main_job import run
from fewlabels.study.parsing import parse_arms
from fewlabels.study.settings import metric_of
from fewlabels.study.summary import summarise
from fewlabels.training.progress import Reporter

pytestmark = pytest.mark.medium

QUIET = Reporter(quiet=True)
TILT = "tilt (deg)"
ARMS = ("autoencoder+features", "mean", "pixels", "random+knn", "scratch")


@pytest.fixture(scope="module")
def compared(bars: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("compared") / "run"
    return out, compare(
        DataOptions(str(bars), target=TILT),
        arms=ARMS,
        baseline="mean",
        labels=[5, 40],
        seeds=2,
        pretraining_seeds=2,
        budget="12 steps",
        device="cpu",
        out=out,
        reporter=QUIET,
    )


@pytest.mark.medium
def test_cells_carry_scikit_learns_scores(
    compared: tuple[Path, dict[str, Any]], bars: Path
) -> None:
    out, found = compared
    validate("compare", found)
    dataset = open_dataset(bars, target=TILT)
    truth = dataset.truth[dataset.rows("test")]
    for cell in found["cells"]:
        assert cell["failed"] is None
        with np.load(out / "cells" / f"{cell['id']}.npz") as kept:
            values, scores = kept["predicted"], kept["scores"]
        assert cell["mse"] == pytest.approx(reference.mean_squared_error(truth, values))
        assert cell["mae"] == pytest.approx(reference.mean_absolute_error(truth, values))
        assert cell["r2"] == pytest.approx(reference.r2_score(truth, values))
        np.testing.assert_allclose(scores, (truth - values) ** 2, rtol=1e-5)
        assert cell["labels"] == cell["shots"]
        assert "accuracy" not in cell


@pytest.mark.medium
def test_what_lowers_the_error_helps(compared: tuple[Path, dict[str, Any]]) -> None:
    _, found = compared
    assert found["declared"]["metric"] == "mse"
    rows = {(r["arm"], r["baseline"], r["shots"]): r for r in found["verdicts"]}
    means = {(r["arm"], r["shots"]): r["mean"] for r in found["curves"]}
    for (arm, baseline, shots), row in rows.items():
        expected = means[baseline, shots] - means[arm, shots]
        assert row["difference"] == pytest.approx(expected, rel=1e-6)
    assert means["pixels", 40] < means["mean", 40]
    assert rows["pixels", "mean", 40]["verdict"] == "helps"
    assert found["primary"]["baseline"] == "mean"
    assert all(row["low"] is None or row["low"] >= 0 for row in found["curves"])


@pytest.mark.medium
def test_the_best_arm_has_the_least_error_in_cross_validation(
    compared: tuple[Path, dict[str, Any]],
) -> None:
    _, found = compared
    few, many = found["choices"]
    assert (few["shots"], few["candidates"]) == (5, [])
    assert "fewer than 8 labels" in few["reason"]
    assert few["name"] == "autoencoder+features"  # the documented order
    whole = {row["arm"]: row["score"] for row in many["candidates"] if row["folds"] == 4}
    assert many["name"] == min(whole, key=lambda name: whole[name])
    assert "least squared error" in many["reason"]
    assert whole["mean"] > whole[many["name"]]
    assert all(0 <= row["low"] <= row["score"] <= row["high"] for row in many["candidates"])


@pytest.mark.medium
def test_the_chosen_model_is_kept_with_its_scores(
    compared: tuple[Path, dict[str, Any]],
) -> None:
    out, found = compared
    head = load_model(out / "model").head
    assert isinstance(head, RegressionHead)
    mistakes = read_json(out / "mistakes.json")
    sizes = [abs(row["error"]) for row in mistakes]
    assert sizes == sorted(sizes, reverse=True)
    with np.load(out / "figures/embedding.npz") as kept:
        assert bool(kept["ordered"])
        assert set(kept["label"].tolist()) == {-1, 0, 1, 2, 3, 4}
    assert found["inspect"]["target"]["count"] == 170


@pytest.mark.medium
def test_hidden_numbers_choose_and_predict_nothing(
    compared: tuple[Path, dict[str, Any]], bars: Path, tmp_path: Path
) -> None:
    """All numbers beyond the 40 visible ones of both draws are permuted."""
    dataset = open_dataset(bars, target=TILT)
    kept = {dataset.source.paths[int(r)] for draw in (0, 1) for r in dataset.visible(40, draw)}
    lines = [line.split(",") for line in bars.read_text().splitlines()]
    hidden = [row for row in lines[1:] if row[0] not in kept and row[1]]
    moved = np.random.default_rng(0).permutation([row[1] for row in hidden])
    for row, value in zip(hidden, moved, strict=True):
        row[1] = str(value)
    other = bars.with_name("permuted-comparison.csv")
    other.write_text("\n".join(",".join(row) for row in lines) + "\n")
    found = compare(
        DataOptions(str(other), target=TILT),
        arms=["pixels", "random+knn", "mean"],
        baseline="mean",
        labels=[40],
        seeds=2,
        pretraining_seeds=1,
        budget="12 steps",
        device="cpu",
        out=tmp_path / "run",
        reporter=QUIET,
    )
    other.unlink()
    before = {
        (c["arm"], c["seed"]): c["id"]
        for c in compared[1]["cells"]
        if c["shots"] == 40 and c["streams"]["pretraining"] in (None, 0)
    }
    for cell in found["cells"]:
        one = np.load(tmp_path / "run/cells" / f"{cell['id']}.npz")["predicted"]
        two = np.load(compared[0] / "cells" / f"{before[cell['arm'], cell['seed']]}.npz")
        np.testing.assert_allclose(one, two["predicted"], rtol=1e-6)
    scores = {row["arm"]: row["score"] for row in found["choices"][0]["candidates"]}
    old = {row["arm"]: row["score"] for row in compared[1]["choices"][1]["candidates"]}
    assert scores == pytest.approx({name: old[name] for name in scores}, rel=1e-6)


@pytest.mark.medium
def test_the_main_job_ends_in_a_regressor_and_a_page(bars: Path, tmp_path: Path) -> None:
    import fewlabels

    found = fewlabels.run(
        DataOptions(str(bars), target=TILT),
        labels=20,
        budget="12s",
        arms=["pixels", "random+features", "mean"],
        baseline="mean",
        metric="r2",
        seeds=2,
        device="cpu",
        out=tmp_path / "run",
        reporter=QUIET,
    )
    assert found["best"] != "mean"
    assert found["test"]["r2"]["value"] > 0.3
    assert found["compare"]["declared"]["metric"] == "r2"
    assert looks("nothing") == 0
    assert found["test"]["looks_at_test"] >= 1
    page = (tmp_path / "run/report.html").read_text()
    assert "How near the numbers are" in page
    assert "tilt (deg)" in page
    assert "per class" not in page
    assert fewlabels.load(tmp_path / "run").target_ == TILT


def cell(arm: str, shots: int, seed: int, mse: float) -> dict[str, Any]:
    streams = {"split": 0, "labels": seed, "pretraining": None, "training": seed}
    row = {"id": f"{arm}{shots}{seed}", "arm": arm, "shots": shots, "seed": seed, "failed": None}
    return {**row, "streams": streams, "mse": mse, "r2": 1 - mse / 100}


@pytest.mark.parametrize("metric", ["mse", "r2"])
def test_an_arm_with_less_error_saves_labels(metric: str, tmp_path: Path) -> None:
    """What the arm reaches at 10 labels, the baseline reaches at 34, on a line in log2."""
    rng = np.random.default_rng(0)
    cells = []
    for seed in range(8):
        off = rng.normal(0, 0.3)
        for shots, better, worse in ((10, 20.0, 60.0), (40, 8.0, 15.0)):
            cells += [cell("pixels", shots, seed, better + off + rng.normal(0, 0.1))]
            cells += [cell("mean", shots, seed, worse + off + rng.normal(0, 0.1))]
    found = summarise(
        cells,
        parse_arms(["pixels", "mean"], target="x"),
        {"arm": "pixels", "baseline": "mean", "shots": 10, "metric": metric},
        baseline="mean",
        overlap=0.1,
        cell_folder=tmp_path,
    )
    assert found["primary"]["verdict"] == "helps"
    assert found["primary"]["difference"] > 0
    side = "below" if metric == "mse" else "above"
    assert f"{side} mean at 10 labels." in found["primary"]["sentence"]
    saved = {row["shots"]: row for row in found["label_saving"]}
    assert saved[10]["factor"] == pytest.approx(2 ** (2 * 40 / 45), rel=0.05)
    assert saved[40]["bound"] == "at least"
    worse = summarise(
        cells,
        parse_arms(["pixels", "mean"], target="x"),
        {"arm": "mean", "baseline": "pixels", "shots": 10, "metric": metric},
        baseline="pixels",
        overlap=0.1,
        cell_folder=tmp_path,
    )
    assert worse["primary"]["verdict"] == "hurts"


def test_arms_of_numbers() -> None:
    arms = {arm.name: arm for arm in parse_arms(list(NUMBER_ARMS), target="age")}
    assert default_arms("age") == NUMBER_ARMS
    assert default_arms(None) != NUMBER_ARMS
    assert (arms["pixels"].transfer, arms["mean"].transfer) == ("ridge", "mean")
    assert "ridge regression" in str(arms["simclr+features"].describe()["description"])
    assert "whatever the image" in str(arms["mean"].describe()["description"])
    assert (metric_of(None, "age"), metric_of(None, None)) == ("mse", "accuracy")
    assert metric_of("r2", "age") == "r2"


@pytest.mark.parametrize(
    ("arms", "target", "said"),
    [
        (["simclr+logistic", "scratch"], "age", "logistic tells classes apart"),
        (["pixels+spreading", "scratch"], "age", "spreading tells classes apart"),
        (["mean", "scratch"], None, "predicts a number, not a class"),
    ],
)
def test_arms_that_do_not_fit_are_refused(arms: list[str], target: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_arms(arms, target=target)


@pytest.mark.parametrize(
    ("target", "metric", "said"), [(TILT, "accuracy", "mse"), (None, "mse", "accuracy")]
)
def test_a_metric_of_the_other_kind_is_refused(
    target: str | None, metric: str, said: str, bars: Path, tmp_path: Path
) -> None:
    data = DataOptions(str(bars) if target else "digits", target=target)
    with pytest.raises(UsageError, match="unknown metric") as caught:
        run(data, metric=metric, out=tmp_path / "run", reporter=QUIET)
    assert said in str(caught.value.hint)


def test_a_budget_that_cannot_be_filled_is_refused(bars: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="90 training images have a number"):
        compare(
            DataOptions(str(bars), target=TILT),
            arms=["pixels", "mean"],
            baseline="mean",
            labels=[500],
            out=tmp_path / "run",
            reporter=QUIET,
        )
