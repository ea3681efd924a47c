"""Dense autoencoder: pixels through ever narrower layers to two numbers, and back.

Hinton and Salakhutdinov 2006, "Reducing the Dimensionality of Data with Neural Networks"
(there with layer-wise pre-training, which Adam and good initial weights made needless). The
code is short enough to be plotted. What transfer takes away is the encoder; the decoder
stays behind. Made for small grey pictures such as digits of 28x28.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.core.errors import UsageError
from fewlabels.core.types import Backbone, Batch, Pictures, Step
from fewlabels.data.augment import Policies, denormalise, plain
from fewlabels.models.dense import DenseEncoder, dense_layers


@dataclass(frozen=True, slots=True)
class DenseAutoencoderConfig:
    """Settings of the dense autoencoder.

    Attributes
    ----------
    lr : float
        Adam's rate, its authors' default (Kingma and Ba 2015).
    """

    lr: float = 1e-3


class DenseAutoencoder(nn.Module):
    """The method: a dense encoder, its mirror image as decoder, and one optimizer.

    Parameters
    ----------
    encoder : DenseEncoder
        The backbone ``dense``; the method trains no other.
    pictures : Pictures
        Format of the images.
    policies : Policies
        Not used: the target is the picture as it is.
    config : DenseAutoencoderConfig, optional

    Raises
    ------
    UsageError
        For another backbone.
    """

    def __init__(
        self,
        encoder: Backbone,
        pictures: Pictures,
        policies: Policies,
        config: DenseAutoencoderConfig | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(encoder, DenseEncoder):
            raise UsageError(
                "usage.backbone", "a dense autoencoder mirrors a dense encoder", "--backbone dense"
            )
        self.config = config or DenseAutoencoderConfig()
        self.pictures = pictures
        self.encoder: Backbone = encoder
        self.decoder = dense_layers(encoder.widths[::-1])
        self._adam = torch.optim.Adam(self.parameters(), lr=self.config.lr, fused=True)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the single optimizer."""
        return {"dense_autoencoder": self._adam}

    def update(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Learn to paint one batch; the loss is the squared error on the 0-1 scale."""
        x = plain(batch, self.pictures)
        with step.autocast():
            painted = self.decoder(self.encoder(x))  # (B, C * S * S)
        picture = denormalise(x, self.pictures).flatten(1)
        loss = F.mse_loss(painted.float().sigmoid(), picture)
        step.backward(loss, "dense_autoencoder")
        step.apply("dense_autoencoder")
        return {"loss": loss.detach(), "reconstruction_error": loss.detach()}

    def paint(self, batch: Batch, key: torch.Generator) -> dict[str, Tensor]:
        """Return the pictures and their repainting."""
        x = plain(batch, self.pictures)
        painted = self.decoder(self.encoder(x)).sigmoid().reshape(x.shape)
        return {"picture": denormalise(x, self.pictures), "painted": painted}
