"""A map of images in two dimensions, near where their features are near; or the code itself."""

from __future__ import annotations

import io

import numpy as np
from torch import Tensor

UNLABELLED = 400
TEST = 400


def embedding_map(features: Tensor, *, seed: int = 0) -> tuple[np.ndarray, str]:
    """Lay images out in the plane.

    Features of two numbers are drawn as they are: nothing is nearer to what the encoder says.
    Others by t-SNE of the leading 50 principal components (van der Maaten and Hinton 2008),
    where distances between far groups mean little; few images by the components themselves.

    Parameters
    ----------
    features : Tensor
        ``(n, F)``.
    seed : int

    Returns
    -------
    tuple of (ndarray, str)
        Places ``(n, 2)`` float32, and what they are: ``code``, ``t-SNE`` or ``PCA``.

    Examples
    --------
    >>> import torch
    >>> embedding_map(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    (array([[3., 4.],
           [0., 1.]], dtype=float32), 'code')
    """
    if features.shape[1] == 2:
        return np.asarray(features.numpy(), np.float32), "code"
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    x = features.numpy()
    x = x - x.mean(0)
    components = min(50, *x.shape)
    reduced = PCA(components, random_state=seed).fit_transform(x)
    if len(x) < 8:
        flat = np.pad(reduced[:, :2], ((0, 0), (0, max(0, 2 - components))))
        return flat.astype(np.float32), "PCA"
    perplexity = min(30.0, (len(x) - 1) / 3)
    places = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    return np.asarray(places, dtype=np.float32), "t-SNE"


def pack(
    xy: np.ndarray,
    label: np.ndarray,
    kind: np.ndarray,
    classes: tuple[str, ...],
    *,
    ordered: bool = False,
    layout: str = "t-SNE",
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
    layout : str
        What the places are, see `embedding_map`.
    """
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        xy=xy.astype(np.float32),
        label=label.astype(np.int64),
        kind=kind.astype("U10"),
        classes=np.array(classes, dtype=str),
        ordered=np.array(ordered),
        layout=np.array(layout),
    )
    return buffer.getvalue()
