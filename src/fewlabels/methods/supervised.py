"""Supervised pre-training: learn to classify a labelled source, keep the trunk.

The oldest source of transferable features (Yosinski et al. 2014, "How transferable are features
in deep neural networks?"): a network is trained on a task with many labels, its classifier is
left behind, and the rest starts the task with few. It teaches what tells the source's classes
apart and nothing else, so it transfers as far as the two tasks ask for the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.core.types import Backbone, Batch, Labels, Pictures, Step
from fewlabels.data.augment import Policies, augment


@dataclass(frozen=True, slots=True)
class SupervisedConfig:
    """Settings of supervised pre-training.

    Attributes
    ----------
    lr, weight_decay : float
        For AdamW; as in training from scratch, against which transfer is judged.
    smoothing : float
        Label smoothing, likewise.
    """

    lr: float = 3e-3
    weight_decay: float = 0.05
    smoothing: float = 0.1


class Supervised(nn.Module):
    """The method: encoder, a linear classifier of the source's classes and one optimizer.

    Parameters
    ----------
    encoder : Backbone
        A backbone; its pooled features feed the classifier.
    pictures : Pictures
        Format of the images.
    policies : Policies
        Of which `views` changes the images, as in training from scratch.
    labels : Labels
        Of the images that are learned from.
    config : SupervisedConfig, optional
    """

    table: Tensor

    def __init__(
        self,
        encoder: Backbone,
        pictures: Pictures,
        policies: Policies,
        labels: Labels,
        config: SupervisedConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = config or SupervisedConfig()
        self.pictures = pictures
        self.policy = policies.views
        self.encoder = encoder
        self.classify = nn.Linear(encoder.num_features, labels.count)
        # Of the data, not of the model: it is read again with the images.
        self.register_buffer("table", labels.table, persistent=False)
        self._adamw = torch.optim.AdamW(
            self.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay, fused=True
        )

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the single optimizer."""
        return {"supervised": self._adamw}

    def update(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Learn from one batch of labelled images."""
        x = augment(batch, self.pictures, self.policy, seed=step.seed)
        target = self.table[batch.indices]  # (B,)
        with step.autocast():
            logits = self.classify(self.encoder(x))  # (B, K)
        loss = F.cross_entropy(logits.float(), target, label_smoothing=self.config.smoothing)
        step.backward(loss, "supervised")
        step.apply("supervised")
        hits = (logits.detach().argmax(1) == target).float().mean()
        return {"loss": loss.detach(), "train_accuracy": hits}
