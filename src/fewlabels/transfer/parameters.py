"""Parameter transfer: start from an encoder's weights and train them on the labels.

From a pre-trained encoder the head is fitted first, on frozen features, and then
everything is trained at a small rate (LP-FT, Kumar et al. 2022), with the batch-norm
statistics of pre-training kept while labels are few. From scratch everything is
trained at a full rate with strong augmentation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.core.types import Backbone, Batch, Pictures, Step
from fewlabels.data.augment import Policy, augment
from fewlabels.models.classifier import Classifier
from fewlabels.models.heads import LinearHead

FREEZE_NORM_BELOW = 2_000  # labelled images; fewer make poor batch statistics


@dataclass(frozen=True, slots=True)
class FineTuneConfig:
    """Settings of a fine-tune.

    Attributes
    ----------
    lr, head_lr : float
        AdamW rates of the backbone and of the head.
    weight_decay : float
    batch_size : int
    smoothing : float
        Label smoothing.
    """

    lr: float = 3e-3
    head_lr: float = 3e-3
    weight_decay: float = 0.05
    batch_size: int = 64
    smoothing: float = 0.1


SCRATCH = FineTuneConfig()
PRETRAINED = FineTuneConfig(lr=1e-4, head_lr=1e-4)


class FineTune(nn.Module):
    """Supervised training on labelled images, under the contract of every method.

    Parameters
    ----------
    classifier : Classifier
        With a linear head.
    rows, labels : ndarray
        ``(n,)`` int64 labelled rows of the data set and their classes.
    pictures : Pictures
        Format of the images.
    policy : Policy
        Augmentation.
    config : FineTuneConfig
    freeze_norm : bool
        Keep the running statistics of batch normalisation as they are.
    """

    table: Tensor

    def __init__(
        self,
        classifier: Classifier,
        rows: np.ndarray,
        labels: np.ndarray,
        pictures: Pictures,
        policy: Policy,
        config: FineTuneConfig,
        *,
        freeze_norm: bool,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.encoder = classifier.backbone
        self.pictures = pictures
        self.policy = policy
        self.config = config
        self.freeze_norm = freeze_norm
        table = torch.full((int(rows.max()) + 1,), -1, dtype=torch.int64)
        table[torch.from_numpy(rows)] = torch.from_numpy(labels)
        self.register_buffer("table", table, persistent=False)
        groups = [
            {"params": list(classifier.backbone.parameters()), "lr": config.lr},
            {"params": list(classifier.head.parameters()), "lr": config.head_lr},
        ]
        self._adamw = torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the single optimizer."""
        return {"finetune": self._adamw}

    def update(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Learn from one batch of labelled images."""
        self.classifier.train()
        if self.freeze_norm:
            freeze_batch_norm(self.classifier.backbone)
        x = augment(batch, self.pictures, self.policy, seed=step.seed)
        target = self.table[batch.indices]
        with step.autocast():
            logits = self.classifier(x)
        loss = F.cross_entropy(logits.float(), target, label_smoothing=self.config.smoothing)
        step.backward(loss, "finetune")
        step.apply("finetune")
        hits = (logits.detach().argmax(1) == target).float().mean()
        return {"loss": loss.detach(), "train_accuracy": hits}


def freeze_batch_norm(module: nn.Module) -> None:
    """Put every batch normalisation into evaluation mode; its weights still learn."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()


def fresh_classifier(
    backbone: Backbone, num_classes: int, features: int, *, grid: int
) -> Classifier:
    """Return a classifier whose head starts at zero, on unscaled features."""
    head = LinearHead(features, num_classes)
    nn.init.zeros_(head.linear.weight)
    nn.init.zeros_(head.linear.bias)
    return Classifier(backbone, head, grid=grid)
