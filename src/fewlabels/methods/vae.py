"""Variational autoencoder: a code with a known distribution, from which the image is painted.

Kingma and Welling 2014, "Auto-Encoding Variational Bayes". The encoder gives a mean and a
spread for every number of the code, a sample of that is decoded, and the code is held near
a standard normal, so that images can be drawn from nothing. What transfer takes away is the
encoder; the maps to the code and the decoder stay behind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.core.types import Backbone, Batch, Pictures, Step
from fewlabels.data.augment import Policies, Policy, augment, denormalise, plain
from fewlabels.models.decoders import ConvDecoder


@dataclass(frozen=True, slots=True)
class VAEConfig:
    """Settings of the variational autoencoder.

    Attributes
    ----------
    code : int
        Length of the code, as the plain autoencoder's.
    beta : float
        Weight of the divergence from the standard normal; 1 is the bound itself.
    spread : float
        Standard deviation of a pixel given the code, on the 0-1 scale: how exactly the picture
        must be painted before the code may be simplified.
    lr : float
        Adam's rate, its authors' default (Kingma and Ba 2015).
    """

    code: int = 128
    beta: float = 1.0
    spread: float = 0.1
    lr: float = 1e-3


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the divergence of diagonal Gaussians from the standard normal.

    Parameters
    ----------
    mean, log_variance : Tensor
        ``(B, D)`` float32.

    Returns
    -------
    Tensor
        Scalar, in nats: summed over D, averaged over B (Kingma and Welling 2014, appendix B).

    Examples
    --------
    >>> float(gaussian_kl(torch.zeros(4, 3), torch.zeros(4, 3)))
    0.0
    >>> float(gaussian_kl(torch.ones(4, 3), torch.zeros(4, 3)))
    1.5
    """
    each = mean.square() + log_variance.exp() - 1 - log_variance
    return each.sum(1).mean() / 2


class VAE(nn.Module):
    """The method: encoder, code, decoder and one optimizer.

    Parameters
    ----------
    encoder : Backbone
        A backbone that keeps a map (`forward_features` gives ``(B, C, h, w)``).
    pictures : Pictures
        Format of the images.
    policies : Policies
        Of which only the flip is used: the target is the unchanged picture.
    config : VAEConfig, optional
    """

    def __init__(
        self,
        encoder: Backbone,
        pictures: Pictures,
        policies: Policies,
        config: VAEConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = config or VAEConfig()
        self.pictures = pictures
        self.flip = Policy(flip=policies.views.flip)
        self.encoder = encoder
        features = math.prod(encoder.map_shape(pictures.channels, pictures.size))
        self.to_code = nn.Linear(features, 2 * self.config.code)
        self.decoder = ConvDecoder(self.config.code, pictures.size, pictures.channels)
        self._adam = torch.optim.Adam(self.parameters(), lr=self.config.lr, fused=True)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the single optimizer."""
        return {"vae": self._adam}

    def update(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Learn to paint one batch from samples of its code."""
        x = augment(batch, self.pictures, self.flip, seed=step.seed)
        with step.autocast():
            stats = self.to_code(self.encoder.forward_features(x).flatten(1))  # (B, 2D)
            centre, log_variance = stats.float().chunk(2, dim=1)
            log_variance = log_variance.clamp(-12, 12)
            shape = (step.images, self.config.code)
            noise = torch.randn(shape, generator=step.generator, device=x.device)[step.span]
            painted = self.decoder(centre + (log_variance / 2).exp() * noise)
        squared = F.mse_loss(painted.float(), denormalise(x, self.pictures))
        # Minus the log-likelihood of all pixels of an image, up to a constant.
        painting = squared * x[0].numel() / (2 * self.config.spread**2)
        divergence = gaussian_kl(centre, log_variance)
        loss = painting + self.config.beta * divergence
        step.backward(loss, "vae")
        step.apply("vae")
        return {
            "loss": loss.detach(),
            "squared_error": squared.detach(),
            "divergence": divergence.detach(),
        }

    def paint(self, batch: Batch, key: torch.Generator) -> dict[str, Tensor]:
        """Return the pictures, each painted from the mean of its code, and as many from nothing."""
        x = plain(batch, self.pictures)
        centre, _ = self.to_code(self.encoder.forward_features(x).flatten(1)).chunk(2, dim=1)
        code = torch.randn(centre.shape, generator=key, device=x.device)
        painted = {"painted": self.decoder(centre), "drawn": self.decoder(code)}
        return {"picture": denormalise(x, self.pictures), **painted}
