"""Which parts of an image speak for a class, or raise a number: three maps, all Captum's.

Grad-CAM, integrated gradients and occlusion work on any backbone that fits and explain what
`fewlabels.explain.evidence` returns. The score is in the head's own units (logits, or the unit of
the number), so the maps of integrated gradients and occlusion are too; Grad-CAM has no units.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fewlabels.core.errors import ModelError
from fewlabels.core.types import Backbone
from fewlabels.explain.evidence import evidence
from fewlabels.models.backbones import Pixels, pool, pooled_features
from fewlabels.models.classifier import Classifier
from fewlabels.models.heads import RegressionHead

# Of the path integral: by Gauss-Legendre quadrature; 20 to 300 are its authors' advice.
STEPS = 32
# Side of the occluding square as a share of the image's; it moves by half its side.
SQUARE = 0.2
AT_ONCE = 64  # images that go through the network together


class _Score(nn.Module):
    """Images and classes in, evidence out."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        one = self.classifier
        return evidence(one.head, pooled_features(one.backbone, x, one.grid).float(), targets)


class _Leaf(nn.Module):
    """Hands a tensor on as the place where gradients end."""

    def forward(self, x: Tensor) -> Tensor:
        return x.detach().requires_grad_(True)


class _ScoreOfMap(nn.Module):
    """The same, with the backbone's last map passing through a module that Captum can watch."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.map = _Leaf()

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        one = self.classifier
        with torch.no_grad():
            features = one.backbone.forward_features(x)
        turned = _channels_come_last(one.backbone, features)
        features = self.map(features.permute(0, 3, 1, 2) if turned else features)
        features = features.permute(0, 2, 3, 1) if turned else features
        return evidence(one.head, pool(one.backbone, features, one.grid).float(), targets)


def grad_cam(classifier: Classifier, x: Tensor, targets: Tensor) -> Tensor:
    """Return where the last map of the backbone speaks for a class (Selvaraju et al. 2017).

    Parameters
    ----------
    classifier : Classifier
        In evaluation mode.
    x : Tensor
        ``(B, C, S, S)`` normalised images, on the classifier's device.
    targets : Tensor
        ``(B,)`` int64 classes to be explained; of a regressor they are not read.

    Returns
    -------
    Tensor
        ``(B, S, S)`` float32 in [0, 1] on the CPU: 1 where most speaks for the class, 0 where
        nothing does; all 0 where nothing in the image does. Of a regressor in [-1, 1]: what
        lowers a number makes it as much as what raises it, so nothing is cut off at 0.

    Raises
    ------
    ModelError
        The backbone keeps no map of places, or one of a single cell.
    """
    from captum.attr import LayerAttribution, LayerGradCam

    _refuse_without_map(classifier.backbone, x[:1])
    model = _ScoreOfMap(classifier)
    small = LayerGradCam(model, model.map).attribute(
        x,
        additional_forward_args=targets,
        relu_attributions=not isinstance(classifier.head, RegressionHead),
    )  # (B, 1, h, w)
    wide = LayerAttribution.interpolate(small.detach(), tuple(x.shape[2:]), "bilinear")[:, 0]
    most = wide.abs().amax((1, 2), keepdim=True)
    return _checked(wide / most.clamp(min=torch.finfo(wide.dtype).tiny), "Grad-CAM")


def integrated_gradients(classifier: Classifier, x: Tensor, targets: Tensor) -> Tensor:
    """Return what each pixel adds to the score on the way from the mean colour to the image.

    Sundararajan et al. 2017. Summed over the pixels it is the difference of the scores of image
    and plain mean colour, but for the error of the quadrature.

    Parameters
    ----------
    classifier, x, targets
        As `grad_cam`.

    Returns
    -------
    Tensor
        ``(B, S, S)`` float32, signed, in units of the score, summed over the channels.
    """
    from captum.attr import IntegratedGradients

    # Normalised images have a mean of 0, so 0 is the mean colour.
    found = IntegratedGradients(_Score(classifier)).attribute(
        x,
        baselines=0.0,
        additional_forward_args=targets,
        n_steps=STEPS,
        internal_batch_size=max(len(x), AT_ONCE),
    )
    return _checked(found.detach().sum(1), "integrated gradients")


def occlusion(classifier: Classifier, x: Tensor, targets: Tensor) -> Tensor:
    """Return how much the score falls when a square of mean colour lies over a place.

    Zeiler and Fergus 2014. A pixel's value is the mean over the squares that covered it.

    Parameters
    ----------
    classifier, x, targets
        As `grad_cam`.

    Returns
    -------
    Tensor
        ``(B, S, S)`` float32, signed, in units of the score.
    """
    from captum.attr import Occlusion

    channels, size = x.shape[1:3]
    side = max(1, round(SQUARE * size))
    stride = max(1, side // 2)
    found = Occlusion(_Score(classifier)).attribute(
        x,
        baselines=0.0,
        additional_forward_args=targets,
        sliding_window_shapes=(channels, side, side),
        strides=(channels, stride, stride),
        perturbations_per_eval=max(1, AT_ONCE // len(x)),
    )
    return _checked(found.detach()[:, 0], "occlusion")


Saliency = Callable[[Classifier, Tensor, Tensor], Tensor]

MAPS: dict[str, Saliency] = {
    "grad_cam": grad_cam,
    "integrated_gradients": integrated_gradients,
    "occlusion": occlusion,
}


def _channels_come_last(backbone: Backbone, features: Tensor) -> bool:
    """Whether a map is ``(B, h, w, C)``, as in timm's windowed transformers."""
    width = backbone.num_channels
    return features.ndim == 4 and features.shape[3] == width != features.shape[1]


def _refuse_without_map(backbone: Backbone, x: Tensor) -> None:
    with torch.no_grad():
        features = backbone.forward_features(x)
    cells = features.shape[1:3] if _channels_come_last(backbone, features) else features.shape[2:]
    if features.ndim != 4 or isinstance(backbone, Pixels):
        raise _no_map("this backbone keeps no map of places: its features are tokens or numbers")
    if cells.numel() < 4:
        raise _no_map(f"the last map is {cells[0]}x{cells[1]}: it cannot say where")


def _checked(maps: Tensor, name: str) -> Tensor:
    if not torch.isfinite(maps).all():
        raise _no_map(f"{name} met a gradient that is no number")
    return maps.float().cpu()


def _no_map(why: str) -> ModelError:
    return ModelError("model.no_map", why, "another of the maps, which need less of the network")
