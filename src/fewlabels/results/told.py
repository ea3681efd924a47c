"""Metrics of a training under the names that people read."""

from __future__ import annotations

from collections.abc import Mapping

RECONSTRUCTION = "reconstruction_error"


def told(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics as they are told to people.

    Where the loss is a reconstruction error it is called so, and told once.

    Examples
    --------
    >>> told({"loss": 0.25, "reconstruction_error": 0.25, "probe": 0.5})
    {'reconstruction error': 0.25, 'probe': 0.5}
    >>> told({"loss": 0.25, "train_accuracy": 0.5})
    {'loss': 0.25, 'train_accuracy': 0.5}
    """
    if metrics.get(RECONSTRUCTION) != metrics.get("loss"):
        return dict(metrics)
    found = {name: value for name, value in metrics.items() if name != RECONSTRUCTION}
    names = {"loss": RECONSTRUCTION.replace("_", " ")}
    return {names.get(name, name): value for name, value in found.items()}
