"""Reasons in a table of verdicts: which rows get one, in which order, and from which pairs."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewlabels.results.schema import VerdictRow
from fewlabels.study.parsing import parse_arms
from fewlabels.study.summary import summarise

GOOD = {"rank": 60.0, "least_rank": 3.0, "passes": 12.0, "auc": None, "p": None}
MEANS = {
    "scratch": 0.7,
    "random+features": 0.5,
    "simclr+features": 0.75,
    "simclr+parameters": 0.6,
    "vicreg+features": 0.62,
}


def cells(
    means: dict[str, float], known: dict[str, Any] | None = None, metric: str = "accuracy"
) -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    rows = []
    for split in range(10):
        for name, mean in means.items():
            pretrained = name not in ("scratch", "pixels", "random+features")
            streams = {"split": split, "labels": split, "pretraining": split, "training": split}
            row = {"id": f"{name}-{split}", "arm": name, "shots": 4, "seed": split, "failed": None}
            about = {**GOOD, **(known or {}).get(name, {})} if pretrained else None
            score = mean + rng.normal(0, 0.01)
            rows.append({**row, "streams": streams, metric: score, "encoder": about})
    return rows


def found(
    rows: list[dict[str, Any]],
    folder: Path,
    means: dict[str, float] = MEANS,
    metric: str = "accuracy",
) -> dict[str, Any]:
    arms = parse_arms(list(means))
    declared = {"arm": arms[-1].name, "baseline": "scratch", "shots": 4, "metric": metric}
    return summarise(rows, arms, declared, baseline="scratch", overlap=0.1, cell_folder=folder)


def reasons(summary: dict[str, Any], baseline: str = "scratch") -> dict[str, Any]:
    rows = [row for row in summary["verdicts"] if row["baseline"] == baseline]
    assert all(VerdictRow.model_validate(row) for row in rows)
    return {row["arm"]: row["reason"] for row in rows if row["verdict"] == "hurts"}


def test_only_pre_training_that_hurts_has_a_reason(tmp_path: Path) -> None:
    summary = found(cells(MEANS), tmp_path)
    told = reasons(summary)
    assert set(told) == {"random+features", "simclr+parameters", "vicreg+features"}
    assert told["random+features"] is None
    # Nothing measured is wrong with it, and it beats the untrained network.
    assert told["vicreg+features"] is None
    others = [row for row in summary["verdicts"] if row["verdict"] != "hurts"]
    assert others
    assert all(row["reason"] is None for row in others)
    assert summary["primary"]["reason"] is None


def test_the_same_encoder_that_does_well_in_other_hands(tmp_path: Path) -> None:
    reason = reasons(found(cells(MEANS), tmp_path))["simclr+parameters"]
    assert reason["code"] == "transfer"
    assert reason["measured"]["arm"] == "simclr+features"
    assert reason["measured"]["difference"] == pytest.approx(0.15, abs=0.02)
    assert reason["measured"]["low"] < 0.15 < reason["measured"]["high"]
    assert "simclr+features is 15" in reason["sentence"]


def test_hands_that_lose_as_well_explain_nothing(tmp_path: Path) -> None:
    means = MEANS | {"simclr+features": 0.64}
    told = reasons(found(cells(means), tmp_path, means))
    assert told["simclr+features"] is told["simclr+parameters"] is None


def test_features_like_those_of_an_untrained_network(tmp_path: Path) -> None:
    means = MEANS | {"vicreg+features": 0.5}
    reason = reasons(found(cells(means), tmp_path, means))["vicreg+features"]
    assert (reason["code"], reason["measured"]["baseline"]) == ("untrained", "random+features")
    assert "random+features" in reason["sentence"]
    # Other small models on top are no pair.
    apart = {k: v for k, v in means.items() if k != "random+features"} | {"random+knn": 0.5}
    assert reasons(found(cells(apart), tmp_path, apart))["vicreg+features"] is None


def test_what_lies_further_up_comes_first(tmp_path: Path) -> None:
    means = MEANS | {"vicreg+features": 0.5}
    bad = {"rank": 1.2, "passes": 0.4, "auc": 0.97, "p": 0.005}
    summary = found(cells(means, {"vicreg+features": bad}), tmp_path, means)
    reason = reasons(summary)["vicreg+features"]
    assert [reason["code"], *(one["code"] for one in reason["also"])] == [
        "collapsed",
        "short",
        "far",
        "untrained",
    ]
    assert summary["primary"]["reason"] == reason
    # Against the untrained network it is not told again that it is like one.
    again = reasons(summary, "random+features")
    assert not again or "untrained" not in str(again)


def test_differences_of_errors_are_said_as_they_are(tmp_path: Path) -> None:
    means = {"scratch": 2.0, "simclr+features": 1.5, "simclr+parameters": 4.0}
    told = reasons(found(cells(means, metric="nll"), tmp_path, means, "nll"))
    assert "simclr+features is 2.5 (2.4" in told["simclr+parameters"]["sentence"]


def test_fine_tuning_the_autoencoder_of_the_committed_digits(tmp_path: Path) -> None:
    """As docs/evidence.md has it."""
    names = ("scratch", "autoencoder+features", "autoencoder+parameters")
    rows = []
    with (Path(__file__).parents[2] / "benchmarks" / "digits_cells.csv").open() as file:
        for number, row in enumerate(csv.DictReader(file)):
            if row["arm"] in names and row["shots"] == "4":
                keys = ("split", "labels", "pretraining", "training")
                streams = {key: int(row[key]) if row[key] else None for key in keys}
                about = {"id": str(number), "arm": row["arm"], "shots": 4}
                score = float(row["accuracy"])
                rows.append({**about, "streams": streams, "accuracy": score, "failed": None})
    told = reasons(found(rows, tmp_path, dict.fromkeys(names, 0.0)))
    assert {arm: reason["code"] for arm, reason in told.items()} == {names[2]: "transfer"}
