"""Look at images through a network: what it says of them, and the maps that pass the check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewlabels.core.errors import ModelError
from fewlabels.data.augment import denormalise, plain
from fewlabels.data.dataset import Dataset
from fewlabels.explain.paintings import to_pixels
from fewlabels.explain.randomisation import DRAWS, IMAGES, LIMIT, check
from fewlabels.explain.saliency import MAPS
from fewlabels.models.classifier import Classifier, Saved
from fewlabels.models.heads import answers
from fewlabels.pipeline.predict import AT_ONCE, as_batch
from fewlabels.training.progress import Reporter


@dataclass(slots=True)
class Looked:
    """What was found in images.

    Attributes
    ----------
    views : ndarray
        ``(n, S, S, C)`` uint8, as the network sees them.
    answers : ndarray or None
        Class probabilities ``(n, K)`` float32, or numbers ``(n,)`` float64 in their unit; None
        without a head.
    targets : ndarray or None
        ``(n,)`` int64 classes whose evidence the maps show; 0 where a number is predicted.
    maps : dict of ndarray
        ``(n, S, S)`` float32 by name: those that passed the check.
    checks : list of dict
        One for each map that was asked for: ``map``, ``shown``, ``correlation``, ``reason``.
    """

    views: np.ndarray
    answers: np.ndarray | None = None
    targets: np.ndarray | None = None
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)


def look(
    saved: Saved,
    pixels: Sequence[np.ndarray],
    more: Sequence[np.ndarray],
    names: Sequence[str],
    *,
    label: str | None,
    device: torch.device,
    reporter: Reporter,
) -> Looked:
    """Predict, check each kind of map against random weights, and draw those that pass.

    Parameters
    ----------
    saved : Saved
        The model.
    pixels : sequence of ndarray
        ``(H, W, C)`` uint8 images to be explained.
    more : sequence of ndarray
        Other images that the check may look at where these are few.
    names : sequence of str
        Keys of `fewlabels.explain.saliency.MAPS`.
    label : str or None
        The class to explain; None for the predicted one.
    """
    parts = [pixels[start : start + AT_ONCE] for start in range(0, len(pixels), AT_ONCE)]
    views = np.concatenate([as_seen(saved, part, device) for part in parts])
    if saved.head is None:
        why = "an encoder predicts nothing that could be explained"
        return Looked(views, checks=[_refused(name, why) for name in names])
    classifier = saved.classifier.to(device).eval()
    found = np.concatenate([_answers(classifier, as_views(saved, part, device)) for part in parts])
    targets = _targets(found, saved, label)
    tested = [*pixels, *more][:IMAGES]
    x = as_views(saved, tested, device)
    classes = torch.from_numpy(_targets(_answers(classifier, x), saved, label)).to(device)
    reporter.say(
        f"checking the maps: each is drawn with {DRAWS} sets of random weights as well, on "
        f"{len(x)} images"
    )
    checks = [_judged(name, classifier, x, classes) for name in names]
    looked = Looked(views, found, targets, checks=checks)
    shown = [row["map"] for row in checks if row["shown"]]
    with reporter.stage("maps", len(pixels) * len(shown), what="maps") as advance:
        for place, name in enumerate(shown):
            drawn: list[np.ndarray] = []
            for part in parts:
                done = sum(map(len, drawn))
                there = torch.from_numpy(targets[done : done + len(part)]).to(device)
                drawn.append(MAPS[name](classifier, as_views(saved, part, device), there).numpy())
                advance(place * len(pixels) + done + len(part))
            looked.maps[name] = np.concatenate(drawn)
    return looked


def as_views(saved: Saved, pixels: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Return normalised evaluation views ``(B, C, S, S)`` of pictures ``(H, W, C)``."""
    batch = as_batch(list(pixels), saved.pictures.channels, device)
    return plain(batch, saved.pictures)


def as_seen(saved: Saved, pixels: Sequence[np.ndarray], device: torch.device) -> np.ndarray:
    """Return pictures as the network sees them, ``(B, S, S, C)`` uint8."""
    return to_pixels(denormalise(as_views(saved, pixels, device), saved.pictures))


def stored_pixels(dataset: Dataset, rows: np.ndarray) -> list[np.ndarray]:
    """Return the pictures ``(H, W, C)`` uint8 of rows, without what pads them."""
    if not len(rows):
        return []
    images, sizes = dataset.store.read(rows)
    if sizes is None:
        return list(images)
    return [one[:height, :width] for one, (height, width) in zip(images, sizes, strict=True)]


@torch.inference_mode()
def _answers(classifier: Classifier, x: Tensor) -> np.ndarray:
    return answers(classifier.head, classifier(x))


def _targets(found: np.ndarray, saved: Saved, label: str | None) -> np.ndarray:
    if saved.target is not None:
        return np.zeros(len(found), np.int64)
    if label is None:
        return np.asarray(found.argmax(1), np.int64)
    return np.full(len(found), saved.classes.index(label), np.int64)


def _judged(name: str, classifier: Classifier, x: Tensor, targets: Tensor) -> dict[str, Any]:
    try:
        found = check(MAPS[name], classifier, x, targets)
    except ModelError as error:
        if error.code != "model.no_map":
            raise
        return _refused(name, error.message)
    about = {"correlation": found.correlation, "images": found.images, "draws": found.draws}
    if found.passed:
        return {"map": name, "shown": True, **about, "reason": ""}
    reason = (
        "withdrawn: with random weights it looks much the same (rank correlation "
        f"{found.correlation:.2f}; the limit is {LIMIT}), so it says little of what was learned"
    )
    return {"map": name, "shown": False, **about, "reason": reason}


def _refused(name: str, why: str) -> dict[str, Any]:
    return {"map": name, "shown": False, "correlation": None, "reason": f"not possible: {why}"}
