"""The pieces that results are made of: intervals, cells, verdicts, scores of a class."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Verdict = Literal["helps", "hurts", "undecided"]


class Record(BaseModel):
    """Named fields, to which more may be added."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class Versioned(Record):
    """A record that says which version of the names it follows."""

    version: Literal[1] = Field(default=1, alias="schema")


class Bounded(Record):
    """A record with the ends of a 95 % interval; None is unknown or unbounded."""

    low: float | None
    high: float | None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class Interval(Bounded):
    """A number with its 95 % interval."""

    value: float | None


class Quarantined(Record):
    """A file that could not be read, and why."""

    path: str
    reason: str


class Leak(Record):
    """One picture in two splits; ``likeness`` is 1 for a copy byte for byte."""

    split_a: str
    path_a: str
    split_b: str
    path_b: str
    kind: Literal["exact", "near"] = "exact"
    likeness: float | None = None


class LabelConflict(Record):
    """Two copies of a picture with different labels, or numbers."""

    path_a: str
    label_a: str | float
    path_b: str
    label_b: str | float
    kind: Literal["exact", "near"]
    likeness: float


class Likeness(Record):
    """How near unlabelled images are to labelled ones, and how varied both are."""

    auc: float
    p: float
    compared: dict[str, int]
    variety: dict[str, float]
    farthest: list[str]


class Stopping(Record):
    """What was found on validation images while something trained."""

    images: int
    checks: list[dict[str, float | None]]
    steps: int
    planned: int
    stopped_early: bool
    best_step: int | None
    kept: Literal["best", "last"]
    said: str


class WithoutCopies(Record):
    """Scores on the images of which no copy lies in an earlier split; more scores are allowed."""

    left_out: int
    n: int
    accuracy: Interval | None = None
    mse: Interval | None = None


class WithoutCopiesRow(Record):
    """The mean score of an arm on all test images, and on those without a copy in training."""

    arm: str
    shots: int | None
    metric: str
    mean: float | None
    all_images: float | None


class ComparedWithoutCopies(Record):
    """A comparison's scores on the test images without a copy in training."""

    left_out: int
    n: int
    rows: list[WithoutCopiesRow]


class Unlabelled(Record):
    """What became of images that were learned from without a label."""

    loss: str
    images: int
    used: float
    shares: dict[str, float]
    said: str


class Histogram(Record):
    """How many values lie between each two edges."""

    edges: list[float]
    counts: list[int]


class Target(Record):
    """The number that is predicted."""

    name: str
    unit: str


class TargetSummary(Target):
    """What is known of the numbers to be predicted."""

    count: int
    missing: int
    min: float | None
    max: float | None
    mean: float | None
    std: float | None
    quantiles: dict[str, float]
    histogram: Histogram


class ClassScore(Record):
    """How one class fared."""

    name: str
    n: int
    precision: float | None
    recall: float | None
    f1: float | None


class Carried(Record):
    """How many tensors of the start were taken over."""

    carried: int
    reshaped: int
    new: int
    skipped: int = 0


class Fit(Record):
    """How well a start suits some data, by its visible labels."""

    logme: float
    knn: Interval | None
    labels: int
    knn_r2: Interval | None = None


class Arm(Record):
    """One way of getting a classifier from the labels."""

    name: str
    start: str
    method: str | None
    backbone: str | None
    transfer: str | None
    source: str | None = None
    unlabelled: str | None = None


class Recipe(Record):
    """What the arm ``auto`` stands for at a number of labels, and why."""

    shots: int
    recipe: str
    reason: str
    evidence: list[str]
    uncovered: str
    conditions: dict[str, int | str]


class Streams(Record):
    """The seeds of the four random streams of a cell."""

    split: int | None
    labels: int | None
    pretraining: int | None
    training: int | None


class Known(Record):
    """What was measured of the encoder of a cell that may explain a loss; None is not known."""

    rank: float | None
    least_rank: float | None
    passes: float | None
    auc: float | None
    p: float | None


