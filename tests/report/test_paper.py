"""The table for a paper: every cell in its place, every number that of the record, nothing live."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fewlabels.core.errors import DataError, UsageError
from fewlabels.report import paper_table

HOSTILE = r"a|b_{c}$x^2$ & 50% #1 \input{x} [~] <b>*`\n"
COSTS = ("seconds", "steps", "images_seen", "multiply_adds", "energy_joules", "peak_memory_mb")


@pytest.fixture
def found(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "comparison.json").read_text())
    return value


def renamed(found: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the comparison with its pixels under another name."""
    return json.loads(json.dumps(found).replace(json.dumps("pixels"), json.dumps(name)))


def columns(line: str) -> list[str]:
    """Return the cells of a row of a Markdown table; an escaped bar divides nothing."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def markdown_rows(text: str) -> list[list[str]]:
    text = text.replace("\N{EN DASH}", "-")
    return [columns(line) for line in text.splitlines() if line.startswith("|")]


# ---- what stands where -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pixels", HOSTILE])
def test_markdown_has_as_many_cells_in_every_row(found: dict[str, Any], name: str) -> None:
    rows = markdown_rows(paper_table(renamed(found, name), "markdown"))
    assert rows[0] == ["approach", "1 / class", "4 / class", "25 / class"]
    assert {len(row) for row in rows} == {4}
    assert len(rows) == 2 + len(found["arms"])
    assert set(rows[1]) == {"---", "---:"}


def test_values_intervals_best_and_marks(found: dict[str, Any]) -> None:
    table = {row[0]: row[1:] for row in markdown_rows(paper_table(found, "markdown"))}
    # The declared verdict, 25 labels: 81.2 against 72.1 of scratch, and the best of its column.
    assert table["SimCLR + frozen features"][2] == "**81.2** (78.7-83.7) ▲†"
    assert table["Training from scratch"] == [
        "31.0 (25.5-36.5)",
        "48.0 (44.1-51.9)",
        "72.1 (69.6-74.6)",
    ]
    assert table["Autoencoder + frozen features"][2] == "69.0 (66.5-71.5) ▼"
    assert table["Autoencoder + fine-tuning"][1] == "50.0 (46.1-53.9)"  # undecided
    best = [column for row in table.values() for column in row if column.startswith("**")]
    assert best == ["**47.0** (41.5-52.5) ▲", "**68.0** (64.1-71.9) ▲", "**81.2** (78.7-83.7) ▲†"]


def test_caption_and_footnote_tell_what_it_rests_on(found: dict[str, Any]) -> None:
    found["design"] |= {"budget": "2000000images", "splits_given": True}
    text = paper_table(found, "markdown")
    first, last = text.splitlines()[0], text.splitlines()[-1]
    assert first.startswith("Accuracy in % on the test images by labels per class: mean and 95 %")
    assert "than training from scratch at the 5 % level" in first
    for said in (
        *("372 test and 3,068 training images", "the split it came with"),
        *(
            "4 draws of labels crossed with 2 pre-training seeds",
            "budget of each training 2,000,000",
        ),
        *("2 x Synthetic CPU", "fewlabels 0.1.0", "1 training failed and is in no mean"),
        "looks at this test set so far: 1",
    ):
        assert said in last


def test_a_score_that_falls(number_folder: Path) -> None:
    found = json.loads((number_folder / "comparison.json").read_text())
    text = paper_table(found, "markdown")
    assert "Mean squared error in m/s² on the test images by labels" in text
    assert "(less is better)" in text
    table = {row[0]: row[1:] for row in markdown_rows(text)}
    assert table["SimCLR + frozen features"] == ["**500** (410-590) ▲†", "**220** (130-310)"]
    assert table["Mean of the labels"][0] == "1600 (1510-1690) ▼"


def test_what_was_not_measured_is_a_dash(found: dict[str, Any]) -> None:
    gone = ("scratch", 4)
    found["curves"] = [c for c in found["curves"] if (c["arm"], c["shots"]) != gone]
    table = {row[0]: row[1:] for row in markdown_rows(paper_table(found, "markdown"))}
    assert table["Training from scratch"][1] == "-"


def test_no_scores_no_table() -> None:
    with pytest.raises(DataError, match="no scores yet"):
        paper_table({"arms": [], "curves": []}, "latex")
    with pytest.raises(UsageError, match="unknown format"):
        paper_table({}, "html")


def test_the_page_of_the_docs_shows_how(
    folder: Path, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    page = Path(__file__).parents[2] / "docs" / "tables.md"
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    (folder / "runs").mkdir()
    (folder / "runs/table").symlink_to(folder)
    monkeypatch.chdir(folder)
    exec(compile(block, str(page), "exec"), {})
    assert capsys.readouterr().out == paper_table(found, "markdown") + "\n"


def test_a_run_has_the_table_of_its_comparison(found: dict[str, Any]) -> None:
    assert paper_table({"kind": "run", "compare": found}, "csv") == paper_table(found, "csv")


# ---- CSV -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pixels", HOSTILE, 'a "quoted", name'])
def test_csv_holds_the_numbers_of_the_record(found: dict[str, Any], name: str) -> None:
    found = renamed(found, name)
    lines = list(csv.DictReader(io.StringIO(paper_table(found, "csv"))))
    rows = {(line["arm"], int(line["shots"])): line for line in lines}
    assert len(rows) == len(lines) == len(found["curves"]) == 24
    for curve in found["curves"]:
        line = rows[curve["arm"], curve["shots"]]
        assert [float(line[key]) for key in ("mean", "low", "high")] == [
            curve[key] for key in ("mean", "low", "high")
        ]
        cells = [
            c for c in found["cells"] if (c["arm"], c["shots"]) == (curve["arm"], curve["shots"])
        ]
        for key in COSTS:
            known = [c[key] for c in cells if not c["failed"] and c[key] is not None]
            assert (line[key] != "") == bool(known)
            assert not known or float(line[key]) == pytest.approx(sum(known) / len(known))
    for verdict in found["verdicts"]:
        if verdict["baseline"] == "scratch":
            line = rows[verdict["arm"], verdict["shots"]]
            told = [float(line[f"difference{end}"]) for end in ("", "_low", "_high")]
            assert told == [verdict[key] for key in ("difference", "low", "high")]
            assert (line["verdict"], float(line["p_holm"])) == (
                verdict["verdict"],
                verdict["p_holm"],
            )
    declared = [key for key, line in rows.items() if line["declared"] == "True"]
    assert declared == [("simclr+features", 25)]
    assert sum(line["best"] == "True" for line in lines) == 3


# ---- LaTeX -----------------------------------------------------------------------------------


def test_latex_has_booktabs_and_as_many_cells_in_every_row(found: dict[str, Any]) -> None:
    text = paper_table(renamed(found, HOSTILE), "latex")
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r" \\")]
    assert len(rows) == 1 + len(found["arms"])
    assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {4}
    assert r"\begin{tabular}{lrrr}" in text
    assert text.count(r"\midrule") == 1
    assert r"\textbf{81.2} {\scriptsize (78.7--83.7)} $\uparrow$$^\dagger$" in text


def test_latex_escapes_what_would_run(found: dict[str, Any]) -> None:
    text = paper_table(renamed(found, HOSTILE), "latex")
    (row,) = (line for line in text.splitlines() if line.startswith("a\\textbar"))
    name = row.split(" & ")[0] + " & " + row.split(" & ")[1]
    assert r"b\_\{c\}\$x\textasciicircum{}2\$ \& 50\% \#1 \textbackslash{}input\{x\}" in row
    assert r"{[}\textasciitilde{}{]} \textless{}b\textgreater{}{*}" in row
    assert name.isascii()
    assert text.count("{") == text.count("}")


def test_latex_compiles(found: dict[str, Any], tmp_path: Path) -> None:
    program = shutil.which("pdflatex") or shutil.which("tectonic")
    if not program:
        pytest.skip("no TeX: install pdflatex or tectonic to compile the table")
    head = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
    table = paper_table(renamed(found, HOSTILE), "latex")
    (tmp_path / "table.tex").write_text(f"{head}{table}\\end{{document}}\n")
    command = [program, *(["-halt-on-error"] if "pdflatex" in program else []), "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2_000:]
    assert (tmp_path / "table.pdf").stat().st_size > 1_000
