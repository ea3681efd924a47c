"""The verb `compare`: arms over shots and seeds, and which differences are real."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewlabels.core.errors import UsageError
from fewlabels.pipeline.task import DataOptions
from fewlabels.study.arms import default_arms
from fewlabels.study.settings import Settings, metric_of
from fewlabels.study.sharing import Request, collect_cells, compute_cells, do_all, list_plan
from fewlabels.training.durations import parse_duration
from fewlabels.training.progress import Reporter


def compare(  # noqa: PLR0913 - flat settings, as the command line gives them
    options: DataOptions,
    *,
    arms: Sequence[str] | None = None,
    baseline: str = "scratch",
    labels: Sequence[int] | None = None,
    seeds: int = 5,
    pretraining_seeds: int = 2,
    seed: int = 0,
    budget: str = "60s",
    metric: str | None = None,
    imbalance: str = "none",
    policy: str = "auto",
    backbone: str = "auto",
    device: str = "auto",
    select: str = "first",
    folds: int | None = None,
    out: Path | None = None,
    resume: str = "auto",
    dry_run: bool = False,
    workers: int = 1,
    list_cells: bool = False,
    cells: Sequence[str] = (),
    collect: bool = False,
    also: Sequence[Path] = (),
    command: str = "",
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Compare arms over shots and seeds, and say which differences are real.

    Parameters
    ----------
    options : DataOptions
        The data.
    arms : sequence of str, optional
        ``scratch``, ``pixels``, ``random``, ``method[:backbone]+transfer``, or a run folder or
        published weights with a transfer, as in ``runs/source+features``; ``mean`` where a
        number is predicted.
    baseline : str
        The arm all others are judged against.
    labels : sequence of int, optional
        Labels per class (for numbers, in all) that stay visible; by default the labels there are.
    seeds : int
        Draws of labels; in a cross-validation its repeats, each with a draw of its own.
    pretraining_seeds : int
        Pre-trainings of each method; where the data came without a test split, each has a
        random split of its own, and the draws are dealt out among them.
    seed : int
        The first of all these seeds.
    budget : str
        Of one cell: pre-training, which is shared, and transfer; in seconds, steps, epochs or
        images seen.
    metric : str, optional
        ``accuracy`` (the default), ``balanced_accuracy``, ``recall_macro``, ``f1_macro`` or
        ``nll``; for numbers ``mse`` (the default), ``mae`` or ``r2``.
    imbalance : str
        What every arm does about classes of unequal size, where it knows how: see
        `fewlabels.transfer.imbalance`.
    policy, backbone, device : str
        Augmentation, network and device; ``auto`` chooses.
    select : {"first", "all", "none"}
        Choose the best arm on the first draw of labels, on every one, or not at all.
    folds : int, optional
        Of a repeated cross-validation over the labelled images; 0 for random splits instead. By
        default 5 where the data came without a test split and a random one would be too small.
    out : Path, optional
        The folder; an interrupted comparison there goes on, a finished one is returned.
    resume : {"auto", "never"}
        ``never`` refuses a folder that holds an unfinished comparison.
    dry_run : bool
        Return the plan and write nothing.
    workers : int
        Processes of this machine that share the cells.
    list_cells : bool
        Settle the plan in the folder and return the cells by name; compute nothing.
    cells : sequence of str
        Compute these cells of a folder with a plan, and the encoders they need; any number of
        processes may do so at once.
    collect : bool
        Sum up the cells that are there and train nothing.
    also : sequence of Path
        With `collect`, folders whose cells of the same plan are taken in first.
    command : str
        The command to put into the report.
    reporter : Reporter, optional

    Returns
    -------
    dict
        ``comparison.json``, see ``docs/files.md``; with `list_cells` and `cells` the cells by
        name, see ``docs/compare.md``.

    Raises
    ------
    FewlabelsError
        For data or settings that cannot be compared, a folder in use, a full disk.
    """
    reporter = reporter or Reporter()
    settings = Settings(
        tuple(arms or default_arms(options.target)),
        baseline,
        tuple(sorted(set(labels))) if labels else None,
        seeds,
        pretraining_seeds,
        seed,
        budget,
        metric_of(metric, options.target),
        policy,
        backbone,
        device,
        select,
        imbalance,
        folds,
    )
    parse_duration(budget)
    request = Request(options, settings, out and Path(out), resume, command, reporter)
    ways = {"list_cells": list_cells, "cell": cells, "collect": collect, "dry_run": dry_run}
    _refuse_mixed([name for name, asked in ways.items() if asked], workers, also)
    if list_cells:
        return list_plan(request)
    if cells:
        return compute_cells(request, cells)
    if collect:
        return collect_cells(request, [Path(other) for other in also])
    return do_all(request, dry_run=dry_run, workers=workers)


def _refuse_mixed(ways: Sequence[str], workers: int, also: Sequence[Path]) -> None:
    if workers < 1:
        raise UsageError("usage.workers", f"--workers {workers}: at least one is needed")
    ways = [*ways, *(["workers"] if workers > 1 and ways != ["dry_run"] else [])]
    if len(ways) > 1:
        named = " and ".join(f"--{way.replace('_', '-')}" for way in ways)
        raise UsageError("usage.ways", f"{named} are different things to do", "one of them")
    if also and ways != ["collect"]:
        raise UsageError("usage.also", "--also takes cells in while collecting", "--collect")
