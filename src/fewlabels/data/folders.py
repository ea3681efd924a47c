"""Class folders: labels and splits are the names of folders."""

from __future__ import annotations

from collections.abc import Sequence

from fewlabels.core.errors import DataError
from fewlabels.data.listing import SUFFIXES, Folder, Listing, escape
from fewlabels.data.source import SPLITS, Source, name_of, refuse_clashes

UNLABELLED = frozenset({"unlabelled", "unlabeled"})
LAYOUTS = (
    "class folders (cat/1.jpg), train/ val/ test/ folders of class folders, "
    "or images with a CSV or Parquet table of labels"
)


def read_folders(listing: Listing) -> Source:
    """Read labels and splits off the names of the folders.

    Raises
    ------
    DataError
        If there are no images, the layout could mean two things, or two class
        names differ only in case.
    """
    has_splits = _check_layout(listing)
    labels: list[str | None] = []
    splits: list[str | None] = []
    for folder in listing.folders:
        split, label = _place(folder.parts, has_splits)
        labels.extend([label] * len(folder.sizes))
        splits.extend([split] * len(folder.sizes))
    if not labels:
        raise _empty(listing)
    refuse_clashes(label for label in set(labels) if label is not None)
    return Source(
        name=name_of(listing.root),
        root=listing.root,
        paths=listing.paths,
        labels=labels,
        splits=splits,
        sizes=listing.sizes,
        times=listing.times,
        warnings=(*listing.warnings(), *_unused(listing), *_odd_folders(listing, has_splits)),
    )


def _place(parts: Sequence[str], has_splits: bool) -> tuple[str | None, str | None]:
    """Return the split and the class that a folder stands for."""
    split = None
    if has_splits and parts:
        split = SPLITS.get(parts[0].casefold())
        parts = parts[1:] if split else parts
    label = parts[0] if parts else None
    return split, None if label is None or label.casefold() in UNLABELLED else label


def _check_layout(listing: Listing) -> bool:
    """Return whether the top folders are splits; refuse what could mean two things."""
    tops = sorted({folder.parts[0] for folder in listing.folders if len(folder.parts) == 1})
    named = [top for top in tops if top.casefold() in SPLITS]
    if not named:
        return False
    stands_for = [SPLITS[top.casefold()] for top in named]
    rest = [top for top in tops if top not in named and top.casefold() not in UNLABELLED]
    what = ""
    if "train" not in stands_for:
        what = f"there is {_names(named)} but no train/"
    elif len(set(stands_for)) < len(stands_for):
        what = f"{_names(named)} name the same split twice"
    elif rest:
        what = f"split folders ({_names(named)}) lie beside others ({_names(rest)})"
    if what:
        message = f"{escape(str(listing.root))} is ambiguous: {what}"
        raise DataError("data.layout", message, f"use {LAYOUTS}")
    return True


def _unused(listing: Listing) -> list[str]:
    return [f"{escape(name)} names no image here: it is not used" for name in listing.tables]


def _names(tops: Sequence[str]) -> str:
    shown = ", ".join(f"{escape(top)}/" for top in tops[:5])
    return shown + (", ..." if len(tops) > 5 else "")


def _odd_folders(listing: Listing, has_splits: bool) -> list[str]:
    """Warn of class folders without images and of images beside class folders."""
    depth = 2 if has_splits else 1
    counts: dict[tuple[str, ...], int] = {}
    for folder in listing.folders:
        if len(folder.parts) >= depth:
            key = folder.parts[:depth]
            counts[key] = counts.get(key, 0) + len(folder.sizes)
    warnings = [
        f"the folder {escape('/'.join(key))} holds no images" for key, n in counts.items() if not n
    ]
    warnings += _outer_classes(listing, depth)
    loose = sum(len(folder.sizes) for folder in listing.folders if _is_loose(folder, has_splits))
    if loose and counts:
        warnings.append(f"{loose} images lie beside the class folders: taken as unlabelled")
    return warnings


def _outer_classes(listing: Listing, depth: int) -> list[str]:
    """Warn of classes made of several inner folders alone, which may have been meant as classes."""
    inner: dict[tuple[str, ...], set[str]] = {}
    own: set[tuple[str, ...]] = set()
    for folder in listing.folders:
        if len(folder.sizes) and len(folder.parts) > depth:
            inner.setdefault(folder.parts[:depth], set()).add(folder.parts[depth])
        elif len(folder.sizes):
            own.add(folder.parts)
    return [
        f"the folders in {escape('/'.join(key))} ({_names(sorted(names))}) are taken as one class, "
        f"{escape(key[-1])!r}"
        for key, names in inner.items()
        if len(names) > 1 and key not in own and key[-1].casefold() not in UNLABELLED
    ]


def _is_loose(folder: Folder, has_splits: bool) -> bool:
    if not folder.parts:
        return True
    return has_splits and len(folder.parts) == 1 and folder.parts[0].casefold() in SPLITS


def _empty(listing: Listing) -> DataError:
    suffixes = " ".join(sorted(SUFFIXES))
    said = "; ".join(listing.warnings())
    packed = {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz"} & set(listing.others)
    return DataError(
        "data.empty",
        f"no images ({suffixes}) in {escape(str(listing.root))}" + (f" ({said})" if said else ""),
        "give the archive itself" if packed else f"give {LAYOUTS}",
    )
