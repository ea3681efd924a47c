"""Kill -9 at random moments, again and again: the same command loses nothing, not a bit.

    python benchmarks/crash.py                             # fifty kills of each verb, or the rest
    python benchmarks/crash.py --verbs compare --kills 10

Real processes of the command line, in lives: a command is started and killed at a moment drawn
uniformly from the time that an uninterrupted run takes, up to three times, then left to end, and
what is there is compared with the uninterrupted run: weights and store bit for bit, cells and
comparison number for number, what they cost and when aside. So that runs of seconds
meet checkpoints too, they are saved every 0.3 s instead of every 20. Writes
``benchmarks/crash.csv``, a row a kill; a life is written when it has ended.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from record import MADE, made, replace

SAVE_SECONDS = 0.3
KILLS_A_LIFE = 3
PHOTOS = 6_000
# What says how long something took, what it cost, where it lies and how often test was seen.
ASIDE = {"seconds", "pretrain_seconds", "transfer_seconds", "baseline_seconds", "seal"}
ASIDE |= {"peak_memory_mb", "energy_joules", "images_per_second"}
ASIDE |= {"command", "run", "report", "looks_at_test"}
TABLE = Path(__file__).parent / "crash.csv"
COLUMNS: tuple[str, ...] = ("verb", "seed", "life", "kill", "moment", "whole_seconds")
COLUMNS += ("steps_saved", "encoders_done", "cells_done", "cells_lost", "files", "differ", *MADE)


@dataclass(frozen=True)
class Place:
    """Where a verb works: its words, its output, its cache."""

    words: list[str]
    out: Path
    cache: Path


def main() -> None:
    """Kill, start again, compare, and write down what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--verbs", default="pretrain,finetune,compare,store")
    parser.add_argument(
        "--kills", type=int, default=50, help="of each verb, those in the table too"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child is not None:
        sys.exit(command_line(chosen.child))
    about = made(f"python benchmarks/crash.py --seed {chosen.seed}")
    with tempfile.TemporaryDirectory() as base:
        for verb in chosen.verbs.split(","):
            measure(chosen.table, verb, chosen.kills, chosen.seed, Path(base), about)
    summary(chosen.table)


def command_line(words: list[str]) -> int:
    """Be the `fewlabels` command, with checkpoints close together."""
    from fewlabels.cli import main as cli
    from fewlabels.training import loop

    loop.SAVE_SECONDS = SAVE_SECONDS
    return cli(words)


def prepared(verb: str, base: Path) -> list[str]:
    """Return the words of a verb after having made what it starts from."""
    if verb == "pretrain":
        return ["pretrain", "digits", "--method", "simclr", "--budget", "250 steps"]
    if verb == "finetune":
        source = Place(
            ["pretrain", "digits", "--method", "simclr", "--budget", "20 steps"],
            base / "source",
            base / "cache",
        )
        if not source.out.exists():
            complete(source)
        start = ["--from", str(source.out), "--labels", "10", "--budget", "250 steps"]
        return ["finetune", "digits", *start]
    if verb == "compare":
        words = ["compare", "digits", "--arms", "pixels,autoencoder+features,simclr+features"]
        words += ["--baseline", "pixels", "--labels", "1,4", "--seeds", "4"]
        return [*words, "--budget", "60 steps"]
    if verb == "store":
        photos = base / "photos"
        if not photos.exists():
            make_photos(photos)
        return ["inspect", str(photos)]
    raise SystemExit(f"--verbs: {verb} is not among pretrain, finetune, compare, store")


def make_photos(folder: Path) -> None:
    """Write JPEGs of 96 pixels a side, for a store that takes a while to build."""
    rng = np.random.default_rng(0)
    for number in range(PHOTOS):
        tiles = np.kron(rng.integers(0, 256, (12, 12, 3)), np.ones((8, 8, 1)))
        place = folder / str(number % 10)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tiles.astype(np.uint8)).save(place / f"{number:05d}.jpg", quality=85)


def measure(
    table: Path, verb: str, kills: int, seed: int, base: Path, about: dict[str, str]
) -> None:
    """Live lives of one verb until it was killed often enough, those already in the table too."""
    done = [row for row in rows_of(table) if (row["verb"], row["seed"]) == (verb, str(seed))]
    count, life = len(done), 1 + max((int(row["life"]) for row in done), default=0)
    if count >= kills:
        return
    words = prepared(verb, base)
    whole = Place(words, base / f"{verb}-whole", base / f"{verb}-cache")
    if verb != "store":  # a store is part of what is built, hence of the time; digits are not
        complete(whole)
        shutil.rmtree(whole.out, ignore_errors=True)
    lasts = complete(whole)
    expected = outcome(whole)
    while count < kills:
        moments = random.Random(f"{seed} {verb} {life}")
        cache = base / f"{verb}-cache-{life}" if verb == "store" else whole.cache
        place = Place(words, base / f"{verb}-{life}", cache)
        found = live(place, expected, lasts, min(KILLS_A_LIFE, kills - count), moments)
        rows = [
            {"verb": verb, "seed": seed, "life": life, "kill": number, **row, **about}
            for number, row in enumerate(found, 1)
        ]
        replace(table, COLUMNS, rows, ("verb", "seed", "life", "kill"))
        sys.stderr.write(f"{verb}: life {life}, {len(rows)} kills, {rows[-1:] and rows[-1]}\n")
        count, life = count + len(rows), life + 1
        shutil.rmtree(place.out, ignore_errors=True)
        if verb == "store":
            shutil.rmtree(place.cache, ignore_errors=True)
    shutil.rmtree(whole.out, ignore_errors=True)


