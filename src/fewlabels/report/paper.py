"""The table of a comparison for a paper, in LaTeX, Markdown or CSV, from its record alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fewlabels.core.errors import DataError, unknown
from fewlabels.report import words
from fewlabels.report.findings import Comparison, shots_of
from fewlabels.report.tables import average
from fewlabels.report.words import Record, number, record, records

_COSTS = ("seconds", "steps", "images_seen", "multiply_adds", "energy_joules", "peak_memory_mb")
_COLUMNS = (
    *("arm", "shots", "metric", "mean", "low", "high", "repeats", "best"),
    *("baseline", "difference", "difference_low", "difference_high"),
    *("p", "p_holm", "verdict", "declared", *_COSTS),
)
_LATEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        **{
            sign: f"{{{sign}}}" for sign in "[]*"
        },  # behind a line's end they would be its arguments
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
        **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
        **{words.MINUS: "$-$", words.DASH: "--", words.TIMES: r"$\times$"},
        "\N{SUPERSCRIPT TWO}": "$^2$",
    }
)
_MARKDOWN = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_[]<>|~#"})


@dataclass(frozen=True, slots=True)
class Style:
    """How the parts of a table are written.

    Attributes
    ----------
    signs : dict
        What stands for characters that mean something.
    bold, small : str
        A best mean, and an interval, with ``{}`` for the text.
    marks : dict
        Of verdicts that are decided, and of the one that was declared before the run.
    """

    signs: Mapping[int, str]
    bold: str
    small: str
    marks: dict[str, str]

    def text(self, value: str) -> str:
        """Return text with everything escaped, on one line."""
        line = "".join(sign if sign.isprintable() else " " for sign in value)
        return " ".join(line.translate(self.signs).split())


_STYLES = {
    "latex": Style(
        _LATEX,
        r"\textbf{{{}}}",
        r"{{\scriptsize {}}}",
        {"helps": r"$\uparrow$", "hurts": r"$\downarrow$", "declared": r"$^\dagger$"},
    ),
    "markdown": Style(_MARKDOWN, "**{}**", "{}", {"helps": "▲", "hurts": "▼", "declared": "†"}),
}


def paper_table(found: Record, form: str) -> str:
    r"""Return the table of a comparison as text: an arm a row, a number of labels a column.

    Parameters
    ----------
    found : dict
        What `fewlabels.compare` or `fewlabels.run` returned, or what ``comparison.json`` holds.
    form : {"latex", "markdown", "csv"}
        ``latex`` needs the package booktabs. ``csv`` has a line for each arm and number of
        labels, with costs and all digits.

    Raises
    ------
    UsageError
        The form is unknown.
    DataError
        There is no score to put into a table.

    Examples
    --------
    >>> curves = [{"arm": "scratch", "shots": 4, "mean": 0.512, "low": 0.45, "high": 0.57}]
    >>> print(paper_table({"curves": curves}, "latex").splitlines()[7])
    Training from scratch & \textbf{51.2} {\scriptsize (45.0--57.0)} \\
    """
    writers: dict[str, Callable[[Comparison], str]] = {
        "latex": _latex,
        "markdown": _markdown,
        "csv": _csv,
    }
    if form not in writers:
        raise unknown("format", form, writers)
    comparison = Comparison(record(found.get("compare")) or found)
    if not comparison.curves:
        message = "this comparison has no scores yet, so there is no table"
        raise DataError("report.empty", message, "the same command again, to its end")
    return writers[form](comparison)


def _latex(comparison: Comparison) -> str:
    style = _STYLES["latex"]
    headings, *rows = (" & ".join(row) + r" \\" for row in _rows(comparison, style))
    columns = "l" + "r" * len(comparison.shots)
    return "\n".join(
        [
            r"\begin{table}  % needs \usepackage{booktabs}",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{_caption(comparison, style)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            headings,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            "",
            rf"\smallskip {{\footnotesize {style.text(_design(comparison))}}}",
            r"\end{table}",
            "",
        ]
    )


def _markdown(comparison: Comparison) -> str:
    style = _STYLES["markdown"]
    headings, *rows = (f"| {' | '.join(row)} |" for row in _rows(comparison, style))
    rule = "|---" + "|---:" * len(comparison.shots) + "|"
    table = [headings, rule, *rows]
    return "\n".join(
        [_caption(comparison, style), "", *table, "", style.text(_design(comparison)), ""]
    )


def _rows(comparison: Comparison, style: Style) -> list[list[str]]:
    """Return the headings, then a row an arm that was measured, all of them escaped."""
    measure = comparison.measure
    headings = ["approach", *(measure.heading(shots) for shots in comparison.shots)]
    rows = [[style.text(heading) for heading in headings]]
    for name in comparison.arms:
        entries = [_entry(comparison, style, name, shots) for shots in comparison.shots]
        if any(entries):
            rows.append([style.text(comparison.title(name)), *(e or words.DASH for e in entries)])
    return rows


def _entry(comparison: Comparison, style: Style, name: str, shots: float | None) -> str:
    """Return mean, interval and marks of an arm; nothing where it was not measured."""
    row, measure = comparison.curves.get((name, shots)), comparison.measure
    if row is None:
        return ""
    value = style.text(measure.value(row["mean"]))
    if _is_best(comparison, name, shots):
        value = style.bold.format(value)
    bounds = style.text(measure.bounds(row.get("low"), row.get("high")))
    marks = style.marks.get(str(_judged(comparison, name, shots).get("verdict")), "")
    marks += style.marks["declared"] if _is_declared(comparison, name, shots) else ""
    return " ".join(filter(None, [value, bounds and style.small.format(bounds), marks]))


def _is_best(comparison: Comparison, name: str, shots: float | None) -> bool:
    best = comparison.measure.best(comparison.mean(arm, shots) for arm in comparison.arms)
    return best is not None and comparison.mean(name, shots) == best


def _judged(comparison: Comparison, name: str, shots: float | None) -> Record:
    """Return the verdict on an arm against the baseline, empty where there is none."""
    wanted = (name, comparison.primary.get("baseline"), shots)
    for row in comparison.verdicts:
        if wanted == (row.get("arm"), row.get("baseline"), shots_of(row.get("shots"))):
            return row
    return {}


def _is_declared(comparison: Comparison, name: str, shots: float | None) -> bool:
    """Say whether the verdict on an arm is the one that was declared before the run."""
    primary = comparison.primary
    return (name, shots) == (primary.get("arm"), shots_of(primary.get("shots")))


def _caption(comparison: Comparison, style: Style) -> str:
    measure, marks = comparison.measure, style.marks
    unit = "%" if measure.share else measure.unit
    what = f"{measure.name[:1].upper()}{measure.name[1:]}{f' in {unit}' if unit else ''}"
    said = f"{what} on the test images by {measure.per}: mean and 95 % interval"
    less = " (less is better)" if measure.falls else ""
    caption = f"{style.text(said + less)}; {style.bold.format('best of a column')}."
    if not comparison.verdicts:
        return caption
    baseline = style.text(words.inside(comparison.title(comparison.primary.get("baseline"))))
    return (
        f"{caption} {marks['helps']} better and {marks['hurts']} worse than {baseline} at the "
        f"{style.text('5 %')} level, by paired differences with Holm's correction for all but the "
        f"one declared before the run ({marks['declared']}); no mark: undecided."
    )


def _design(comparison: Comparison) -> str:
    """Return what the numbers rest on, in words."""
    design = record(comparison.found.get("design"))
    environment = record(comparison.found.get("environment"))
    splits = words.count(design.get("splits"))
    on = "the split it came with" if design.get("splits_given") else f"{splits} random splits"
    seeds = words.count(design.get("pretraining_seeds"))
    crossed = "crossed with" if design.get("splits_given") else "dealt out over"
    drawn = "draws of labels"
    if design.get("folds"):
        on, drawn = f"{design['folds']}-fold cross-validation", "repeats"
    parts = [
        f"{comparison.found.get('name') or 'Data'}: {words.count(design.get('images_test'))} test "
        f"and {words.count(design.get('images_train'))} training images, {on}",
        f"{words.count(design.get('draws'))} {drawn} {crossed} {seeds} pre-training seeds",
        f"budget of each training {words.budget(design.get('budget'))}, pre-training included",
        f"{environment.get('machine') or 'unknown machine'}, {environment.get('device') or 'cpu'}",
        f"fewlabels {environment.get('fewlabels') or words.MISSING}",
    ]
    failed = len(comparison.failed)
    if failed:
        one = failed == 1
        parts.append(
            f"{failed} training{' failed and is' if one else 's failed and are'} in no mean"
        )
    missing = len(records(comparison.found.get("missing")))
    if missing:
        parts.append(f"{missing} not computed yet")
    looks = number(comparison.found.get("looks_at_test"))
    parts += [f"looks at this test set so far: {looks:g}"] if looks else []
    return "; ".join(parts) + "."


def _csv(comparison: Comparison) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for name in comparison.arms:
        for shots in comparison.shots:
            if (name, shots) in comparison.curves:
                writer.writerow(_line(comparison, name, shots))
    return text.getvalue()


def _line(comparison: Comparison, name: str, shots: float | None) -> dict[str, Any]:
    """Return a line of the CSV; the numbers are those of the record, to the last digit."""
    row, judged = comparison.curves[name, shots], _judged(comparison, name, shots)
    cells = comparison.cells_of(name, shots)
    return {
        "arm": name,
        "shots": "" if shots is None else f"{shots:g}",
        "metric": str(comparison.primary.get("metric") or "accuracy"),
        **{key: row.get(key) for key in ("mean", "low", "high")},
        "repeats": row.get("seeds"),
        "best": _is_best(comparison, name, shots),
        **{key: judged.get(key) for key in ("baseline", "difference", "p", "p_holm", "verdict")},
        "difference_low": judged.get("low"),
        "difference_high": judged.get("high"),
        "declared": _is_declared(comparison, name, shots),
        **{key: average(cells, key) for key in _COSTS},
    }
