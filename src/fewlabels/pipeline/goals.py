"""What is predicted: classes, or a number. All that differs between the two is asked here.

`Classes` and `Numbers` have the same methods; the rest of the pipeline and every comparison
speak to the goal of their task and do not know which of the two it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from fewlabels.core.errors import DataError
from fewlabels.data import targets
from fewlabels.data.dataset import Dataset, require_classes
from fewlabels.data.labels import shortfall
from fewlabels.data.listing import escape
from fewlabels.evaluation import metrics, regression
from fewlabels.evaluation.folds import ENOUGH, ENOUGH_NUMBERS, folds_of, number_folds
from fewlabels.evaluation.intervals import clustered, wilson
from fewlabels.explain.mistakes import (
    farthest_and_near,
    largest_errors,
    surest_and_right,
    worst_mistakes,
)

PAIRS = 2_000  # true and predicted numbers kept with a result, for the page
RANGES = 5  # of equally many images, which colour the map where there are no classes


@dataclass(frozen=True, slots=True, eq=False)
class Classes:
    """Images are told apart by class."""

    dataset: Dataset

    metrics: ClassVar[tuple[str, ...]] = (
        *("accuracy", "balanced_accuracy", "recall_macro", "f1_macro", "nll"),
    )
    first_head: ClassVar[str] = "logistic"  # what a fine-tune of parameters starts from
    few: ClassVar[str] = f"fewer than {ENOUGH} labels in the smallest class"

    def require(self) -> None:
        """Refuse data without labels, or with one class only."""
        require_classes(self.dataset)

    def refuse_shortage(self, shots: int) -> None:
        """Refuse a label budget that no class can fill.

        Raises
        ------
        DataError
            The class with most training labels has fewer.
        """
        rows = self.dataset.labelled_rows("train")
        most = np.bincount(self.dataset.labels[rows], minlength=len(self.dataset.classes)).max()
        if most < shots:
            raise DataError(
                "data.few_labels",
                f"--labels {shots}, but the class with most training labels has {most}",
                f"--labels {most} or fewer",
            )

    def label_count(self, shots: int) -> int:
        """Return how many images `shots` labels come to."""
        return shots * len(self.dataset.classes)

    def can_choose(self, count: int) -> bool:
        """Say whether so many labels, evenly over the classes, can be held out in folds."""
        return count >= ENOUGH * len(self.dataset.classes)

    def said(self, shots: int) -> str:
        """Return a label budget in words."""
        return f"{shots or 'all'} labels per class"

    @property
    def model(self) -> dict[str, Any]:
        """Return what `save_model` is told of the goal."""
        return {"classes": self.dataset.classes}

    def counts(self, rows: np.ndarray) -> dict[str, int]:
        """Return how many of `rows` each class has."""
        found = np.bincount(self.dataset.labels[rows], minlength=len(self.dataset.classes))
        names = (escape(name) for name in self.dataset.classes)
        return {name: int(n) for name, n in zip(names, found, strict=True)}

    def shortfall(self, rows: np.ndarray, labels: int | None) -> list[str]:
        """Warn of classes with fewer labels among `rows` than were asked for, or with none."""
        few = shortfall(self.dataset.labels, rows, self.dataset.classes, labels or 1)
        if not few:
            return []
        named = ", ".join(f"{escape(name)}: {n}" for name, n in list(few.items())[:5])
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        return [f"classes with fewer than {labels or 1} training labels: {named}{more}"]

    def point(self, rows: np.ndarray, predictions: np.ndarray) -> dict[str, float | None]:
        """Return the scores of a cell from probabilities ``(n, K)``."""
        return {**metrics.point(self.dataset.labels[rows], predictions)}

    def scores(self, rows: np.ndarray, predictions: np.ndarray) -> dict[str, Any]:
        """Return the scores of `evaluate`, with intervals."""
        names = [escape(name) for name in self.dataset.classes]
        return metrics.classification(self.dataset.labels[rows], predictions, names)

    def image_scores(self, rows: np.ndarray, predictions: np.ndarray, metric: str) -> np.ndarray:
        """Return ``(n,)`` numbers whose mean is the metric."""
        return metrics.image_scores(self.dataset.labels[rows], predictions, metric)

    def predicted(self, predictions: np.ndarray) -> np.ndarray:
        """Return what each image is called, ``(n,)`` int32, as cells keep it."""
        called: np.ndarray = predictions.argmax(1).astype(np.int32)
        return called

    def training(self, rows: np.ndarray, predictions: np.ndarray) -> dict[str, float | None]:
        """Return how well the images that were learned from are known."""
        return {"train_accuracy": float(self.goodness(rows, predictions).mean())}

    def goodness(self, rows: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """Return what arms are chosen by, the more the better: whether each image is right."""
        hits: np.ndarray = predictions.argmax(1) == self.dataset.labels[rows]
        return hits.astype(np.float64)

    def folds(self, rows: np.ndarray, seed: int) -> np.ndarray | None:
        """Return the fold of each row, stratified; None with too few labels."""
        return folds_of(self.dataset.labels[rows], seed)

    def error_of(self, goodness: np.ndarray) -> float:
        """Return the standard error of the mean goodness."""
        rate = goodness.mean()
        return float(np.sqrt(max(rate * (1 - rate), 0.05) / len(goodness)))

    def chosen_by(self, goodness: np.ndarray) -> dict[str, float | None]:
        """Return the accuracy in cross-validation, with its interval."""
        low, high = wilson(int(goodness.sum()), len(goodness))
        return {"score": float(goodness.mean()), "low": low, "high": high}

    def best(self, score: float) -> str:
        """Return why an arm with this score was chosen."""
        return f"highest accuracy ({score:.1%})"

    def mistakes(self, rows: np.ndarray, predictions: np.ndarray) -> list[dict[str, Any]]:
        """Return the worst mistakes."""
        return worst_mistakes(self.dataset, rows, predictions)

    def examples(
        self, rows: np.ndarray, predictions: np.ndarray, count: int
    ) -> list[tuple[int, str]]:
        """Return places of the surest mistakes and of some right answers, with their kind."""
        right = self.goodness(rows, predictions) > 0
        return surest_and_right(right, predictions.max(1), count)

    def told(self, row: int) -> dict[str, Any]:
        """Return what is known of an image, as results of `explain` have it."""
        label = self.dataset.labels[row]
        return {"label": escape(self.dataset.classes[label]) if label >= 0 else None}

    def colours(self, rows: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return a code for each row, and the names of the codes, for the map of images."""
        return self.dataset.labels[rows], self.dataset.classes


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """A number is predicted for each image."""

    dataset: Dataset

    metrics: ClassVar[tuple[str, ...]] = regression.METRICS
    first_head: ClassVar[str] = "ridge"
    few: ClassVar[str] = f"fewer than {ENOUGH_NUMBERS} labels"

    def require(self) -> None:
        """Refuse data without numbers, or with the same number everywhere."""
        targets.require_numbers(self.dataset)

    def refuse_shortage(self, shots: int) -> None:
        """Refuse a label budget that the training images cannot fill.

        Raises
        ------
        DataError
            Fewer of them have a number.
        """
        count = len(self.dataset.labelled_rows("train"))
        if count < shots:
            raise DataError(
                "data.few_labels",
                f"--labels {shots}, but {count} training images have a number",
                f"--labels {count} or fewer" if count else "fill the column for more images",
            )

    def label_count(self, shots: int) -> int:
        """Return how many images `shots` labels come to."""
        return shots

    def can_choose(self, count: int) -> bool:
        """Say whether so many labels can be held out in folds."""
        return count >= ENOUGH_NUMBERS

    def said(self, shots: int) -> str:
        """Return a label budget in words."""
        return f"{shots or 'all'} labels"

    @property
    def model(self) -> dict[str, Any]:
        """Return what `save_model` is told of the goal."""
        return {"target": self.dataset.target}

    def counts(self, rows: np.ndarray) -> dict[str, int]:
        """Return how many of `rows` have a number."""
        return {escape(self.dataset.target or ""): len(rows)}

    def shortfall(self, rows: np.ndarray, labels: int | None) -> list[str]:
        """Warn where the numbers that may be learned from do not vary."""
        if np.ptp(self.dataset.truth[rows]) > 0:
            return []
        return [
            f"the {len(rows)} labelled training images have one number: it is all there is to say"
        ]

    def point(self, rows: np.ndarray, predictions: np.ndarray) -> dict[str, float | None]:
        """Return the scores of a cell from numbers ``(n,)``."""
        return regression.point(self.dataset.truth[rows], predictions)

    def scores(self, rows: np.ndarray, predictions: np.ndarray) -> dict[str, Any]:
        """Return the scores of `evaluate`, with intervals, and pairs of numbers for the page."""
        truth = self.dataset.truth[rows]
        some = np.linspace(0, len(rows) - 1, min(len(rows), PAIRS)).astype(np.int64)
        pairs = np.stack([truth[some], predictions[some]], 1).tolist()
        about = {"target": targets.describe(self.dataset.target or ""), "pairs": pairs}
        return {**regression.regression(truth, predictions), **about}

    def image_scores(self, rows: np.ndarray, predictions: np.ndarray, metric: str) -> np.ndarray:
        """Return ``(n,)`` numbers whose mean is the metric."""
        return regression.image_scores(self.dataset.truth[rows], predictions, metric)

    def predicted(self, predictions: np.ndarray) -> np.ndarray:
        """Return what is said of each image, ``(n,)`` float64, as cells keep it."""
        return predictions

    def training(self, rows: np.ndarray, predictions: np.ndarray) -> dict[str, float | None]:
        """Return how well the images that were learned from are known."""
        found = regression.point(self.dataset.truth[rows], predictions)
        return {"train_mse": found["mse"], "train_r2": found["r2"]}

    def goodness(self, rows: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """Return what arms are chosen by, the more the better: minus the squared error."""
        squared: np.ndarray = (self.dataset.truth[rows] - predictions) ** 2
        return -squared

    def folds(self, rows: np.ndarray, seed: int) -> np.ndarray | None:
        """Return the fold of each row, each spanning the range; None with too few labels."""
        return number_folds(self.dataset.truth[rows], seed)

    def error_of(self, goodness: np.ndarray) -> float:
        """Return the standard error of the mean goodness."""
        return float(goodness.std(ddof=1) / np.sqrt(len(goodness))) if len(goodness) > 1 else np.inf

    def chosen_by(self, goodness: np.ndarray) -> dict[str, float | None]:
        """Return the mean squared error in cross-validation, with its interval."""
        found = clustered(-goodness, overlap=0.0)
        least = max(0.0, found.low)  # a mean of squares cannot be below
        return {"score": found.value, "low": least, "high": found.high}

    def best(self, score: float) -> str:
        """Return why an arm with this score was chosen."""
        return f"least squared error ({score:.4g})"

    def mistakes(self, rows: np.ndarray, predictions: np.ndarray) -> list[dict[str, Any]]:
        """Return the largest errors."""
        return largest_errors(self.dataset, rows, predictions)

    def examples(
        self, rows: np.ndarray, predictions: np.ndarray, count: int
    ) -> list[tuple[int, str]]:
        """Return places of the largest errors and of some small ones, with their kind."""
        return farthest_and_near(-self.goodness(rows, predictions), count)

    def told(self, row: int) -> dict[str, Any]:
        """Return what is known of an image, as results of `explain` have it."""
        value = float(self.dataset.truth[row])
        return {"label": None, "value": value if np.isfinite(value) else None}

    def colours(self, rows: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return the range that each row's number falls into, -1 for none, and ranges in words."""
        found = self.dataset.truth[rows]
        known = np.isfinite(found)
        codes, values = np.full(len(rows), -1, np.int64), found[known]
        if not len(values):
            return codes, ()
        inner = np.unique(np.quantile(values, np.linspace(0, 1, RANGES + 1)[1:-1]))
        codes[known] = np.searchsorted(inner, values, side="right")
        ends = [float(values.min()), *inner.tolist(), float(values.max())]
        return codes, tuple(f"{a:.3g} to {b:.3g}" for a, b in pairwise(ends))


Goal = Classes | Numbers


def goal_of(dataset: Dataset) -> Goal:
    """Return what is predicted of a data set."""
    return Classes(dataset) if dataset.targets is None else Numbers(dataset)
