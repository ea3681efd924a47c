"""Small models on frozen features that predict a number: ridge, neighbours, the mean.

Each is fitted to standardised numbers; mean and spread are those of the labelled rows alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from fewlabels.models.heads import AverageHead, LinearHead, NeighbourAverage, RegressionHead
from fewlabels.transfer.features import Space

# Of ridge, times the number of features: from the noise of a few labels down to none.
PENALTIES = tuple(float(x) for x in 10.0 ** np.arange(-4, 3.5, 0.5))
NEIGHBOURS = 5
TEMPERATURE = 0.1  # of their weights, as for classes
FEW = 3  # labels; fewer leave nothing to compare penalties by


def scale_of(targets: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of numbers; a spread of 1 where they do not vary.

    Examples
    --------
    >>> scale_of(np.array([1.0, 3.0])), scale_of(np.array([7.0]))
    ((2.0, 1.0), (7.0, 1.0))
    """
    values = np.asarray(targets, np.float64)
    centre, spread = float(values.mean()), float(values.std())
    # Below this the differences are rounding.
    return centre, spread if spread > 1e-12 * max(1.0, abs(centre)) else 1.0


def standardised(targets: np.ndarray, centre: float, spread: float) -> np.ndarray:
    """Return numbers ``(n,)`` float64 in standard deviations from the mean."""
    result: np.ndarray = (np.asarray(targets, np.float64) - centre) / spread
    return result


def ridge(space: Space, rows: np.ndarray, targets: np.ndarray) -> RegressionHead:
    """Return a ridge regression over standardised features.

    Its penalty is the one of `PENALTIES` with the least squared error when each labelled image
    in turn is left out, which has a closed form (Golub, Heath and Wahba 1979).

    Parameters
    ----------
    space : Space
        Features of the training images.
    rows : ndarray
        ``(n,)`` int64 labelled rows.
    targets : ndarray
        ``(n,)`` float64 their numbers.
    """
    centre, spread = scale_of(targets)
    return RegressionHead(_ridge(space, rows, targets), centre, spread)


def _ridge(space: Space, rows: np.ndarray, targets: np.ndarray) -> LinearHead:
    from sklearn.linear_model import Ridge, RidgeCV

    x = space.inputs(rows, whitened=False).double().numpy()
    centre, spread = scale_of(targets)
    wanted = standardised(targets, centre, spread)
    alphas = [x.shape[1] * penalty for penalty in PENALTIES]
    model = Ridge(alpha=x.shape[1]) if len(x) < FEW else RidgeCV(alphas=alphas)
    model.fit(x, wanted)
    return linear(space, model.coef_, float(model.intercept_))


def linear(space: Space, weight: np.ndarray, bias: float) -> LinearHead:
    """Return the head of weights ``(F,)`` over standardised features."""
    head = LinearHead(len(space.mean), 1)
    head.mean.copy_(space.mean)
    head.scale.copy_(space.scale)
    with torch.no_grad():
        head.linear.weight.copy_(torch.from_numpy(np.asarray(weight, np.float64))[None])
        head.linear.bias.fill_(bias)
    return head


def neighbours(space: Space, rows: np.ndarray, targets: np.ndarray) -> RegressionHead:
    """Return the mean number of the nearest labelled images, nearer ones counting more."""
    centre, spread = scale_of(targets)
    return RegressionHead(_neighbours(space, rows, targets), centre, spread)


def _neighbours(space: Space, rows: np.ndarray, targets: np.ndarray) -> NeighbourAverage:
    centre, spread = scale_of(targets)
    features, directions = space.turn.shape
    shape = (len(rows), features, directions, 1)
    head = NeighbourAverage(*shape, k=NEIGHBOURS, temperature=TEMPERATURE)
    head.mean.copy_(space.mean)
    head.turn.copy_(space.turn)
    head.bank.copy_(F.normalize(space.inputs(rows, whitened=True), dim=1))
    head.votes.copy_(torch.from_numpy(standardised(targets, centre, spread))[:, None])
    return head


def both(space: Space, rows: np.ndarray, targets: np.ndarray) -> RegressionHead:
    """Return the average of ridge regression and the nearest neighbours.

    A line through all and a look around err in different places, as for classes.
    """
    parts = _ridge(space, rows, targets), _neighbours(space, rows, targets)
    return RegressionHead(AverageHead(*parts), *scale_of(targets))


def constant(space: Space, rows: np.ndarray, targets: np.ndarray) -> RegressionHead:
    """Return the mean of the labelled rows, whatever the image: what any model has to beat."""
    centre, spread = scale_of(targets)
    return RegressionHead(linear(space, np.zeros(len(space.mean)), 0.0), centre, spread)


REGRESSORS: dict[str, Callable[[Space, np.ndarray, np.ndarray], nn.Module]] = {
    "features": both,
    "ridge": ridge,
    "knn": neighbours,
    "mean": constant,
}
