"""Where results go, and what to do with a folder that already holds some."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fewlabels.core import processes
from fewlabels.core.errors import DataError, UsageError
from fewlabels.data.audit import quarantine_csv
from fewlabels.data.dataset import Dataset
from fewlabels.data.leaks import leaks_csv
from fewlabels.pipeline.keys import data_key
from fewlabels.pipeline.task import Task
from fewlabels.results.runfolder import CONFIG, RunFolder
from fewlabels.training.loop import BF16_PIXELS, has_bf16


def default_folder(verb: str, name: str, config: Mapping[str, Any] | None = None) -> Path:
    """Return the first free ``runs/<verb>-<name>-<n>``.

    Parameters
    ----------
    verb, name : str
        What is done, and to which data.
    config : mapping, optional
        An unfinished folder with this configuration is taken instead, so that the same
        command goes on where it was interrupted.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:100].strip("-.") or "data"
    number = 1
    while (folder := Path("runs") / f"{verb}-{plain}-{number}").exists():
        run = RunFolder(folder)
        if config is not None and not run.is_finished() and run.same_config(config):
            return folder
        number += 1
    return folder


def finished(run: RunFolder, config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the stored result of a finished folder.

    Raises
    ------
    UsageError
        It was made with another configuration.
    """
    run.require(CONFIG, name)
    if not run.same_config(config):
        raise UsageError(
            "run.finished",
            f"{run.path} holds a finished run with another configuration",
            "another --out",
        )
    return {**run.read_json(name), "already_done": True}


@contextlib.contextmanager
def lent(
    out: Path | None, task: Task, config: Mapping[str, Any], resume: str
) -> Iterator[RunFolder]:
    """Lend the folder of a run, begun: to the first process for writing, to others by name.

    Parameters
    ----------
    out : Path or None
        None takes `default_folder`.
    resume : {"auto", "never"}

    Raises
    ------
    FewlabelsError
        As `refuse_unfinished`, `begin_folder` and `RunFolder.open`.
    """
    agree(task)
    name = task.dataset.name
    place = processes.by_main(lambda: str(out or default_folder(config["verb"], name, config)))
    if not processes.is_main():
        yield RunFolder(place)
        return
    with RunFolder(place) as run:
        refuse_unfinished(run, resume)
        begin_folder(run, task, config)
        yield run


def agree(task: Task) -> None:
    """Refuse to train together on different data, as on machines whose copies differ.

    Raises
    ------
    DataError
    """
    mine = data_key(task)
    if processes.by_main(lambda: mine) != mine:
        raise DataError(
            "data.differs",
            "the images, labels or precision here are not those of the first process",
            "give every machine the same files",
        )


def already(out: Path | None, config: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """Return the result of a finished folder, before any data is opened; else None.

    Raises
    ------
    UsageError
        As `finished`.
    """
    if out is None:
        return None
    folder = RunFolder(out)
    return processes.by_main(
        lambda: finished(folder, config, name) if folder.is_finished() else None
    )


def refuse_unfinished(run: RunFolder, resume: str) -> None:
    """Refuse to go on with an unfinished run where the user said so.

    Raises
    ------
    UsageError
    """
    if resume not in ("auto", "never"):
        raise UsageError("usage.resume", f"unknown --resume {resume!r}", "auto or never")
    if resume == "never" and (run.path / CONFIG).exists():
        raise UsageError(
            "run.unfinished",
            f"{run.path} holds an unfinished run",
            "--resume auto to go on with it, or another --out",
        )


def begin_folder(run: RunFolder, task: Task, config: Mapping[str, Any]) -> None:
    """Write what is known before training: configuration, manifest, files that are no images.

    Raises
    ------
    UsageError, DataError
        The folder was begun with another configuration, or with other data.
    """
    run.require(CONFIG)
    if (run.path / CONFIG).exists() and not run.same_config(config):
        raise UsageError(
            "run.config",
            f"{run.path} holds an unfinished run with another configuration",
            "the same flags as before, or another --out",
        )
    key = data_key(task)
    stored = run.path / "data.json"
    if stored.exists() and run.read_json("data.json").get("key") != key:
        raise DataError(
            "data.changed",
            f"the images or labels are not those {run.path} was begun with",
            "another --out",
        )
    run.write_config(config)
    if not stored.exists():
        machine = {"device": task.device.type, "bf16": has_bf16(task.device)}
        folds = {"folds": task.dataset.folds} if task.dataset.folds else {}
        run.write_sealed("data.json", {"key": key, "name": task.dataset.name, **machine, **folds})
    task.dataset.manifest.save(run.path / "manifest.parquet")
    for name, text in health_tables(task.dataset).items():
        run.write_bytes(name, text)


def as_begun(task: Task, place: Path) -> Task:
    """Return the task on the kind of device, and at the precision, that a folder was begun with.

    Both are part of what results are named by. Whether this machine has such a device is for
    those to ask who compute on it.
    """
    stored = place / "data.json"
    about = RunFolder(place).read_json("data.json") if stored.exists() else {}
    if "device" not in about:  # a folder of an earlier version, or none yet
        return task
    if about["device"] == task.device.type and about["bf16"] == has_bf16(task.device):
        return task
    bf16 = task.pictures.size >= BF16_PIXELS and bool(about["bf16"])
    return replace(task, device=torch.device(about["device"]), bf16=bf16)


def health_tables(dataset: Dataset) -> dict[str, str]:
    """Return ``quarantine.csv`` and ``leaks.csv`` as text, where there is anything in them."""
    tables = {}
    if dataset.report["quarantine"]:
        tables["quarantine.csv"] = quarantine_csv(dataset.report)
    if dataset.report["leaks"]:
        tables["leaks.csv"] = leaks_csv(dataset.report)
    return tables
