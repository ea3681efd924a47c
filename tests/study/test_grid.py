"""The cells of a comparison by name, before anything is computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fewlabels.pipeline.task import DataOptions
from fewlabels.study.grid import Comparison
from fewlabels.study.plan import Steps
from fewlabels.study.settings import Settings, label_counts, lay_out, prepare
from fewlabels.training.progress import Reporter

QUIET = Reporter(quiet=True)


def test_splits_with_more_labels_than_the_one_planned_with_have_their_cells(
    write_digits: Callable[..., Path], tmp_path: Path
) -> None:
    settings = Settings(("pixels", "scratch"), "pixels", seeds=4, pretraining_seeds=4)
    task, arms = prepare(DataOptions(str(write_digits(400, classes=4))), settings, QUIET)
    units = lay_out(task, settings)
    planned = {str(n): 100 for n in label_counts(task, settings)}
    counts = {len(task.with_split(unit.split).dataset.visible(None, 0)) for unit in units}
    assert max(counts) > int(max(planned)) and min(counts) < int(max(planned))
    steps = Steps({}, dict(planned), dict(planned), {})
    comparison = Comparison(task, settings, arms, units, steps, tmp_path, QUIET)
    assert len(comparison.grid.cells) == 4 * 2
