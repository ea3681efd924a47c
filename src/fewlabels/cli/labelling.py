"""The verbs about labels: which images to label next, which labels to doubt, and a study."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import fewlabels
from fewlabels.cli import options as flag
from fewlabels.cli import output
from fewlabels.cli.job import Job, counts_list, given, names_list, typed


def suggest(
    run: flag.Run,
    count: Annotated[int, typer.Option(min=1, metavar="N", help="How many.")] = 20,
    strategy: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="coverage, typicality, spread_margin, margin, badge, coreset or uniform; auto: "
            "coverage first, spread_margin from 25 labels per class on.",
        ),
    ] = "auto",
    seed: flag.Seed = 0,
    data: flag.MovedData = None,
    device: flag.DeviceFlag = flag.Device.auto,
    as_json: flag.Json = False,
    debug: flag.Debug = False,
) -> Job:
    """Say which images to label next, and why.

    Picks unlabelled training images by the features of the run's encoder: while labels are few,
    images that stand for many others; later, images that the labels leave in doubt. Works without
    any label. Never suggests copies, and never images of val or test. A table and a picture of the
    images go into the run folder.
    """

    def call() -> Any:
        return fewlabels.suggest(
            run, count=count, strategy=strategy, seed=seed, device=device.value, **given(data=data)
        )

    return Job(call, output.show_suggestions, as_json)


def suspects(
    run: flag.Run,
    seed: flag.Seed = 0,
    data: flag.MovedData = None,
    device: flag.DeviceFlag = flag.Device.auto,
    as_json: flag.Json = False,
    debug: flag.Debug = False,
) -> Job:
    """Say which labels are probably wrong, the most doubtful first.

    Every label that the run may read is judged by small models on the features of the run's
    encoder, fitted on other labels alone. Best with an encoder of 'fewlabels pretrain', which has
    learned from no label. A table and a picture of the images go into the run folder; no label is
    changed.
    """

    def call() -> Any:
        return fewlabels.suspects(run, seed=seed, device=device.value, **given(data=data))

    return Job(call, output.show_suspects, as_json)


def label(  # noqa: PLR0913 - one parameter a flag
    data: flag.Data,
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="START",
            help="Whose features: a method to pre-train by, pixels, random, a run folder, or "
            "published weights.",
        ),
    ] = "simclr",
    arms: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Strategies of 'fewlabels suggest', class_balanced (which knows the labels) or "
            "auto. Default: all but auto.",
        ),
    ] = None,
    baseline: Annotated[str, typer.Option(metavar="A", help="The one to beat.")] = "uniform",
    labels: Annotated[
        str, typer.Option(metavar="N,N,...", help="Budgets: labels in all, not per class.")
    ] = "10,40",
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Draws of what is drawn.")] = 5,
    pretraining_seeds: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Pre-trainings, each on a split of its own if none was given.",
        ),
    ] = 2,
    seed: flag.Seed = 0,
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="Of a pre-training: 90s, 5m, 2000steps, 20epochs.")
    ] = "60s",
    metric: flag.Metric = None,
    policy: flag.Policy = "auto",
    backbone: flag.Backbone = "auto",
    image_size: flag.ImageSize = None,
    image_column: flag.ImageColumn = None,
    label_column: flag.LabelColumn = None,
    group_by: flag.GroupBy = None,
    leaks: flag.LeaksFlag = flag.Leaks.drop,
    verify: flag.Verify = False,
    device: flag.DeviceFlag = flag.Device.auto,
    out: flag.Out = None,
    resume: flag.ResumeFlag = flag.Resume.auto,
    config: flag.Config = None,
    as_json: flag.Json = False,
    debug: flag.Debug = False,
) -> Job:
    """Simulate labelling, and say which strategies beat labelling at random.

    For data whose labels are known. Every strategy picks training images by the same frozen
    features, sees their labels, and a small model learned from them is scored on test images; what
    is of a class that was never picked counts as an error. Budgets are labels in all.
    """

    def call() -> Any:
        return fewlabels.label_study(
            fewlabels.DataOptions(
                data, image_size, image_column, label_column, None, group_by, leaks.value, verify
            ),
            start=start,
            baseline=baseline,
            labels=counts_list(labels, example="10,40"),
            seeds=seeds,
            pretraining_seeds=pretraining_seeds,
            seed=seed,
            budget=budget,
            policy=policy,
            backbone=backbone,
            device=device.value,
            out=out,
            command=typed(),
            **given(
                arms=names_list(arms, example="coverage,uniform"),
                metric=metric,
                resume=flag.asked(resume),
            ),
        )

    return Job(call, output.show_comparison, as_json)
