"""Make a table of numbers to predict: real handwritten digits, each turned by an angle we know.

    python recipes/turned_digits.py OUT

The pictures are scikit-learn's, the task is made up. Writes ``OUT/000.png`` and so on, and
``OUT/angles.csv`` with the columns ``path`` and ``angle (deg)``.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

IMAGES = 600
SIZE = 16
MOST = 45  # degrees, either way


def main(out: Path) -> None:
    """Turn the first digits by angles drawn evenly."""
    out.mkdir(parents=True, exist_ok=True)
    turns = np.random.default_rng(0)
    rows = []
    for number, image in enumerate(load_digits().images[:IMAGES]):
        angle = turns.uniform(-MOST, MOST)
        pixels = np.round(image * 255 / 16).astype(np.uint8)
        picture = Image.fromarray(pixels).resize((SIZE, SIZE))
        picture.rotate(angle, Image.Resampling.BICUBIC).save(out / f"{number:03d}.png")
        rows.append((f"{number:03d}.png", f"{angle:.2f}"))
    with (out / "angles.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "angle (deg)"), *rows])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
