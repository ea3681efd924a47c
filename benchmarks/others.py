"""How others train an image classifier, as they publish it: the recipes of `recipes_of_others`.

torchvision      ``references/classification`` of pytorch/vision: ``train.py`` and ``presets.py``
                 with their defaults. A batch of 32 is an eighth of the 256 that the rate is meant
                 for, and gets an eighth of it
torchvision-new  the recipe of torchvision's ``IMAGENET1K_V2`` weights of ResNet-50, in the README
                 of that folder; its rate in proportion to the batch as well. Left out are the
                 running mean of the weights, whose decay is meant for a hundred times as many
                 steps, and repeated augmentation
fastai           ``vision_learner(dls, resnet18, pretrained=False)`` and ``fit_one_cycle`` of
                 fastai 2 with their defaults, images by ``Resize`` and ``aug_transforms()``.
                 Nothing is pretrained, so there is one rate for all layers, and no statistics to
                 normalise by. Its loss does not smooth labels

All are a ResNet-18 with random weights, in 32-bit floats as their defaults have it. Sizes in pixels
keep their proportion to the 224 of the originals. Random numbers are torch's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18
from torchvision.transforms import v2

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # of ImageNet, as torchvision has them

View = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How somebody else trains a network.

    Attributes
    ----------
    batch : int
        Images a step; all there are where these are fewer.
    whole : bool
        Whether the rest of an epoch is left out that makes no whole batch.
    network : callable
        From the number of classes, with random weights.
    optimizer : callable
    rate : callable
        Sets the optimizer for a progress in [0, 1).
    once, view, test : callable
        From the size in pixels: what is done to a labelled image ``(3, H, W)`` uint8 before
        training, to it in each step, and to a test image.
    together : callable
        What is done to a batch in [0, 1] or normalised, and its labels, given the classes.
    smoothing : float
        Of labels.
    """

    batch: int
    whole: bool
    network: Callable[[int], nn.Module]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    rate: Callable[[torch.optim.Optimizer, float], None]
    once: Callable[[int], View]
    view: Callable[[int], View]
    test: Callable[[int], View]
    together: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
    smoothing: float = 0.0


def as_it_is(_size: int) -> View:
    """Return what changes nothing."""
    return nn.Identity()


def alone(x: Tensor, y: Tensor, _classes: int) -> tuple[Tensor, Tensor]:
    """Leave a batch as it is."""
    return x, y


def at_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def between(start: float, end: float, share: float) -> float:
    """Return a number on a half cosine from one to another."""
    return start + (end - start) * (1 - math.cos(math.pi * share)) / 2


def undecayed(model: nn.Module, *, biases: bool) -> list[nn.Parameter]:
    """Return the parameters of normalisations and, if asked, all biases."""
    kinds = (nn.modules.batchnorm._BatchNorm,)
    found = [p for m in model.modules() if isinstance(m, kinds) for p in m.parameters()]
    named = model.named_parameters() if biases else ()
    return list({id(p): p for p in [*found, *(p for n, p in named if n.endswith("bias"))]}.values())


def in_groups(model: nn.Module, decay: float, *, biases: bool) -> list[dict[str, Any]]:
    """Return parameter groups with a weight decay, and without one."""
    free = undecayed(model, biases=biases)
    known = {id(p) for p in free}
    rest = [p for p in model.parameters() if id(p) not in known]
    return [{"params": rest, "weight_decay": decay}, {"params": free, "weight_decay": 0.0}]


# torchvision, references/classification: train.py, presets.py and README.md.
LR, LR_BATCH = 0.1, 8 * 32  # eight GPUs of 32 images each
NEW_LR, NEW_LR_BATCH = 0.5, 8 * 128
NEW_WARM, NEW_FROM = 5 / 600, 0.01


def torchvision_network(classes: int) -> nn.Module:
    """Return a ResNet-18."""
    network: nn.Module = resnet18(weights=None, num_classes=classes)
    return network


def torchvision_view(size: int, *, new: bool = False) -> View:
    """Return the changes of a labelled image."""
    parts: list[nn.Module] = [v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()]
    parts += [v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)] * new
    parts += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    parts += [v2.RandomErasing(0.1)] * new
    made: View = v2.Compose(parts)
    return made


