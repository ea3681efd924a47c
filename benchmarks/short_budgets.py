"""What tells that a pre-training was too short.

    python benchmarks/short_budgets.py

Digits, scored on validation images: encoders of few and many steps, and an
untrained one. Beside their accuracy what a comparison goes by when it names a reason, how
often the images were seen; and, what it does not use, how much of its fall the loss did in the last
quarter of the steps.
Writes ``benchmarks/short_budgets.csv``.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

import numpy as np
import torch
from record import HERE, MADE, made, replace

from fewlabels.core.types import Backbone, Method
from fewlabels.pipeline.frozen import feature_space, features, fit_head
from fewlabels.pipeline.pretraining import line_every
from fewlabels.pipeline.stages import PretrainPlan, new_backbone, pretrain_encoder
from fewlabels.pipeline.task import DataOptions, Task, open_task
from fewlabels.training.progress import Reporter

COMMAND = "python benchmarks/short_budgets.py"
METHODS = ("autoencoder", "byol")
STEPS = (5, 10, 20, 40, 80, 160, 320)
LINES = 12  # of a log: with fewer than three in a quarter its noise is not known
SEEDS, DRAWS, SHOTS = 3, 10, 4
COLUMNS = ("method", "seed", "steps", "passes", "fall", "accuracy", "untrained", *MADE)


def main() -> None:
    """Pre-train by every method with every number of steps and seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", default=METHODS)
    torch.set_num_threads(1)
    task = open_task(DataOptions("digits"), policy="auto", device="cpu", reporter=Reporter())
    for method in parser.parse_args().methods:
        for seed in range(SEEDS):
            rows = measured(task.with_split(100 + seed), method, seed)
            replace(HERE / "short_budgets.csv", COLUMNS, rows, ("method", "seed", "steps"))
            sys.stderr.write(f"{method}, seed {seed}\n")


def measured(task: Task, method: str, seed: int) -> list[dict[str, object]]:
    """Return the rows of one method and seed."""
    found = {steps: encoder(task, method, seed, steps) for steps in STEPS}
    scores = {steps: accuracy(task, one) for steps, (one, _, _) in found.items()}
    about = {
        "untrained": round(accuracy(task, new_backbone(task, "tiny", seed)), 4),
        **made(COMMAND),
    }
    rows = []
    for steps, (_, losses, seen) in found.items():
        fall = late_fall(np.array(losses))
        rows.append(
            {
                "method": method,
                "seed": seed,
                "steps": steps,
                "passes": round(seen / len(task.dataset.rows("train")), 2),
                "fall": "" if fall is None else round(fall, 3),
                "accuracy": round(scores[steps], 4),
                **about,
            }
        )
    return rows


def encoder(task: Task, method: str, seed: int, steps: int) -> tuple[Backbone, list[float], int]:
    """Return an encoder, the losses that its log would hold, and the images it saw."""
    losses: list[float] = []

    def note(_: Method, step: int, metrics: dict[str, float]) -> None:
        if step % line_every(steps) == 0 or step == steps:
            losses.append(metrics["loss"])

    built, trained = pretrain_encoder(task, PretrainPlan(method, "tiny", steps, seed), observe=note)
    return built.encoder, losses, trained.images_seen


def accuracy(task: Task, backbone: Backbone) -> float:
    """Return the mean accuracy of frozen features over draws of labels, on validation images."""
    draws = [task.dataset.visible(SHOTS, draw) for draw in range(DRAWS)]
    space = feature_space(task, backbone, np.unique(np.concatenate(draws)))
    held = task.dataset.rows("val")
    x = features(task, backbone, held)
    return float(np.mean([_hits(task, space, rows, held, x) for rows in draws]))


def late_fall(losses: np.ndarray) -> float | None:
    """Return the share of all that a loss fell which it fell in the last quarter, at least.

    What fell in all is the mean of the first twentieth of the lines less that of the last quarter,
    and late what the third quarter has above the last. Twice the standard error of the late
    part is taken off, so that noise is no fall. A straight line has 0.29; learning rates that
    end at zero leave little.

    Parameters
    ----------
    losses : ndarray
        ``(n,)`` evenly spaced over the steps.

    Returns
    -------
    float or None
        None for fewer than `LINES` losses, and where it did not fall.
    """
    count = len(losses)
    if count < LINES or not np.isfinite(losses).all():
        return None
    third, last = losses[count // 2 : 3 * count // 4], losses[3 * count // 4 :]
    whole = float(losses[: max(1, count // 20)].mean() - last.mean())
    if whole <= 0:
        return None
    error = math.hypot(_noise(third), _noise(last))
    return float((third.mean() - last.mean() - 2 * error) / whole)


def _noise(losses: np.ndarray) -> float:
    """Return the standard error of the mean of a few losses that lie along a straight line."""
    steps = np.arange(len(losses))
    rest = losses - np.polyval(np.polyfit(steps, losses, 1), steps)
    return math.sqrt(float((rest**2).sum()) / (len(losses) - 2) / len(losses))


def _hits(
    task: Task, space: object, rows: np.ndarray, held: np.ndarray, x: torch.Tensor
) -> Sequence[bool]:
    head = fit_head(space, rows, task.truth[rows], task.num_classes, "features")  # type: ignore[arg-type]
    hits: Sequence[bool] = head(x).argmax(1).numpy() == task.dataset.labels[held]
    return hits


if __name__ == "__main__":
    main()
