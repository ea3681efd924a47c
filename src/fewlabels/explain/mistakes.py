"""The worst mistakes: images that a model is surest of and wrong about, or farthest off."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from fewlabels.data.dataset import Dataset

THUMBNAIL = 96


def worst_mistakes(
    dataset: Dataset,
    rows: np.ndarray,
    probabilities: np.ndarray,
    *,
    classes: tuple[str, ...] | None = None,
    count: int = 24,
) -> list[dict[str, Any]]:
    """Return the most confident errors, the surest first.

    Parameters
    ----------
    dataset : Dataset
    rows : ndarray
        ``(n,)`` labelled rows.
    probabilities : ndarray
        ``(n, K)``.
    classes : tuple of str, optional
        What the columns stand for; by default the classes of the data.
    count : int
        At most so many.

    Returns
    -------
    list of dict
        ``path``, ``label``, ``predicted``, ``probability`` and ``thumbnail`` (a PNG data URI).
    """
    names = classes or dataset.classes
    places = np.array([names.index(name) for name in dataset.classes])
    labels = places[dataset.labels[rows]]
    predicted = probabilities.argmax(1)
    confidence = probabilities[np.arange(len(rows)), predicted]
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    return [
        {
            "path": str(dataset.source.paths[int(rows[place])]),
            "label": names[labels[place]],
            "predicted": names[predicted[place]],
            "probability": float(confidence[place]),
            "thumbnail": thumbnail(dataset, int(rows[place])),
        }
        for place in worst
    ]


def largest_errors(
    dataset: Dataset, rows: np.ndarray, predictions: np.ndarray, *, count: int = 24
) -> list[dict[str, Any]]:
    """Return the predicted numbers that are farthest off, the farthest first.

    Parameters
    ----------
    dataset : Dataset
    rows : ndarray
        ``(n,)`` rows whose number is known.
    predictions : ndarray
        ``(n,)`` float.
    count : int
        At most so many.

    Returns
    -------
    list of dict
        ``path``, ``value`` (true), ``predicted``, ``error`` and ``thumbnail`` (a PNG data URI).
    """
    values = dataset.truth[rows]
    error = predictions - values
    return [
        {
            "path": str(dataset.source.paths[int(rows[place])]),
            "value": float(values[place]),
            "predicted": float(predictions[place]),
            "error": float(error[place]),
            "thumbnail": thumbnail(dataset, int(rows[place])),
        }
        for place in np.argsort(-np.abs(error), kind="stable")[:count]
    ]


def surest_and_right(
    right: np.ndarray, confidence: np.ndarray, count: int
) -> list[tuple[int, str]]:
    """Return places of the surest mistakes, and of right answers to fill up.

    At most half are mistakes, unless there are too few right answers.

    Parameters
    ----------
    right : ndarray
        ``(n,)`` bool.
    confidence : ndarray
        ``(n,)`` probability of what each image was called.
    count : int
        Of both together; fewer where there are fewer images.

    Returns
    -------
    list of (int, str)
        Places with ``mistake``, the surest first, then places with ``right``, evenly spaced.

    Examples
    --------
    >>> surest_and_right(np.array([True, False, False, True]), np.array([0.9, 0.6, 0.8, 0.7]), 3)
    [(2, 'mistake'), (1, 'mistake'), (0, 'right')]
    """
    wrong, good = np.flatnonzero(~right), np.flatnonzero(right)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")]
    surest = surest[: max(count - len(good), (count + 1) // 2)]
    return _marked(surest, "mistake") + _marked(_even(good, count - len(surest)), "right")


def farthest_and_near(error: np.ndarray, count: int) -> list[tuple[int, str]]:
    """Return places of the largest errors, and of some in the smaller half to fill up.

    Parameters
    ----------
    error : ndarray
        ``(n,)`` of any kind that grows with the distance.
    count : int
        Of both together; fewer where there are fewer images.

    Returns
    -------
    list of (int, str)
        Places with ``mistake``, the farthest first, then places with ``near``, evenly spaced in
        order of the error.

    Examples
    --------
    >>> farthest_and_near(np.array([0.1, 3.0, 0.2, 5.0, 0.0, 1.0]), 4)
    [(3, 'mistake'), (1, 'mistake'), (2, 'near'), (4, 'near')]
    """
    order = np.argsort(-error, kind="stable")
    farthest = order[: (count + 1) // 2]
    closest = order[max(len(farthest), len(order) // 2) :]
    return _marked(farthest, "mistake") + _marked(_even(closest, count - len(farthest)), "near")


def _even(places: np.ndarray, count: int) -> np.ndarray:
    """Return at most `count` of some places, evenly spaced."""
    spaced = np.linspace(0, len(places) - 1, min(len(places), count)).astype(np.int64)
    chosen: np.ndarray = places[spaced]
    return chosen


def _marked(places: np.ndarray, kind: str) -> list[tuple[int, str]]:
    return [(int(place), kind) for place in places]


def thumbnail(dataset: Dataset, row: int) -> str:
    """Return an image of the store as a small PNG data URI."""
    images, sizes = dataset.store.read(np.array([row]))
    height, width = images.shape[1:3] if sizes is None else sizes[0].tolist()
    pixels = images[0, :height, :width]
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    if max(picture.size) > THUMBNAIL:
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
