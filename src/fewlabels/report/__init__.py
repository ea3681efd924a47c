"""One self-contained HTML page of what was found, and a comparison's table; never trains."""

from __future__ import annotations

from fewlabels.report.html import write_report
from fewlabels.report.paper import paper_table

__all__ = ["paper_table", "write_report"]
