"""The cells of a comparison by name, before anything is computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from fewlabels.pipeline.task import DataOptions
from fewlabels.study.grid import Comparison
from fewlabels.study.plan import Steps
from fewlabels.study.settings import Settings, label_counts, lay_out, prepare
from fewlabels.training.progress import Reporter

QUIET = Reporter(quiet=True)


def test_splits_with_more_labels_than_the_one_planned_with_have_their_cells(tmp_path: Path) -> None:
    x, y = load_digits(n_class=4, return_X_y=True)
    images = np.round(x[:400] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    np.savez(tmp_path / "digits.npz", images=images, labels=y[:400].astype(str))
    settings = Settings(("pixels", "scratch"), "pixels", seeds=4, pretraining_seeds=4)
    task, arms = prepare(DataOptions(str(tmp_path / "digits.npz")), settings, QUIET)
    units = lay_out(task, settings)
    planned = {str(n): 100 for n in label_counts(task, settings)}
    counts = {len(task.with_split(unit.split).dataset.visible(None, 0)) for unit in units}
    assert max(counts) > int(max(planned)) and min(counts) < int(max(planned))
    steps = Steps({}, dict(planned), dict(planned), {})
    comparison = Comparison(task, settings, arms, units, steps, tmp_path, QUIET)
    assert len(comparison.grid.cells) == 4 * 2
