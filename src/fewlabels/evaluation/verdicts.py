"""Does one arm beat another: paired differences, intervals, verdicts.

What a cell is, how cells are paired and how their mean varies: `cells`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from scipy import special

from fewlabels.evaluation.cells import (
    Cell,
    Design,
    SplitImages,
    design_of,
    model_mean,
    pair_scores,
    paired,
    repeats_of,
    select,
    shots_of,
)
from fewlabels.evaluation.components import Components, Repeats
from fewlabels.evaluation.family import adjust, word
from fewlabels.evaluation.intervals import FEWEST, Estimate
from fewlabels.evaluation.metrics import LOWER_IS_BETTER, RANGES
from fewlabels.evaluation.variances import ALPHA

Images = Mapping[tuple[str, int], SplitImages]
"""Image scores by ``(arm, shots)``, and then by split."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A paired comparison of two arms.

    Attributes
    ----------
    difference : float
        Positive where the arm is better, also for metrics where less is better.
    low, high : float
        Interval at 95 %.
    p : float
        Two-sided, of this verdict alone.
    p_family : float
        For one verdict among many, which needs the far tails (see `variances.reach`); never
        below `p`; nan where there are too few splits for one (`intervals.FEWEST`).
    verdict : {"helps", "hurts", "undecided"}
    detectable : float
        The smallest true difference this design finds with 80 % power.
    se, df : float
    n : int
        Pairs (one split) or splits (repeated splits).
    note : str
        What the interval does not cover.
    components : Components
        Standard deviations of the paired difference, by source.
    repeats : Repeats
        What was repeated, and how often.

    Notes
    -----
    nan stands for what the cells cannot tell; `row` turns it into None.
    """

    difference: float
    low: float
    high: float
    p: float
    p_family: float
    verdict: Literal["helps", "hurts", "undecided"]
    detectable: float
    se: float
    df: float
    n: int
    note: str
    components: Components
    repeats: Repeats

    def row(self) -> dict[str, Any]:
        """Return the fields as JSON takes them: None for what is not a number."""
        return nulls(asdict(self))


def nulls(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row, and the rows in it, with None for what is not a finite number."""
    out: dict[str, Any] = {}
    for key, value in row.items():
        unknown = isinstance(value, float) and not math.isfinite(value)
        out[key] = nulls(value) if isinstance(value, dict) else None if unknown else value
    return out


def _judge(found: Estimate, repeats: Repeats, sign: int, alpha: float) -> Verdict:
    """Return the verdict on an estimated difference."""
    value = sign * found.value if found.value else 0.0
    low, high = sorted((sign * found.low, sign * found.high))
    p, note = math.nan, found.note
    if found.se > 0:
        p = float(2 * special.stdtr(found.df, -abs(found.value) / found.se))
    elif found.se == 0 and value == 0:
        p = 1.0
    elif found.se == 0:
        low = high = math.nan
        note = "; ".join(filter(None, [note, "the pairs do not vary: no interval"]))
    if math.isnan(found.sure_p) and not math.isnan(p):
        few = f"fewer than {FEWEST} splits: too few for a corrected verdict"
        note = "; ".join(filter(None, [note, few]))
    return Verdict(
        difference=value,
        low=low,
        high=high,
        p=p,
        p_family=math.nan if math.isnan(found.sure_p) else max(p, found.sure_p),
        verdict=word(value, p, alpha),
        detectable=found.detectable if found.se > 0 else math.nan,
        se=found.se,
        df=found.df,
        n=found.n,
        note=note,
        components=found.components,
        repeats=repeats,
    )


def compare_arms(
    cells_a: Sequence[Cell],
    cells_b: Sequence[Cell],
    *,
    design: Design,
    metric: str = "accuracy",
    image_differences: SplitImages | None = None,
    alpha: float = ALPHA,
) -> Verdict:
    """Return the paired verdict of arm a against arm b at one number of shots.

    Parameters
    ----------
    cells_a, cells_b : sequence of dict
        Cells of the two arms without failures, as `select` returns them.
    design : Design
        From `design_of` on all cells.
    metric : str
        Key of the score in a cell.
    image_differences : mapping, optional
        Differences a - b of `metrics.image_scores` for each test image, averaged over the
        cells, by split. Without them the interval of one split speaks of these test images
        only, and that of repeated splits takes all of the spread as shared.
    alpha : float
        Two-sided error rate.

    Returns
    -------
    Verdict
        Undecided, with nan for the interval, where fewer than two pairs exist.
    """
    sign = -1 if metric in LOWER_IS_BETTER else 1
    pairs = paired(pair_scores(cells_a, metric), pair_scores(cells_b, metric))
    found = model_mean(pairs, design, images=image_differences, alpha=alpha)
    if found is None:
        nan = math.nan
        why, nothing = "no paired cells", (Components(), Repeats(0, 0, 0))
        return Verdict(nan, nan, nan, nan, nan, "undecided", nan, nan, nan, 0, why, *nothing)
    return _judge(found, repeats_of(pairs, folds=design.folds), sign, alpha)


