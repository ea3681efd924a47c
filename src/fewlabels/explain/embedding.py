"""A map of images in two dimensions, near where their features are near."""

from __future__ import annotations

import io

import numpy as np
from torch import Tensor

UNLABELLED = 400
TEST = 400


def embedding_map(features: Tensor, *, seed: int = 0) -> np.ndarray:
    """Return places ``(n, 2)`` float32 by t-SNE of the leading 50 principal components.

    Van der Maaten and Hinton 2008. Distances between far groups mean little.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    x = features.numpy()
    x = x - x.mean(0)
    components = min(50, *x.shape)
    reduced = PCA(components, random_state=seed).fit_transform(x)
    if len(x) < 8:
        return np.pad(reduced[:, :2], ((0, 0), (0, max(0, 2 - components)))).astype(np.float32)
    perplexity = min(30.0, (len(x) - 1) / 3)
    places = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    return np.asarray(places, dtype=np.float32)


def pack(
    xy: np.ndarray,
    label: np.ndarray,
    kind: np.ndarray,
    classes: tuple[str, ...],
    *,
    ordered: bool = False,
) -> bytes:
    """Return ``figures/embedding.npz`` as bytes.

    Parameters
    ----------
    xy : ndarray
        ``(n, 2)``.
    label : ndarray
        ``(n,)`` int64, -1 where unknown or hidden.
    kind : ndarray
        ``(n,)`` of ``labelled``, ``unlabelled`` and ``test``.
    classes : tuple of str
        Names by label.
    ordered : bool
        Whether they are ranges of a number, from low to high.
    """
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        xy=xy.astype(np.float32),
        label=label.astype(np.int64),
        kind=kind.astype("U10"),
        classes=np.array(classes, dtype=str),
        ordered=np.array(ordered),
    )
    return buffer.getvalue()
