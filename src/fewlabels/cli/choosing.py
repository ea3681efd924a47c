"""The verb `models`: what can be started from."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import fewlabels
from fewlabels.cli import options as flag
from fewlabels.cli import output
from fewlabels.cli.job import Job


def models(  # noqa: PLR0913 - one parameter a flag
    pattern: Annotated[
        str,
        typer.Argument(metavar="NAME", show_default=False, help="A part of the name, as resnet."),
    ] = "",
    available: Annotated[
        bool, typer.Option("--available", help="Only what needs no download.")
    ] = False,
    fit: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Score how well what is here suits these images."),
    ] = None,
    starts: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="START", help="With --fit: a run or file to score too."),
    ] = None,
    backbone: Annotated[
        str,
        typer.Option(metavar="NAME", help="What a file given by --from is of, where it is silent."),
    ] = "auto",
    labels: flag.Labels = None,
    seed: flag.Seed = 0,
    image_size: flag.ImageSize = None,
    image_column: flag.ImageColumn = None,
    label_column: flag.LabelColumn = None,
    target: flag.Target = None,
    device: flag.DeviceFlag = flag.Device.auto,
    as_json: flag.Json = False,
    debug: flag.Debug = False,
) -> Job:
    """List what can be started from, here or published.

    With size, cost, published accuracy and what is on this machine; nothing is downloaded. With
    --fit, starts are scored on the visible labels by LogME and by leave-one-out nearest
    neighbours, the best first, and those that suit badly are named.
    """

    def call() -> Any:
        data = None
        if fit is not None:
            data = fewlabels.DataOptions(fit, image_size, image_column, label_column, target)
        return fewlabels.models(
            pattern,
            available=available,
            fit=data,
            starts=starts or [],
            backbone=backbone,
            labels=labels,
            seed=seed,
            device=device.value,
        )

    return Job(call, output.show_models, as_json)
