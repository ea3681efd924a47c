"""The verbs that compare: run, compare, demo, and the page they leave."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any

import typer

import fewlabels
from fewlabels.cli import options as flag
from fewlabels.cli import output
from fewlabels.cli.job import Job, counts_list, given, names_list, typed
from fewlabels.core.errors import UsageError


def run(  # noqa: PLR0913 - one parameter a flag
    data: flag.Data,
    labels: flag.Labels = None,
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="Of the whole command, files to report: 90s, 10m.")
    ] = "10m",
    recipe: flag.Recipe = None,
    arms: flag.Arms = None,
    baseline: flag.Baseline = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Draws of labels. Default: 3; with --recipe 1."),
    ] = None,
    seed: flag.Seed = 0,
    metric: flag.Metric = None,
    imbalance: flag.Imbalance = "none",
    policy: flag.Policy = "auto",
    backbone: flag.Backbone = "auto",
    image_size: flag.ImageSize = None,
    image_column: flag.ImageColumn = None,
    label_column: flag.LabelColumn = None,
    target: flag.Target = None,
    group_by: flag.GroupBy = None,
    leaks: flag.LeaksFlag = flag.Leaks.drop,
    verify: flag.Verify = False,
    device: flag.DeviceFlag = flag.Device.auto,
    out: flag.Out = None,
    resume: flag.ResumeFlag = flag.Resume.auto,
    dry_run: flag.DryRun = False,
    config: flag.Config = None,
    as_json: flag.Json = False,
    debug: flag.Debug = False,
) -> Job:
    """Do the main job: from images to verdict, classifier and report.

    Looks at the data, pre-trains on all training images, transfers to the few labels, compares
    with training from scratch and with plain baselines on held-out images, and writes one HTML
    page. The classifier is chosen within the label budget, never on test images.

    With --recipe auto nothing competes: rules choose how one classifier is made, by the images,
    the labels and the budget.
    """

    def call() -> Any:
        return fewlabels.run(
            fewlabels.DataOptions(
                data, image_size, image_column, label_column, target, group_by, leaks.value, verify
            ),
            labels=labels,
            budget=budget,
            seed=seed,
            imbalance=imbalance,
            policy=policy,
            backbone=backbone,
            device=device.value,
            out=out,
            dry_run=dry_run,
            command=typed(),
            **given(
                recipe=recipe,
                arms=names_list(arms),
                baseline=baseline,
                seeds=seeds,
                metric=metric,
                resume=flag.asked(resume),
            ),
        )

    return Job(call, output.show_comparison, as_json)


def compare(  # noqa: PLR0913 - one parameter a flag
    data: flag.Data,
    arms: flag.Arms = None,
    baseline: flag.Baseline = None,
    labels: flag.LabelsList = None,
    seeds: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Draws of labels; of a cross-validation its repeats."
        ),
    ] = 5,
    pretraining_seeds: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Pre-trainings of each method, each on a split of its own if none was given.",
        ),
    ] = 2,
    folds: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            show_default=False,
            help="Folds of a cross-validation over the labelled images; 0 for random splits. "
            "Default: 5 where the labels are too few for a test split and none was given.",
        ),
    ] = None,
    seed: flag.Seed = 0,
    budget: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Of one cell: pre-training, which is shared, and transfer. As 90s, 5m, 1h, "
            "2000steps, 20epochs or 2000000images.",
        ),
    ] = "60s",
    metric: flag.Metric = None,
    imbalance: flag.Imbalance = "none",
    policy: flag.Policy = "auto",
    backbone: flag.Backbone = "auto",
    image_size: flag.ImageSize = None,
    image_column: flag.ImageColumn = None,
    label_column: flag.LabelColumn = None,
    target: flag.Target = None,
    group_by: flag.GroupBy = None,
    leaks: flag.LeaksFlag = flag.Leaks.drop,
    verify: flag.Verify = False,
    device: flag.DeviceFlag = flag.Device.auto,
    out: flag.Out = None,
    resume: flag.ResumeFlag = flag.Resume.auto,
    dry_run: flag.DryRun = False,
    workers: flag.Workers = 1,
    list_cells: flag.ListCells = False,
    cell: flag.Cell = None,
    collect: flag.Collect = False,
    also: flag.Also = None,
    config: flag.Config = None,
    layout: Annotated[
        flag.TableFormat | None,
        typer.Option(
            "--format",
            show_default=False,
            help="Print the table for a paper instead: latex (with booktabs), markdown or csv; of "
            "a comparison that is done as well.",
        ),
    ] = None,
    as_json: flag.Json = False,
    debug: flag.Debug = False,
) -> Job:
    """Let arms compete and say which differences are real.

    Arms see the same split and the same labels, draw by draw, and have the same budget. The
    primary verdict is declared before the run; the others are corrected for their number. A
    comparison that was interrupted goes on with the cells that are missing.

    Many processes and machines may share one: --list-cells, then --cell ID in each, then
    --collect; or --workers N here.
    """
    if layout and (as_json or list_cells or cell):
        message = "--format prints a table, and nothing beside it or in its place"
        raise UsageError("usage.format", message, "without --json, --list-cells and --cell")

    def call() -> Any:
        return fewlabels.compare(
            fewlabels.DataOptions(
                data, image_size, image_column, label_column, target, group_by, leaks.value, verify
            ),
            labels=counts_list(labels),
            seeds=seeds,
            pretraining_seeds=pretraining_seeds,
            seed=seed,
            budget=budget,
            imbalance=imbalance,
            policy=policy,
            backbone=backbone,
            device=device.value,
            out=out,
            dry_run=dry_run,
            command=typed(),
            **given(
                arms=names_list(arms),
                baseline=baseline,
                metric=metric,
                folds=folds,
                resume=flag.asked(resume),
                workers=workers if workers > 1 else None,
                list_cells=list_cells or None,
                cells=names_list(cell, "cell", "ID,ID"),
                collect=collect or None,
                also=also or None,
            ),
        )

    if layout:
        show = functools.partial(output.show_paper_table, form=layout.value)
        return Job(call, show, as_json)
    if list_cells:
        return Job(call, output.show_names, as_json)
    return Job(call, output.show_cells if cell else output.show_comparison, as_json)


def demo(
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...", help="Labels per class that stay visible. Default: 1,4,25."
        ),
    ] = None,
    seed: flag.Seed = 0,
    out: flag.Out = None,
    dry_run: flag.DryRun = False,
    as_json: flag.Json = False,
    debug: flag.Debug = False,
) -> Job:
    """Do the main job on the built-in handwritten digits.

    1,797 real images of 8x8 pixels; needs no files and no network.
    """

    def call() -> Any:
        settings = given(labels=counts_list(labels), dry_run=dry_run or None)
        return fewlabels.demo(out=out, seed=seed, **settings)

    return Job(call, output.show_comparison, as_json)


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", show_default=False, help="A run or a comparison.")
    ],
    as_json: flag.Json = False,
    debug: flag.Debug = False,
) -> Job:
    """Write the HTML page of a run or a comparison.

    One file, report.html in the folder, made from what lies there; nothing is trained.
    """

    def call() -> Any:
        return {"schema": 1, "report": str(fewlabels.report(folder))}

    return Job(call, output.show_report, as_json)
