"""Small models on frozen features: linear ones, neighbours and label spreading."""

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
UNSEEN = -30.0  # score of a class without a label


def logistic(
    space: Space,
    rows: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    weights: np.ndarray | None = None,
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
    weights : ndarray, optional
        ``(num_classes,)`` how much an image of each class counts; all alike by default.
    whitened : bool
        Fit on half-whitened features instead of standardised ones.

    Returns
    -------
    LinearHead
    """
    from sklearn.linear_model import LogisticRegression

    x = _inputs(space, rows, whitened=whitened)
    seen = np.unique(labels)
    weight = np.zeros((num_classes, x.shape[1]))
    bias = np.full(num_classes, UNSEEN)
    if len(seen) == 1:
        bias[seen] = 0.0
    else:
        # The penalised solution lies in the span of the samples, so a few labels in many
        # dimensions are solved, exactly, in as many dimensions as there are samples.
        basis = np.linalg.qr(x.double().numpy().T)[0] if len(x) < x.shape[1] else None
        samples = x.numpy() if basis is None else x.double().numpy() @ basis
        model = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000)
        model.fit(samples, labels, sample_weight=_each(weights, labels))
        coefficients, intercept = model.coef_, model.intercept_
        if basis is not None:
            coefficients = coefficients @ basis.T
        if len(seen) == 2:  # scikit-learn keeps one row for two classes
            coefficients = np.vstack([-coefficients / 2, coefficients / 2])
            intercept = np.array([-intercept[0] / 2, intercept[0] / 2])
        weight[seen], bias[seen] = coefficients, intercept
    return _linear_head(space, weight, bias, whitened=whitened)


def _inputs(space: Space, rows: np.ndarray, *, whitened: bool) -> Tensor:
    return space.inputs(rows, whitened=whitened)


def _linear_head(
    space: Space, weight: np.ndarray, bias: np.ndarray, *, whitened: bool
) -> LinearHead:
    """Return the head of weights ``(num_classes, K or F)`` fitted on `_inputs`."""
    head = LinearHead(len(space.mean), len(bias))
    head.mean.copy_(space.mean)
    head.scale.copy_(space.scale)
    if whitened:  # the head standardises, so the turn becomes part of its weights
        weight = weight @ space.turn.double().numpy().T / space.scale.double().numpy()
    with torch.no_grad():
        head.linear.weight.copy_(torch.from_numpy(weight))
        head.linear.bias.copy_(torch.from_numpy(bias))
    return head


def _each(weights: np.ndarray | None, labels: np.ndarray) -> np.ndarray | None:
    """Return how much each image counts.

    Not as scikit-learn's ``class_weight``: in one class against the rest, liblinear weighs the
    one and lets the rest count 1 each.
    """
    return None if weights is None else weights[labels]


def ridge(
    space: Space,
    rows: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    weights: np.ndarray | None = None,
) -> LinearHead:
    """Return a ridge regression on class indicators of -1 and 1, over standardised features.

    The penalty is the number of features: one unit a direction of unit variance. Scores are
    not probabilities, only their order counts.
    """
    from sklearn.linear_model import Ridge

    x = _inputs(space, rows, whitened=False).double().numpy()
    seen, places = np.unique(labels, return_inverse=True)
    weight, bias = np.zeros((num_classes, x.shape[1])), np.full(num_classes, UNSEEN)
    wanted = np.where(places[:, None] == np.arange(len(seen)), 1.0, -1.0)
    model = Ridge(alpha=float(x.shape[1]))
    model.fit(x, wanted, sample_weight=_each(weights, labels))
    weight[seen], bias[seen] = np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)
    return _linear_head(space, weight, bias, whitened=False)


def centroid(space: Space, rows: np.ndarray, labels: np.ndarray, num_classes: int) -> LinearHead:
    """Return the classifier that names the nearest class mean of the half-whitened features.

    As log-odds of Gaussians of unit variance about the means (prototypes, Snell et al. 2017).
    """
    x = _inputs(space, rows, whitened=True).double().numpy()
    weight, bias = np.zeros((num_classes, x.shape[1])), np.full(num_classes, UNSEEN)
    for name in np.unique(labels):
        weight[name] = x[labels == name].mean(0)
        bias[name] = -(weight[name] ** 2).sum() / 2
    return _linear_head(space, weight, bias, whitened=True)


def svm(
    space: Space,
    rows: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    weights: np.ndarray | None = None,
) -> LinearHead:
    """Return a linear support vector machine, one class against the rest.

    On standardised features, at the penalty of the logistic regression. Its margins are not
    probabilities, only their order counts.
    """
    from sklearn.svm import LinearSVC

    x = _inputs(space, rows, whitened=False).double().numpy()
    seen = np.unique(labels)
    weight, bias = np.zeros((num_classes, x.shape[1])), np.full(num_classes, UNSEEN)
    if len(seen) == 1:
        bias[seen] = 0.0
    else:
        model = LinearSVC(C=INVERSE_PENALTY, max_iter=20_000, random_state=0)
        model.fit(x, labels, sample_weight=_each(weights, labels))
        coefficients, intercept = model.coef_, model.intercept_
        if len(seen) == 2:
            coefficients = np.vstack([-coefficients, coefficients])
            intercept = np.array([-intercept[0], intercept[0]])
        weight[seen], bias[seen] = coefficients, intercept
    return _linear_head(space, weight, bias, whitened=False)


def _positions(space: Space, rows: np.ndarray) -> Tensor:
    return space.positions(rows)


def neighbours(
    space: Space, rows: np.ndarray, labels: np.ndarray, num_classes: int, *, k: int = 5
) -> NeighbourHead:
    """Return the k-NN classifier of the labelled rows."""
    bank = F.normalize(_inputs(space, rows, whitened=True), dim=1)
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
