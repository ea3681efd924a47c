"""The verbs of single stages; each but `inspect` has a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewlabels.pipeline.evaluate import evaluate
from fewlabels.pipeline.explain import explain
from fewlabels.pipeline.finetune import finetune
from fewlabels.pipeline.folders import health_tables
from fewlabels.pipeline.pretrain import pretrain
from fewlabels.pipeline.task import DataOptions, open_data
from fewlabels.results.files import write_atomic
from fewlabels.results.schema import validate
from fewlabels.training.progress import Reporter

__all__ = ["evaluate", "explain", "finetune", "inspect", "pretrain"]


def inspect(
    options: DataOptions, *, out: Path | None = None, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Say what is in a data set; nothing is trained and no file of the user's is changed.

    Parameters
    ----------
    options : DataOptions
        The data.
    out : Path, optional
        A folder for ``quarantine.csv`` and ``leaks.csv``, where there is anything in them.
    reporter : Reporter, optional

    Returns
    -------
    dict
        ``images``, ``labelled``, ``unlabelled``, ``classes``, ``splits``, ``unreadable``,
        ``quarantine``, ``duplicates``, ``leaks``, ``label_conflicts``, ``imbalance``,
        ``warnings`` and more.

    Raises
    ------
    DataError
        Nothing usable is there.
    """
    dataset = open_data(options, reporter or Reporter())
    if out is not None:
        for name, text in health_tables(dataset).items():
            write_atomic(Path(out) / name, text)
    return validate("inspect", dataset.report)
