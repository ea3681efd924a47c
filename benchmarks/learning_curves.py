"""Learning curves from which the forecast took its constants: none is of a committed comparison.

    FEWLABELS_DATA=... python benchmarks/learning_curves.py

FEWLABELS_DATA is a folder that holds ``clothing/``. Classifiers of scikit-learn on six plain
descriptions of its training photos (neither validation nor test images are opened), and on made
data of 10 classes; regressors on made data and scikit-learn's diabetes. Twenty draws of labels,
scored on images that no draw contains. Writes ``benchmarks/learning_curves.csv``; ten minutes on
one core. `forecast_constants.py` reads it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from record import HERE, MADE, made, replace
from sklearn import datasets
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, RidgeClassifier, RidgeCV
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

COMMAND = "python benchmarks/learning_curves.py"
COLUMNS = ("source", "model", "metric", "classes", "shots", "draws", "mean", "se", *MADE)
SHOTS = (1, 2, 4, 8, 16, 32, 64)
NUMBERS = (10, 20, 40, 80, 160, 320)
HELD = 40  # images a class to score on
DRAWS = 20
Pair = tuple[np.ndarray, np.ndarray]

CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "logistic": lambda: LogisticRegression(max_iter=300),
    "centroid": NearestCentroid,
    "neighbour": lambda: KNeighborsClassifier(1),
    "ridge": RidgeClassifier,
    "forest": lambda: RandomForestClassifier(30, random_state=0),
    "svm": lambda: SVC(C=5.0),
}
REGRESSORS: dict[str, Callable[[], Any]] = {
    "ridge": lambda: RidgeCV(np.logspace(-2, 3, 11)),
    "neighbours": lambda: KNeighborsRegressor(3),
    "forest": lambda: RandomForestRegressor(30, random_state=0),
    "svm": lambda: SVR(C=10.0),
}


def photos() -> Pair:
    """Return ``(n, 32, 32, 3)`` training photos in [0, 1], and their classes."""
    place = Path(os.environ["FEWLABELS_DATA"]) / "clothing" / "train"
    images, labels = [], []
    for number, folder in enumerate(sorted(path for path in place.iterdir() if path.is_dir())):
        for path in sorted(folder.iterdir()):
            with Image.open(path) as image:
                image.draft("RGB", (64, 64))
                small = image.convert("RGB").resize((32, 32), Image.Resampling.BOX)
            images.append(np.asarray(small, np.float32) / 255)
            labels.append(number)
    return np.stack(images), np.array(labels)


def shrunk(images: np.ndarray, size: int) -> np.ndarray:
    """Return images averaged down to some size."""
    n, side = len(images), images.shape[1] // size
    means: np.ndarray = images.reshape(n, size, side, size, side, -1).mean(axis=(2, 4))
    return means


def gradients(images: np.ndarray) -> np.ndarray:
    """Return histograms of eight gradient directions in 4 x 4 places."""
    grey = images.mean(axis=3)
    dy, dx = np.gradient(grey, axis=(1, 2))
    direction = ((np.arctan2(dy, dx) + np.pi) / (2 * np.pi) * 8).astype(int) % 8
    planes = np.eye(8)[direction] * np.hypot(dy, dx)[..., None]
    return shrunk(planes, 4).reshape(len(images), -1)


def colours(images: np.ndarray) -> np.ndarray:
    """Return histograms of 4 x 4 x 4 colours."""
    bins = (images * 3.999).astype(int)
    place = bins[..., 0] * 16 + bins[..., 1] * 4 + bins[..., 2]
    return np.stack([np.bincount(p.ravel(), minlength=64) for p in place]) / 32**2


def filters(images: np.ndarray) -> np.ndarray:
    """Return mean and greatest rectified answers of 64 random 5 x 5 filters in 2 x 2 places."""
    rng = np.random.default_rng(0)
    windows = np.lib.stride_tricks.sliding_window_view(shrunk(images, 16), (5, 5), axis=(1, 2))
    flat = windows.reshape(len(images), 12, 12, -1)
    weights = rng.normal(size=(flat.shape[-1], 64)).astype(np.float32)
    answers = np.maximum((flat - flat.mean(axis=3, keepdims=True)) @ weights, 0)
    blocks = answers.reshape(len(images), 2, 6, 2, 6, 64)
    both = np.concatenate([blocks.mean(axis=(2, 4)), blocks.max(axis=(2, 4))], axis=-1)
    return np.asarray(both.reshape(len(images), -1))


def descriptions() -> Iterator[tuple[str, Pair]]:
    """Yield what classifiers learn from."""
    images, labels = photos()
    flat = {f"photos {s}x{s}": shrunk(images, s).reshape(len(images), -1) for s in (4, 16)}
    flat |= {"photos gradients": gradients(images), "photos colours": colours(images)}
    flat |= {"photos filters": filters(images)}
    flat["photos both"] = np.hstack([flat["photos gradients"], flat["photos colours"]])
    for name, x in flat.items():
        yield name, (x, labels)
    few = labels < 4
    yield "photos 4 classes", (flat["photos both"][few], labels[few])
    settings = ((0.5, 20, 5, 1), (1.0, 40, 10, 1), (2.0, 60, 20, 2), (1.5, 100, 10, 3))
    for separation, features, informative, clusters in settings:
        yield (
            f"made {separation:g}-{features}-{clusters}",
            datasets.make_classification(
                1200,
                features,
                n_informative=informative,
                n_redundant=0,
                n_classes=10,
                n_clusters_per_class=clusters,
                class_sep=separation,
                random_state=0,
            ),
        )


def numbers() -> Iterator[tuple[str, Pair]]:
    """Yield what regressors learn from."""
    yield "friedman1", datasets.make_friedman1(1000, noise=1.0, random_state=0)
    yield "friedman2", datasets.make_friedman2(1000, noise=50.0, random_state=0)
    yield "friedman3", datasets.make_friedman3(1000, noise=0.1, random_state=0)
    yield "diabetes", datasets.load_diabetes(return_X_y=True)


def classes_curve(pair: Pair, model: Callable[[], Any]) -> dict[tuple[str, int], list[float]]:
    """Return accuracies, and losses where there are probabilities, by number of labels a class."""
    x, y = pair
    found: dict[tuple[str, int], list[float]] = {}
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        order = [rng.permutation(np.flatnonzero(y == k)) for k in np.unique(y)]
        held = np.concatenate([rows[:HELD] for rows in order])
        for shots in SHOTS:
            rows = np.concatenate([rows[HELD : HELD + shots] for rows in order])
            fitted = make_pipeline(StandardScaler(), model()).fit(x[rows], y[rows])
            found.setdefault(("accuracy", shots), []).append(fitted.score(x[held], y[held]))
            if isinstance(fitted[-1], LogisticRegression):
                loss = log_loss(y[held], fitted.predict_proba(x[held]))
                found.setdefault(("nll", shots), []).append(loss)
    return found


def numbers_curve(pair: Pair, model: Callable[[], Any]) -> dict[tuple[str, int], list[float]]:
    """Return squared errors by number of labels."""
    x, y = pair
    y = (y - y.mean()) / y.std()
    found: dict[tuple[str, int], list[float]] = {}
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(x))
        held, rest = order[:100], order[100:]
        for shots in NUMBERS:
            fitted = make_pipeline(StandardScaler(), model()).fit(x[rest[:shots]], y[rest[:shots]])
            error = float(((fitted.predict(x[held]) - y[held]) ** 2).mean())
            found.setdefault(("mse", shots), []).append(error)
    return found


def main() -> None:
    """Measure all curves and write them."""
    warnings.simplefilter("ignore")  # constant features of a few images
    rows = []
    about = made(COMMAND)
    kinds = ((descriptions, CLASSIFIERS, classes_curve), (numbers, REGRESSORS, numbers_curve))
    for sources, models, curve in kinds:
        for source, pair in sources():
            count = len(np.unique(pair[1])) if curve is classes_curve else 0
            for name, model in models.items():
                for (metric, shots), values in curve(pair, model).items():
                    row = {"source": source, "model": name, "metric": metric, "classes": count}
                    row |= {"shots": shots, "draws": len(values)}
                    row |= {"mean": f"{np.mean(values):.6g}"}
                    row |= {"se": f"{np.std(values, ddof=1) / len(values) ** 0.5:.3g}", **about}
                    rows.append(row)
    replace(HERE / "learning_curves.csv", COLUMNS, rows, COLUMNS[:5])


if __name__ == "__main__":
    main()
