"""k-means patches: a dictionary of what small patches of the images look like.

Coates, Ng and Lee 2011, "An Analysis of Single-Layer Networks in Unsupervised Feature
Learning". Patches are standardised and whitened, k-means finds their centres, and an image
is described by which centres its parts are near. No gradient and no label; a strong
baseline for small images. Departure: k-means sees one batch at a time (Sculley 2010).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewlabels.core.errors import UsageError
from fewlabels.core.types import Backbone, Batch, Pictures, Step
from fewlabels.data.augment import Policies, plain
from fewlabels.models.patches import PatchDictionary


@dataclass(frozen=True, slots=True)
class KMeansConfig:
    """Settings of k-means patches.

    Attributes
    ----------
    patches : int
        Patches drawn from every image of a batch.
    measuring : float
        Share of the run that measures mean and covariance before anything is clustered.
    ridge : float
        Added to the eigenvalues before whitening, the authors' 0.1.
    """

    patches: int = 32
    measuring: float = 0.2
    ridge: float = 0.1


def whitening(covariance: Tensor, ridge: float) -> Tensor:
    """Return the symmetric whitening matrix (ZCA) of a covariance ``(D, D)``.

    Examples
    --------
    >>> whitening(torch.tensor([[4.0, 0.0], [0.0, 1.0]]), 0.0)
    tensor([[0.5000, 0.0000],
            [0.0000, 1.0000]])
    """
    values, axes = torch.linalg.eigh(covariance.double())
    scaled = axes * (values.clamp(min=0) + ridge).rsqrt()
    whitened: Tensor = (scaled @ axes.T).float()
    return whitened


def kmeans_step(points: Tensor, centres: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Move each centre to the running mean of all points it has won (Sculley 2010).

    Parameters
    ----------
    points : Tensor
        ``(n, D)``.
    centres : Tensor
        ``(K, D)``.
    counts : Tensor
        ``(K,)`` points won so far.

    Returns
    -------
    tuple of Tensor
        The new centres and counts.
    """
    nearest = torch.cdist(points, centres).argmin(1)
    won = torch.bincount(nearest, minlength=len(centres)).to(counts.dtype)
    sums = torch.zeros_like(centres).index_add_(0, nearest, points)
    counts = counts + won
    step = 1 / counts.clamp(min=1)
    return centres + (sums - won[:, None] * centres) * step[:, None], counts


class KMeans(nn.Module):
    """The method: a dictionary, and what is needed to whiten patches and to move its entries.

    Parameters
    ----------
    encoder : PatchDictionary
        The backbone ``patches``; the method trains no other.
    pictures : Pictures
        Format of the images.
    policies : Policies
        Not used: patches are taken as they are.
    config : KMeansConfig, optional

    Raises
    ------
    UsageError
        For another backbone.
    """

    total: Tensor
    squares: Tensor
    seen: Tensor
    counts: Tensor

    def __init__(
        self,
        encoder: Backbone,
        pictures: Pictures,
        policies: Policies,
        config: KMeansConfig | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(encoder, PatchDictionary):
            raise UsageError(
                "usage.backbone", "k-means fills a dictionary of patches", "--backbone patches"
            )
        self.config = config or KMeansConfig()
        self.pictures = pictures
        self.encoder: Backbone = encoder
        entries, length = encoder.dictionary.shape
        self.register_buffer("total", torch.zeros(length, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(length, length, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(entries))

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return none: nothing here follows a gradient."""
        return {}

    def kind_of_step(self, index: int, steps: int) -> int:
        """Return 0 while patches are measured, 1 while the entries follow them."""
        return int(index / steps >= self.config.measuring)

    @property
    def patches(self) -> PatchDictionary:
        """Return the encoder by its own type."""
        assert isinstance(self.encoder, PatchDictionary)
        return self.encoder

    @torch.no_grad()
    def update(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Measure the patches of one batch or, later in the run, let the entries follow them.

        Several processes share the reading and cutting of images and gather the patches; what
        follows each of them does with all patches, so that all have the same dictionary.
        """
        points = step.gather(self._draw(batch, step))  # (n, length)
        if step.progress < self.config.measuring or self.seen == 0:
            self._measure(points)
        points = (points - self.patches.mean) @ self.patches.whiten
        # Entries begin as patches of the first batch after measuring; too few are drawn again.
        if step.progress >= self.config.measuring:
            if self.counts.sum() == 0:
                first = torch.arange(len(self.counts), device=points.device) % len(points)
                self.patches.dictionary.copy_(points[first])
            moved, counts = kmeans_step(points, self.patches.dictionary, self.counts)
            self.patches.dictionary.copy_(moved)
            self.counts.copy_(counts)
        distance = torch.cdist(points, self.patches.dictionary).amin(1)
        return {"loss": distance.square().mean()}

    def _draw(self, batch: Batch, step: Step) -> Tensor:
        cut = self.patches.patches(plain(batch, self.pictures))  # (B, L, length)
        _, places, length = cut.shape
        shape = (step.images, self.config.patches)
        drawn = torch.randint(0, places, shape, generator=step.generator, device=cut.device)
        chosen = cut.gather(1, drawn[step.span][:, :, None].expand(-1, -1, length))
        return chosen.reshape(-1, length)

    def _measure(self, points: Tensor) -> None:
        exact = points.double()
        self.total += exact.sum(0)
        self.squares += exact.T @ exact
        self.seen += len(points)
        mean = self.total / self.seen
        covariance = self.squares / self.seen - torch.outer(mean, mean)
        self.patches.mean.copy_(mean)
        self.patches.whiten.copy_(whitening(covariance, self.config.ridge))
