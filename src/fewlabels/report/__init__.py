"""One self-contained HTML page of what a run or a comparison found; never trains."""

from __future__ import annotations

from fewlabels.report.html import write_report

__all__ = ["write_report"]
