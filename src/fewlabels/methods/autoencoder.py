"""Convolutional autoencoder, plain and denoising.

An encoder squeezes the image into a short dense code, a decoder paints it back, and
both learn from the squared error of the pixels (Hinton and Salakhutdinov 2006; with
convolutions, Masci et al. 2011). The denoising variant sees a picture with parts
missing and must paint the whole one (Vincent et al. 2008). What transfer takes away
is the encoder; the code's linear map and the decoder stay behind.
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
class AutoencoderConfig:
    """Settings of the autoencoder.

    Attributes
    ----------
    code : int
        Length of the dense code; 128 is the width of road R1's last convolution.
    lr : float
        Adam's rate, its authors' default (Kingma and Ba 2015).
    noise : float
        Standard deviation of the Gaussian pixel noise (denoising only).
    missing : float
        Side of the missing square as a share of the side (denoising only;
        half the side hides a quarter of the picture, as in Pathak et al. 2016).
    """

    code: int = 128
    lr: float = 1e-3
    noise: float = 0.0
    missing: float = 0.0


def reconstruction_loss(painted: Tensor, picture: Tensor) -> Tensor:
    """Return the mean squared error of ``(B, C, H, W)`` pictures on the 0-1 scale."""
    return F.mse_loss(painted.float(), picture.float())


class Autoencoder(nn.Module):
    """The plain autoencoder: the picture goes in, the picture comes out.

    Parameters
    ----------
    encoder : Backbone
        A backbone that keeps a map (`forward_features` gives ``(B, C, h, w)``).
    pictures : Pictures
        Format of the images.
    policies : Policies
        Of which only the flip is used: the target is the unchanged picture.
    config : AutoencoderConfig, optional
    """

    def __init__(
        self,
        encoder: Backbone,
        pictures: Pictures,
        policies: Policies,
        config: AutoencoderConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = config or AutoencoderConfig()
        self.pictures = pictures
        self.flip = Policy(flip=policies.views.flip)
        self.encoder = encoder
        features = math.prod(encoder.map_shape(pictures.channels, pictures.size))
        self.squeeze = nn.Linear(features, self.config.code)
        self.decoder = ConvDecoder(self.config.code, pictures.size, pictures.channels)
        self._adam = torch.optim.Adam(self.parameters(), lr=self.config.lr, fused=True)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the single optimizer."""
        return {"autoencoder": self._adam}

    def reconstruct(self, x: Tensor) -> Tensor:
        """Paint normalised images ``(B, C, H, W)`` again, on the 0-1 scale."""
        code = self.squeeze(self.encoder.forward_features(x).flatten(1))
        painted: Tensor = self.decoder(code)
        return painted

    def damage(self, x: Tensor, batch: Batch, step: Step) -> Tensor:
        """Return what the encoder sees of the normalised views ``(B, C, H, W)``."""
        return damaged(x, self.config, step.generator, step.images, step.span)

    def update(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Learn to paint one batch."""
        x = augment(batch, self.pictures, self.flip, seed=step.seed)
        with step.autocast():
            painted = self.reconstruct(self.damage(x, batch, step))
        loss = reconstruction_loss(painted, denormalise(x, self.pictures))
        step.backward(loss, "autoencoder")
        step.apply("autoencoder")
        return {"loss": loss.detach(), "reconstruction_error": loss.detach()}

    def paint(self, batch: Batch, key: torch.Generator) -> dict[str, Tensor]:
        """Return the pictures, what is seen of them where that is less, and their repainting."""
        x = plain(batch, self.pictures)
        seen = damaged(x, self.config, key)
        rows = {"picture": denormalise(x, self.pictures)}
        if self.config.noise or self.config.missing:
            rows["seen"] = denormalise(seen, self.pictures)
        return rows | {"painted": self.reconstruct(seen)}


def damaged(
    x: Tensor,
    config: AutoencoderConfig,
    key: torch.Generator,
    images: int | None = None,
    span: slice = slice(None),
) -> Tensor:
    """Add noise to normalised images ``(B, C, S, S)`` and blank a square of each.

    Random numbers are drawn for `images` images, of which `x` are those in the places of `span`.
    """
    count = len(x) if images is None else images
    if config.noise:
        noise = torch.randn((count, *x.shape[1:]), generator=key, device=x.device)[span]
        x = x + config.noise * noise / 0.25
    if config.missing:
        size = x.shape[2]
        side = round(config.missing * size)
        corners = torch.randint(0, size - side + 1, (count, 2), generator=key, device=x.device)
        corner = corners[span]  # (B, 2)
        pixel = torch.arange(size, device=x.device)
        inside = (pixel >= corner[:, :, None]) & (pixel < corner[:, :, None] + side)  # (B, 2, S)
        x = x.masked_fill((inside[:, 0, :, None] & inside[:, 1, None, :])[:, None], 0.0)
    return x


def DenoisingAutoencoder(encoder: Backbone, pictures: Pictures, policies: Policies) -> Autoencoder:
    """Return an autoencoder that sees noise of 0.1 and a missing square of half the side."""
    config = AutoencoderConfig(noise=0.1, missing=0.5)
    return Autoencoder(encoder, pictures, policies, config)