def torchvision_test(size: int, *, new: bool = False) -> View:
    """Return how a test image is seen: the new recipe tests at 224 what it trains at 176."""
    crop = round(size * 224 / 176) if new else size
    side = round(crop * (232 if new else 256) / 224)
    parts = [v2.Resize(side, antialias=True), v2.CenterCrop(crop)]
    seen: View = v2.Compose(
        [*parts, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    )
    return seen


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of `train.py`."""
    return torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, weight_decay=1e-4)


def new_sgd(model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of the new recipe: normalisations do not decay."""
    return torch.optim.SGD(in_groups(model, 2e-5, biases=False), lr=NEW_LR, momentum=0.9)


def by_thirds(optimizer: torch.optim.Optimizer, progress: float) -> None:
    """Divide the rate by ten after 30 and 60 of 90 epochs."""
    at_rate(optimizer, LR * 32 / LR_BATCH * 0.1 ** int(3 * progress))


def warm_cosine(optimizer: torch.optim.Optimizer, progress: float) -> None:
    """Rise for 5 of 600 epochs, then fall on a cosine."""
    top = NEW_LR * 128 / NEW_LR_BATCH
    if progress < NEW_WARM:
        at_rate(optimizer, top * (NEW_FROM + (1 - NEW_FROM) * progress / NEW_WARM))
    else:
        at_rate(optimizer, between(top, 0.0, (progress - NEW_WARM) / (1 - NEW_WARM)))


def mixed(x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Mix the images of a batch, and their labels."""
    ways = [v2.MixUp(alpha=0.2, num_classes=classes), v2.CutMix(alpha=1.0, num_classes=classes)]
    found: tuple[Tensor, Tensor] = v2.RandomChoice(ways)(x, y)
    return found


# fastai: vision/learner.py, vision/augment.py, callback/schedule.py, optimizer.py, learner.py.
FASTAI_LR, DIV, DIV_FINAL, RISE = 1e-3, 25.0, 1e5, 0.25
MOMENTA = (0.95, 0.85, 0.95)
ROTATE, ZOOM, WARP, LIGHT = 10.0, 1.1, 0.2, 0.2
OFTEN = 0.75  # of images that get a change


class ConcatPool(nn.Module):
    """The largest and the mean of every channel."""

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``(B, C, H, W)`` to ``(B, 2C)``."""
        return torch.cat([x.amax((2, 3)), x.mean((2, 3))], 1)


def fastai_network(classes: int) -> nn.Module:
    """Return the body of a ResNet-18 under fastai's head."""
    body = nn.Sequential(*list(resnet18(weights=None).children())[:-2])
    first, last = nn.Linear(1_024, 512, bias=False), nn.Linear(512, classes, bias=False)
    for layer in (first, last):
        nn.init.kaiming_normal_(layer.weight)
    head = [nn.BatchNorm1d(1_024), nn.Dropout(0.25), first, nn.ReLU()]
    return nn.Sequential(body, ConcatPool(), *head, nn.BatchNorm1d(512), nn.Dropout(0.5), last)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    """Return fastai's Adam: decoupled decay, but of normalisations and biases none."""
    groups = in_groups(model, 0.01, biases=True)
    return torch.optim.AdamW(groups, lr=FASTAI_LR, betas=(MOMENTA[0], 0.99), eps=1e-5)


def one_cycle(optimizer: torch.optim.Optimizer, progress: float) -> None:
    """Rise for a quarter and fall, the momentum the other way round."""
    high = FASTAI_LR
    if progress < RISE:
        share, ends, momenta = progress / RISE, (high / DIV, high), MOMENTA[:2]
    else:
        share = (progress - RISE) / (1 - RISE)
        ends, momenta = (high, high / DIV_FINAL), MOMENTA[1:]
    for group in optimizer.param_groups:
        group["lr"] = between(*ends, share)
        group["betas"] = (between(*momenta, share), 0.99)


def resized(size: int) -> View:
    """Return what brings the shorter side to a size."""
    smaller: View = v2.Resize(size, antialias=True)
    return smaller


def fastai_view(size: int) -> View:
    """Return a crop at random, in [0, 1]."""
    parts = [v2.RandomCrop(size), v2.ToDtype(torch.float32, scale=True)]
    cropped: View = v2.Compose(parts)
    return cropped


def fastai_test(size: int) -> View:
    """Return how a test image is seen: its middle."""
    parts = [v2.Resize(size, antialias=True), v2.CenterCrop(size)]
    seen: View = v2.Compose([*parts, v2.ToDtype(torch.float32, scale=True)])
    return seen


def aug_transforms(x: Tensor, y: Tensor, _classes: int) -> tuple[Tensor, Tensor]:
    """Flip, turn, zoom, warp and light each image of a batch in [0, 1] by itself."""
    grid = F.affine_grid(turned(len(x)), list(x.shape), align_corners=True)
    grid = warped(grid).to(x.device)
    x = F.grid_sample(x, grid, "bilinear", padding_mode="reflection", align_corners=True)
    return lit(x), y


def uniform(count: int, low: float, high: float) -> Tensor:
    """Return random numbers ``(count,)``."""
    return torch.empty(count).uniform_(low, high)


def often(values: Tensor, neutral: float, share: float = OFTEN) -> Tensor:
    """Return the values of some, and of the others what changes nothing."""
    return torch.where(torch.rand(len(values)) < share, values, neutral)


def turned(count: int) -> Tensor:
    """Return matrices ``(count, 2, 3)`` that flip, then turn, then zoom about a random place."""
    flip = torch.eye(3).repeat(count, 1, 1)
    flip[:, 0, 0] = often(torch.full((count,), -1.0), 1.0, 0.5)
    angle = often(uniform(count, -ROTATE, ROTATE), 0.0) * math.pi / 180
    turn = torch.eye(3).repeat(count, 1, 1)
    turn[:, 0, 0] = turn[:, 1, 1] = angle.cos()
    turn[:, 0, 1], turn[:, 1, 0] = angle.sin(), -angle.sin()
    scale = 1 / often(uniform(count, 1.0, ZOOM), 1.0)
    zoom = torch.eye(3).repeat(count, 1, 1)
    zoom[:, 0, 0] = zoom[:, 1, 1] = scale
    zoom[:, 0, 2], zoom[:, 1, 2] = ((1 - scale) * uniform(count, -1, 1) for _ in range(2))
    return (flip @ turn @ zoom)[:, :2]


def warped(grid: Tensor) -> Tensor:
    """Return sampling places ``(B, H, W, 2)`` seen as from a little above or beside."""
    x, y = (often(uniform(len(grid), -WARP, WARP), 0.0) for _ in range(2))
    corners = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    moved = [
        torch.stack([across + sign * y, down + sign * x], 1)
        for across, down, sign in [(-1, -1, -1), (-1, 1, 1), (1, -1, 1), (1, 1, -1)]
    ]
    return projected(grid, torch.stack(moved, 1), corners.expand(len(grid), 4, 2))


def projected(points: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Apply the projective map to points that takes four places ``(B, 4, 2)`` to four others."""
    place = F.pad(source, (0, 1), value=1.0)
    none = torch.zeros_like(place)
    rows = [torch.cat([place, none], 2), torch.cat([none, place], 2)]
    rows = [torch.cat([r, -target[..., i : i + 1] * source], 2) for i, r in enumerate(rows)]
    wanted = torch.cat([target[..., 0], target[..., 1]], 1)
    solved = torch.linalg.solve(torch.cat(rows, 1), wanted)
    matrix = F.pad(solved, (0, 1), value=1.0).view(-1, 3, 3)
    seen = F.pad(points.flatten(1, 2), (0, 1), value=1.0) @ matrix.transpose(1, 2)
    return (seen[..., :2] / seen[..., 2:]).view_as(points)


def lit(x: Tensor) -> Tensor:
    """Change brightness and contrast, on the logits of the pixels."""
    count, reach = len(x), -math.log(1 - LIGHT)
    bright = often(uniform(count, 0.5 * (1 - LIGHT), 0.5 * (1 + LIGHT)), 0.5).logit()
    contrast = often(uniform(count, -reach, reach).exp(), 1.0)
    bright, contrast = (v.to(x.device)[:, None, None, None] for v in (bright, contrast))
    return ((x.logit(1e-7) + bright) * contrast).sigmoid()


TORCHVISION = Recipe(
    batch=32,
    whole=False,
    network=torchvision_network,
    optimizer=sgd,
    rate=by_thirds,
    once=as_it_is,
    view=torchvision_view,
    test=torchvision_test,
    together=alone,
)
RECIPES = {
    "torchvision": TORCHVISION,
    "torchvision-new": replace(
        TORCHVISION,
        batch=128,
        optimizer=new_sgd,
        rate=warm_cosine,
        view=partial(torchvision_view, new=True),
        test=partial(torchvision_test, new=True),
        together=mixed,
        smoothing=0.1,
    ),
    "fastai": Recipe(
        batch=64,
        whole=True,
        network=fastai_network,
        optimizer=adam,
        rate=one_cycle,
        once=resized,
        view=fastai_view,
        test=fastai_test,
        together=aug_transforms,
    ),
}
