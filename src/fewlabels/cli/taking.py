"""The verbs for what is left behind: predict with a model, clear the cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fewlabels.cli import options as flag
from fewlabels.cli import output
from fewlabels.cli.job import Job
from fewlabels.core.errors import UsageError


def predict(
    run: flag.Run,
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
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    debug: flag.Debug = False,
) -> Job:
    """Name the class of images.

    The preprocessing is the one stored beside the weights. Give files, folders or both.
    """
    chosen = flag.Format.json if as_json else layout

    def call() -> Any:
        rows = _predict(run, files)
        if out is not None:
            _keep(rows, out, files)
        return rows

    show = output.show_csv if chosen is flag.Format.csv else output.show_predictions
    return Job(call, show, chosen is flag.Format.json)


def _predict(run: Path, files: Sequence[Path]) -> list[dict[str, Any]]:
    from fewlabels.pipeline.predict import predict_table

    return predict_table(run, list(files))


def _keep(rows: list[dict[str, Any]], out: Path, files: Sequence[Path]) -> None:
    from fewlabels.results.files import write_atomic

    if out.is_dir() or any(out.resolve() == file.resolve() for file in files):
        message = f"--out {out} is a folder or one of the images"
        raise UsageError("usage.out", message, "--out predictions.csv")
    write_atomic(out, output.predictions_csv(rows).encode("utf-8", "backslashreplace"))


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
