"""Hashes that name data by its content."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

import numpy as np

from fewlabels.pipeline.task import Task


def data_key(task: Task) -> str:
    """Return a hash of everything about the data that can change a result."""
    dataset = task.dataset
    parts = [
        np.ascontiguousarray(dataset.store.sha256).tobytes(),
        np.ascontiguousarray(dataset.labels).tobytes(),
        np.ascontiguousarray(dataset.split).tobytes(),
        json.dumps([*dataset.classes, asdict(task.pictures), task.policy, task.bf16]).encode(),
    ]
    if dataset.targets is not None:
        parts.append(np.ascontiguousarray(dataset.targets).tobytes())
        parts.append(json.dumps([dataset.target, task.as_they_are]).encode())
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_key(task: Task) -> str:
    """Return the content hash of the test set, whatever folder it lies in."""
    rows = task.dataset.tested_rows()
    digests = sorted(task.dataset.store.sha256[row].tobytes() for row in rows)
    return hashlib.sha256(b"".join(digests)).hexdigest()
