"""The verb `models`: what can be started from, and how well each start suits some data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fewlabels.core.errors import DataError, FewlabelsError, UsageError, nearest
from fewlabels.evaluation.intervals import wilson
from fewlabels.evaluation.regression import regression
from fewlabels.evaluation.transferability import logme, logme_of_numbers
from fewlabels.models.backbones import OURS
from fewlabels.models.catalogue import catalogue, count
from fewlabels.models.published import needs_backbone
from fewlabels.pipeline.carried import build_backbone
from fewlabels.pipeline.frozen import features
from fewlabels.pipeline.pretrain import check_labels
from fewlabels.pipeline.stages import learned_rows
from fewlabels.pipeline.starts import find_start, open_start
from fewlabels.pipeline.task import DataOptions
from fewlabels.results.schema import validate
from fewlabels.training.progress import Reporter
from fewlabels.transfer.live_probe import leave_one_out_knn, leave_one_out_means

LABELS = 2_000  # images at most that a score looks at: neighbours are compared each with each
GIVEN = "given"
PLAIN = ("pixels", "auto")  # what a start that was trained must beat: raw pixels, fresh weights

Row = dict[str, Any]


def models(  # noqa: PLR0913 - the flags of the command line
    pattern: str = "",
    *,
    available: bool = False,
    fit: DataOptions | str | Path | None = None,
    starts: Sequence[str] = (),
    labels: int | None = None,
    seed: int = 0,
    backbone: str = "auto",
    device: str = "auto",
    reporter: Reporter | None = None,
) -> list[Row]:
    """List what can be started from; nothing is downloaded.

    Parameters
    ----------
    pattern : str
        A part of the name; ``*`` stands for anything.
    available : bool
        Only what needs no download.
    fit : DataOptions or str, optional
        Data for which every start that is here is scored.
    starts : sequence of str
        Run folders and files to be scored as well.
    labels : int, optional
        Labels per class (of a number in all) that the score may read; by default all of the
        training images.
    seed : int
        Of the draw of labels, and of untrained networks.
    backbone : str
        What the files among `starts` are of that do not say it themselves.
    device : str
        ``auto`` chooses.
    reporter : Reporter, optional

    Returns
    -------
    list of dict
        As `fewlabels.models.catalogue.catalogue`. With `fit`, the scored ones first and the best
        of them on top: ``fit`` holds ``logme``, ``knn`` (leave-one-out accuracy, with interval),
        of a number instead ``knn_r2``, and ``labels`` (how many were read); ``warning`` names in
        words what suits badly.

    Raises
    ------
    FewlabelsError
        For data that cannot be scored on, and for a start that was named and is not there.
    """
    if starts and fit is None:
        raise UsageError("usage.from", "--from asks for a score, and --fit names no data")
    reporter = reporter or Reporter()
    rows = [{**row, "warning": None} for row in catalogue(pattern, available=available)]
    if fit is not None:
        check_labels(labels)
        options = fit if isinstance(fit, DataOptions) else DataOptions(str(fit))
        of = {start: backbone if needs_backbone(start) else "auto" for start in starts}
        for start, name in of.items():  # refused before anything is scored
            find_start(start, name)
        scorer = _Scorer(options, labels, seed, device, reporter, of)
        rows = scorer.score([*map(_given, of), *rows])
    if not rows:
        reporter.say(_nothing(pattern, available))
    return [validate("models", row) for row in rows]


def _given(start: str) -> Row:
    unknown = dict.fromkeys(
        ("parameters", "macs", "published_accuracy", "input_size", "licence", "fit", "warning")
    )
    return {"name": start, "library": GIVEN, "available": True, **unknown}


def _nothing(pattern: str, available: bool) -> str:
    """Say why the list is empty, with the nearest names."""
    if available and catalogue(pattern):
        return f"nothing on this machine is called {pattern!r}; without --available all is listed"
    near = nearest(pattern, [str(row["name"]) for row in catalogue()])
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"no name has {pattern!r} in it{hint}"


class _Scorer:
    """Scores starts on the visible labels of a data set."""

    def __init__(
        self,
        options: DataOptions,
        labels: int | None,
        seed: int,
        device: str,
        reporter: Reporter,
        backbones: Mapping[str, str],
    ) -> None:
        self.backbones = backbones  # of the starts that were named
        self.options = options
        self.labels = labels
        self.seed = seed
        self.device = device
        self.reporter = reporter

    def score(self, rows: list[Row]) -> list[Row]:
        """Return the rows with their scores and warnings, the best first."""
        plain = {name: self._fit("random", name)["fit"] for name in PLAIN}
        done = [self._scored(row) if row["available"] else row for row in rows]
        for row in done:
            if row["fit"] and row["library"] != "fewlabels":
                row["warning"] = suits_badly(row["fit"], plain["pixels"], plain["auto"])
        return sorted(done, key=lambda row: -(row["fit"] or {}).get("logme", -np.inf))

    def _scored(self, row: Row) -> Row:
        name = row["name"]
        try:
            ours = name in OURS and name not in self.backbones
            start, backbone = ("random", name) if ours else (name, self.backbones.get(name, "auto"))
            found = self._fit(start, backbone)
        except FewlabelsError as error:
            if row["library"] == GIVEN:  # named by the user, not met on the way
                raise
            self.reporter.say(f"{name}: {error.message}")
            return {**row, "warning": f"cannot be scored: {error.message}"}
        return {**row, **found}

    def _fit(self, start: str, backbone: str) -> Row:
        """Return the score of a start, and the size of its network on these images."""
        found = find_start(start, backbone)
        task = open_start(
            found, self.options, policy="auto", device=self.device, reporter=self.reporter
        )
        rows = learned_rows(task, self.labels, self.seed)
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), LABELS)).astype(np.int64)]
        name, network, _ = build_backbone(found, task, self.seed)
        self.reporter.say(f"scoring {start if start != 'random' else name}")
        x = features(task, network, rows)
        size = [task.pictures.channels, task.pictures.size, task.pictures.size]
        return {
            **count(network.cpu(), size),
            "input_size": size,
            "fit": _fit_of(x, task.truth[rows], of_number=task.dataset.targets is not None),
        }


def _fit_of(x: Tensor, known: np.ndarray, *, of_number: bool) -> Row:
    """Return how well features ``(n, F)`` suit classes, or numbers, ``(n,)``."""
    centred = (x - x.mean(0)).numpy()
    if not of_number:
        share = leave_one_out_knn(x, known)
        low, high = wilson(share * len(known), len(known))
        knn = {"value": share, "low": low, "high": high}
        return {"logme": logme(centred, known), "knn": knn, "knn_r2": None, "labels": len(known)}
    guessed = leave_one_out_means(x, known)
    if guessed is None:
        raise DataError("data.few_labels", "one number cannot be scored on", "--labels 20 or more")
    r2 = regression(known, guessed)["r2"]
    score = logme_of_numbers(centred, known)
    return {"logme": score, "knn": None, "knn_r2": r2, "labels": len(known)}


def suits_badly(fit: Row, pixels: Row, untrained: Row) -> str | None:
    """Say in words where a start is no better than raw pixels or an untrained network.

    Examples
    --------
    >>> pixels = {"logme": 0.2, "knn": {"value": 0.5}}
    >>> suits_badly({"logme": 0.1, "knn": {"value": 0.4}}, pixels, pixels)[:39]
    'suits these images badly: raw pixels fi'
    >>> suits_badly({"logme": 0.3, "knn": {"value": 0.6}}, pixels, pixels)
    """
    names = {"raw pixels": pixels, "an untrained network": untrained}
    name, best = max(names.items(), key=lambda item: float(item[1]["logme"]))
    (theirs, what, told_theirs), (mine, _, told_mine) = _neighbours(best), _neighbours(fit)
    scores = fit["logme"] < best["logme"], mine < theirs
    if not any(scores):
        return None
    told = (
        f"{name} fit the labels as well or better (LogME {best['logme']:.3f} against "
        f"{fit['logme']:.3f}, {what} {told_theirs} against {told_mine})"
    )
    return f"suits these images badly: {told}" if all(scores) else f"may suit badly: {told}"


def _neighbours(fit: Row) -> tuple[float, str, str]:
    """Return the score of the neighbours, its name, and itself in words."""
    if fit.get("knn") is not None:
        share = float(fit["knn"]["value"])
        return share, "neighbours right", f"{100 * share:.0f} %"
    r2, name = (fit["knn_r2"] or {}).get("value"), "R2 of neighbours"
    return (-np.inf, name, "unknown") if r2 is None else (float(r2), name, f"{r2:.2f}")
