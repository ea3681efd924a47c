"""The verbs for what is left behind: predict with a model, export it, clear the cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import fewlabels
from fewlabels.cli import options as flag
from fewlabels.cli import output
from fewlabels.cli.job import Job
from fewlabels.core.errors import UsageError


def predict(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            show_default=False,
            help="A finished run folder; or published weights with their own classes: a timm name, "
            "torchvision:NAME, a file of weights or a folder of timm's.",
        ),
    ],
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES...", show_default=False, help="Images, or folders of images."
        ),
    ],
    layout: Annotated[flag.Format, typer.Option("--format", help="How to print them.")] = (
        flag.Format.table
    ),
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write them to this file, as CSV.")
    ] = None,
    backbone: Annotated[
        str, typer.Option(metavar="NAME", help="What a file of weights is of.")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    debug: flag.Debug = False,
) -> Job:
    """Name the class, or the number, of images.

    The preprocessing is the one stored beside the weights. Give files, folders or both.
    Published weights name the classes they were trained on, mostly ImageNet's 1,000.
    """
    chosen = flag.Format.json if as_json else layout

    def call() -> Any:
        rows = _predict(run, files, backbone)
        if out is not None:
            _keep(rows, out, files)
        return rows

    show = output.show_csv if chosen is flag.Format.csv else output.show_predictions
    return Job(call, show, chosen is flag.Format.json)


def _predict(run: Path, files: Sequence[Path], backbone: str) -> list[dict[str, Any]]:
    from fewlabels.pipeline.predict import predict_table

    asked = {} if backbone == "auto" else {"backbone": backbone}
    return predict_table(run, list(files), **asked)


def _keep(rows: list[dict[str, Any]], out: Path, files: Sequence[Path]) -> None:
    from fewlabels.results.files import write_atomic

    if out.is_dir() or any(out.resolve() == file.resolve() for file in files):
        message = f"--out {out} is a folder or one of the images"
        raise UsageError("usage.out", message, "--out predictions.csv")
    write_atomic(out, output.predictions_csv(rows).encode("utf-8", "backslashreplace"))


def export(
    run: flag.Run,
    layout: Annotated[
        flag.ExportFormat,
        typer.Option("--format", help="timm: a folder for timm.create_model('local-dir:DIR')."),
    ] = flag.ExportFormat.timm,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A new folder. Default: runs/export-<run>-<number>."),
    ] = None,
    as_json: flag.Json = False,
    debug: flag.Debug = False,
) -> Job:
    """Write a model so that others load it without fewlabels.

    It is loaded back and compared with ours on random images; the largest difference is told.
    """

    def call() -> Any:
        return fewlabels.export(run, format=layout.value, out=out)

    return Job(call, output.show_export, as_json)


def cache(
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove decoded and unpacked images; made again.")
    ] = False,
    as_json: flag.Json = False,
    debug: flag.Debug = False,
) -> Job:
    """Show, or clear, the cache of decoded images.

    The place is FEWLABELS_CACHE if that is set. The count of looks at test sets and the data sets
    downloaded by name lie there too and are never cleared.
    """

    def call() -> Any:
        from fewlabels.core.cache import cache_folder
        from fewlabels.data.cache import cache_size, clear_cache
        from fewlabels.data.downloads import downloads_size

        freed = clear_cache() if clear else 0
        sizes = {"bytes": cache_size(), "downloads": downloads_size()}
        return {"schema": 1, "path": str(cache_folder()), **sizes, "freed": freed}

    return Job(call, output.show_cache, as_json)
