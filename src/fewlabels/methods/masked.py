"""Masked autoencoding for CNNs: paint the patches that were taken away.

He et al. 2022 for transformers; for CNNs after SparK (Tian et al. 2023) and ConvNeXt V2's
FCMAE (Woo et al. 2023). Most cells of the encoder's last map are hidden, and after every
convolution and pooling they are emptied again, so that nothing leaks into them and no
layer learns what a hole looks like; batch norm counts only what is visible. A light decoder
paints the hidden patches. Mask token and decoder stay behind.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.core.errors import UsageError
from fewlabels.core.types import Backbone, Batch, Pictures, Step
from fewlabels.data.augment import Policies, Policy, augment, denormalise, plain
from fewlabels.models.decoders import MapDecoder


@dataclass(frozen=True, slots=True)
class MaskedConfig:
    """Settings of masked autoencoding.

    Attributes
    ----------
    hidden : float
        Share of the cells that are hidden; FCMAE's 0.6, as SparK's.
    crop : tuple of float
        Area of the crops that are shown; MAE's, whose only augmentation this is.
    width : int
        Channels of the decoder; FCMAE's 512 is for ImageNet.
    lr, weight_decay : float
        For AdamW, at a batch of 128.
    """

    hidden: float = 0.6
    crop: tuple[float, float] = (0.2, 1.0)
    width: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.05


def cell_of(size: int, cells: int) -> Tensor:
    """Return the cell ``(size,)`` that each place along a side lies in; cells may be unequal.

    Examples
    --------
    >>> cell_of(7, 3).tolist()
    [0, 0, 0, 1, 1, 2, 2]
    """
    return torch.arange(size) * cells // size


def patch_targets(x: Tensor, cells: int) -> Tensor:
    """Return images ``(B, C, S, S)`` with every patch of a `cells` x `cells` grid standardised.

    MAE found that to be better than plain pixels (He et al. 2022, table 1d).
    """
    mean, spread = patch_statistics(x, cells)
    return (x - mean) / spread


def patch_statistics(x: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the patch that each pixel lies in: ``(B, 1, S, S)``."""
    place = cell_of(x.shape[-1], cells).to(x.device)
    inside = F.one_hot(place, cells).to(x.dtype)  # (S, cells)
    share = inside / inside.sum(0)

    def averaged(values: Tensor) -> Tensor:
        """Return the means ``(B, 1, S, S)`` of patches of ``(B, C, S, S)``."""
        means = share.T @ values.mean(1, keepdim=True) @ share  # (B, 1, cells, cells)
        return means[:, :, place][:, :, :, place]

    mean = averaged(x)
    return mean, (averaged((x - mean).square()) + 1e-6).sqrt()


