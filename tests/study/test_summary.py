"""From cells to a finding: the declared verdict, the others corrected, and the sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewlabels.study.parsing import parse_arms
from fewlabels.study.summary import outlook, sentence, summarise

NAMES = ["scratch", "pixels", "simclr+features", "autoencoder+features"]
ARMS = parse_arms(NAMES)
MEANS = {"scratch": 0.5, "pixels": 0.55, "simclr+features": 0.62, "autoencoder+features": 0.501}
DECLARED = {"arm": "simclr+features", "baseline": "scratch", "shots": 4, "metric": "accuracy"}


def cells(splits: int = 8, noise: float = 0.01) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    rows = []
    for split in range(splits):
        shared = rng.normal(0, 0.02)
        for shots in (1, 4):
            for name in NAMES:
                value = MEANS[name] + 0.05 * (shots == 4) + shared + rng.normal(0, noise)
                pretraining = split if "+" in name else None
                streams = {"split": split, "labels": split, "pretraining": pretraining}
                rows.append(
                    {
                        "id": f"{name}-{shots}-{split}",
                        "arm": name,
                        "shots": shots,
                        "seed": split,
                        "streams": streams | {"training": split},
                        "accuracy": value,
                        "failed": None,
                    }
                )
    return rows


def summary(rows: list[dict[str, Any]], folder: Path, **changes: Any) -> dict[str, Any]:
    return summarise(
        rows, ARMS, DECLARED | changes, baseline="scratch", overlap=0.125, cell_folder=folder
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return summary(cells(), tmp_path_factory.mktemp("cells"))


def test_the_declared_verdict_is_found(found: dict[str, Any]) -> None:
    primary = found["primary"]
    assert (primary["arm"], primary["baseline"], primary["shots"]) == (
        "simclr+features",
        "scratch",
        4,
    )
    assert primary["verdict"] == "helps"
    assert primary["difference"] == pytest.approx(0.12, abs=0.02)
    assert primary["low"] < primary["difference"] < primary["high"]
    assert primary["sentence"].startswith("simclr+features helps: accuracy is 1")


def test_one_verdict_is_primary_and_only_the_others_are_corrected(found: dict[str, Any]) -> None:
    primary = [row for row in found["verdicts"] if row["primary"]]
    assert len(primary) == 1
    assert primary[0]["p_holm"] in (None, primary[0]["p"])
    others = [row for row in found["verdicts"] if not row["primary"]]
    assert all(row["p_holm"] >= row["p"] for row in others)
    ranked = sorted(others, key=lambda row: row["p"])
    assert ranked[0]["p_holm"] == pytest.approx(min(1, ranked[0]["p"] * len(others)))


def test_the_plain_baselines_get_verdicts_of_their_own(found: dict[str, Any]) -> None:
    pairs = {(row["arm"], row["baseline"], row["shots"]) for row in found["verdicts"]}
    for shots in (1, 4):
        assert ("simclr+features", "pixels", shots) in pairs
        assert ("pixels", "scratch", shots) in pairs
        assert ("autoencoder+features", "scratch", shots) in pairs
    assert not any(arm == baseline for arm, baseline, _ in pairs)


def test_arms_that_are_alike_stay_undecided(found: dict[str, Any]) -> None:
    rows = [row for row in found["verdicts"] if row["arm"] == "autoencoder+features"]
    assert {row["verdict"] for row in rows} == {"undecided"}


def test_curves_and_savings_cover_every_arm(found: dict[str, Any]) -> None:
    assert {(row["arm"], row["shots"]) for row in found["curves"]} == {
        (name, shots) for name in NAMES for shots in (1, 4)
    }
    assert {row["arm"] for row in found["label_saving"]} == set(NAMES) - {"scratch"}


def test_every_arm_is_forecast(found: dict[str, Any]) -> None:
    assert {(row["arm"], row["shots"]) for row in found["forecast"]} == {
        (name, shots) for name in NAMES for shots in (16, 64)
    }
    best = max(found["forecast"], key=lambda row: row["value"])
    assert (best["arm"], best["shots"]) == ("simclr+features", 64)


def test_a_method_that_loses_is_said_to_hurt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MEANS, "simclr+features", 0.3)
    primary = summary(cells(), tmp_path)["primary"]
    assert primary["verdict"] == "hurts"
    assert "below scratch" in primary["sentence"]


def test_one_repetition_is_too_few_to_judge(tmp_path: Path) -> None:
    primary = summary(cells(splits=1), tmp_path)["primary"]
    assert primary["verdict"] == "undecided"
    assert "too few repetitions" in primary["sentence"]


def test_failed_cells_are_left_out(tmp_path: Path, found: dict[str, Any]) -> None:
    rows = cells()
    broken = rows[-1] | {"accuracy": None, "failed": "diverged", "id": "x"}
    again = summary([*rows, broken | {"streams": {**broken["streams"], "split": 99}}], tmp_path)
    assert again["primary"]["difference"] == pytest.approx(found["primary"]["difference"])


ROW = {
    "arm": "a",
    "baseline": "b",
    "shots": 4,
    "metric": "accuracy",
    "difference": 0.08,
    "low": 0.05,
    "high": 0.11,
    "verdict": "helps",
    "detectable": 0.04,
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "a helps: accuracy is 8.0 points (5.0 to 11.0) above b at 4 labels per class."),
        ({"shots": 1}, "at 1 label per class."),
        ({"shots": 0}, "with the labels there are."),
        (
            {"difference": -0.08, "low": -0.11, "high": -0.05, "verdict": "hurts"},
            "a hurts: accuracy is 8.0 points (5.0 to 11.0) below b",
        ),
        (
            {"difference": 0.01, "low": -0.02, "high": 0.04, "verdict": "undecided"},
            "Undecided: a differs from b by +1.0 points (-2.0 to +4.0) in accuracy at 4 labels per "
            "class; this design could have seen 4.0 points.",
        ),
        (
            {
                "difference": 0.0,
                "low": 0.0,
                "high": 0.0,
                "verdict": "undecided",
                "detectable": None,
            },
            "the smallest difference this design could have seen is not known.",
        ),
        ({"difference": None}, "too few repetitions to judge."),
        ({"low": None, "verdict": "undecided"}, "too few repetitions to judge."),
        ({"metric": "f1_macro"}, "macro F1 is 8.0 points"),
        ({"metric": "nll"}, "log-likelihood is 0.08 (0.05 to 0.11) below b at 4 labels per class."),
        (
            {"metric": "mse", "shots": 40},
            "a helps: mean squared error is 0.08 (0.05 to 0.11) below b at 40 labels.",
        ),
        (
            {"metric": "mse", "difference": -8.0, "low": -11.0, "high": -5.0, "verdict": "hurts"},
            "a hurts: mean squared error is 8 (5 to 11) above b at 4 labels.",
        ),
        (
            {"metric": "mae", "difference": 0.01, "low": -0.02, "high": 0.04}
            | {"verdict": "undecided"},
            "differs from b by -0.01 (-0.04 to +0.02) in mean absolute error at 4 labels; this",
        ),
        ({"metric": "r2"}, "a helps: R2 is 0.08 (0.05 to 0.11) above b at 4 labels."),
    ],
)
def test_sentences(changes: dict[str, Any], words: str) -> None:
    assert words in sentence(ROW | changes)


UNDECIDED = ROW | {
    "difference": 0.01,
    "level": 0.05,
    "repeats": {"splits": 1, "pretraining": 3, "draws": 5},
    "components": {"images": 0.001},
}
NOTHING = {"draws": None, "pretraining": None, "splits": None, "both": None}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"more": None}, ""),
        ({"more": NOTHING | {"draws": 1}}, "About 1 more draw of labels would probably decide it."),
        (
            {"more": NOTHING | {"draws": 12, "pretraining": 2}},
            "About 12 more draws of labels, or 2 more pre-training seeds, would probably decide "
            "it.",
        ),
        (
            {"more": NOTHING | {"splits": 4}},
            "About 4 more random splits would probably decide it.",
        ),
        (
            {"more": NOTHING, "components": {"images": 0.01}},
            "No number of seeds would decide it: with these 372 test images differences under "
            "2.8 points cannot be seen.",
        ),
        (
            {"more": NOTHING | {"both": 7}},
            "Neither more draws of labels nor more pre-training seeds alone would decide it; about "
            "7 more of each probably would.",
        ),
        (
            {"more": NOTHING},
            "A difference so small would not be decided by a thousand more repetitions.",
        ),
    ],
)
def test_what_would_decide_it(changes: dict[str, Any], words: str) -> None:
    assert outlook(UNDECIDED | changes, 372) == words


def test_one_encoder_is_said_to_be_one() -> None:
    decided = UNDECIDED | {"more": None, "verdict": "helps"}
    assert outlook(decided, 372) == ""
    for repeats, said in (((1, 1, 5), True), ((1, 0, 5), False), ((3, 3, 5), False)):
        counts = dict(zip(("splits", "pretraining", "draws"), repeats, strict=True))
        assert ("one pre-trained encoder" in outlook(decided | {"repeats": counts}, 372)) is said


def test_undecided_rows_tell_what_would_decide_them(tmp_path: Path) -> None:
    """The gain is less than the noise: a few more splits would do; with many it is decided."""
    found = summary(cells(splits=3, noise=0.15), tmp_path)
    primary = found["primary"]
    assert primary["verdict"] == "undecided"
    assert primary["more"]["splits"] >= 1
    assert f"About {primary['more']['splits']:,} more random split" in primary["outlook"]
    assert primary["repeats"] == {"splits": 3, "pretraining": 3, "draws": 3}
    assert primary["components"]["splits"] == pytest.approx(0.21, rel=0.8)
    more = summary(cells(splits=3 + 2 * primary["more"]["splits"], noise=0.15), tmp_path)["primary"]
    assert (more["verdict"], more["more"], more["outlook"]) == ("helps", None, "")


@pytest.mark.medium
def test_the_chosen_arm_is_judged_against_raw_pixels_too(tmp_path: Path) -> None:
    def against_pixels(chosen: str | None) -> set[str]:
        found = summarise(
            cells(),
            ARMS,
            DECLARED,
            baseline="scratch",
            overlap=0.125,
            cell_folder=tmp_path,
            chosen=chosen,
        )
        assert sum(row["primary"] for row in found["verdicts"]) == 1
        return {row["arm"] for row in found["verdicts"] if row["baseline"] == "pixels"}

    assert against_pixels(None) == {"simclr+features"}
    assert against_pixels("simclr+features") == {"simclr+features"}
    assert against_pixels("scratch") == {"simclr+features", "scratch"}
    assert against_pixels("pixels") == {"simclr+features"}
