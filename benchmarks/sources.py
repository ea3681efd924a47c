"""Whether the score of a source foretells its verdict: eight sources, one target.

    FEWLABELS_DATA=... python benchmarks/sources.py --out runs/sources

Pre-trains eight encoders on CIFAR-10 and on clothing, some of them chosen to suit handwritten
digits badly, scores each on the visible labels of the digits (`models --fit`), then lets each
compete with training from scratch. The first of them, supervised on CIFAR-10, is also fine-tuned,
and carried into a network for small grey images. Writes ``sources.csv`` (a row a source: score,
accuracy; the last rows are Spearman's rank correlations of the two, with their levels) and
``sources_verdicts.csv``. Goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.stats import spearmanr

import fewlabels
from fewlabels.results.environment import describe

HERE = Path(__file__).parent
SHOTS = (1, 4, 25)
SCORED_AT = 4  # labels a class that the score may read; the accuracy is that at as many
# Name, data, method, budget. A code of two numbers is meant to suit badly. What begins without a
# convolution cannot go from colour to grey, and learns from grey copies of the images.
SOURCES: tuple[tuple[str, str, str, str], ...] = (
    ("supervised", "cifar10", "supervised", "180s"),
    ("simclr", "cifar10", "simclr", "180s"),
    ("rotation", "cifar10", "rotation", "180s"),
    ("autoencoder", "cifar10", "autoencoder", "180s"),
    ("patches", "cifar10-grey", "kmeans", "60s"),
    ("code-of-two", "cifar10-grey", "dense_autoencoder", "60s"),
    ("clothing", "clothing", "supervised", "120s"),
    ("clothing-views", "clothing", "simclr", "120s"),
)


def main() -> None:
    """Pre-train, score, compare, correlate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=10)
    chosen = parser.parse_args()
    places = {name: chosen.out / name for name, *_ in SOURCES}
    for name, data, method, budget in SOURCES:
        fewlabels.pretrain(
            fewlabels.DataOptions(str(place_of(data, chosen.out)), image_size=32),
            method=method,
            budget=budget,
            out=places[name],
        )
    starts = [str(place) for place in places.values()]
    scored = fewlabels.models("tiny", fit="digits", starts=starts, labels=SCORED_AT)
    scores = {row["name"]: row for row in scored}
    first = places["supervised"]
    arms = ["scratch", f"{first}+features", f"{first}+parameters", f"{first}+structure"]
    result = fewlabels.compare(
        "digits",
        arms=[*arms, *(f"{start}+logistic" for start in starts)],
        labels=SHOTS,
        seeds=chosen.draws,
        pretraining_seeds=chosen.draws,
        select="none",
        out=chosen.out / "compared",
        command="python benchmarks/sources.py",
    )
    names = {str(place): name for name, place in places.items()}
    write_sources(result, scores, names)
    write_verdicts(result, names)


def place_of(data: str, out: Path) -> Path:
    """Return where the data lie; grey copies of CIFAR-10's training images are made here."""
    root = Path(os.environ["FEWLABELS_DATA"])
    if data != "cifar10-grey":
        return root / data
    place = out / "cifar10-grey.npz"
    if not place.exists():
        files = sorted((root / "cifar10" / "train").glob("*/*"))
        images = np.stack([np.asarray(Image.open(file).convert("L")) for file in files])
        out.mkdir(parents=True, exist_ok=True)
        np.savez(place, images=images, labels=np.array([file.parent.name for file in files]))
    return place


def write_sources(
    result: dict[str, Any], scores: dict[str, dict[str, Any]], names: dict[str, str]
) -> None:
    """Write a row a source, and the correlation."""
    about = {(name, data): method for name, data, method, _ in SOURCES}
    rows = []
    for start, name in names.items():
        data, method = next((d, m) for (n, d), m in about.items() if n == name)
        curve = {c["shots"]: c for c in result["curves"] if c["arm"] == f"{start}+logistic"}
        fit, found = scores[start]["fit"], curve[SCORED_AT]
        row = [name, data, method, fit["logme"], fit["knn"]["value"], scores[start]["warning"]]
        rows.append([*row, found["mean"], found["low"], found["high"]])
    accuracy = [row[6] for row in rows]
    made = describe("cpu")
    tail = [made["machine"], made.get("commit", ""), "python benchmarks/sources.py"]
    with (HERE / "sources.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        head = ["source", "data", "method", "logme", "knn", "warning"]
        table.writerow([*head, "accuracy", "low", "high", "machine", "commit", "command"])
        table.writerows([*map(_short, row), *tail] for row in rows)
        for place, score in ((3, "logme"), (4, "knn")):
            found = spearmanr([row[place] for row in rows], accuracy)
            value, level = float(found.statistic), float(found.pvalue)
            row = [f"rank correlation with {score}", "", "", "", "", f"p = {level:.3g}", value]
            table.writerow([*map(_short, row), "", "", *tail])


def write_verdicts(result: dict[str, Any], names: dict[str, str]) -> None:
    """Write every verdict against scratch."""
    columns: tuple[str, ...] = (
        "arm",
        "baseline",
        "shots",
        "primary",
        "difference",
        "low",
        "high",
        "p_holm",
    )
    columns += ("verdict", "detectable", "n")
    with (HERE / "sources_verdicts.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(columns)
        for row in result["verdicts"]:
            start, _, transfer = row["arm"].rpartition("+")
            short = {**row, "arm": f"{names.get(start, start)}+{transfer}"}
            table.writerow([_short(short[name]) for name in columns])


def _short(value: Any) -> Any:
    return f"{value:.5g}" if isinstance(value, float | np.floating) else value


if __name__ == "__main__":
    main()
