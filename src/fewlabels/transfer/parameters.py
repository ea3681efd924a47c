"""Parameter transfer: start from an encoder's weights and train them on the labels.

From a pre-trained encoder the head is fitted first, on frozen features, and then
everything is trained at a smaller rate (LP-FT, Kumar et al. 2022), with the batch-norm
statistics of pre-training kept while labels are few. From scratch everything is
trained at a full rate. Images are changed in the same way in both.

Less can be trained as well: the head alone, the last stage, or stage after stage from the
last one on (gradual unfreezing, Howard and Ruder 2018). Early stages can have smaller rates
and less weight decay, and weights can be pulled back to where they started (L2-SP, Li et al.
2018).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewlabels.core.types import Backbone, Batch, Pictures, Step
from fewlabels.data.augment import Policy, augment
from fewlabels.models.classifier import Classifier
from fewlabels.models.depth import stages
from fewlabels.models.heads import LinearHead
from fewlabels.training.optimizers import exchanged
from fewlabels.transfer.aims import aim_of

FREEZE_NORM_BELOW = 2_000  # labelled images; fewer make poor batch statistics
WIDE = 8_192  # terms of a sum; the widest of ResNet-50's have 4,608


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
    tune : {"all", "last", "head", "gradual"}
        Which stages of the backbone are trained beside the head: all of them, the last one,
        none, or one more in each of equal parts of the run, the last one first.
    layer_decay : float
        Factor on the rate from each stage to the one before it.
    layer_weight_decay : float
        Factor on the weight decay from each stage to the one before it.
    l2_sp : float
        Weight of half the squared distance of the backbone from its start; with it the
        backbone's weights do not decay to zero.
    imbalance : {"none", "weights", "sampling", "logits"}
        What is done about classes of unequal size: see `fewlabels.transfer.imbalance`.
    optimizer : {"auto", "adamw", "adam", "sgd"}
        ``auto`` is AdamW; how rates are carried over to the others is told in
        `fewlabels.training.optimizers`.
    unlabelled : str
        What unlabelled images are learned by, ``none`` or one of `fewlabels.transfer.unlabelled`.
    ratio : int
        Unlabelled images to each labelled one in a batch.
    """

    lr: float = 3e-3
    head_lr: float = 3e-3
    weight_decay: float = 0.05
    batch_size: int = 64
    smoothing: float = 0.1
    tune: str = "all"
    layer_decay: float = 1.0
    layer_weight_decay: float = 1.0
    l2_sp: float = 0.0
    imbalance: str = "none"
    optimizer: str = "auto"
    unlabelled: str = "none"
    ratio: int = 0

    @property
    def images(self) -> int:
        """Return how many images a step draws, labelled or not."""
        return self.batch_size * (1 + self.ratio)


def at_rate(config: FineTuneConfig, rate: float) -> FineTuneConfig:
    """Return the settings with another rate of backbone and head."""
    return replace(config, lr=rate, head_lr=rate)


SCRATCH = FineTuneConfig()
TUNE = ("all", "last", "head", "gradual")
PRETRAINED = FineTuneConfig(lr=1e-3, head_lr=1e-3)
PUBLISHED = at_rate(PRETRAINED, 1e-4)


