"""Generative adversarial network: learn what real pictures look like by spotting forged ones.

Goodfellow et al. 2014; convolutions after Radford et al. 2016 (DCGAN). A generator paints
images from random codes, a discriminator tells them from real ones, and each learns from the
other. The discriminator's trunk is the encoder that transfer takes away. A penalty on the
discriminator's gradient at real images (R1, Mescheder et al. 2018) keeps the game stable and
leaves nothing behind in the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from fewlabels.core.errors import UsageError
from fewlabels.core.types import Backbone, Batch, Pictures, Step
from fewlabels.data.augment import Policies, Policy, augment, denormalise, normalise
from fewlabels.models.generators import Generator


@dataclass(frozen=True, slots=True)
class GANConfig:
    """Settings of the GAN.

    Attributes
    ----------
    code : int
        Length of the random code; DCGAN's 100, rounded up.
    penalty : float
        Weight of R1, between its authors' 10 and the 0.01 of StyleGAN2-ADA for CIFAR-10, which at
        256 pixels takes 1 (Karras et al. 2020, "Training GANs with Limited Data").
    penalise_every : int
        Steps between penalties, each counted as often (Karras et al. 2020, "lazy" R1).
    lr, beta1 : float
        Of Adam for both networks, DCGAN's.
    """

    code: int = 128
    penalty: float = 1.0
    penalise_every: int = 8
    lr: float = 2e-4
    beta1: float = 0.5


def discriminator_loss(real: Tensor, forged: Tensor) -> Tensor:
    """Return the logistic loss of telling real from forged (Goodfellow et al. 2014, eq. 1).

    Parameters
    ----------
    real, forged : Tensor
        ``(B,)`` scores; large means real.

    Examples
    --------
    >>> round(float(discriminator_loss(torch.zeros(4), torch.zeros(4))), 4)  # 2 log 2
    1.3863
    """
    return F.softplus(-real).mean() + F.softplus(forged).mean()


def generator_loss(forged: Tensor) -> Tensor:
    """Return the non-saturating loss of being found out (ibid., section 3); scores ``(B,)``."""
    return F.softplus(-forged).mean()


def gradient_penalty(scores: Tensor, images: Tensor) -> Tensor:
    """Return the mean squared length of the scores' gradients at ``(B, C, S, S)`` images."""
    (slope,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return slope.square().sum((1, 2, 3)).mean()


class GAN(nn.Module):
    """The method: the discriminator's trunk (the encoder), its head, a generator, two optimizers.

    Parameters
    ----------
    encoder : Backbone
        A backbone; its pooled features feed the discriminator's head.
    pictures : Pictures
        Format of the images.
    policies : Policies
        Of which only the flip is used: what is changed would be forged in its changed form.
    config : GANConfig, optional

    Raises
    ------
    UsageError
        For a backbone with a layer that has no second derivative.
    """

    def __init__(
        self,
        encoder: Backbone,
        pictures: Pictures,
        policies: Policies,
        config: GANConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = config or GANConfig()
        self.pictures = pictures
        self.flip = Policy(flip=policies.views.flip)
        self.encoder = encoder
        self.judge = nn.Linear(encoder.num_features, 1)
        self._refuse_once_differentiable()
        self.generator = Generator(self.config.code, pictures.size, pictures.channels)
        rate, betas = self.config.lr, (self.config.beta1, 0.999)
        judges = [*self.encoder.parameters(), *self.judge.parameters()]
        self._judge_adam = torch.optim.Adam(judges, lr=rate, betas=betas, fused=True)
        forgers = self.generator.parameters()
        self._forge_adam = torch.optim.Adam(forgers, lr=rate, betas=betas, fused=True)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the two optimizers."""
        return {"discriminator": self._judge_adam, "generator": self._forge_adam}

    def kind_of_step(self, index: int, _steps: int) -> int:
        """Return 1 where the discriminator pays the penalty, else 0."""
        return int(index % self.config.penalise_every == 0)

    def forge(
        self, count: int, key: torch.Generator, device: torch.device, span: slice = slice(None)
    ) -> Tensor:
        """Return those in the places of `span` of `count` normalised forgeries ``(n, C, S, S)``."""
        code = torch.randn((count, self.config.code), generator=key, device=device)[span]
        return normalise(self.generator(code).float(), self.pictures)

    def update(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Let the discriminator learn from one batch and as many forgeries; then the generator."""
        real = augment(batch, self.pictures, self.flip, seed=step.seed)
        penalised = step.index % self.config.penalise_every == 0
        with step.autocast():
            with torch.no_grad():
                forged = self.forge(step.images, step.generator, real.device, step.span)
            judged = discriminator_loss(self._score(real), self._score(forged))
        penalty = self._penalty(real) if penalised else judged.new_zeros(())
        weight = self.config.penalty / 2 * self.config.penalise_every
        loss = judged + weight * penalty
        step.backward(loss, "discriminator")
        step.apply("discriminator")

        # The generator learns through the discriminator, which must not learn from that.
        trunk = nn.ModuleList([self.encoder, self.judge]).requires_grad_(False)
        with step.autocast():
            forged = self.forge(step.images, step.generator, real.device, step.span)
            fooled = generator_loss(self._score(forged))
        step.backward(fooled, "generator")
        step.apply("generator")
        trunk.requires_grad_(True)
        return {
            "loss": judged.detach(),
            "generator_loss": fooled.detach(),
            "penalty": penalty.detach(),
        }

    def _score(self, x: Tensor) -> Tensor:
        scores: Tensor = self.judge(self.encoder(x))[:, 0].float()
        return scores

    def _penalty(self, real: Tensor) -> Tensor:
        """Return R1 on a batch, in full precision: it is a derivative of a derivative."""
        x = real.detach().requires_grad_(True)
        with sdpa_kernel(SDPBackend.MATH):  # faster kinds of attention have one derivative only
            scores = self._score(x)
        return gradient_penalty(scores, x)

    def _refuse_once_differentiable(self) -> None:
        """Try the penalty, because not every layer of a library has a second derivative."""
        weight = next(self.encoder.parameters(), self.judge.weight)
        blank = torch.zeros(1, self.pictures.channels, self.pictures.size, self.pictures.size)
        self.encoder.eval()
        try:
            self.judge.to(weight.device)
            trained = [*self.encoder.parameters(), *self.judge.parameters()]
            penalty = self._penalty(blank.to(weight.device))
            torch.autograd.grad(penalty, trained, allow_unused=True)
        except RuntimeError as error:
            if "is not implemented" not in str(error):
                raise
            what = str(error).partition("derivative for ")[2].partition(" ")[0]
            raise UsageError(
                "usage.backbone",
                "the GAN's penalty needs second derivatives, and a layer of this backbone "
                f"({what}) has none",
                "another --backbone such as tiny or resnet18, or another --method",
            ) from error
        finally:
            self.encoder.train()

    def paint(self, batch: Batch, key: torch.Generator) -> dict[str, Tensor]:
        """Return forgeries, as many as there are images."""
        count, device = len(batch.images), batch.images.device
        return {"drawn": denormalise(self.forge(count, key, device), self.pictures)}
