"""Kill -9 at random moments, then the same command again: nothing may be lost, not a bit.

    python benchmarks/crash.py
    python benchmarks/crash.py --pretrain 1 --compare 0

Real processes of the command line on the built-in digits. Each is killed at a moment drawn
uniformly from the time an uninterrupted run takes, started again with the same command, and
compared with the uninterrupted run: weights bit for bit, cells number for number. So that
runs of seconds meet checkpoints too, they are saved every 0.3 s instead of every 20.
Writes ``benchmarks/crash.csv``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import Record

SAVE_SECONDS = 0.3
PRETRAIN = ["pretrain", "digits", "--method", "simclr", "--budget", "250 steps", "--seed", "0"]
COMPARE = ["compare", "digits", "--arms", "pixels,autoencoder+features,simclr+features"]
COMPARE += ["--baseline", "pixels", "--labels", "1,4", "--seeds", "4", "--budget", "60 steps"]
# What a cell cost; its seal follows from that as well.
COST = (
    *("seconds", "pretrain_seconds", "transfer_seconds", "peak_memory_mb", "energy_joules"),
    "seal",
)


def main() -> None:
    """Kill, start again, compare, and write down what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pretrain", type=int, default=10, help="kills of a pretrain")
    parser.add_argument("--compare", type=int, default=5, help="kills of a compare")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child is not None:
        sys.exit(command_line(chosen.child))
    record = Record("crash", f"python benchmarks/crash.py --seed {chosen.seed}")
    moments = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as place:
        os.environ["FEWLABELS_CACHE"] = str(Path(place) / "cache")
        for words, kills in ((PRETRAIN, chosen.pretrain), (COMPARE, chosen.compare)):
            if kills:
                measure(record, words, kills, moments, Path(place))


def command_line(words: list[str]) -> int:
    """Be the `fewlabels` command, with checkpoints close together."""
    from fewlabels.cli import main as cli
    from fewlabels.training import loop

    loop.SAVE_SECONDS = SAVE_SECONDS
    return cli(words)


def command(words: list[str], out: Path) -> list[str]:
    """Return the command line as a process of its own."""
    return [sys.executable, __file__, "--child", *words, "--out", str(out)]


def complete(words: list[str], out: Path) -> float:
    """Run the command to its end; return the seconds it took."""
    began = time.perf_counter()
    done = subprocess.run(command(words, out), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-500:]}")
    return time.perf_counter() - began


def measure(
    record: Record, words: list[str], kills: int, moments: random.Random, place: Path
) -> None:
    """Kill one verb again and again, each time in a folder of its own."""
    verb = words[0]
    complete(words, place / "warm")  # decodes the digits
    whole = place / f"{verb}-whole"
    lasts = complete(words, whole)
    record.add(f"{verb}: uninterrupted", lasts, "s")
    found = [kill_once(words, place / verb, whole, moments.uniform(0, lasts)) for _ in range(kills)]
    for number, one in enumerate(found, 1):
        record.add(f"{verb}: kill {number}, moment", one["moment"], "s")
        record.add(f"{verb}: kill {number}, steps saved by then", one["steps"], "steps")
    record.add(f"{verb}: kills that met a running process", sum(f["met"] for f in found), "kills")
    record.add(
        f"{verb}: kills after which some training was saved",
        sum(f["steps"] > 0 or f["encoders"] > 0 for f in found),
        "kills",
    )
    record.add(f"{verb}: ends that differ in any bit", sum(f["differ"] for f in found), "files")
    if verb == "compare":
        cells = sum(f["cells"] for f in found)
        record.add(f"{verb}: cells that were complete when killed", cells, "cells")
        record.add(f"{verb}: of these lost or changed", sum(f["lost"] for f in found), "cells")
    for folder in (place / "warm", whole):
        shutil.rmtree(folder)


def kill_once(words: list[str], out: Path, whole: Path, moment: float) -> dict[str, Any]:
    """Kill the command after `moment` seconds, run it again, and compare with the whole run."""
    process = subprocess.Popen(
        command(words, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(moment)
    met = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    cells = {path.name: path.read_bytes() for path in out.glob("cells/*.json")}
    steps = max((_step(path) for path in out.rglob("checkpoints/step-*.json")), default=0)
    encoders = len(list(out.glob("encoders/*/result.json"))) + (out / "model").exists()
    complete(words, out)
    lost = sum(
        not (out / "cells" / name).exists() or (out / "cells" / name).read_bytes() != data
        for name, data in cells.items()
    )
    differ = sum(result != outcome(out).get(name) for name, result in outcome(whole).items())
    differ += len(outcome(out).keys() - outcome(whole).keys())
    shutil.rmtree(out)
    return {
        "moment": moment,
        "met": met,
        "steps": steps,
        "encoders": encoders,
        "cells": len(cells),
        "lost": lost,
        "differ": differ,
    }


def _step(path: Path) -> int:
    return int(path.stem.split("-")[1])


def outcome(folder: Path) -> dict[str, Any]:
    """Return every file of weights, and every cell without what it cost."""
    found: dict[str, Any] = {}
    for path in folder.rglob("*.safetensors"):
        found[path.relative_to(folder).as_posix()] = path.read_bytes()
    for path in folder.glob("cells/*.json"):
        row = json.loads(path.read_text(encoding="utf-8"))
        found[path.name] = {key: value for key, value in row.items() if key not in COST}
    return found


if __name__ == "__main__":
    main()
