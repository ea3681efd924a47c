"""The time to the baseline's score: a bound where it was reached, nothing where it was not."""

from __future__ import annotations

from typing import Any

from fewlabels.evaluation.reaching import time_to_baseline


def cell(arm: str, shots: int, score: float | None, seconds: float, **more: Any) -> dict[str, Any]:
    about = {"arm": arm, "shots": shots, "seconds": seconds, "failed": None}
    return about | {"accuracy": score, "mse": score} | more


CELLS = [
    *(cell("scratch", 4, score, 30.0) for score in (0.5, 0.7)),
    *(cell("better", 4, score, seconds) for score, seconds in ((0.9, 40.0), (0.5, 50.0))),
    *(cell("worse", 4, score, 2.0) for score in (0.9, 0.2)),
    cell("scratch", 25, 0.8, 60.0),
    cell("equal", 25, 0.8, 10.0),
    cell("equal", 4, None, 10.0, failed="diverged"),
]


def reached(metric: str) -> dict[tuple[str, int], tuple[float | None, float]]:
    arms = ["scratch", "better", "worse", "equal"]
    rows = time_to_baseline(CELLS, arms, "scratch", metric=metric)
    assert all(row["baseline"] == "scratch" for row in rows)
    return {(r["arm"], r["shots"]): (r["seconds"], r["baseline_seconds"]) for r in rows}


def test_means_decide_and_failed_cells_have_no_say() -> None:
    assert reached("accuracy") == {
        ("better", 4): (45.0, 30.0),
        ("worse", 4): (None, 30.0),
        ("equal", 25): (10.0, 60.0),
    }


def test_where_less_is_better_the_lower_mean_has_reached_it() -> None:
    found = reached("mse")
    assert found["better", 4] == (None, 30.0)
    assert found["worse", 4] == (2.0, 30.0)


def test_without_a_baseline_there_is_nothing_to_reach() -> None:
    assert time_to_baseline(CELLS[2:4], ["better"], "scratch", metric="accuracy") == []
