"""Whether unlabelled images look like the labelled ones, and how varied both are.

**Likeness** is a classifier two-sample test (Lopez-Paz and Oquab 2017): a linear classifier
learns to tell unlabelled images from labelled ones, and is asked about images it has not seen.
Its area under the curve says how often it finds the unlabelled one of a pair: one in two where
both come from one world, always where they come from two. It was taken before kernel and energy
distances because the number means something by itself, works on pixels and on features of any
length, and names the images that look most unlike the labelled ones.

The classifier is a ridge regression on the two groups. What it says of held-out images is linear
in the groups, so that the whole cross-validation can be repeated for hundreds of permuted groups
by one product of matrices, and the level of the test is exact (Golland and Fischl 2003).

**Variety** is the Vendi score (Friedman and Dieng 2023): the exponential of the entropy of the
eigenvalues of the similarity matrix, here of cosines of standardised features. It is n for n
images that have nothing in common, and 1 for n copies of one. Both groups are scored on as many
images, as it grows with their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import rankdata

from fewlabels.core.seeding import stream
from fewlabels.data.listing import escape

if TYPE_CHECKING:
    from fewlabels.data.dataset import Dataset

IMAGES = 500  # of each group; more would change the second decimal of what is found
FEWEST = 10  # of each group: below, even two worlds could hardly be told apart
FOLDS = 5
PERMUTATIONS = 199  # so that the smallest level is 0.005
LEVEL = 0.01
APART = 0.75  # as if half of the unlabelled images came from elsewhere
ALIKE = 0.5  # variety of the unlabelled images, as a share of that of the labelled ones
_SIDE, _THUMBNAIL, _PATCHES = 32, 8, 4


def sample(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return labelled and unlabelled training rows, at most `IMAGES` of each, evenly spaced.

    Which images carry a label is read, and not what it says; test images are left out.
    """
    train = dataset.rows("train")
    known = dataset.known[train]
    return _even(train[known]), _even(train[~known])


def _even(rows: np.ndarray, most: int = IMAGES) -> np.ndarray:
    places = np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(np.int64)
    even: np.ndarray = rows[places]
    return even


def of_pixels(dataset: Dataset) -> dict[str, Any] | None:
    """Compare the images of a data set by their pixels; None where a group is too small.

    Returns
    -------
    dict or None
        As `compare`, with the paths of the ``farthest`` images.
    """
    labelled, unlabelled = sample(dataset)
    if min(len(labelled), len(unlabelled)) < FEWEST:
        return None
    rows = np.concatenate([labelled, unlabelled])
    x = np.stack([pixel_features(picture) for picture in _pictures(dataset, rows)])
    return named(compare(x[: len(labelled)], x[len(labelled) :]), dataset, unlabelled)


def swatches(dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """Return what `IMAGES` of some rows, evenly spaced, look like from afar.

    Small enough to be kept with what was learned from them, and compared with other data later.

    Returns
    -------
    ndarray
        ``(n, 64 C + 16)`` uint8: `pixel_features`, in steps of 1/255.
    """
    pictures = _pictures(dataset, _even(rows))
    x = np.stack([pixel_features(picture) for picture in pictures])
    small: np.ndarray = np.rint(255 * x).astype(np.uint8)
    return small


def between(labelled: np.ndarray, others: np.ndarray) -> dict[str, Any] | None:
    """Compare the images of two data sets by their `swatches`; None where there are too few.

    Where one is in colour and one grey, by their brightness.
    """
    if min(len(labelled), len(others)) < FEWEST:
        return None
    if labelled.shape[1] != others.shape[1]:
        labelled, others = _grey(labelled), _grey(others)
    return compare(labelled / 255, others / 255)


def _grey(swatches: np.ndarray) -> np.ndarray:
    cells = _THUMBNAIL**2
    colours, rough = swatches[:, : -(_PATCHES**2)], swatches[:, -(_PATCHES**2) :]
    bright = colours.reshape(len(swatches), cells, -1).mean(2)
    return np.concatenate([bright, rough], axis=1)


def named(found: dict[str, Any], dataset: Dataset, unlabelled: np.ndarray) -> dict[str, Any]:
    """Return what `compare` found, its ``farthest`` images named by their paths."""
    paths = [escape(dataset.source.paths[int(unlabelled[place])]) for place in found["farthest"]]
    return {**found, "farthest": paths}


def _pictures(dataset: Dataset, rows: np.ndarray) -> list[np.ndarray]:
    """Return the images of rows as they lie in the store, `uint8` ``(h, w, C)`` each."""
    pictures: list[np.ndarray] = []
    for start in range(0, len(rows), 64):
        canvas, sizes = dataset.store.read(rows[start : start + 64])
        whole = [canvas.shape[1:3]] * len(canvas) if sizes is None else sizes.tolist()
        pictures += [_small(one[:h, :w]) for one, (h, w) in zip(canvas, whole, strict=True)]
    return pictures


def _small(picture: np.ndarray) -> np.ndarray:
    """Shrink or enlarge a picture to `_SIDE` x `_SIDE`; the whole of it, aspect given up."""
    image = Image.fromarray(picture.squeeze(2) if picture.shape[2] == 1 else picture)
    small = np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BOX))
    return small.reshape(_SIDE, _SIDE, -1)