def live(
    place: Place, expected: dict[str, Any], lasts: float, kills: int, moments: random.Random
) -> list[dict[str, Any]]:
    """Kill a command up to `kills` times, let it end, and return a row for each kill."""
    rows: list[dict[str, Any]] = []
    cells: dict[str, bytes] = {}
    for _ in range(kills):
        moment = moments.uniform(0, lasts)
        if not killed(place, moment):
            break  # it had ended by then
        cells |= {path.name: path.read_bytes() for path in place.out.glob("cells/*.json")}
        steps = max((_step(p) for p in place.out.rglob("checkpoints/step-*.json")), default=0)
        encoders = len(list(place.out.glob("encoders/*/result.json")))
        row = {"moment": round(moment, 2), "whole_seconds": round(lasts, 2)}
        row |= {"steps_saved": steps, "cells_done": len(cells)}
        rows.append(row | {"encoders_done": encoders + (place.out / "model").exists()})
    complete(place)
    found = outcome(place)
    names = expected.keys() | found.keys()
    differ = sum(expected.get(name) != found.get(name) for name in names)
    lost = sum(
        not (place.out / "cells" / name).exists()
        or (place.out / "cells" / name).read_bytes() != data
        for name, data in cells.items()
    )
    ends = {"files": len(names), "differ": differ, "cells_lost": lost}
    return [row | ends for row in rows]


def process_of(place: Place) -> list[str]:
    """Return the command line as a process of its own."""
    where = ["--out", str(place.out)] if place.words[0] != "inspect" else []
    return [sys.executable, __file__, "--child", *place.words, *where]


def complete(place: Place) -> float:
    """Run the command to its end; return the seconds it took."""
    began = time.perf_counter()
    done = subprocess.run(
        process_of(place),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"FEWLABELS_CACHE": str(place.cache)},
    )
    if done.returncode:
        words = " ".join(place.words)
        raise SystemExit(f"{words} ended with {done.returncode}: {done.stderr[-500:]}")
    return time.perf_counter() - began


def killed(place: Place, moment: float) -> bool:
    """Start the command and kill it after `moment` seconds; False where it had ended by then."""
    process = subprocess.Popen(
        process_of(place),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"FEWLABELS_CACHE": str(place.cache)},
    )
    time.sleep(moment)
    met = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return met


def _step(path: Path) -> int:
    return int(path.stem.split("-")[1])


def outcome(place: Place) -> dict[str, Any]:
    """Return all weights and stores, cells and comparison without what they cost."""
    found: dict[str, Any] = {}
    for path in place.out.rglob("*.safetensors"):
        found[path.relative_to(place.out).as_posix()] = path.read_bytes()
    for path in [*place.out.glob("cells/*.json"), *place.out.glob("comparison.json")]:
        found[path.name] = without(json.loads(path.read_text(encoding="utf-8")))
    for path in place.cache.glob("stores/*/*"):
        if path.is_file() and path.name != "meta.json":  # which says when files were changed
            found[path.relative_to(place.cache).as_posix()] = path.read_bytes()
    return found


def without(value: Any) -> Any:
    """Return a JSON value without times, costs and places."""
    if isinstance(value, dict):
        return {k: without(v) for k, v in value.items() if k not in ASIDE}
    return [without(item) for item in value] if isinstance(value, list) else value


def rows_of(table: Path) -> list[dict[str, str]]:
    """Return the rows there are."""
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def summary(table: Path) -> None:
    """Print a line a verb."""
    rows = rows_of(table)
    for verb in dict.fromkeys(row["verb"] for row in rows):
        own = [row for row in rows if row["verb"] == verb]
        ends = {(row["seed"], row["life"]): row for row in own}.values()
        saved = sum(int(r["steps_saved"]) + int(r["encoders_done"]) > 0 for r in own)
        sys.stdout.write(
            f"{verb}: {len(own)} kills in {len(ends)} lives, {saved} after something was saved; "
            f"{sum(int(row['differ']) for row in ends)} of "
            f"{sum(int(row['files']) for row in ends)} files differ; "
            f"{sum(int(row['cells_lost']) for row in ends)} of "
            f"{sum(int(row['cells_done']) for row in ends)} complete cells lost\n"
        )


if __name__ == "__main__":
    main()
