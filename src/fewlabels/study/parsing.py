"""Reading arms as users write them, and refusing what is none."""

from __future__ import annotations

from dataclasses import replace

from fewlabels.core.errors import UsageError, unknown
from fewlabels.methods import LABELLED, METHODS, OWN_BACKBONE
from fewlabels.models.weights import SUFFIXES
from fewlabels.pipeline.starts import names_start
from fewlabels.study.arms import AUTO, DEFAULT_ARMS, LONG, LOSSES, NUMBER_ARMS, TRANSFERS, Arm
from fewlabels.transfer.regressors import REGRESSORS


def arm_of_numbers(arm: Arm) -> Arm:
    """Return an arm as it is where a number is predicted.

    Raises
    ------
    UsageError
        Its small model is one of classes.
    """
    known = ("parameters", "structure", *REGRESSORS)
    # Said by nobody: what pixels are by default.
    transfer = "ridge" if arm.name.strip() == "pixels" else arm.transfer
    if arm.start == AUTO:
        raise UsageError(
            "usage.arm",
            "the rules of 'auto' are about classes, and a number is to be predicted",
            f"one of: {', '.join(NUMBER_ARMS)}",
        )
    if transfer not in known or arm.unlabelled != "none":
        transfer = transfer if arm.unlabelled == "none" else arm.unlabelled
        raise UsageError(
            "usage.arm",
            f"{arm.name!r}: {transfer} tells classes apart, and a number is to be predicted",
            f"one of: {', '.join(known)}",
        )
    return replace(arm, transfer=transfer, numeric=True)


def parse_arm(text: str) -> Arm:
    """Read an arm as users write it.

    ``auto``, ``scratch``, ``pixels``, ``random``, ``method[:backbone]+transfer`` or, from a run
    folder or published weights, ``START+transfer``; a file may say what it is of,
    ``FILE:backbone+transfer``. The transfer ``structure`` may name the network that weights are
    carried into, as in ``START+structure:tiny``. An unlabelled loss in the place of the transfer
    trains parameters on unlabelled images as well, as in ``scratch+fixmatch``.
    ``scratch+long`` trains for the whole budget of a cell.

    Raises
    ------
    UsageError
        For an unknown method, start or transfer.

    Examples
    --------
    >>> parse_arm("simclr:resnet18+features").backbone
    'resnet18'
    >>> parse_arm("runs/source+features").source
    'runs/source'
    >>> arm = parse_arm("simclr+freematch")
    >>> arm.transfer, arm.unlabelled
    ('parameters', 'freematch')
    """
    # The last plus counts: a folder may have one in its name.
    start, plus, transfer = text.strip().rpartition("+")
    if not plus:
        start, transfer = transfer, ""
    transfer, _, into = transfer.partition(":")
    if transfer == LONG and start.partition(":")[0] == "scratch" and not into:
        return replace(_arm(text, start, "parameters", into), long=True)
    known = (*TRANSFERS, *LOSSES)
    if (transfer and transfer not in known) or (into and transfer != "structure"):
        raise unknown("transfer", f"{transfer}:{into}" if into else transfer, known)
    if transfer in LOSSES:
        return replace(_arm(text, start, "parameters", into), unlabelled=transfer)
    return _arm(text, start, transfer, into)


def _arm(text: str, start: str, transfer: str, into: str) -> Arm:
    """Return the arm of a start and a transfer as they were written."""
    method, _, backbone = start.partition(":")
    if text.strip() == "mean":
        return Arm("mean", "pixels", None, "pixels", "mean")
    if text.strip() == AUTO:
        return Arm(AUTO, AUTO, None, "auto", "features")
    if method in ("scratch", "pixels", "random"):
        return _untrained_arm(text, method, backbone, transfer)
    if method in LABELLED:
        raise UsageError(
            "usage.arm",
            f"{text!r}: {method} pre-training takes the labels of another data set",
            f"fewlabels pretrain SOURCE --method {method}, then the arm RUN+features",
        )
    source, of = _file_of(start)
    given = method not in METHODS and names_start(source)
    if method not in METHODS and not given:
        free = [f"{name}+features" for name in METHODS if name not in LABELLED]
        raise unknown("arm", text, [*DEFAULT_ARMS, *free])
    if not transfer:
        raise UsageError("usage.arm", f"{text!r} does not say how to transfer", f"{text}+features")
    if given:
        return Arm(text, "given", None, of, transfer, source, into=into)
    own = OWN_BACKBONE.get(method, "auto")
    return Arm(text, "pretrained", method, backbone or own, transfer, into=into)


def _file_of(start: str) -> tuple[str, str]:
    """Return a start without the backbone that a file of weights may have behind it, and that.

    Examples
    --------
    >>> _file_of("w/net.pth:torchvision:alexnet"), _file_of("torchvision:alexnet")
    (('w/net.pth', 'torchvision:alexnet'), ('torchvision:alexnet', 'auto'))
    """
    for suffix in SUFFIXES:
        file, found, backbone = start.partition(f"{suffix}:")
        if found:
            return file + suffix, backbone
    return start, "auto"


def _untrained_arm(text: str, start: str, backbone: str, transfer: str) -> Arm:
    """Return an arm that no pre-training is part of."""
    if transfer == "structure":
        raise UsageError(
            "usage.arm",
            f"{text!r}: {start} has no trained weights to carry over",
            "simclr+structure",
        )
    if start == "scratch":
        if transfer not in ("", "parameters"):
            raise UsageError("usage.arm", f"{text!r}: scratch has nothing to transfer", "scratch")
        return Arm(text, "scratch", None, backbone or "auto", "parameters")
    if start == "random":
        return Arm(text, "random", None, backbone or "auto", transfer or "features")
    if transfer == "parameters" or backbone:
        raise UsageError("usage.arm", f"{text!r}: pixels have no weights", "pixels+logistic")
    return Arm(text, "pixels", None, "pixels", transfer or "logistic")


def parse_arms(names: list[str], *, target: str | None = None, alone: bool = False) -> list[Arm]:
    """Read the arms of a comparison.

    Parameters
    ----------
    target : str, optional
        The number that they predict; classes by default.
    alone : bool
        One is enough: it is scored and compared with nothing.

    Raises
    ------
    UsageError
        For fewer than two, one named twice, or one that cannot predict what is asked.
    """
    if len(set(names)) < len(names):
        raise UsageError("usage.arms", f"an arm is named twice in {', '.join(names)}")
    if len(names) < 2 and not alone:
        raise UsageError("usage.arms", "a comparison needs two arms or more")
    arms = [parse_arm(name) for name in names]
    if target is not None:
        arms = [arm_of_numbers(arm) for arm in arms]
    elif any(arm.transfer == "mean" for arm in arms):
        raise UsageError("usage.arm", "'mean' predicts a number, not a class", "--target COLUMN")
    kinds = [replace(arm, name="") for arm in arms]
    for place, kind in enumerate(kinds):
        if kind in kinds[:place]:
            twin = names[kinds.index(kind)]
            raise UsageError("usage.arms", f"{names[place]!r} and {twin!r} are the same arm")
    return arms