def scratch_of(backbone: nn.Module) -> FineTuneConfig:
    """Return the settings under which a network is trained from scratch.

    AdamW moves every weight by about the rate in a step, and thus a layer's sums by the rate times
    the number of their terms (Yang et al. 2022). Dense layers as wide as those of AlexNet (9,216
    terms) and VGG (25,088) would call all images the same from then on: networks with such
    layers get a tenth of the rate.
    """
    layers = (m for m in backbone.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    widest = max((layer.weight[0].numel() for layer in layers), default=0)
    return at_rate(SCRATCH, SCRATCH.lr / 10) if widest > WIDE else SCRATCH


class FineTune(nn.Module):
    """Supervised training on labelled images, under the contract of every method.

    Parameters
    ----------
    classifier : Classifier
        With a linear head, or a `RegressionHead` over one.
    rows, labels : ndarray
        ``(n,)`` int64 labelled rows of the data set and their classes, or float64 numbers.
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
        self.aim = aim_of(classifier.head, labels, config.imbalance, config.smoothing)
        known = self.aim.encode(labels)
        table = torch.full((int(rows.max()) + 1,), -1, dtype=known.dtype)
        table[torch.from_numpy(rows)] = known
        self.register_buffer("table", table, persistent=False)
        self._stages = stages(classifier.backbone)
        # Only L2-SP asks for the start again.
        pulled = [p for part in self._stages for p in part] if config.l2_sp else []
        self._start = [p.detach().clone() for p in pulled]
        decay = 0.0 if config.l2_sp else config.weight_decay
        groups: list[dict[str, Any]] = [
            {
                "params": part,
                "lr": config.lr * config.layer_decay**above,
                "weight_decay": decay * config.layer_weight_decay**above,
            }
            for above, part in zip(reversed(range(len(self._stages))), self._stages, strict=True)
        ]
        groups.append({"params": list(classifier.head.parameters()), "lr": config.head_lr})
        adamw = torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)
        self._optimizer = exchanged(adamw, config.optimizer)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the single optimizer."""
        return {"finetune": self._optimizer}

    def update(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Learn from one batch of labelled images."""
        self.ready(step.progress)
        x = augment(batch, self.pictures, self.policy, seed=step.seed)
        with step.autocast():
            outputs = self.classifier(x)
        loss, told = self.aim(outputs.float(), self.table[batch.indices])
        return {**self.learn(loss, step), **told}

    def ready(self, progress: float) -> None:
        """Put every stage into the mode that it has at a `progress` in [0, 1)."""
        self.classifier.train()
        open_stages(self._stages, stages_open(len(self._stages), self.config.tune, progress))
        freeze_batch_norm(self.classifier.backbone, closed_only=not self.freeze_norm)

    def learn(self, loss: Tensor, step: Step) -> dict[str, Tensor]:
        """Take a step down a loss and the pull towards the start; return their sum."""
        if self.config.l2_sp:
            loss = loss + self.config.l2_sp * self._distance()
        step.backward(loss, "finetune")
        step.apply("finetune")
        return {"loss": loss.detach()}

    def kind_of_step(self, index: int, steps: int) -> int:
        """Return how many stages learn."""
        return stages_open(len(self._stages), self.config.tune, index / steps)

    def _distance(self) -> Tensor:
        """Return half the squared distance of the backbone from its start."""
        now = [p for part in self._stages for p in part]
        moved = [(p - q.to(p.device)).square().sum() for p, q in zip(now, self._start, strict=True)]
        return torch.stack(moved).sum() / 2


def stages_open(stages: int, tune: str, progress: float) -> int:
    """Return how many of the stages, the last ones, learn at a `progress` in [0, 1).

    With ``gradual`` the run has one part more than there are stages: in the first only the
    head learns, then one stage more from part to part.
    """
    known = {"all": stages, "last": min(1, stages), "head": 0}
    return known.get(tune, int(progress * (stages + 1)))


def open_stages(parts: list[list[nn.Parameter]], count: int) -> None:
    """Let the last `count` stages learn; the others get no gradient."""
    for depth, part in enumerate(parts):
        for parameter in part:
            parameter.requires_grad_(depth >= len(parts) - count)


def freeze_batch_norm(module: nn.Module, *, closed_only: bool = False) -> None:
    """Put batch normalisations into evaluation mode; weights that are trained still learn.

    Parameters
    ----------
    closed_only : bool
        Only those whose weights are not trained.
    """
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            learns = part.weight is None or part.weight.requires_grad
            if not (closed_only and learns):
                part.eval()


def fresh_classifier(
    backbone: Backbone, num_classes: int, features: int, *, grid: int
) -> Classifier:
    """Return a classifier whose head starts at zero, on unscaled features."""
    head = LinearHead(features, num_classes)
    nn.init.zeros_(head.linear.weight)
    nn.init.zeros_(head.linear.bias)
    return Classifier(backbone, head, grid=grid)
