"""Arms: the ways of getting a classifier that a comparison sets side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fewlabels.study.given import Given
from fewlabels.transfer.unlabelled import UNLABELLED

TRANSFERS = (
    "features",
    "logistic",
    "ridge",
    "svm",
    "centroid",
    "knn",
    "spreading",
    "parameters",
    "structure",
)

LOSSES = tuple(name for name in UNLABELLED if name != "none")
LONG = "long"

DEFAULT_ARMS = (
    "scratch",
    "pixels",
    "pixels+spreading",
    "random+features",
    "autoencoder+features",
    "autoencoder+parameters",
    "simclr+features",
    "simclr+parameters",
)
# Where a number is predicted: with the constant that any model has to beat.
NUMBER_ARMS = (
    "scratch",
    "mean",
    "pixels",
    "random+features",
    "autoencoder+features",
    "autoencoder+parameters",
    "simclr+features",
    "simclr+parameters",
)
RECOMMENDED = "simclr+features"
AUTO = "auto"

# Where there are too few labels to choose by (1 to 3 a class), the first of these wins that
# takes part. Developed on images carved out of training sets: docs/decisions/0003-defaults.md.
FIXED_ORDER = (
    AUTO,
    "simclr+features",
    "pixels+spreading",
    "simclr+parameters",
    "autoencoder+features",
    "autoencoder+parameters",
    "pixels",
    "random+features",
    "scratch",
    "mean",
)

_WORDS = {
    "features": "frozen features, logistic regression averaged with label spreading",
    "logistic": "frozen features, logistic regression",
    "ridge": "frozen features, ridge regression",
    "svm": "frozen features, linear support vector machine",
    "centroid": "frozen features, nearest class mean",
    "knn": "frozen features, nearest neighbours",
    "spreading": "frozen features, labels spread over the unlabelled images",
    "parameters": "head first, then all weights trained",
    "structure": "what fits carried into another network, all of it trained",
}
_LOSS_WORDS = {
    "none": "",
    "pseudo": ", with labels spread over the unlabelled images",
    "fixmatch": ", with unlabelled images by FixMatch",
    "freematch": ", with unlabelled images by FreeMatch",
    "softmatch": ", with unlabelled images by SoftMatch",
}
_NUMBER_WORDS = {
    **_WORDS,
    "features": "frozen features, ridge regression averaged with the nearest neighbours",
    "ridge": "frozen features, ridge regression (penalty by leave-one-out)",
    "knn": "frozen features, mean of the nearest neighbours",
    "mean": "the mean of the labelled images, whatever the image",
}


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of getting a classifier.

    Attributes
    ----------
    name : str
        As written by the user.
    start : {"scratch", "pixels", "random", "pretrained", "given", "auto"}
        ``auto`` until the rules have chosen.
    method : str or None
        The pre-training method.
    backbone : str
        ``auto`` until the data are known.
    transfer : str
        One of `TRANSFERS`.
    source : str or None
        The run folder or published weights that are given as a start.
    given : Given or None
        That start, once it is opened.
    into : str
        The network that ``structure`` carries weights into; the start's own if empty.
    imbalance : str
        What it does about classes of unequal size: see `fewlabels.transfer.imbalance`.
    numeric : bool
        Whether it predicts a number.
    unlabelled : str
        What it learns unlabelled images by, while its weights are trained: see
        `fewlabels.transfer.unlabelled`.
    long : bool
        Whether it trains for the whole budget of a cell, not by the fixed rule.
    recipe : str
        The arm that ``auto`` stands for; empty for any other.
    by_shots : mapping
        What ``auto`` stands for by the number of labels; itself at the most of them.
    """

    name: str
    start: str
    method: str | None
    backbone: str
    transfer: str
    source: str | None = None
    given: Given | None = field(default=None, compare=False, repr=False)
    into: str = ""
    imbalance: str = "none"
    numeric: bool = False
    unlabelled: str = "none"
    long: bool = False
    recipe: str = ""
    by_shots: Mapping[int, Arm] = field(default_factory=dict, compare=False, repr=False)

    def at(self, shots: int) -> Arm:
        """Return the arm as it is at a number of labels."""
        return self.by_shots.get(shots, self)

    @property
    def counted(self) -> str:
        """Return the name under which what it computes is counted."""
        return self.recipe or self.name

    @property
    def trains(self) -> bool:
        """Whether its weights are trained on the labels."""
        return self.transfer in ("parameters", "structure")

    @property
    def at_full_rate(self) -> bool:
        """Whether they are trained as long and as fast as from scratch."""
        return self.start == "scratch" or self.transfer == "structure"

    def describe(self) -> dict[str, str | None]:
        """Return the arm as a row of ``comparison.json``."""
        how = (_NUMBER_WORDS if self.numeric else _WORDS)[self.transfer]
        starts = {
            AUTO: "chosen by the rules of auto",
            "scratch": "all weights trained from scratch on the labels",
            "pixels": f"raw pixels, {how.removeprefix('frozen features, ')}",
            "random": f"an untrained network: {how}",
            "pretrained": f"{self.method} pre-training, then {how}",
            "given": f"the weights of {self.source}, then {how}",
        }
        if self.transfer == "mean":
            starts["pixels"] = how
        return {
            "name": self.name,
            "start": self.start,
            "method": self.method,
            "backbone": self.backbone,
            "transfer": self.transfer,
            "source": self.source,
            "imbalance": self.imbalance,
            "unlabelled": self.unlabelled,
            "description": _stands_for(self)
            or starts[self.start]
            + _LOSS_WORDS[self.unlabelled]
            + (", for the whole budget" if self.long else ""),
        }


