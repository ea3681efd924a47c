"""Parts of a fine-tune that are chosen by name: loss, sampling, optimizer, weights kept."""

from __future__ import annotations

from dataclasses import replace

from fewlabels.core.errors import UsageError, unknown
from fewlabels.pipeline.frozen import HEADS
from fewlabels.pipeline.watching import KEEP
from fewlabels.training.optimizers import OPTIMIZERS
from fewlabels.transfer.imbalance import IMBALANCE, head_remedy
from fewlabels.transfer.parameters import FineTuneConfig
from fewlabels.transfer.regressors import REGRESSORS


def with_parts(
    tuning: FineTuneConfig, transfer: str, imbalance: str, optimizer: str, keep: str
) -> FineTuneConfig:
    """Return the settings of a fine-tune with the parts that were chosen.

    Raises
    ------
    UsageError
        For a name that is not known, or a part that this transfer does not have.
    """
    for kind, name, known in (
        ("imbalance", imbalance, IMBALANCE),
        ("optimizer", optimizer, OPTIMIZERS),
        ("keep", keep, KEEP),
    ):
        if name not in known:
            raise unknown(kind, name, known)
    if transfer in HEADS or transfer in REGRESSORS:
        _refuse_parts(transfer, imbalance, optimizer, keep)
    return replace(tuning, imbalance=imbalance, optimizer=optimizer)


def refuse_imbalance(target: str | None, imbalance: str) -> None:
    """Refuse a remedy for classes of unequal size where a number is predicted.

    Raises
    ------
    UsageError
    """
    if target is not None and imbalance != "none":
        raise UsageError(
            "usage.imbalance",
            f"--imbalance {imbalance} is about classes, and {target!r} is a number",
            "leave --imbalance out",
        )


def _refuse_parts(kind: str, imbalance: str, optimizer: str, keep: str) -> None:
    """Refuse parts of a training for a small model, which is fitted at once."""
    if (optimizer, keep) != ("auto", "best"):
        raise UsageError(
            "usage.transfer",
            f"{kind} is fitted at once: it has no --optimizer, and no weights on the way to --keep",
            "--transfer parameters",
        )
    if imbalance == "sampling" and head_remedy(kind, "weights") == "weights":
        raise UsageError(
            "usage.imbalance",
            f"{kind} is fitted on all labels at once and draws no batches",
            "--imbalance weights, which comes to the same",
        )
    if imbalance != "none" and head_remedy(kind, imbalance) == "none":
        raise UsageError(
            "usage.imbalance",
            f"{kind} knows no --imbalance {imbalance}",
            "--transfer logistic or features with weights or logits, ridge or svm with weights; "
            "centroid and spreading treat classes alike by themselves",
        )
