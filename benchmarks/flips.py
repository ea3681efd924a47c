"""Flip one random bit of one random file of a run folder, and see whether anybody notices.

    python benchmarks/flips.py
    python benchmarks/flips.py --trials 20 --out runs/flips

Small real folders are made of the built-in digits: a finished pre-training, fine-tune and
comparison, and a pre-training and a comparison that were interrupted. Each trial copies one, flips
a bit, and runs the commands that read such a folder in this process, through the command line's
own entry. What they give must be what they gave for the folder before, or the damage must be said:

- ``detected``: a command ended with an error of ours that has a name, or the report's page names
  the file;
- ``made again``: a command wrote the file anew, as it was: same weights, same numbers;
- ``harmless``: every command gave the same, because none of them reads that file or that byte;
- ``silent``: a command gave something else and did not say why;
- ``crash``: a command ended by an error that is not ours.

Begun again with the same ``--out`` it goes on. Writes ``benchmarks/flips.csv``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

from crash import ASIDE
from record import Record

from fewlabels.cli import main as command_line
from fewlabels.core.types import Method
from fewlabels.results.files import append_line, read_lines
from fewlabels.results.lock import Lock
from fewlabels.training import loop
from fewlabels.training.checkpoint import save_checkpoint

METHOD = ["--method", "autoencoder", "--backbone", "tiny"]
PRETRAIN = ["pretrain", "digits", *METHOD, "--budget", "24 steps", "--device", "cpu"]
COMPARE = ["compare", "digits", "--arms", "pixels,autoencoder+features", "--baseline", "pixels"]
COMPARE += ["--labels", "1,4", "--seeds", "2", "--budget", "12 steps", "--backbone", "tiny"]
COMPARE += ["--device", "cpu"]
# How long it took, what the machine was doing, and where a folder lies.
LEFT_OUT = ASIDE | {"environment", "already_done"}
LEFT_OUT |= {"report", "seconds_per_step"}
OURS = (2, 3, 4)  # exit codes of errors about what was given, data and model files
KINDS = ("detected", "made again", "harmless", "silent", "crash")


class Killed(BaseException):
    """Stands for a process that was killed in the middle of a training."""


def main() -> None:
    """Make the folders, flip bits in copies of them, and count what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0, help="of files, bytes and bits")
    parser.add_argument("--out", type=Path, default=Path("runs/flips"), help="to go on in")
    chosen = parser.parse_args()
    place = chosen.out.absolute()
    os.environ["FEWLABELS_CACHE"] = str(place / "cache")
    place.mkdir(parents=True, exist_ok=True)
    with Lock(place / "flips.lock"):
        rows = trials(place, chosen.trials, chosen.seed)
    record = Record("flips", f"python benchmarks/flips.py --trials {chosen.trials}")
    write(record, rows)


def trials(place: Path, count: int, seed: int) -> list[dict[str, Any]]:
    """Do the trials that are not done yet; return all of them."""
    if not (place / "made").exists():
        make(place)
    expected = {name: outcome(place, name) for name in sorted(COMMANDS)}
    log = place / f"trials-{seed}.jsonl"
    done = {row["trial"] for row in read_lines(log)}
    for number in range(count):
        if number not in done:
            append_line(log, {"trial": number, **trial(place, expected, seed, number)})
    return [row for row in read_lines(log) if row["trial"] < count]


def make(place: Path) -> None:
    """Make the folders, under the names that `COMMANDS` knows."""
    shutil.rmtree(place / "folders", ignore_errors=True)
    for name in ("pretrain", "finetune", "compare"):
        run([*words_of(name, place), "--out", str(place / "folders" / name)])
    interrupt([*PRETRAIN, "--out", str(place / "folders" / "pretrain, interrupted")])
    whole, half = place / "folders" / "compare", place / "folders" / "compare, interrupted"
    shutil.copytree(whole, half)
    for left in ("checksums.json", "comparison.json", "report.html"):
        (half / left).unlink()
    sorted(half.glob("cells/*.json"))[0].unlink()
    (place / "made").touch()


def words_of(name: str, place: Path) -> list[str]:
    """Return the command that makes a folder."""
    if name == "finetune":
        words = ["finetune", "digits", "--from", str(place / "folders" / "pretrain")]
        return [*words, "--labels", "4", "--transfer", "logistic", "--device", "cpu"]
    return PRETRAIN if name.startswith("pretrain") else COMPARE


def interrupt(words: list[str]) -> None:
    """Run a training that ends, as by a kill, right after its third checkpoint."""
    saved: list[int] = []

    def save(folder: Path, method: Method, step: int, seconds: float) -> None:
        save_checkpoint(folder, method, step, seconds)
        saved.append(step)
        if len(saved) == 3:
            raise Killed

    with mock.patch.multiple(loop, save_checkpoint=save, SAVE_SECONDS=0.0):
        run(words)
    if len(saved) != 3:
        raise SystemExit(f"{words[0]} ended before it could be interrupted")