def masked_loss(painted: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """Return the mean squared error over the hidden pixels.

    Parameters
    ----------
    painted, target : Tensor
        ``(B, C, S, S)``.
    hidden : Tensor
        ``(B, 1, h, h)`` bool, `h` at most `S`.
    """
    weight = at_size(hidden, painted).float()  # (B, 1, S, S)
    squared = (painted.float() - target.float()).square() * weight
    return squared.sum() / (weight.sum() * painted.shape[1]).clamp(min=1)


def at_size(mask: Tensor, like: Tensor) -> Tensor:
    """Return a mask ``(B, 1, h, h)`` at the size of a map ``(B, C, H, W)``, as bool."""
    rows, columns = (cell_of(side, mask.shape[-1]).to(mask.device) for side in like.shape[2:])
    return mask[:, :, rows][:, :, :, columns]


def _kept(visible: Tensor, x: Tensor) -> Tensor:
    """Return which places ``(B, 1, H, W)`` of a map stay: all of those in squeeze-and-excitation.

    What was pooled over the whole image lies in no cell.
    """
    if x.shape[-1] < visible.shape[-1]:
        return x.new_ones((len(x), 1, *x.shape[2:]), dtype=torch.bool)
    return at_size(visible, x)


@contextmanager
def only_visible(encoder: nn.Module, visible: Tensor) -> Iterator[None]:
    """Let the encoder see the `visible` cells ``(B, 1, h, h)`` alone, as if it were sparse."""

    def emptied(_module: nn.Module, _inputs: object, out: Tensor) -> Tensor:
        return out * _kept(visible, out).to(out.dtype)

    handles, norms = [], []
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            handles.append(module.register_forward_hook(emptied))
        elif isinstance(module, nn.BatchNorm2d):
            norms.append(module)
            module.forward = _VisibleNorm(module, visible)  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for norm in norms:
            del norm.forward


class _VisibleNorm:
    """Batch norm over the visible positions alone."""

    def __init__(self, norm: nn.BatchNorm2d, visible: Tensor) -> None:
        self.norm, self.visible = norm, visible

    def __call__(self, x: Tensor) -> Tensor:
        mask = _kept(self.visible, x)[:, 0]  # (B, H, W)
        values = x.permute(0, 2, 3, 1)[mask]  # (N, C)
        norm = self.norm
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        done = F.batch_norm(
            values.float(),
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
            training=True,
            momentum=norm.momentum or 0.1,
            eps=norm.eps,
        )
        out = torch.zeros_like(x, dtype=done.dtype).permute(0, 2, 3, 1)
        out[mask] = done
        return out.permute(0, 3, 1, 2).to(x.dtype)


def _map_of(encoder: Backbone, pictures: Pictures) -> tuple[int, int]:
    """Return channels and side of the encoder's last map.

    Raises
    ------
    UsageError
        It has none, or one without cells to choose from.
    """
    shape = encoder.map_shape(pictures.channels, pictures.size)
    if len(shape) != 3 or shape[0] != encoder.num_channels:
        what = "this backbone gives tokens, numbers or a transformer's windows"
    elif shape[1] < 2:
        what = f"at {pictures.size}x{pictures.size} this backbone's is a single cell"
    else:
        return shape[0], shape[1]
    raise UsageError(
        "usage.backbone",
        f"masked hides cells of a convolutional map, and {what}",
        "--backbone tiny or resnet18, or a larger --image-size",
    )


class Masked(nn.Module):
    """The method: encoder, mask token, decoder and one optimizer.

    Parameters
    ----------
    encoder : Backbone
        A convolutional backbone (`forward_features` gives ``(B, C, h, h)``).
    pictures : Pictures
        Format of the images.
    policies : Policies
        Of which crop and flip are used: colours are to be painted as they are.
    config : MaskedConfig, optional

    Raises
    ------
    UsageError
        For a backbone without a map of 2x2 cells or more.
    """

    def __init__(
        self,
        encoder: Backbone,
        pictures: Pictures,
        policies: Policies,
        config: MaskedConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = config or MaskedConfig()
        self.pictures = pictures
        crops = policies.views.crop != (1.0, 1.0)
        crop = self.config.crop if crops else (1.0, 1.0)
        self.policy = Policy(crop=crop, ratio=policies.views.ratio, flip=policies.views.flip)
        self.encoder = encoder
        channels, self.cells = _map_of(encoder, pictures)
        self.token = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.decoder = MapDecoder(
            channels, self.cells, pictures.size, pictures.channels, width=self.config.width
        )
        self._adamw = torch.optim.AdamW(
            self.parameters(),
            lr=self.config.lr,
            betas=(0.9, 0.95),
            weight_decay=self.config.weight_decay,
            fused=True,
        )

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the single optimizer."""
        return {"masked": self._adamw}

    def hide(self, count: int, key: torch.Generator, device: torch.device) -> Tensor:
        """Return which cells ``(count, 1, h, h)`` are hidden: the same number in every image."""
        cells = self.cells**2
        scores = torch.rand((count, cells), generator=key, device=device)
        hidden = max(1, min(cells - 1, round(self.config.hidden * cells)))
        return (scores.argsort(1).argsort(1) < hidden).view(count, 1, self.cells, self.cells)

    def update(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Learn to paint the hidden patches of one batch."""
        x = augment(batch, self.pictures, self.policy, seed=step.seed)
        hidden = self.hide(step.images, step.generator, x.device)[step.span]
        with step.autocast():
            painted = self._fill_in(self.encoder, x, hidden)
        loss = masked_loss(painted, patch_targets(x, self.cells), hidden)
        step.backward(loss, "masked")
        step.apply("masked")
        return {"loss": loss.detach()}

    def _fill_in(self, encoder: Backbone, x: Tensor, hidden: Tensor) -> Tensor:
        """Paint standardised patches ``(B, C, S, S)`` from the cells that are not hidden."""
        with only_visible(encoder, ~hidden):
            seen = encoder.forward_features(x * at_size(~hidden, x))
        painted: Tensor = self.decoder(
            torch.where(at_size(hidden, seen), self.token.to(seen.dtype), seen)
        )
        return painted

    def paint(self, batch: Batch, key: torch.Generator) -> dict[str, Tensor]:
        """Return the pictures, what is left of them, and that with the holes filled.

        Patches are painted without their brightness and contrast, which no loss has taught;
        those of the true patch are lent to them, as MAE does for its figures.
        """
        x = plain(batch, self.pictures)
        hidden = self.hide(len(x), key, x.device)
        encoder = copy.deepcopy(self.encoder)  # batch norms count while cells are hidden
        painted = self._fill_in(encoder, x, hidden).float()
        mean, spread = patch_statistics(x, self.cells)
        holes = at_size(hidden, x)
        shown = torch.where(holes, painted * spread + mean, x)
        rows = {"picture": x, "seen": x.masked_fill(holes, 0.0), "painted": shown}
        return {name: denormalise(row, self.pictures) for name, row in rows.items()}
