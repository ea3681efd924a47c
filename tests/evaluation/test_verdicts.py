"""Verdicts say what the cells allow, and no more."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from fewlabels.evaluation.cells import design_of
from fewlabels.evaluation.family import holm
from fewlabels.evaluation.verdicts import compare_arms, mean_interval, verdict_table


def cell(arm, value, *, split=0, labels=0, pretraining=None, training=0, shots=4, **more):
    streams = {
        "split": split,
        "labels": labels,
        "pretraining": pretraining,
        "training": training,
    }
    return {
        "arm": arm,
        "shots": shots,
        "streams": streams,
        "accuracy": value,
        "failed": None,
        **more,
    }


def arm_cells(arm, values, **more):
    """Cells of a (P, L) table; one row without pre-training for a (L,) one."""
    values = np.asarray(values)
    if values.ndim == 1:
        return [cell(arm, float(v), labels=i, **more) for i, v in enumerate(values)]
    return [
        cell(arm, float(v), labels=i, pretraining=p, **more)
        for p, row in enumerate(values)
        for i, v in enumerate(row)
    ]


def split_cells(arm, values, **more):
    return [cell(arm, float(v), split=i, labels=0, **more) for i, v in enumerate(values)]


def compare(a, b, **more):
    return compare_arms(a, b, design=design_of([*a, *b], overlap=0.0), **more)


def test_repeated_splits_without_correction_are_the_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.6, 0.05, 8), rng.normal(0.5, 0.05, 8)
    found = compare(split_cells("a", a), split_cells("b", b))
    reference = stats.ttest_rel(a, b)
    interval = reference.confidence_interval()
    assert found.difference == pytest.approx((a - b).mean())
    assert found.p == pytest.approx(reference.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert (found.verdict, found.n, found.df) == ("helps", 8, 7)


def test_the_overlap_correction_widens_the_interval():
    rng = np.random.default_rng(0)
    cells = [*split_cells("a", rng.normal(0.6, 0.05, 10)), *split_cells("b", [0.5] * 10)]
    plain, wide = (
        compare_arms(cells[:10], cells[10:], design=design_of(cells, overlap=o)) for o in (0, 0.125)
    )
    assert wide.se / plain.se == pytest.approx(math.sqrt((0.1 + 0.125) / 0.1))


def test_draws_inside_a_split_are_averaged_first():
    a = [
        cell("a", v, split=s, labels=i)
        for s, row in enumerate([[0.5, 0.7], [0.6, 0.8]])
        for i, v in enumerate(row)
    ]
    b = [cell("b", 0.5, split=s, labels=i) for s in range(2) for i in range(2)]
    found = compare(a, b)
    assert (found.n, found.df) == (2, 1)
    assert found.difference == pytest.approx(0.15)


def test_an_arm_without_pre_training_serves_every_seed():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.6, 0.02, (3, 5)), rng.normal(0.5, 0.02, 5)
    found = compare(arm_cells("a", a), arm_cells("b", b))
    repeated = compare(arm_cells("a", a), arm_cells("b", np.tile(b, (3, 1))))
    assert found.n == 15
    assert (found.difference, found.se) == pytest.approx((repeated.difference, repeated.se))
    mirrored = compare(arm_cells("b", b), arm_cells("a", a))
    assert mirrored.difference == pytest.approx(-found.difference)
    assert mirrored.verdict == "hurts"


def test_training_seeds_are_averaged_within_a_pair():
    a = arm_cells("a", [0.6, 0.7])
    b = [cell("b", v, labels=i, training=t) for i in range(2) for t, v in enumerate([0.4, 0.6])]
    found = compare(a, b)
    assert found.n == 2
    assert found.difference == pytest.approx(0.15)


def test_one_pre_training_seed_is_said_aloud():
    b = arm_cells("b", [0.5, 0.52, 0.51])
    one = compare(arm_cells("a", [[0.6, 0.61, 0.65]]), b)
    assert "does not cover pre-training" in one.note
    several = compare(arm_cells("a", [[0.6, 0.61, 0.65], [0.6, 0.63, 0.65]]), b)
    plain = compare(arm_cells("a", [0.6, 0.61, 0.65]), b)
    assert "pre-training" not in several.note + plain.note


def test_one_label_draw_is_said_aloud():
    found = compare(arm_cells("a", [[0.6], [0.7], [0.65]]), arm_cells("b", [0.5]))
    assert "one label draw" in found.note


def test_a_draw_for_each_seed_is_a_unit_not_a_crossed_table():
    a = [cell("a", v, labels=i, pretraining=i) for i, v in enumerate([0.6, 0.65, 0.7, 0.72])]
    b = arm_cells("b", [0.5, 0.52, 0.51, 0.5])
    found = compare(a, b)
    reference = stats.ttest_rel([0.6, 0.65, 0.7, 0.72], [0.5, 0.52, 0.51, 0.5])
    assert found.p == pytest.approx(reference.pvalue)
    assert found.n == 4


def test_failed_cells_cost_their_draw_and_are_counted():
    a = arm_cells("a", np.random.default_rng(0).normal(0.6, 0.02, (3, 6)))
    a[7]["failed"] = "diverged"
    table = verdict_table([*a, *arm_cells("b", [0.5] * 6)], {}, ["a"], "b")
    assert table[0]["n"] == 15
    assert "2 cells were left out" in table[0]["note"]


def test_lower_is_better_turns_the_sign():
    a = [{**c, "nll": c["accuracy"]} for c in arm_cells("a", [0.9, 0.95, 0.92])]
    b = [{**c, "nll": c["accuracy"]} for c in arm_cells("b", [1.5, 1.6, 1.51])]
    found = compare(a, b, metric="nll")
    assert found.verdict == "helps"
    assert 0 < found.low < found.difference < found.high


def test_identical_arms_and_spreadless_ones_stay_undecided():
    same = compare(arm_cells("a", [0.5, 0.6]), arm_cells("b", [0.5, 0.6]))
    assert (same.verdict, same.p, same.low, same.high) == ("undecided", 1.0, 0.0, 0.0)
    stiff = compare(arm_cells("a", [0.7, 0.7]), arm_cells("b", [0.5, 0.5]))
    assert stiff.verdict == "undecided"
    assert math.isnan(stiff.low)
    assert "do not vary" in stiff.note


def test_nothing_to_pair_is_undecided_and_survives_json():
    found = compare(arm_cells("a", [0.5]), [cell("b", 0.4, labels=9)])
    assert found.verdict == "undecided"
    row = json.loads(json.dumps(found.row(), allow_nan=False))
    assert row["low"] is None
    single = compare(arm_cells("a", [0.5]), arm_cells("b", [0.4])).row()
    assert (single["difference"], single["high"]) == (pytest.approx(0.1), None)


def false_verdicts(make, trials: int, overlap: float = 0.0) -> float:
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(trials):
        a, b = make(rng, "a"), make(rng, "b")
        found = compare_arms(a, b, design=design_of([*a, *b], overlap=overlap))
        wrong += found.verdict != "undecided"
    return wrong / trials


def slack(trials: int) -> float:
    return float(stats.binom.ppf(0.99, trials, 0.05)) / trials


def test_an_arm_against_itself_is_rarely_decided_on_one_split():
    def make(rng, arm):
        noise = rng.normal(0, 0.02, (3, 1)) + rng.normal(0, 0.02, (3, 10))
        return arm_cells(arm, 0.5 + noise)

    assert false_verdicts(make, 600) <= slack(600)


def test_an_arm_against_itself_is_rarely_decided_over_splits():
    def make(rng, arm):
        return split_cells(arm, rng.normal(0.5, 0.02, 10))

    assert false_verdicts(make, 600) <= slack(600)


def test_the_declared_verdict_stands_alone_and_the_rest_are_corrected():
    rng = np.random.default_rng(0)
    cells = []
    for arm, gain in {"a": 0.02, "c": 0.015, "d": 0.0}.items():
        for shots in (1, 4):
            cells += split_cells(arm, 0.5 + gain + rng.normal(0, 0.015, 10), shots=shots)
    for shots in (1, 4):
        cells += split_cells("scratch", 0.5 + rng.normal(0, 0.015, 10), shots=shots)
    declared = {"arm": "a", "baseline": "scratch", "shots": 4, "metric": "accuracy"}
    rows = verdict_table(cells, declared, ["a", "c", "d", "scratch"], "scratch")
    assert [row["primary"] for row in rows] == [True] + [False] * 5
    assert (rows[0]["arm"], rows[0]["shots"]) == ("a", 4)
    assert rows[0]["p_holm"] == rows[0]["p"]
    assert [r["p_holm"] for r in rows[1:]] == pytest.approx(holm([r["p"] for r in rows[1:]]))
    for row in rows:
        assert (row["verdict"] == "undecided") == (row["p_holm"] > 0.05)


def test_three_splits_of_which_nothing_is_known_give_no_corrected_verdict():
    """Three scores that agree to the image would else be found in the far tails."""
    near = [0.600, 0.605, 0.600, 0.605, 0.600]

    def table(splits):
        cells = [*split_cells("a", near[:splits]), *split_cells("b", [0.5] * splits)]
        declared = {"arm": "a", "baseline": "b", "shots": 4}
        return verdict_table([*cells, *split_cells("c", near[:splits])], declared, "ac", "b")

    first, other = table(3)
    assert (first["verdict"], other["verdict"]) == ("helps", "undecided")
    assert (other["p"] < 0.01, other["p_family"], other["p_holm"]) == (True, None, None)
    assert "fewer than 5 splits" in other["note"]
    assert [row["verdict"] for row in table(5)] == ["helps", "helps"]
    assert table(5)[1]["note"] == ""


def test_a_declared_verdict_may_have_another_baseline():
    rng = np.random.default_rng(0)
    cells = [c for arm in "abc" for c in split_cells(arm, rng.normal(0.5, 0.1, 5))]
    declared = {"arm": "a", "baseline": "b", "shots": 4, "metric": "accuracy"}
    rows = verdict_table(cells, declared, ["a", "b"], "c")
    assert [(r["arm"], r["baseline"]) for r in rows] == [("a", "b"), ("a", "c"), ("b", "c")]


def test_image_scores_widen_the_verdict():
    rng = np.random.default_rng(0)
    cells = [*arm_cells("a", rng.normal(0.6, 0.01, (3, 5))), *arm_cells("b", [0.5] * 5)]
    a, b = rng.random(100), rng.random(100)
    images = {("a", 4): {0: a}, ("b", 4): {0: b}}
    plain = verdict_table(cells, {}, ["a"], "b")[0]
    wide = verdict_table(cells, {}, ["a"], "b", images=images)[0]
    added = (a - b).var(ddof=1) / 100
    assert wide["se"] ** 2 == pytest.approx(plain["se"] ** 2 + added)
    assert "choice of test images" in plain["note"]
    assert wide["note"] == ""
    assert wide["components"]["images"] == pytest.approx(math.sqrt(added))
    assert plain["components"]["images"] is None
    with pytest.raises(ValueError, match="must pair"):
        verdict_table(cells, {}, ["a"], "b", images={**images, ("b", 4): {0: b[:50]}})


def test_repeated_splits_share_no_more_than_their_test_images_vary():
    """The overlap correction takes the spread of test images where it is known, else all of it."""
    rng = np.random.default_rng(0)
    cells = [*split_cells("a", rng.normal(0.6, 0.05, 5)), *split_cells("b", [0.5] * 5)]
    design = design_of(cells, overlap=0.125)

    def se(size, shots=4):
        images = {
            (arm, shots): {s: size * np.random.default_rng(seed + s).random(200) for s in range(5)}
            for arm, seed in (("a", 0), ("b", 50))
        }
        own = [{**c, "shots": shots} for c in cells]
        design = design_of(own, overlap=0.125)
        return verdict_table(own, {}, ["a"], "b", design=design, images=images)[0]["se"]

    plain = verdict_table(cells, {}, ["a"], "b", design=design)[0]["se"]
    within = plain**2 / (1 / 5 + 0.125) / 5  # of the mean of five splits that shared nothing
    little = (np.random.default_rng(0).random(200) - np.random.default_rng(50).random(200)).var()
    assert se(2.5) == pytest.approx(plain)
    assert se(0.1, shots=0) == pytest.approx(plain)  # of all labels splits share most as well
    assert se(0.0) ** 2 == pytest.approx(within)
    assert se(0.1) ** 2 - within == pytest.approx(0.125 * 0.01 * little / 200, rel=0.2)


def test_designs_are_told_apart_by_the_streams():
    given = design_of(arm_cells("a", np.zeros((3, 5))) + arm_cells("b", np.zeros(5)))
    assert (given.kind, given.splits, given.draws, given.pretraining_seeds) == ("given", 1, 5, 3)
    repeated = design_of([cell("a", 0.5, split=s, pretraining=0) for s in range(4)])
    assert (repeated.kind, repeated.splits, repeated.pretraining_seeds) == ("repeated", 4, 4)


def test_bands_stay_between_nothing_and_everything():
    cells = arm_cells("a", [0.99, 1.0, 0.93])
    found = mean_interval(cells, design=design_of(cells))
    assert found.low < found.value < found.high == 1.0
    assert mean_interval([], design=design_of(cells)) is None
