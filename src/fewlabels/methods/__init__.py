"""Pre-training methods, one file each; `METHODS` is the whole list.

An entry builds a method from a backbone and the picture format; what a method
must offer is `fewlabels.core.types.Method`.
"""

from __future__ import annotations

from collections.abc import Callable

from fewlabels.core.errors import UsageError, unknown
from fewlabels.core.types import Backbone, Labels, Method, Pictures
from fewlabels.data.augment import Policies
from fewlabels.methods.autoencoder import Autoencoder, DenoisingAutoencoder
from fewlabels.methods.barlow_twins import BarlowTwins
from fewlabels.methods.byol import BYOL
from fewlabels.methods.dense_autoencoder import DenseAutoencoder
from fewlabels.methods.dino import DINO
from fewlabels.methods.emp import EMP
from fewlabels.methods.gan import GAN
from fewlabels.methods.kmeans import KMeans
from fewlabels.methods.masked import Masked
from fewlabels.methods.rotation import Rotation
from fewlabels.methods.simclr import SimCLR
from fewlabels.methods.supervised import Supervised
from fewlabels.methods.vae import VAE
from fewlabels.methods.vicreg import VICReg

METHODS: dict[str, Callable[..., Method]] = {
    "autoencoder": Autoencoder,
    "denoising": DenoisingAutoencoder,
    "dense_autoencoder": DenseAutoencoder,
    "vae": VAE,
    "gan": GAN,
    "masked": Masked,
    "kmeans": KMeans,
    "rotation": Rotation,
    "simclr": SimCLR,
    "vicreg": VICReg,
    "barlow_twins": BarlowTwins,
    "byol": BYOL,
    "dino": DINO,
    "emp": EMP,
    "supervised": Supervised,
}

# Methods that learn from labels, and take them as their fourth argument.
LABELLED = frozenset({"supervised"})

# Images in a batch where the data set has as many: larger batches give contrast and correlations
# more to work with, smaller ones give the others more updates in the same time.
BATCH_SIZES: dict[str, int] = {
    "autoencoder": 64,
    "denoising": 64,
    "dense_autoencoder": 64,
    "vae": 64,
    "gan": 64,
    "masked": 128,
    "kmeans": 64,
    "rotation": 64,
    "simclr": 256,
    "vicreg": 256,
    "barlow_twins": 256,
    "byol": 256,
    "dino": 256,
    "emp": 64,
    "supervised": 64,
}

# Methods that train one backbone and no other.
OWN_BACKBONE: dict[str, str] = {"dense_autoencoder": "dense", "kmeans": "patches"}


def create_method(
    name: str,
    backbone: Backbone,
    pictures: Pictures,
    policies: Policies,
    labels: Labels | None = None,
) -> Method:
    """Build a pre-training method by name; an unknown name is refused with the nearest ones.

    Parameters
    ----------
    labels : Labels, optional
        For the methods of `LABELLED`, which cannot do without; all others never see them.

    Raises
    ------
    UsageError
        For an unknown name.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    if name not in LABELLED:
        return METHODS[name](backbone, pictures, policies)
    if labels is None:
        raise UsageError("usage.method", f"{name} learns from labels, and none were given")
    return METHODS[name](backbone, pictures, policies, labels)
