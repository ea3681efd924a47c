"""A data set: images, labels and splits in one place, row for row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fewlabels.core.errors import DataError, UsageError
from fewlabels.data import audit, folds, labels, splits
from fewlabels.data import leaks as copies
from fewlabels.data.listing import Strings, escape
from fewlabels.data.manifest import Digests, Manifest, assemble
from fewlabels.data.near import Progress
from fewlabels.data.sources import Source, read_source
from fewlabels.data.store import Store, open_store
from fewlabels.data.survey import auto_size, survey

CROP_MARGIN = 1.14  # room for a crop to move in
WHOLE = -1  # the "split" of a cross-validation in which no fold is the test set


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images, what is known of them, and which split each belongs to.

    Row ``i`` is the same image in the source, manifest, store, labels and splits.
    Beside the source it takes 10 bytes a row; `manifest` and
    `report` are put together when they are first asked for.

    Attributes
    ----------
    name : str
        A short name.
    source : Source
        Paths, and labels as text.
    store : Store
        Decoded images.
    classes : tuple of str
        Class names, in the order of their codes; none for regression.
    labels : ndarray
        ``(N,)`` int64, -1 unlabelled. All labels that are known: hiding some is
        what `visible` is for. For regression all are -1.
    targets : ndarray or None
        ``(N,)`` float64 for regression; unknown where not finite.
    keys : sequence of str
        What splits are keyed by: the group of each row, or its SHA-256.
    assigned : ndarray
        ``(N,)`` int8 before leaks were dropped.
    split : ndarray
        ``(N,)`` int8: 0 train, 1 val, 2 test, -1 out (unreadable, or a leak).
    leaks : Leaks
        Pictures in two splits, exact and near.
    splits_given : bool
        Whether the data came with a labelled test split.
    pictures_size, channels : int
        Training size in pixels; 1 for grey, 3 for colour.
    split_seed : int
        Which random split this is.
    leak_policy : str
        ``drop``, ``keep`` or ``stop``.
    target : str or None
        For regression, the column of the numbers.
    folds : int
        Folds of a cross-validation over the labelled images; 0 where images are split.
    """

    name: str
    source: Source
    store: Store
    classes: tuple[str, ...]
    labels: np.ndarray
    targets: np.ndarray | None
    keys: Sequence[str]
    assigned: np.ndarray
    split: np.ndarray
    leaks: copies.Leaks
    splits_given: bool
    pictures_size: int
    channels: int
    split_seed: int = 0
    leak_policy: str = "drop"
    target: str | None = None
    folds: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def known(self) -> np.ndarray:
        """``(N,)`` bool: the image has a label, or a target for regression."""
        return self.labels >= 0 if self.targets is None else np.isfinite(self.targets)

    @property
    def truth(self) -> np.ndarray:
        """``(N,)`` what is to be predicted: `labels`, or `targets` for regression."""
        return self.labels if self.targets is None else self.targets

    @property
    def content(self) -> Digests:
        """SHA-256 of each image, as text."""
        return Digests(self.store.sha256)

    @cached_property
    def manifest(self) -> Manifest:
        """One row an image, as saved beside every run."""
        store = self.store
        sizes = (store.widths, store.heights)
        return assemble(self.source, self.split, store.sha256, sizes, store.issues)

    @cached_property
    def report(self) -> dict[str, Any]:
        """What ``fewlabels inspect --json`` prints."""
        return audit.inspect(self)

    def rows(self, split: str) -> np.ndarray:
        """Return the rows of a split: all images of train, the labelled ones of val and test.

        Parameters
        ----------
        split : str
            ``train``, ``val`` or ``test``.

        Returns
        -------
        ndarray
            Sorted int64.

        Raises
        ------
        UsageError
            If there is no such split.
        """
        if split not in splits.NAMES:
            allowed = ", ".join(splits.NAMES)
            raise UsageError("usage.split", f"unknown split {split!r}", f"one of: {allowed}")
        if split != "train":
            return self.labelled_rows(split)
        return np.flatnonzero(self.split == splits.TRAIN)

    @cached_property
    def pretrains_apart(self) -> bool:
        """Whether pre-training takes the unlabelled images alone.

        So it is in a cross-validation, since one encoder is then honest in every fold; but where
        they are fewer than the labelled ones, each fold pre-trains on all it may see.
        """
        count = np.count_nonzero((self.split == splits.TRAIN) & ~self.known)
        return bool(self.folds > 0 and count >= len(self.tested_rows()))

    def pretraining_rows(self) -> np.ndarray:
        """Return the sorted int64 rows that encoders learn from without labels."""
        rows = self.rows("train")
        return rows[~self.known[rows]] if self.pretrains_apart else rows

    def tested_rows(self) -> np.ndarray:
        """Return the sorted int64 rows that are test images: in a cross-validation every label."""
        return np.flatnonzero(self.known & self.store.ok) if self.folds else self.rows("test")

    def labelled_rows(self, split: str) -> np.ndarray:
        """Return the sorted int64 rows of a split whose label (or target) is known."""
        return np.flatnonzero((self.split == splits.NAMES.index(split)) & self.known)

    def visible(self, shots: int | None, seed: int) -> np.ndarray:
        """Return the rows whose labels may be read before the final scoring.

        Parameters
        ----------
        shots : int or None
            Labels per class, drawn from train; for regression, images in all, at random
            and whatever their numbers are. None: every label of train and val.
        seed : int
            Which draw; draws of one seed are nested.

        Returns
        -------
        ndarray
            Sorted int64.
        """
        if shots is None:
            return np.flatnonzero(self.known & np.isin(self.split, (splits.TRAIN, splits.VAL)))
        codes = self.labels if self.targets is None else np.where(self.known, 0, -1)
        return labels.draw(codes, self.labelled_rows("train"), self.content, shots, seed)

    def with_split(self, seed: int) -> Dataset:
        """Return the data set under another random split; itself where test was given.

        In a cross-validation seeds count folds: of the first dealing, then of the next.
        """
        if self.splits_given or seed == self.split_seed:
            return self
        return self._split(seed)

    def with_folds(self, count: int) -> Dataset:
        """Return the data set for a cross-validation, as yet with every labelled image in train.

        `with_split` then makes a fold the test set.
        """
        return replace(self, folds=count, splits_given=False)._split(WHOLE)

    def _split(self, seed: int, progress: Progress | None = None) -> Dataset:
        """Return the data set with the splits of `seed`, and leaks dealt with."""
        known = self.known & self.store.ok
        if self.folds:
            return self._fold(known, seed)
        assigned = splits.assign(self.keys, self.source.splits, seed, labelled=known)
        assigned[~self.store.ok] = splits.OUT
        leaks = copies.find(self.store, assigned, progress)
        settled = copies.settle(assigned, leaks, self.leak_policy, self.source.paths)
        return replace(self, split_seed=seed, assigned=assigned, split=settled, leaks=leaks)

    def _fold(self, known: np.ndarray, seed: int) -> Dataset:
        """Return the data set with a fold as the test set, and leaks dealt with.

        Every labelled image is a test image of some fold, so unlabelled copies of one are no
        training images of any.
        """
        assigned = folds.assign(self.keys, self.source.splits, known)
        assigned[~self.store.ok] = splits.OUT
        leaks = copies.find(self.store, assigned)
        settled = copies.settle(assigned, leaks, self.leak_policy, self.source.paths)
        rows = np.flatnonzero(known)
        if seed == WHOLE:
            split = settled.copy()
            split[rows] = splits.TRAIN
            return replace(self, split_seed=seed, assigned=assigned, split=split, leaks=leaks)
        dealing, place = divmod(seed, self.folds)
        keys, truth = [self.keys[int(row)] for row in rows], self.truth[rows]
        dealt = folds.deal(keys, truth, dealing, self.folds, classes=len(self.classes))
        assigned = settled.copy()
        assigned[rows] = np.where(dealt == place, splits.TEST, splits.TRAIN)
        leaks = copies.find(self.store, assigned)
        settled = copies.settle(assigned, leaks, self.leak_policy, self.source.paths)
        return replace(self, split_seed=seed, assigned=assigned, split=settled, leaks=leaks)