def _stands_for(arm: Arm) -> str:
    """Return what ``auto`` stands for, in words; nothing for another arm."""
    by_recipe: dict[str, list[int]] = {}
    for shots, kind in sorted(arm.by_shots.items()):
        by_recipe.setdefault(kind.recipe, []).append(shots)
    parts = [
        f"{recipe} at {', '.join(str(n or 'all') for n in shots)} labels"
        for recipe, shots in by_recipe.items()
    ]
    return f"chosen by rule: {'; '.join(parts)}" if parts else ""


def default_arms(target: str | None) -> tuple[str, ...]:
    """Return what competes where nobody says: for classes, or for the number `target`."""
    return DEFAULT_ARMS if target is None else NUMBER_ARMS


def headline(arms: Sequence[Arm], baseline: str) -> str:
    """Return the arm whose verdict is declared before a comparison.

    ``auto`` where it takes part, or the recommended one, else the first whose start was trained:
    whether an untrained start beats the baseline is never the question.

    Examples
    --------
    >>> from fewlabels.study.parsing import parse_arms
    >>> arms = parse_arms(["scratch", "pixels", "autoencoder+features"])
    >>> headline(arms, "scratch"), headline(arms[:2], "scratch")
    ('autoencoder+features', 'pixels')
    """
    others = [arm for arm in arms if arm.name != baseline] or list(arms)
    if AUTO in [arm.name for arm in others]:
        return AUTO
    trained = [arm.name for arm in others if arm.start in ("pretrained", "given")]
    return RECOMMENDED if RECOMMENDED in trained else [*trained, others[0].name][0]


def announced(declared: Mapping[str, Any], labels: str) -> str:
    """Return what is said before a comparison of the verdict that it declares.

    Parameters
    ----------
    declared : mapping
        ``arm``, ``baseline`` and ``metric``.
    labels : str
        The labels that it is about, in words.

    Examples
    --------
    >>> announced({"arm": "a", "baseline": "b", "metric": "accuracy"}, "4 labels per class")
    'declared before the run: a against b at 4 labels per class, by accuracy'
    """
    rivals = f"{declared['arm']} against {declared['baseline']}"
    return f"declared before the run: {rivals} at {labels}, by {declared['metric']}"


def variants(arms: Sequence[Arm]) -> list[Arm]:
    """Return every arm as it is at some number of labels, each once."""
    every = [kind for arm in arms for kind in (arm.by_shots.values() or (arm,))]
    return list(dict.fromkeys(every))
