"""The time of a whole command, shared out, and the plan in words before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fewlabels.core.errors import UsageError
from fewlabels.evaluation.folds import FOLDS
from fewlabels.pipeline.stages import finetune_steps, unlabelled_steps
from fewlabels.pipeline.task import Task
from fewlabels.study.arms import Arm, variants
from fewlabels.study.folding import count_encoders, images_of
from fewlabels.study.paces import Costs, backbone_of, pace_name
from fewlabels.study.plan import OWN_LABELS, Steps, Unit
from fewlabels.study.precision import precision
from fewlabels.study.settings import Settings, label_count

CLOSING = 0.08  # share of a run kept for scoring, the map, the report and the unforeseen
FITS_AT_MOST = 0.65  # share of a run that fits may take; beyond it fine-tunes are cut short
LEAST_SHARE = 0.1  # of the steps of a fine-tune; less would teach nothing
HEAD_SECONDS = 0.4  # a logistic regression on a few hundred labels


@dataclass(frozen=True, slots=True)
class Shares:
    """How the seconds of a run are shared out.

    Attributes
    ----------
    costs : Costs
        With the share of their steps that fine-tunes get.
    cell : float
        The budget of a pre-trained cell: pre-training and its longest transfer.
    """

    costs: Costs
    cell: float


def share_out(
    task: Task,
    arms: Sequence[Arm],
    units: Sequence[Unit],
    settings: Settings,
    costs: Costs,
    seconds: float,
) -> Shares:
    """Share the seconds of a run: first the fits, then every pre-trained cell alike.

    Fits that would take more than `FITS_AT_MOST` of the time are cut to that, all alike.

    Raises
    ------
    UsageError
        So little is left that nothing would be learned.
    """
    seconds *= 1 - CLOSING
    kinds = variants(arms)
    starts = {(a.method, backbone_of(a, task)) for a in kinds if a.start != "pixels"}
    pairs = [pair for pair in starts if pair[0]]
    pretrainings = count_encoders(units) * len(pairs)
    fixed = len(units) * sum(costs.extraction.get(name, 0.0) for _, name in starts)
    fits = [(arm.at(n), n) for arm in arms for n in settings.labels or (OWN_LABELS,)]
    folds = FOLDS if len(arms) > 1 else 0  # for the choice of the best
    fixed += sum(_fit_seconds(task, a, n, units, costs, folds) for a, n in fits if not a.trains)
    trained = sum(_fit_seconds(task, a, n, units, costs, folds) for a, n in fits if a.trains)
    trained += _refit_seconds(task, arms, settings, costs)
    room = FITS_AT_MOST * seconds - fixed
    if trained > room:
        costs = replace(costs, share=max(0.0, room / trained))
    trains = any(a.trains and a.method for a in kinds)
    transfers = [costs.transfer(name, trains=trains) for _, name in pairs]
    left = (seconds - fixed - costs.share * trained) / max(1, count_encoders(units))
    cell = (left + sum(transfers)) / max(1, len(pairs))
    share = cell - max(transfers, default=0.0)
    if costs.share < LEAST_SHARE or share < 1.0:
        need = (fixed + LEAST_SHARE * trained) / FITS_AT_MOST + 2.0 * pretrainings
        raise UsageError(
            "usage.budget",
            f"the budget leaves {max(0.0, share):.1f} seconds for each of {pretrainings} "
            f"pre-trainings and {costs.share:.0%} of the steps of every fine-tune",
            f"--budget {int(1.2 * need) + 30}s, fewer --seeds, or fewer --arms",
        )
    return Shares(costs, cell)


def _fit_seconds(
    task: Task, arm: Arm, shots: int, units: Sequence[Unit], costs: Costs, folds: int
) -> float:
    """Return the seconds of an arm's fits at a number of labels: cells, and folds of the choice."""
    draws = {(u.split, d) for u in units for d in u.draws}
    cells = sum(len(u.draws) for u in units) if arm.start != "scratch" else len(draws)
    count = label_count(task, shots)
    each = HEAD_SECONDS if task.pictures.size > 16 else 0.05
    if arm.trains:
        each = _steps(task, arm, count) * costs.fit(arm, task)
    return each * (cells + (folds if task.goal.can_choose(count) else 0))


def _refit_seconds(task: Task, arms: Sequence[Arm], settings: Settings, costs: Costs) -> float:
    """Return the seconds of fitting the chosen arm once more, were it the dearest."""
    shots = max(settings.labels or (OWN_LABELS,))
    most, kinds = label_count(task, shots), [arm.at(shots) for arm in arms]
    fits = [_steps(task, arm, most) * costs.fit(arm, task) for arm in kinds if arm.trains]
    return max(fits, default=HEAD_SECONDS)


def _steps(task: Task, arm: Arm, count: int) -> int:
    """Return the fixed steps of an arm's fine-tune on so many labelled images."""
    pretrained = not arm.at_full_rate
    if arm.unlabelled != "none":
        return unlabelled_steps(pretrained=pretrained)
    return finetune_steps(task, count, pretrained=pretrained)


def dry_plan(
    task: Task, arms: Sequence[Arm], units: Sequence[Unit], settings: Settings, steps: Steps
) -> dict[str, Any]:
    """Return what a comparison would do: stages, steps, seconds, disk."""
    rows: list[dict[str, Any]] = []
    total, times = 0.0, count_encoders(units)
    apart = task.dataset.folds > 0 and not units[0].shared
    for pair, count in steps.pretrain.items():
        seconds = count * steps.seconds.get(f"pretrain:{pair}", float("nan"))
        rows.append(
            {
                "stage": f"pretrain {pair}",
                "steps": count,
                "seconds": seconds,
                "note": f"{times} times, one a {'fold' if apart else 'pre-training seed'}",
            }
        )
        total += seconds * times
    for arm in arms:
        for shots in settings.labels or (OWN_LABELS,):
            rows.append(_arm_row(task, arm.at(shots), shots, units, steps))
            total += rows[-1]["seconds"]
    disk = len(steps.pretrain) * times * 8 + len(rows) * images_of(task)[1] / 1e5
    return {
        "schema": 1,
        "plan": rows,
        "seconds": total,
        "disk_mb": round(disk, 1),
        "note": precision_note(units, given=task.dataset.splits_given),
        "precision": precision(task, arms, units, settings),
    }


def _arm_row(
    task: Task, arm: Arm, shots: int, units: Sequence[Unit], steps: Steps
) -> dict[str, Any]:
    count = label_count(task, shots)
    each = steps.of(arm, count, task) if arm.trains else 0
    pace = steps.seconds.get(f"finetune:{pace_name(arm, task)}", 0.0)
    cells = sum(len(u.draws) for u in units)
    if arm.start in ("scratch", "pixels"):
        cells = len({(u.split, d) for u in units for d in u.draws})
    return {
        "stage": f"{arm.name} at {shots or 'all'} labels",
        "steps": each,
        "seconds": cells * (each * pace if arm.trains else 0.1),
        "note": f"{cells} cells" + (arm.recipe and f" of {arm.recipe}"),
    }


def precision_note(units: Sequence[Unit], *, given: bool) -> str:
    """Say before the run what it cannot see."""
    if units[0].shared and count_encoders(units) < 2:
        return "one pre-training seed: intervals will not cover the randomness of pre-training"
    if not given and len(units) < 3:
        return f"{len(units)} splits leave wide intervals: only large differences will be decided"
    if given and len(units) == 1:
        return "one pre-training seed: intervals will not cover the randomness of pre-training"
    if given and len(units) == 2:
        return "two pre-training seeds leave wide intervals where the seeds differ"
    return ""
