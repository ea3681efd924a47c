"""Arms: the ways of getting a classifier that a comparison sets side by side."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from fewlabels.core.errors import UsageError, unknown
from fewlabels.methods import LABELLED, METHODS, OWN_BACKBONE

TRANSFERS = (
    "features",
    "logistic",
    "ridge",
    "svm",
    "centroid",
    "knn",
    "spreading",
    "parameters",
)

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
RECOMMENDED = "simclr+features"

# Where there are too few labels to choose by (1 to 3 a class), the first of these wins that
# takes part. Developed on images carved out of training sets: docs/decisions/0003-defaults.md.
FIXED_ORDER = (
    "simclr+features",
    "pixels+spreading",
    "simclr+parameters",
    "autoencoder+features",
    "autoencoder+parameters",
    "pixels",
    "random+features",
    "scratch",
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
}


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of getting a classifier.

    Attributes
    ----------
    name : str
        As written by the user.
    start : {"scratch", "pixels", "random", "pretrained"}
    method : str or None
        The pre-training method.
    backbone : str
        ``auto`` until the data are known.
    transfer : str
        One of `TRANSFERS`.
    """

    name: str
    start: str
    method: str | None
    backbone: str
    transfer: str

    @property
    def trains(self) -> bool:
        """Whether its weights are trained on the labels."""
        return self.transfer == "parameters"

    def describe(self) -> dict[str, str | None]:
        """Return the arm as a row of ``comparison.json``."""
        starts = {
            "scratch": "all weights trained from scratch on the labels",
            "pixels": f"raw pixels, {_WORDS[self.transfer].removeprefix('frozen features, ')}",
            "random": f"an untrained network: {_WORDS[self.transfer]}",
            "pretrained": f"{self.method} pre-training, then {_WORDS[self.transfer]}",
        }
        return {**asdict(self), "description": starts[self.start]}


def parse_arm(text: str) -> Arm:
    """Read ``scratch``, ``pixels``, ``random`` or ``method[:backbone]+transfer``.

    Raises
    ------
    UsageError
        For an unknown method or transfer.

    Examples
    --------
    >>> parse_arm("simclr:resnet18+features").backbone
    'resnet18'
    """
    start, _, transfer = text.strip().partition("+")
    method, _, backbone = start.partition(":")
    if transfer and transfer not in TRANSFERS:
        raise unknown("transfer", transfer, TRANSFERS)
    if method == "scratch":
        if transfer not in ("", "parameters"):
            raise UsageError("usage.arm", f"{text!r}: scratch has nothing to transfer", "scratch")
        return Arm(text, "scratch", None, backbone or "auto", "parameters")
    if method == "pixels":
        if transfer == "parameters" or backbone:
            raise UsageError("usage.arm", f"{text!r}: pixels have no weights", "pixels+logistic")
        return Arm(text, "pixels", None, "pixels", transfer or "logistic")
    if method == "random":
        return Arm(text, "random", None, backbone or "auto", transfer or "features")
    if method in LABELLED:
        raise UsageError(
            "usage.arm",
            f"{text!r}: {method} pre-training takes the labels of another data set",
            f"fewlabels pretrain SOURCE --method {method}, then fewlabels finetune DATA --from RUN",
        )
    if method not in METHODS:
        free = [f"{name}+features" for name in METHODS if name not in LABELLED]
        raise unknown("arm", text, [*DEFAULT_ARMS, *free])
    if not transfer:
        raise UsageError("usage.arm", f"{text!r} does not say how to transfer", f"{text}+features")
    own = OWN_BACKBONE.get(method, "auto")
    return Arm(text, "pretrained", method, backbone or own, transfer)


def parse_arms(names: list[str]) -> list[Arm]:
    """Read the arms of a comparison.

    Raises
    ------
    UsageError
        For fewer than two, or one named twice.
    """
    if len(set(names)) < len(names):
        raise UsageError("usage.arms", f"an arm is named twice in {', '.join(names)}")
    if len(names) < 2:
        raise UsageError("usage.arms", "a comparison needs two arms or more")
    arms = [parse_arm(name) for name in names]
    kinds = [(arm.start, arm.method, arm.backbone, arm.transfer) for arm in arms]
    for place, kind in enumerate(kinds):
        if kind in kinds[:place]:
            twin = names[kinds.index(kind)]
            raise UsageError("usage.arms", f"{names[place]!r} and {twin!r} are the same arm")
    return arms
