"""The arm ``auto``: what it stands for is found out with the plan, and kept in it.

The rules ask how many steps the budget leaves. So the plan is made as if ``auto`` were the recipe
that pre-trains and, if the budget does not allow that, as if it trained from scratch. What the
rules then choose is written into ``plan.json``: from there on every process and every machine that
shares the comparison has the same arm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from fewlabels.core.errors import UsageError
from fewlabels.pipeline.task import Task
from fewlabels.study.arms import AUTO, Arm
from fewlabels.study.encoders import pretraining_steps
from fewlabels.study.parsing import parse_arm
from fewlabels.study.plan import OWN_LABELS, Steps
from fewlabels.study.recipes import PRETRAINED, UNTRAINED, Conditions, choose, uncovered
from fewlabels.study.settings import Settings, label_count, with_backbone, with_imbalance
from fewlabels.training.progress import Reporter

Settle = Callable[[Sequence[Arm]], Steps]


def settle_auto(
    task: Task, arms: Sequence[Arm], settings: Settings, settle: Settle, reporter: Reporter
) -> Steps:
    """Make a plan, with what ``auto`` stands for at each number of labels where it takes part.

    Parameters
    ----------
    settle : callable
        Makes the plan of some arms.

    Returns
    -------
    Steps
        With ``recipes``; give them to `with_recipes`.

    Raises
    ------
    UsageError
        The budget is too small whatever ``auto`` stands for.
    """
    if all(arm.start != AUTO for arm in arms):
        return settle(arms)
    counts = settings.labels or (OWN_LABELS,)
    plans: dict[tuple[str, ...], Steps | None] = {}

    def plan(recipes: Sequence[str]) -> Steps:
        table = {str(n): {"recipe": name} for n, name in zip(counts, recipes, strict=True)}
        return settle(with_recipes(arms, table, settings))

    hoped = plans[(PRETRAINED,) * len(counts)] = _affordable(plan, [PRETRAINED] * len(counts))
    known = [conditions(task, settings, shots, hoped, hoped) for shots in counts]
    if any(choose(one).recipe != PRETRAINED for one in known):
        plain = plans[(UNTRAINED,) * len(counts)] = _affordable(plan, [UNTRAINED] * len(counts))
        known = [conditions(task, settings, shots, hoped, plain) for shots in counts]
    names = tuple(choose(one).recipe for one in known)
    steps = plans.get(names) or plan(names)
    rows = {str(shots): _row(one) for shots, one in zip(counts, known, strict=True)}
    for shots, row in zip(counts, rows.values(), strict=True):
        reporter.say(f"auto at {task.goal.said(shots)}: {said(row)}")
    return replace(steps, recipes=rows)


def with_recipes(
    arms: Sequence[Arm], recipes: Mapping[str, Mapping[str, Any]], settings: Settings
) -> list[Arm]:
    """Return the arms with what ``auto`` stands for, as the plan has it.

    Parameters
    ----------
    recipes : mapping
        Of `Steps`.
    """
    if not recipes:
        return list(arms)
    by_shots = {int(shots): _arm(str(row["recipe"]), settings) for shots, row in recipes.items()}
    most = replace(by_shots[max(by_shots)], by_shots=by_shots)
    return [most if arm.start == AUTO else arm for arm in arms]


def conditions(
    task: Task, settings: Settings, shots: int, hoped: Steps | None, plain: Steps | None
) -> Conditions:
    """Return what the rules go by at a number of labels.

    Parameters
    ----------
    hoped, plain : Steps or None
        The plans with pre-training and from scratch; None for one that the budget does not allow.
    """
    count = label_count(task, shots)
    return Conditions(
        size=task.pictures.size,
        channels=task.pictures.channels,
        images=len(task.dataset.pretraining_rows()),
        labels=count,
        per_class=max(1, count // task.num_classes),
        device=task.device.type,
        pretrain_steps=0
        if hoped is None
        else pretraining_steps(_arm(PRETRAINED, settings), task, hoped),
        scratch_steps=0 if plain is None else plain.of(_arm(UNTRAINED, settings), count, task),
    )


def said(row: Mapping[str, Any]) -> str:
    """Return a choice and its reason in words.

    Examples
    --------
    >>> said({"recipe": "scratch", "reason": "too little time", "uncovered": ""})
    'scratch: too little time'
    """
    return f"{row['recipe']}: {row['reason']}" + (row["uncovered"] and f" ({row['uncovered']})")


def told(recipes: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the choices of a plan as results have them, the fewest labels first."""
    return [{"shots": int(shots), **row} for shots, row in recipes.items()]


def _row(known: Conditions) -> dict[str, Any]:
    rule = choose(known)
    return {
        "recipe": rule.recipe,
        "reason": rule.reason,
        "evidence": list(rule.evidence),
        "uncovered": uncovered(known),
        "conditions": asdict(known),
    }


def _arm(recipe: str, settings: Settings) -> Arm:
    """Return the arm of a recipe under the settings of the comparison, by the name of auto."""
    arm = with_imbalance(parse_arm(recipe), settings.imbalance)
    if settings.backbone != "auto":
        arm = with_backbone(arm, settings.backbone)
    return replace(arm, name=AUTO, recipe=recipe)


def _affordable(plan: Callable[[Sequence[str]], Steps], recipes: Sequence[str]) -> Steps | None:
    """Return the plan, or None where the budget does not allow it."""
    try:
        return plan(recipes)
    except UsageError as error:
        if error.code != "usage.budget":
            raise
        return None
