"""Small models on frozen features: logistic regression, k-NN and label spreading."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array, diags_array
from torch import Tensor
from torch.nn import functional as F

from fewlabels.models.heads import LinearHead, NeighbourHead
from fewlabels.transfer.features import GRAPH_NEIGHBOURS, Space

INVERSE_PENALTY = 0.01  # scikit-learn's C for features of unit variance and few images
SPREAD = 0.99  # alpha of Zhou et al. 2004
TEMPERATURE = 0.1  # of the neighbours' vote


def logistic(
    space: Space,
    rows: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    whitened: bool = False,
) -> LinearHead:
    """Fit a multinomial logistic regression on the features of labelled rows.

    Parameters
    ----------
    space : Space
        Features of the training images.
    rows, labels : ndarray
        ``(n,)`` int64 labelled rows and their classes.
    num_classes : int
        Classes without a label get the lowest score of all.
    whitened : bool
        Fit on half-whitened features instead of standardised ones.

    Returns
    -------
    LinearHead
    """
    from sklearn.linear_model import LogisticRegression

    centred = space.features[_positions(space, rows)] - space.mean
    x = centred @ space.turn if whitened else centred * space.scale
    head = LinearHead(len(space.mean), num_classes)
    head.mean.copy_(space.mean)
    head.scale.copy_(space.scale)
    seen = np.unique(labels)
    weight = np.zeros((num_classes, x.shape[1]))
    bias = np.full(num_classes, -30.0)
    if len(seen) == 1:
        bias[seen] = 0.0
    else:
        # The penalised solution lies in the span of the samples, so a few labels in many
        # dimensions are solved, exactly, in as many dimensions as there are samples.
        basis = np.linalg.qr(x.double().numpy().T)[0] if len(x) < x.shape[1] else None
        samples = x.numpy() if basis is None else x.double().numpy() @ basis
        model = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000).fit(samples, labels)
        coefficients, intercept = model.coef_, model.intercept_
        if basis is not None:
            coefficients = coefficients @ basis.T
        if len(seen) == 2:  # scikit-learn keeps one row for two classes
            coefficients = np.vstack([-coefficients / 2, coefficients / 2])
            intercept = np.array([-intercept[0] / 2, intercept[0] / 2])
        weight[seen], bias[seen] = coefficients, intercept
    if whitened:  # the head standardises, so the turn becomes part of its weights
        weight = weight @ space.turn.double().numpy().T / space.scale.double().numpy()
    with torch.no_grad():
        head.linear.weight.copy_(torch.from_numpy(weight))
        head.linear.bias.copy_(torch.from_numpy(bias))
    return head


def _positions(space: Space, rows: np.ndarray) -> Tensor:
    order = np.argsort(space.rows, kind="stable")
    return torch.from_numpy(order[np.searchsorted(space.rows, rows, sorter=order)])


def neighbours(
    space: Space, rows: np.ndarray, labels: np.ndarray, num_classes: int, *, k: int = 5
) -> NeighbourHead:
    """Return the k-NN classifier of the labelled rows."""
    centred = space.features[_positions(space, rows)] - space.mean
    bank = F.normalize(centred @ space.turn, dim=1)
    votes = F.one_hot(torch.from_numpy(labels), num_classes).float()
    return _head(space, bank, votes, k)


def _head(space: Space, bank: Tensor, votes: Tensor, k: int) -> NeighbourHead:
    features, directions = space.turn.shape
    shape = (len(bank), features, directions, votes.shape[1])
    head = NeighbourHead(*shape, k=k, temperature=TEMPERATURE)
    head.mean.copy_(space.mean)
    head.turn.copy_(space.turn)
    head.bank.copy_(bank)
    head.votes.copy_(votes)
    return head


def spread_labels(
    space: Space, rows: np.ndarray, labels: np.ndarray, num_classes: int, *, rounds: int = 50
) -> Tensor:
    """Spread labels over the neighbour graph (Zhou et al. 2004, "local and global consistency").

    The result is scaled so that every class holds the same mass over the pool,
    as class mass normalisation does (Zhu et al. 2003) with a flat prior.

    Returns
    -------
    Tensor
        ``(m, num_classes)`` float32 class shares of the images in the graph.
    """
    count = len(space.bank)
    graph = _graph(space)
    sources = _positions(space, rows)
    inside = sources < count  # with more labels than the graph has room for, the rest is not heard
    sources, labels = sources[inside], labels[inside.numpy()]
    start = np.zeros((count, num_classes), np.float32)
    start[sources.numpy(), labels] = 1.0
    start /= np.maximum(start.sum(0), 1.0)
    shares = start
    for _ in range(rounds):
        shares = SPREAD * (graph @ shares) + (1 - SPREAD) * start
    mass = shares.sum(0, keepdims=True)
    shares = np.divide(shares, mass, out=np.zeros_like(shares), where=mass > 0)
    lost = np.flatnonzero(shares.sum(1) == 0)
    if len(lost):  # no path leads there from any label: ask the nearest labelled image instead
        nearest = (space.bank[lost] @ space.bank[sources].T).argmax(1).numpy()
        shares[lost, labels[nearest]] = 1.0
    return torch.from_numpy(shares / np.maximum(shares.sum(1, keepdims=True), 1e-12))


def _graph(space: Space) -> csr_array:
    """Return the symmetric normalised graph ``(m, m)``."""
    count, k = space.neighbours.shape
    source = np.repeat(np.arange(count), k)
    # Cubing favours the nearest (Iscen et al. 2019 use the same power).
    weight = space.weights.numpy().ravel().clip(min=0) ** 3
    one_way = csr_array((weight, (source, space.neighbours.numpy().ravel())), (count, count))
    both = one_way + one_way.T
    scale = diags_array(1 / np.sqrt(np.maximum(both.sum(1), 1e-6)))
    return csr_array(scale @ both @ scale, dtype=np.float32)


def spreading(
    space: Space, rows: np.ndarray, labels: np.ndarray, num_classes: int
) -> NeighbourHead:
    """Return the classifier that asks the nearest training images for their spread labels."""
    votes = spread_labels(space, rows, labels, num_classes)
    return _head(space, space.bank, votes, GRAPH_NEIGHBOURS)
