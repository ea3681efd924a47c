"""Augmentation policies: how strongly each kind of picture may be changed."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Policy:
    """Strengths of the random changes; the defaults change nothing.

    Attributes
    ----------
    crop : tuple of float
        Range of the area of the random resized crop, as a share of the picture.
    ratio : float
        Largest aspect ratio of that crop (and its inverse the smallest).
    flip : float
        Probability of a horizontal flip.
    shift : float
        Largest shift in each direction, as a share of the side.
    rotate : float
        Largest rotation in degrees, either way.
    scale : tuple of float
        Range of an isotropic zoom.
    brightness, contrast, saturation, hue : float
        Half-widths of the factors around 1; hue in turns.
    jitter : float
        Probability that the four colour changes apply.
    grey : float
        Probability of dropping the colour.
    blur : float
        Probability of a Gaussian blur of 0.1 to 2 pixels per 32 pixels of side.
    noise : float
        Largest standard deviation of Gaussian pixel noise, on the 0-1 scale.
    cutout : float
        Side of a square set to the mean, as a share of the side.
    """

    crop: tuple[float, float] = (1.0, 1.0)
    ratio: float = 1.0
    flip: float = 0.0
    shift: float = 0.0
    rotate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    jitter: float = 1.0
    grey: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    cutout: float = 0.0


@dataclass(frozen=True, slots=True)
class Policies:
    """What one kind of picture bears.

    Attributes
    ----------
    views : Policy
        For pre-training.
    light : Policy
        For labels.
    strong : Policy
        For what is learned from a guess that was made on a `light` view: see
        `fewlabels.transfer.unlabelled`.
    """

    views: Policy
    light: Policy
    strong: Policy


# Photographs. SimCLR's CIFAR-10 recipe: crop area 0.2-1, jitter strength 0.5 at p 0.8,
# grey at p 0.2, no blur at 32 pixels. Light: a crop, which shifts as well, and a flip.
# Strong: the kinds of change of RandAugment (Cubuk et al. 2020) that keep the order of the tones,
# and Cutout, as FixMatch has them. RandAugment makes two of fourteen changes of up to its largest
# size; here every one is made at a random size up to about half of that.
_NATURAL = Policies(
    views=Policy(
        crop=(0.2, 1.0),
        ratio=4 / 3,
        flip=0.5,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.1,
        jitter=0.8,
        grey=0.2,
    ),
    light=Policy(crop=(0.6, 1.0), ratio=4 / 3, flip=0.5, brightness=0.2, contrast=0.2),
    strong=Policy(
        crop=(0.4, 1.0),
        ratio=4 / 3,
        flip=0.5,
        shift=0.1,
        rotate=15.0,
        brightness=0.5,
        contrast=0.5,
        saturation=0.5,
        hue=0.1,
        jitter=0.8,
        grey=0.1,
        cutout=0.4,
    ),
)

POLICIES: dict[str, Policies] = {
    "natural": _NATURAL,
    # Photographs without a fixed upright, as from a hand-held camera or from above: also turned by
    # half of AutoAugment's largest angle (Cubuk et al. 2019), and shifted beyond the crop.
    "turned": Policies(
        views=replace(_NATURAL.views, rotate=15.0, shift=0.1),
        light=replace(_NATURAL.light, rotate=15.0, shift=0.1),
        strong=replace(_NATURAL.strong, rotate=30.0, shift=0.15),
    ),
    # Writing: a mirrored or upside-down character is another character.
    "digits": Policies(
        views=Policy(shift=0.12, rotate=15.0, scale=(0.8, 1.2), contrast=0.3, brightness=0.2),
        light=Policy(shift=0.12, rotate=10.0, scale=(0.9, 1.1)),
        strong=Policy(
            shift=0.15,
            rotate=20.0,
            scale=(0.75, 1.25),
            contrast=0.4,
            brightness=0.3,
            cutout=0.25,
        ),
    ),
    # Grey scans: place and tone vary, colour does not exist and strong crops lose the finding.
    "medical": Policies(
        views=Policy(
            crop=(0.5, 1.0),
            ratio=1.2,
            flip=0.5,
            rotate=10.0,
            brightness=0.3,
            contrast=0.3,
            blur=0.2,
        ),
        light=Policy(crop=(0.8, 1.0), flip=0.5, rotate=10.0, brightness=0.1, contrast=0.1),
        strong=Policy(
            crop=(0.5, 1.0),
            ratio=1.2,
            flip=0.5,
            shift=0.05,
            rotate=15.0,
            brightness=0.4,
            contrast=0.4,
            blur=0.3,
            cutout=0.2,
        ),
    ),
    "none": Policies(views=Policy(), light=Policy(), strong=Policy()),
}


def auto_policy(channels: int, size: int) -> str:
    """Choose a policy from the pictures alone: colour, small grey, or large grey."""
    if channels == 3:
        return "natural"
    return "digits" if size <= 32 else "medical"
