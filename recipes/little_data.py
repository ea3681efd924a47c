"""Make the untidy data of real projects out of a tidy set, for recipe R17.

    python recipes/little_data.py SOURCE OUT

`SOURCE` holds ``train/<class>/*``. Writes ``OUT/table``, a flat folder whose ``labels.csv`` leaves
most labels blank and names files that are not there, and ``OUT/folders``, class folders of which
one is empty. Images are copied; `SOURCE` is not changed.
"""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

IMAGES = 40  # a class
LABELLED = 12  # of them
MISSING = 3  # rows of the table without a file


def main(source: Path, out: Path) -> None:
    """Copy some images into both layouts."""
    rows = []
    (out / "table").mkdir(parents=True, exist_ok=True)
    for folder in sorted(path for path in (source / "train").iterdir() if path.is_dir()):
        (out / "folders" / folder.name).mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(sorted(folder.iterdir())[:IMAGES]):
            name = f"{folder.name}-{number}{image.suffix}"
            shutil.copy(image, out / "table" / name)
            shutil.copy(image, out / "folders" / folder.name / image.name)
            rows.append((name, folder.name if number < LABELLED else ""))
    rows += [(f"lost-{number}.jpg", rows[0][1]) for number in range(MISSING)]
    (out / "folders" / "nothing-yet").mkdir(exist_ok=True)
    with (out / "table" / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label"), *rows])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