def open_dataset(  # noqa: PLR0913 - the flags of the command line
    data: str | Path,
    *,
    image_size: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    target: str | None = None,
    group_by: str | None = None,
    leaks: str = "drop",
    split_seed: int = 0,
    verify: bool = False,
    progress: Progress | None = None,
) -> Dataset:
    """Open images and labels: list, decode what is not in the store yet, split, check.

    Parameters
    ----------
    data : str or Path
        What `read_source` takes: a folder, an archive, a table, an ``.npz`` file, or a name.
    image_size : int, optional
        Training size in pixels, 8 to 1024. By default the most common short side
        where no image is larger than 64, else 128.
    image_column, label_column, target, group_by : str, optional
        Columns of the table. With a `target`, its numbers are to be predicted and class
        labels are not read.
    leaks : str
        What to do with a picture of which a copy, exact or near, lies in a later split:
        ``drop`` it, ``keep`` both, or ``stop``.
    split_seed : int
        Which random split, where the data came with none.
    verify : bool
        Read every file again and compare its hash, instead of trusting size and time.
    progress : callable, optional
        Told (stage, done, total) while decoding; bytes for the stage ``unpack``.

    Raises
    ------
    DataError
        If nothing usable is there; see the code.
    UsageError
        If a parameter is out of range.

    Examples
    --------
    >>> digits = open_dataset("digits")
    >>> len(digits), len(digits.classes), digits.pictures_size, digits.channels
    (1797, 10, 8, 1)
    """
    _check(image_size, leaks)
    _refuse_both(label_column, target)
    source = read_source(
        data,
        image_column=image_column,
        label_column=label_column,
        target=target,
        group_by=group_by,
        progress=progress,
    )
    sides, channels = survey(source)
    size = image_size or auto_size(sides)
    short_side = size if int(sides.max()) <= size else math.ceil(CROP_MARGIN * size)
    store = open_store(
        source, short_side=short_side, channels=channels, verify=verify, progress=progress
    )
    audit.refuse_unreadable(store.ok, store.issues, source.paths)
    unread: list[str | None] = [None] * len(source)
    named = source.labels if target is None else unread
    classes, codes = _encode(named, store.ok)
    dataset = Dataset(
        name=source.name,
        source=source,
        store=store,
        classes=classes,
        labels=codes,
        targets=source.targets,
        keys=_keys(source, store),
        assigned=np.empty(0, np.int8),
        split=np.empty(0, np.int8),
        leaks=copies.NONE,
        splits_given=False,
        pictures_size=size,
        channels=channels,
        split_seed=split_seed,
        leak_policy=leaks,
        target=target,
    )
    return replace(dataset, splits_given=_test_is_given(dataset))._split(split_seed, progress)