def run(words: list[str]) -> tuple[int, str, str]:
    """Run a command in this process; return its exit code, its result and what it said."""
    result, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(result), contextlib.redirect_stderr(said):
        code = command_line([*words, "--json"] if words[0] != "report" else words)
    if code in (130, 143):  # meant for this script
        raise SystemExit(code)
    return code, result.getvalue(), said.getvalue()


def commands_of(name: str, folder: Path, place: Path) -> list[list[str]]:
    """Return the commands that read a folder of a kind; the report comes last."""
    again = [*words_of(name, place), "--out", str(folder)]
    report = ["report", str(folder)]
    start = ["finetune", "digits", "--from", str(folder), "--labels", "1"]
    start += ["--transfer", "centroid", "--device", "cpu", "--out", str(place / "from")]
    return {
        "pretrain": [again, start, report],
        "finetune": [["evaluate", str(folder), "--split", "val"], again, report],
        "compare": [again, report],
        "pretrain, interrupted": [again],
        "compare, interrupted": [again],
    }[name]


COMMANDS = ("pretrain", "finetune", "compare", "pretrain, interrupted", "compare, interrupted")


def outcome(place: Path, name: str, spoil: Any = None) -> list[tuple[int, Any, str]]:
    """Run the commands on a copy of a folder; return exit code, what came out, and what was said.

    The copy always has the same path, so that what a command writes can be compared.
    """
    folder = place / "trial"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(place / "folders" / name, folder)
    if spoil is not None:
        spoil(folder)
    found: list[tuple[int, Any, str]] = []
    for words in commands_of(name, folder, place):
        shutil.rmtree(place / "from", ignore_errors=True)
        code, result, said = run(words)
        if words[0] == "report":
            page = folder / "report.html"
            found.append((code, page.read_text(encoding="utf-8") if code == 0 else "", said))
        else:
            weights = [] if code else sorted(p.read_bytes() for p in folder.glob("model/*.safe*"))
            found.append((code, (plain(json.loads(result or "null")), weights), said))
    return found


def plain(value: Any) -> Any:
    """Return a result without what is another at every start."""
    if isinstance(value, dict):
        kept = {key for key in value if key not in LEFT_OUT and not key.endswith("seconds")}
        return {key: plain(inner) for key, inner in value.items() if key in kept}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


def trial(place: Path, expected: dict[str, Any], seed: int, number: int) -> dict[str, Any]:
    """Flip one bit; return where, and what came of it."""
    draw = random.Random(f"{seed}/{number}")
    name = draw.choice(COMMANDS)
    folder = place / "folders" / name
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)
    file = draw.choice(files).relative_to(folder).as_posix()
    at, bit = draw.randrange((folder / file).stat().st_size), draw.randrange(8)

    def spoil(copy: Path) -> None:
        raw = bytearray((copy / file).read_bytes())
        raw[at] ^= 1 << bit
        (copy / file).write_bytes(raw)

    found = outcome(place, name, spoil)
    kind, why = judged(found, expected[name])
    if kind == "harmless":
        raw, now = (folder / file).read_bytes(), place / "trial" / file
        changed = now.exists() and now.read_bytes()[at : at + 1] == bytes([raw[at] ^ 1 << bit])
        kind = kind if changed else "made again"
    return {"folder": name, "file": file, "byte": at, "bit": bit, "outcome": kind, "why": why}


def judged(found: list[Any], expected: list[Any]) -> tuple[str, str]:
    """Return what kind of outcome this is, and what says why."""
    pairs = list(zip(found, expected, strict=True))
    for (code, _, said), (before, _, _) in pairs:
        if code != before and code not in OURS:
            return "crash", said[-300:]
    for (code, _, said), (before, _, _) in pairs:
        if code != before:
            return "detected", said.partition("error[")[2].partition("]")[0]
    for (_, result, _), (_, before, _) in pairs:
        if result != before:
            if isinstance(result, str) and "is damaged" in result and "is damaged" not in before:
                return "detected", "named in the report"
            return "silent", _first(result, before)
    return "harmless", ""


def _first(result: Any, before: Any) -> str:
    one, other = (str(value) for value in (result, before))
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
    return f"{one[max(0, at - 60) : at + 60]!r} instead of {other[max(0, at - 60) : at + 60]!r}"


def write(record: Record, rows: list[dict[str, Any]]) -> None:
    """Write how many trials ended in which way, over all and by the kind of file."""
    for kind in KINDS:
        record.add(kind, sum(row["outcome"] == kind for row in rows), "trials")
    counts = Counter((row["folder"], kind_of(row["file"]), row["outcome"]) for row in rows)
    for (folder, file, kind), count in sorted(counts.items()):
        record.add(f"{folder}: {file}: {kind}", count, "trials")


def kind_of(file: str) -> str:
    """Return the name of a file without what is another in each folder."""
    parts = file.split("/")
    if parts[0] in ("cells", "choices", "checkpoints", "records"):
        return f"{parts[0]}/*{Path(file).suffix}"
    return "/".join([parts[0], "*", *parts[2:]]) if parts[0] == "encoders" else file


if __name__ == "__main__":
    main()
