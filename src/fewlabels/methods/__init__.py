"""Pre-training methods, one file each; `METHODS` is the whole list.

An entry builds a method from a backbone and the picture format; what a method
must offer is `fewlabels.core.types.Method`.
"""

from __future__ import annotations

from collections.abc import Callable

from fewlabels.core.errors import unknown
from fewlabels.core.types import Backbone, Method, Pictures
from fewlabels.data.augment import Policies
from fewlabels.methods.autoencoder import Autoencoder, DenoisingAutoencoder
from fewlabels.methods.simclr import SimCLR

METHODS: dict[str, Callable[[Backbone, Pictures, Policies], Method]] = {
    "autoencoder": Autoencoder,
    "denoising": DenoisingAutoencoder,
    "simclr": SimCLR,
}

# Images in a batch where the data set has as many: larger batches give SimCLR more negatives,
# smaller ones give the autoencoders more updates in the same time.
BATCH_SIZES: dict[str, int] = {"autoencoder": 64, "denoising": 64, "simclr": 256}


def create_method(name: str, backbone: Backbone, pictures: Pictures, policies: Policies) -> Method:
    """Build a pre-training method by name; an unknown name is refused with the nearest ones."""
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name](backbone, pictures, policies)