def require_classes(dataset: Dataset) -> None:
    """Refuse data that no classifier can be trained on.

    Raises
    ------
    DataError
        If there are no labels at all, or one class only.
    """
    where = escape(str(dataset.source.root or dataset.name))
    if not dataset.classes:
        raise DataError(
            "data.labels",
            f"no image in {where} has a label: these images serve for pre-training only",
            "fewlabels pretrain, or put some images into one folder per class",
        )
    if len(dataset.classes) == 1:
        raise DataError(
            "data.classes",
            f"all labels in {where} name one class, {escape(dataset.classes[0])!r}",
            "add images of at least one other class",
        )


def _check(image_size: int | None, leaks: str) -> None:
    if image_size is not None and not 8 <= image_size <= 1024:
        raise UsageError(
            "usage.image_size", f"--image-size {image_size} is out of range", "8 to 1024 pixels"
        )
    if leaks not in copies.POLICIES:
        allowed = ", ".join(copies.POLICIES)
        raise UsageError("usage.leaks", f"unknown --leaks {leaks!r}", f"one of: {allowed}")


def _refuse_both(label_column: str | None, target: str | None) -> None:
    if label_column and target:
        raise UsageError(
            "usage.target",
            f"--label-column {label_column} names classes and --target {target} a number",
            "one of the two",
        )


def _encode(names: list[str | None], ok: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the classes of readable images, numbers in numeric order, and codes ``(N,)``."""
    found = {name for name, readable in zip(names, ok.tolist(), strict=True) if readable and name}
    numeric = all(name.isdecimal() for name in found)
    classes = tuple(sorted(found, key=lambda name: (int(name) if numeric else 0, name)))
    codes: dict[str | None, int] = {name: code for code, name in enumerate(classes)}
    return classes, np.fromiter((codes.get(name, -1) for name in names), np.int64, len(names))


def _keys(source: Source, store: Store) -> Sequence[str]:
    content = Digests(store.sha256)
    if source.groups is None:
        return content
    return Strings.of(
        key if group is None else f"group:{group}"
        for group, key in zip(source.groups, content, strict=True)
    )


def _test_is_given(dataset: Dataset) -> bool:
    useful = dataset.known & dataset.store.ok
    rows = zip(dataset.source.splits, useful, strict=True)
    return any(split == "test" and good for split, good in rows)
