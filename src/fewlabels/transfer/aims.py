"""What a fine-tune aims at: classes by cross-entropy, a number by its squared error.

Both are modules, so that what a loss needs goes to the device with the network.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.models.heads import RegressionHead
from fewlabels.transfer.imbalance import ClassLoss
from fewlabels.transfer.regressors import standardised


class ClassAim(nn.Module):
    """Cross-entropy with label smoothing, and a remedy for classes of unequal size.

    Parameters
    ----------
    loss : ClassLoss
    """

    def __init__(self, loss: ClassLoss) -> None:
        super().__init__()
        self.loss = loss

    def encode(self, labels: np.ndarray) -> Tensor:
        """Return classes ``(n,)`` as training takes them, int64."""
        return torch.from_numpy(labels)

    def forward(self, logits: Tensor, wanted: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of logits ``(B, K)``, and what the log tells beside it."""
        hits = (logits.detach().argmax(1) == wanted).float().mean()
        return self.loss(logits, wanted), {"train_accuracy": hits}


class NumberAim(nn.Module):
    """Mean squared error of numbers in standard deviations from the mean of the labelled ones.

    Parameters
    ----------
    centre, spread : float
        Of the labelled ones, in their unit.
    """

    def __init__(self, centre: float, spread: float) -> None:
        super().__init__()
        self.centre = centre
        self.spread = spread

    def encode(self, targets: np.ndarray) -> Tensor:
        """Return numbers ``(n,)`` standardised, float32."""
        return torch.from_numpy(standardised(targets, self.centre, self.spread)).float()

    def forward(self, outputs: Tensor, wanted: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of outputs ``(B, 1)``, and the error in units for the log."""
        loss = F.mse_loss(outputs[:, 0], wanted)
        return loss, {"train_mse": loss.detach() * self.spread**2}


def aim_of(
    head: nn.Module, labels: np.ndarray, imbalance: str, smoothing: float
) -> ClassAim | NumberAim:
    """Return what a head is trained towards on these labels, classes or numbers."""
    if isinstance(head, RegressionHead):
        return NumberAim(head.centre, head.spread)
    classes = head.get_parameter("linear.bias").numel()  # one logit for each class
    return ClassAim(ClassLoss(labels, classes, imbalance, smoothing))
