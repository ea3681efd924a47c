"""Fine-tuning on labelled and unlabelled images together, under the contract of every method.

Each batch holds labelled images and, after them, `RATIO` times as many unlabelled ones. The
labelled ones are learned from as in any fine-tune. Of each unlabelled one there is a guess with
a weight, and a strong view of it is learned as if the guess were its label. Guesses come

- from a *teacher* (``fixmatch``, ``freematch``, ``softmatch``: `fewlabels.transfer.confidence`),
  the running mean of the weights of the network, which looks at a light view;
- from *label propagation* on the frozen features of the start (``pseudo``, Iscen et al. 2019),
  once before training.

Two departures from the three papers. There the network itself makes the guesses and its running
mean only serves to evaluate; here that mean makes them too, as in Mean Teacher (Tarvainen and
Valpola 2017) and in Cai et al. 2022, who found it steadier. It is what is evaluated and saved. And
a batch has fewer unlabelled images, for small budgets.

Batch normalisation: labelled and strong views go through the network in one pass and are measured
together. Batches are of many images here however few labels there are, so that a start's
statistics need not be kept. The teacher measures nothing; it takes over the statistics of the
network after every step, and normalises light views by these.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.core.types import Backbone, Batch, Step
from fewlabels.data.augment import Policies, Policy, augment
from fewlabels.models.classifier import Classifier
from fewlabels.models.momentum import follow
from fewlabels.transfer.confidence import FAIRNESS, RULES, Running, certainty, fairness, memory
from fewlabels.transfer.parameters import FineTune, FineTuneConfig

PSEUDO = "pseudo"
UNLABELLED = ("none", PSEUDO, *RULES)
BATCH = 32  # labelled images
RATIO = 3  # unlabelled images to each of them; FixMatch has 7, of batches of 64
WEIGHT = 1.0  # of the unlabelled loss: all three papers
RAMP = 0.2  # share of the run in which it rises to that, as in Mean Teacher and MixMatch
LIGHT, STRONG = 1, 2  # views; the labelled images have 0


def with_unlabelled(config: FineTuneConfig, loss: str) -> FineTuneConfig:
    """Return the settings of a fine-tune that learns from unlabelled images as well.

    Without label smoothing, under which no probability would come near FixMatch's threshold.
    """
    if loss == "none":
        return config
    return replace(config, unlabelled=loss, ratio=RATIO, batch_size=BATCH, smoothing=0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Propagated:
    """Guesses that are made before training.

    Attributes
    ----------
    rows, classes : ndarray
        ``(m,)`` int64 rows of the data set and their guessed classes.
    weights : ndarray
        ``(m,)`` float32 in [0, 1].
    """

    rows: np.ndarray
    classes: np.ndarray
    weights: np.ndarray


def propagated(
    rows: np.ndarray, shares: Tensor, labelled: np.ndarray, labels: np.ndarray
) -> Propagated:
    """Return the guesses that follow from class shares; visible labels stand as they are.

    Parameters
    ----------
    rows : ndarray
        ``(m,)`` int64 rows that labels were spread over.
    shares : Tensor
        ``(m, K)`` from `fewlabels.transfer.probes.spread_labels`.
    labelled, labels : ndarray
        ``(n,)`` int64 rows with a visible label, and these.
    """
    classes, weights = shares.argmax(1).numpy(), certainty(shares).numpy()
    known = {int(row): int(label) for row, label in zip(labelled, labels, strict=True)}
    for place, row in enumerate(rows.tolist()):
        if row in known:
            classes[place], weights[place] = known[row], 1.0
    return Propagated(rows, classes, weights)


class Teacher(nn.Module):
    """The running mean of a network, and which of its guesses count.

    Parameters
    ----------
    tuned : FineTune
        Whose network it follows.
    policy : Policy
        Of the light views.
    """

    def __init__(self, tuned: FineTune, policy: Policy) -> None:
        super().__init__()
        loss = tuned.config.unlabelled
        self.classifier = copy.deepcopy(tuned.classifier).requires_grad_(False)
        classes = tuned.classifier.head.get_parameter("linear.bias").numel()
        self.running = Running(classes, level=loss == "softmatch")
        self._rule = RULES[loss]
        self._fair = loss == "freematch"
        self._pictures = tuned.pictures
        self._policy = policy

    @torch.no_grad()
    def guess(self, batch: Batch, step: Step) -> tuple[Tensor, Tensor]:
        """Return classes and weights ``(M,)`` of unlabelled images."""
        self.classifier.eval()
        x = augment(batch, self._pictures, self._policy, seed=step.seed, view=LIGHT)
        with step.autocast():
            logits = self.classifier(x)
        q = logits.float().softmax(1)
        every = step.gather(q)
        self.running.observe(every, step.index)
        used = self._rule(every, self.running).mean()
        self.running.used.lerp_(used, 1 - memory(step.index))
        return q.argmax(1), self._rule(q, self.running)

    def penalty(self, logits: Tensor, weights: Tensor, step: Step) -> Tensor:
        """Return what a loss has besides, from logits ``(M, K)`` of the strong views."""
        if not self._fair:
            return logits.new_zeros(())
        return FAIRNESS * fairness(step.gather(logits), step.gather(weights), self.running)

    def follow(self, classifier: Classifier, index: int) -> None:
        """Move towards a classifier after a step; take over what is no weight."""
        follow(self.classifier, [classifier], memory(index), 0.0)
        with torch.no_grad():
            _copy_buffers(self.classifier, classifier)

    @property
    def frequencies(self) -> Tensor:
        """Return the share ``(K,)`` of the unlabelled images that each class has."""
        return self.running.shares

    def told(self) -> tuple[float, Tensor]:
        """Return the mean weight of a guess, and the share ``(K,)`` given each class."""
        return float(self.running.used), self.running.called


class Beforehand(nn.Module):
    """Guesses that stand before training.

    Parameters
    ----------
    guesses : Propagated
    num_classes : int
    """

    classes: Tensor
    weights: Tensor

    def __init__(self, guesses: Propagated, num_classes: int) -> None:
        super().__init__()
        count = int(guesses.rows.max()) + 1
        rows = torch.from_numpy(guesses.rows)
        classes = torch.zeros(count, dtype=torch.int64)
        classes[rows] = torch.from_numpy(guesses.classes).long()
        weights = torch.zeros(count)
        weights[rows] = torch.from_numpy(guesses.weights).float()
        # Saved, so that a run that goes on elsewhere learns from the same guesses.
        self.register_buffer("classes", classes)
        self.register_buffer("weights", weights)
        named = F.one_hot(classes[rows], num_classes).float().mean(0)
        self._told = float(weights[rows].mean()), named

    def guess(self, batch: Batch, _step: Step) -> tuple[Tensor, Tensor]:
        """Return classes and weights ``(M,)`` of unlabelled images."""
        return self.classes[batch.indices], self.weights[batch.indices]

    def penalty(self, logits: Tensor, _weights: Tensor, _step: Step) -> Tensor:
        """Return nothing."""
        return logits.new_zeros(())

    def follow(self, classifier: Classifier, index: int) -> None:
        """Learn nothing."""

    @property
    def frequencies(self) -> Tensor:
        """Return the share ``(K,)`` of the unlabelled images that each class has."""
        return self._told[1].to(self.weights.device)

    def told(self) -> tuple[float, Tensor]:
        """Return the mean weight of a guess, and the share ``(K,)`` given each class."""
        return self._told


class FineTuneBoth(nn.Module):
    """Training on labelled and unlabelled images together.

    Parameters
    ----------
    tuned : FineTune
        What is done with labelled images.
    pool : ndarray
        ``(m,)`` int64 rows of the images that are learned from without a label.
    policies : Policies
        Of which `light` and `strong` make the views of unlabelled images.
    guesses : Propagated, optional
        Made before training, for ``pseudo``.
    """

    def __init__(
        self,
        tuned: FineTune,
        pool: np.ndarray,
        policies: Policies,
        guesses: Propagated | None = None,
    ) -> None:
        super().__init__()
        self.tuned = tuned
        self.pool = pool
        self._policy = policies.strong
        self.guesser: Teacher | Beforehand
        if tuned.config.unlabelled == PSEUDO:
            if guesses is None:
                raise ValueError("pseudo-labels are made before training")
            classes = tuned.classifier.head.get_parameter("linear.bias").numel()
            self.guesser = Beforehand(guesses, classes)
        else:
            self.guesser = Teacher(tuned, policies.light)

    @property
    def config(self) -> FineTuneConfig:
        """Return the settings."""
        return self.tuned.config

    @property
    def classifier(self) -> Classifier:
        """Return what is evaluated and saved: the teacher where there is one."""
        return (
            self.guesser.classifier if isinstance(self.guesser, Teacher) else self.tuned.classifier
        )

    @property
    def encoder(self) -> Backbone:
        """Return its backbone."""
        return self.classifier.backbone

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the single optimizer."""
        return self.tuned.optimizers()

    def kind_of_step(self, index: int, steps: int) -> int:
        """Return how many stages learn."""
        return self.tuned.kind_of_step(index, steps)

    def update(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Learn from one batch of labelled and unlabelled images."""
        tuned, count = self.tuned, len(batch.images) // (1 + self.config.ratio)
        labelled, others = _part(batch, slice(None, count)), _part(batch, slice(count, None))
        classes, weights = self.guesser.guess(others, step)
        tuned.ready(step.progress)
        x = torch.cat(
            [
                augment(labelled, tuned.pictures, tuned.policy, seed=step.seed),
                augment(others, tuned.pictures, self._policy, seed=step.seed, view=STRONG),
            ]
        )
        with step.autocast():
            outputs = tuned.classifier(x)
        known, strong = outputs.float().split([count, len(classes)])
        loss, told = tuned.aim(known, tuned.table[labelled.indices])
        guessed = self._loss(strong, classes, weights)
        besides = WEIGHT * guessed + self.guesser.penalty(strong, weights, step)
        loss = loss + min(1.0, step.progress / RAMP) * besides
        result = tuned.learn(loss, step)
        self.guesser.follow(tuned.classifier, step.index)
        told |= {"unlabelled_loss": guessed.detach(), "used": weights.mean()}
        return {**result, **told}

    def _loss(self, logits: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
        """Return the weighted cross-entropy of strong views ``(M, K)`` with guesses ``(M,)``."""
        if self.config.imbalance == "logits":
            logits = logits + self.guesser.frequencies.clamp(min=1e-6).log()
        each = F.cross_entropy(logits, classes, reduction="none")
        return (weights * each).mean()

    def told(self) -> Mapping[str, object]:
        """Return what results tell: how much guesses counted, and the share of each class."""
        used, shares = self.guesser.told()
        return {
            "loss": self.config.unlabelled,
            "images": len(self.pool),
            "used": used,
            "shares": [float(share) for share in shares],
        }


def _copy_buffers(onto: nn.Module, source: nn.Module) -> None:
    """Copy what is no weight, those of one type in one go."""
    kinds: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for mine, its in zip(onto.buffers(), source.buffers(), strict=True):
        pair = kinds.setdefault(mine.dtype, ([], []))
        pair[0].append(mine)
        pair[1].append(its)
    for mine_all, its_all in kinds.values():
        torch._foreach_copy_(mine_all, its_all)


def _part(batch: Batch, span: slice) -> Batch:
    sizes = None if batch.sizes is None else batch.sizes[span]
    return Batch(batch.images[span], sizes, batch.indices[span], batch.epochs[span])