def pixel_features(picture: np.ndarray) -> np.ndarray:
    """Return what a picture looks like from afar: a thumbnail, and where it is rough.

    Parameters
    ----------
    picture : ndarray
        ``(32, 32, C)`` uint8.

    Returns
    -------
    ndarray
        ``(64 C + 16,)`` float64: colours of an 8x8 thumbnail, and the spread of brightness in
        each of 4x4 patches.
    """
    x = picture.astype(np.float64) / 255
    cell = _SIDE // _THUMBNAIL
    thumbnail = x.reshape(_THUMBNAIL, cell, _THUMBNAIL, cell, -1).mean((1, 3))
    patch = _SIDE // _PATCHES
    rough = x.mean(2).reshape(_PATCHES, patch, _PATCHES, patch).std((1, 3))
    return np.concatenate([thumbnail.ravel(), rough.ravel()])


def compare(labelled: np.ndarray, unlabelled: np.ndarray) -> dict[str, Any]:
    """Say how well unlabelled images can be told from labelled ones, and how varied each are.

    Parameters
    ----------
    labelled, unlabelled : ndarray
        ``(n, F)`` and ``(m, F)`` features, `FEWEST` rows or more of each.

    Returns
    -------
    dict
        ``auc`` in [0, 1], 0.5 by guessing; ``p``, the share of permuted groups that are told
        apart as well; ``compared`` and ``variety`` of each group; ``farthest``, the positions
        of the unlabelled images that look most unlike the labelled ones.
    """
    x = np.concatenate([labelled, unlabelled]).astype(np.float64)
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-9)
    group = np.repeat([0.0, 1.0], [len(labelled), len(unlabelled)])
    rng = np.random.default_rng(stream(0, "likeness"))
    columns = np.stack([group, *(rng.permutation(group) for _ in range(PERMUTATIONS))], 1)
    scores = held_out_scores(x, columns, rng.permutation(len(x)) % FOLDS)
    aucs = areas(scores, columns)
    fewer = min(len(labelled), len(unlabelled))
    parts = {"labelled": x[: len(labelled)], "unlabelled": x[len(labelled) :]}
    return {
        "auc": round(float(aucs[0]), 4),
        "p": float((aucs >= aucs[0] - 1e-9).mean()),
        "compared": {name: len(part) for name, part in parts.items()},
        "variety": {
            name: round(vendi_score(part[_even(np.arange(len(part)), fewer)]), 2)
            for name, part in parts.items()
        },
        "farthest": np.argsort(-scores[len(labelled) :, 0], kind="stable")[:5].tolist(),
    }


def held_out_scores(x: np.ndarray, columns: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Return cross-validated scores of ridge regressions on many columns at once.

    The penalty is the number of features, one unit a direction of unit variance. Intercepts
    are left out: they differ from fold to fold by the chance of who is held out.

    Parameters
    ----------
    x : ndarray
        ``(n, F)`` standardised features.
    columns : ndarray
        ``(n, P)`` groups as 0 and 1.
    folds : ndarray
        ``(n,)`` which fold each row is held out in; independent of the groups.

    Returns
    -------
    ndarray
        ``(n, P)``
    """
    scores = np.empty_like(columns)
    for fold in np.unique(folds):
        out = folds == fold
        known, asked = x[~out], x[out]
        middle = known.mean(0)
        known, asked = known - middle, asked - middle
        # In as many dimensions as there are samples, since features may be many more.
        inner = known @ known.T + x.shape[1] * np.eye(len(known))
        wanted = columns[~out] - columns[~out].mean(0)
        scores[out] = asked @ (known.T @ cho_solve(cho_factor(inner), wanted))
    return scores


def areas(scores: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the area under the curve of each column: the share of pairs in the right order.

    Parameters
    ----------
    scores, groups : ndarray
        ``(n, P)``; groups are 0 and 1, both there. Ties count one half.

    Examples
    --------
    >>> areas(np.array([[0.1], [0.4], [0.3], [0.9]]), np.array([[0.0], [0], [1], [1]])).tolist()
    [0.75]
    """
    ones = groups.sum(0)
    ranks = (rankdata(scores, axis=0) * groups).sum(0)
    shares: np.ndarray = (ranks - ones * (ones + 1) / 2) / (ones * (len(groups) - ones))
    return shares


def vendi_score(x: np.ndarray) -> float:
    """Return the effective number of images among ``(n, F)`` features, from 1 to n.

    Examples
    --------
    >>> round(vendi_score(np.eye(5)), 6), round(vendi_score(np.ones((5, 3))), 6)
    (5.0, 1.0)
    """
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    # The similarity matrix of images and the matrix of features share their eigenvalues.
    values = np.linalg.svd(unit, compute_uv=False) ** 2 / len(x)
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def warnings(found: dict[str, Any] | None, where: str = "") -> list[str]:
    """Say in words where the unlabelled images look like another world, or much alike.

    Parameters
    ----------
    found : dict or None
        As `of_pixels` gives it.
    where : str
        What they were compared by, in words such as ``in the encoder's features, ``.
    """
    if found is None:
        return []
    said = []
    if found["auc"] >= APART and found["p"] <= LEVEL:
        first: Sequence[str] = found["farthest"][:2]
        said.append(
            f"{where}unlabelled images look like another world: one is told from a labelled one "
            f"in {100 * found['auc']:.0f} of 100 pairs (50 by guessing), most of all "
            f"{' and '.join(first)}; pre-training on them may not help"
        )
    here, there = found["variety"]["unlabelled"], found["variety"]["labelled"]
    if here < ALIKE * there:
        said.append(
            f"{where}unlabelled images are much alike: as varied as {here:.0f} that have nothing "
            f"in common, where as many labelled ones come to {there:.0f}"
        )
    return said