class Cell(Record):
    """One arm at one number of labels per class with one set of seeds."""

    id: str
    arm: str
    shots: int | None
    seed: int
    streams: Streams
    accuracy: float | None = None
    balanced_accuracy: float | None = None
    recall_macro: float | None = None
    f1_macro: float | None = None
    nll: float | None = None
    mse: float | None = None
    mae: float | None = None
    r2: float | None = None
    seconds: float | None
    steps: int | None
    images_seen: int | None
    peak_memory_mb: float | None
    multiply_adds: int | None = None
    energy_joules: float | None = None
    encoder: Known | None = None
    classes_found: int | None = None
    failed: str | None


class MissingCell(Record):
    """A cell of the plan that nobody has computed yet."""

    id: str
    arm: str
    shots: int | None
    streams: Streams


class ListedCell(MissingCell):
    """A cell of the plan, and whether it has been computed, or why it could not be."""

    done: bool
    failed: str | None


class Curve(Bounded):
    """One point of a label-efficiency curve."""

    arm: str
    shots: int | None
    seeds: int
    mean: float | None


class Spreads(Record):
    """Standard deviations of a paired difference, by source; None where it is not known."""

    splits: float | None
    pretraining: float | None
    draws: float | None
    rest: float | None
    images: float | None


class Repeated(Record):
    """How many of each a verdict rests on."""

    splits: int
    pretraining: int
    draws: int


class More(Record):
    """How many more of each alone, or of draws and pre-trainings both, would probably decide."""

    draws: int | None
    pretraining: int | None
    splits: int | None
    both: int | None = None


class Supported(Record):
    """A likely reason of a loss, in words, and the numbers that it rests on."""

    code: Literal["collapsed", "short", "transfer", "far", "untrained"]
    sentence: str
    measured: dict[str, float | str]


class Reason(Supported):
    """The first of the reasons that a measurement supports, and the others."""

    also: list[Supported]


class VerdictRow(Bounded):
    """A paired difference between two arms, and what it says."""

    arm: str
    baseline: str
    shots: int | None
    difference: float | None
    verdict: Verdict
    detectable: float | None
    components: Spreads | None = None
    repeats: Repeated | None = None
    more: More | None = None
    reason: Reason | None = None
    unseen: str | None = None


class Layout(Record):
    """How the cells of a comparison were repeated."""

    splits: int | None = None
    draws: int | None = None
    pretraining_seeds: int | None = None
    images_train: int | None = None
    images_test: int | None = None
    folds: int | None = None
    folded_because: str | None = None


class SavingRow(Bounded):
    """How many times the labels the baseline needs to match the arm."""

    arm: str
    baseline: str
    shots: int | None
    factor: float | None


class ReachRow(Record):
    """Within how many seconds an arm was as good as the baseline; None where it never was."""

    arm: str
    baseline: str
    shots: int | None
    seconds: float | None
    baseline_seconds: float | None


class Forecast(Bounded):
    """An expected score at a number of labels that was not tried, with an 80 % interval."""

    arm: str
    shots: int
    value: float | None


class Prediction(Record):
    """What a classifier, or a regressor, says of one image."""

    path: str
    label: str | None = None
    probability: float | None = None
    probabilities: dict[str, float | None] | None = None
    value: float | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        given = self.model_fields_set
        if not (given.issuperset(("label", "probability", "probabilities")) or "value" in given):
            raise ValueError("needs label, probability and probabilities, or value")
        return self


class Suggestion(Record):
    """An image to label next, and why."""

    path: str
    rank: int
    score: float
    reason: str


class Suspect(Record):
    """A label that is probably wrong, and what the image may be instead."""

    path: str
    label: str
    suggested: str
    score: float


class Neighbour(Record):
    """A training image near another one in feature space."""

    path: str
    label: str | None
    similarity: float
    value: float | None = None


class Explained(Record):
    """One image that was explained."""

    path: str
    kind: Literal["given", "mistake", "right", "near", "sample"]
    label: str | None
    predicted: str | float | None
    probability: float | None
    explained: str | None
    picture: str
    neighbours: list[Neighbour]
    value: float | None = None
    error: float | None = None


class MapCheck(Record):
    """A kind of map, and whether it depends on what was learned."""

    map: str
    shown: bool
    correlation: float | None
    reason: str


class Painted(Record):
    """What one pre-training has painted: a picture, and the same as arrays."""

    encoder: str | None
    picture: str
    arrays: str