def mean_interval(
    cells: Sequence[Cell],
    *,
    design: Design,
    metric: str = "accuracy",
    image_scores: SplitImages | None = None,
    alpha: float = ALPHA,
) -> Estimate | None:
    """Return the mean score of one arm at one number of shots, as verdicts model it.

    The interval is cut where the metric cannot go.

    Parameters
    ----------
    cells : sequence of dict
        As `select` returns them.
    image_scores : mapping, optional
        `metrics.image_scores` averaged over the cells, by split.

    Returns
    -------
    Estimate or None
        None without a cell.
    """
    found = model_mean(pair_scores(cells, metric), design, images=image_scores, alpha=alpha)
    if found is None or metric not in RANGES or math.isnan(found.se):
        return found
    least, most = RANGES[metric]
    return replace(found, low=max(least, found.low), high=min(most, found.high))


def _image_pair(images: Images | None, a: str, b: str, shots: int) -> SplitImages | None:
    """Return the per-image differences of two arms in the splits where both are known."""
    left, right = ((images or {}).get((arm, shots), {}) for arm in (a, b))
    both = [split for split in left if split in right]
    for split in both:
        if left[split].shape != right[split].shape:
            shapes = f"{a} {left[split].shape} and {b} {right[split].shape}"
            raise ValueError(f"image scores of {shapes} must pair")
    return {split: left[split] - right[split] for split in both} or None


def verdict_table(
    cells: Sequence[Cell],
    declared: Mapping[str, Any],
    arms: Sequence[str],
    baseline: str,
    *,
    design: Design | None = None,
    images: Images | None = None,
    alpha: float = ALPHA,
) -> list[dict[str, Any]]:
    """Return the verdict of every arm against the baseline at every number of shots.

    The comparison declared before the run stands on its own; all others form
    one family and are judged by Holm's adjusted p-value, so their error rate
    together is `alpha`. Their intervals are not adjusted: one that excludes
    zero can go with "undecided".

    Parameters
    ----------
    cells : sequence of dict
        All cells of the comparison.
    declared : dict
        ``arm``, ``baseline``, ``shots`` and ``metric``; empty if nothing was
        declared.
    arms : sequence of str
    baseline : str
    design : Design, optional
        By default read off the cells.
    images : mapping, optional
        ``(n_test,)`` image scores averaged over the cells, by ``(arm, shots)`` and split.

    Returns
    -------
    list of dict
        ``arm``, ``baseline``, ``shots``, ``metric``, ``primary``, the fields of
        `Verdict`, and those of `adjust`; the primary row comes first.
    """
    metric = str(declared.get("metric", "accuracy"))
    design = design or design_of(cells)
    first = tuple(declared.get(k) for k in ("arm", "baseline", "shots"))
    pairs = [(arm, baseline, s) for arm in arms if arm != baseline for s in shots_of(cells, arm)]
    ordered = ([first] if declared else []) + [pair for pair in pairs if pair != first]
    found = [verdict_row(cells, p, metric, design, images, alpha) for p in ordered]
    rows = [{**row, "primary": row_of == first} for row, row_of in zip(found, ordered, strict=True)]
    return adjust(rows, alpha)


def verdict_row(
    cells: Sequence[Cell],
    pair: tuple[Any, ...],
    metric: str,
    design: Design,
    images: Images | None,
    alpha: float = ALPHA,
) -> dict[str, Any]:
    """Return one row of `verdict_table`, not adjusted.

    Parameters
    ----------
    pair : tuple
        ``(arm, baseline, shots)``.
    """
    arm, baseline, shots = pair
    verdict = compare_arms(
        select(cells, arm, shots, metric),
        select(cells, baseline, shots, metric),
        design=design,
        metric=metric,
        image_differences=_image_pair(images, arm, baseline, shots),
        alpha=alpha,
    )
    row = {"arm": arm, "baseline": baseline, "shots": shots, "metric": metric}
    return {**row, **verdict.row()}
