"""Which images to label next: strategies over frozen features, labels and probabilities.

Each strategy is a function of a `Pool`, a number and a random generator, and returns picks in
their order. It may return fewer, and may pick near-copies: `fewlabels.transfer.pool.choose` sees
to both.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
from numpy.typing import NDArray

from fewlabels.transfer.pool import NEAR_COPY, Floats, Pick, Places, Pool, Strategy, likest

MOST_CLUSTERS = 500  # Hacohen et al. 2022 do not cluster finer either
WHOLE_CLUSTERING = 2_500_000  # images times clusters; above it k-means sees mini-batches
SMALLEST_CLUSTER = 5  # with fewer images its density is a guess (Hacohen et al. 2022)
NEIGHBOURS = 20  # whose mean distance is the density (Hacohen et al. 2022)
WIDTH = 1.0  # of the Gaussian, for unit vectors (Bae et al. 2024)
CANDIDATES, WITNESSES = 4_000, 10_000  # images that coverage tries, and those it is counted on
DOUBTFUL = 10  # times as many doubtful images as picks are spread over clusters
_BLOCK = 2_048


# ---- at the cold start --------------------------------------------------------------------------


def typicality(pool: Pool, count: int, rng: np.random.Generator) -> list[Pick]:
    """Pick the densest image of each of the largest clusters that no label covers.

    TypiClust (Hacohen et al. 2022): k-means into as many clusters as there will be labels, at
    most `MOST_CLUSTERS`; the clusters with the fewest labels come first and of them the largest;
    typicality is one over the mean distance to the `NEIGHBOURS` nearest of the cluster. In a
    cluster of more than `WITNESSES` images those are sought among as many, drawn at random;
    near-copies do not count, or a burst of one scene would be the most typical of all.
    """
    clusters = min(int(pool.labelled.sum()) + count, MOST_CLUSTERS, len(pool.vectors))
    cluster = k_means(pool.vectors, clusters, rng)
    size, free = (np.bincount(c, minlength=clusters) for c in (cluster, cluster[pool.free]))
    covered = np.bincount(cluster[pool.labelled], minlength=clusters)
    queues: dict[int, list[tuple[int, float]]] = {}
    picks: list[Pick] = []
    while len(picks) < count and free.any():
        small = size <= SMALLEST_CLUSTER
        first = np.lexsort((-size, covered, small, free == 0))[0]
        if first not in queues:
            queues[first] = _by_typicality(pool, np.flatnonzero(cluster == first), rng)
        place, score = queues[first].pop(0)
        picks.append(Pick(place, score, _of_cluster(int(size[first]), int(covered[first]))))
        free[first] -= 1
        covered[first] += 1
    return picks


def _by_typicality(
    pool: Pool, members: Places, rng: np.random.Generator
) -> list[tuple[int, float]]:
    """Return the members that may be picked with their typicality, the most typical first."""
    asked = members if len(members) <= WITNESSES else rng.choice(members, WITNESSES, replace=False)
    own = members[np.isin(members, pool.free)]
    typical = np.empty(len(own))
    k = min(NEIGHBOURS, max(1, len(asked) - 1))
    for start in range(0, len(own), _BLOCK):
        block = pool.vectors[own[start : start + _BLOCK]] @ pool.vectors[asked].T
        block[block >= NEAR_COPY] = -1.0
        near = np.partition(block, -k, axis=1)[:, -k:]
        distance = np.sqrt(np.maximum(2 - 2 * near, 0)).mean(1)
        typical[start : start + _BLOCK] = 1 / np.maximum(distance, 1e-6)
    order = np.argsort(-typical, kind="stable")
    return [(int(own[place]), float(typical[place])) for place in order]


def _of_cluster(size: int, covered: int) -> str:
    if size == 1:
        return "like no other image"
    known = {0: "none of them labelled yet", 1: "one of them labelled"}
    return (
        f"the most typical of {size:,} images that look alike, "
        f"{known.get(covered, f'{covered:,} of them labelled')}"
    )


def k_means(vectors: Floats, clusters: int, rng: np.random.Generator) -> Places:
    """Return the cluster of each vector ``(n,)``; on mini-batches where there are many."""
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    settings = {"n_init": 5, "random_state": int(rng.integers(2**31))}
    whole = len(vectors) * clusters <= WHOLE_CLUSTERING
    kind = KMeans(clusters, **settings) if whole else MiniBatchKMeans(clusters, **settings)
    with warnings.catch_warnings():  # fewer different vectors than clusters: some stay empty
        warnings.simplefilter("ignore", ConvergenceWarning)
        found: Places = kind.fit_predict(vectors).astype(np.int64)
    return found


def coverage(pool: Pool, count: int, rng: np.random.Generator) -> list[Pick]:
    """Pick, one by one, the image that raises most how well labelled images stand for all.

    MaxHerding (Bae et al. 2024): an image is stood for as well as a Gaussian of its distance to
    the nearest labelled image says; the mean over all images is raised greedily. It is taken
    over at most `WITNESSES` images, and at most `CANDIDATES` are tried, drawn at random. Gains
    only ever fall, so an image whose old gain is not the largest need not be tried again
    (Minoux 1978).
    """
    tried = _some(pool.free, CANDIDATES, rng)
    asked = _some(np.arange(len(pool.vectors)), WITNESSES, rng)
    near = _gaussian(pool.vectors[tried] @ pool.vectors[asked].T)  # (tried, asked)
    stood = np.zeros(len(asked), np.float32)
    if pool.labelled.any():
        stood = _gaussian(likest(pool.vectors[asked], pool.vectors[pool.labelled]))
    bound = np.array([_gain(row, stood) for row in near])
    picks: list[Pick] = []
    while len(picks) < min(count, len(tried)):
        best = int(bound.argmax())
        gain = _gain(near[best], stood)
        if gain < bound[best]:
            bound[best] = gain
            continue
        share, before = float((near[best] > stood).mean()), float(stood.mean())
        stood = np.maximum(stood, near[best])
        bound[best] = -math.inf
        reason = (
            f"would be the nearest labelled image to {share:.1%} of all; raises coverage from "
            f"{before:.1%} to {stood.mean():.1%}"
        )
        picks.append(Pick(int(tried[best]), gain, reason))
    return picks


def _some(places: Places, most: int, rng: np.random.Generator) -> Places:
    if len(places) <= most:
        return places
    drawn: Places = np.sort(rng.choice(places, most, replace=False))
    return drawn


def _gaussian(cosine: Floats) -> Floats:
    squared = np.maximum(2 - 2 * cosine, 0)
    return np.exp(squared / (-2 * WIDTH**2)).astype(np.float32)


def _gain(near: Floats, stood: Floats) -> float:
    return float(np.maximum(near - stood, 0).mean(dtype=np.float64))


# ---- with a classifier --------------------------------------------------------------------------


def margin(pool: Pool, count: int, rng: np.random.Generator) -> list[Pick]:
    """Pick where the two most probable classes lie closest (Scheffer et al. 2001)."""
    free = pool.free
    doubt = _doubt(pool)[free]
    return [_doubted(pool, place, doubt) for place in _first(free, doubt, count, rng)]


def spread_margin(pool: Pool, count: int, rng: np.random.Generator) -> list[Pick]:
    """Pick doubtful images of different looks.

    As Cluster-Margin (Citovsky et al. 2021): of `DOUBTFUL` times as many images with the
    smallest margins, clustered by k-means, the most doubtful of each cluster.
    """
    free = pool.free
    doubt = _doubt(pool)
    most = _first(free, doubt[free], DOUBTFUL * count, rng)
    cluster = k_means(pool.vectors[most], min(count, len(most)), rng)
    _, first = np.unique(cluster, return_index=True)  # the most doubtful, as `most` is in order
    rest = np.setdiff1d(np.arange(len(most)), first)
    kept = np.concatenate([np.sort(first), rest])[:count]
    return [_doubted(pool, int(place), doubt[free]) for place in most[np.sort(kept)]]


def _shares(pool: Pool) -> Floats:
    if pool.shares is None:
        raise ValueError("this strategy needs class probabilities")
    return pool.shares


def _doubt(pool: Pool) -> Floats:
    """Return one less the difference of the two largest probabilities, ``(n,)``."""
    top = np.partition(_shares(pool), -2, axis=1)[:, -2:]  # (n, 2)
    return (1 - (top[:, 1] - top[:, 0])).astype(np.float32)


def _first(places: Places, score: Floats, count: int, rng: np.random.Generator) -> Places:
    """Return the places with the largest scores, equal ones in random order."""
    order = np.lexsort((rng.random(len(places)), -score))[:count]
    best: Places = places[order]
    return best


def _doubted(pool: Pool, place: int, doubt: Floats) -> Pick:
    shares = _shares(pool)[place]
    second, first = np.argsort(shares, kind="stable")[-2:]
    named = [f"{pool.classes[code]} ({shares[code]:.0%})" for code in (first, second)]
    score = 1 - float(shares[first] - shares[second])
    rank = 1 + int((doubt > score + 1e-6).sum())
    which = "the most doubtful" if rank == 1 else f"one of the {rank:,} most doubtful"
    told = f"either {named[0]} or {named[1]}: {which} of {len(doubt):,} images"
    return Pick(int(place), score, told)


def badge(pool: Pool, count: int, rng: np.random.Generator) -> list[Pick]:
    """Pick by k-means++ over the gradients that guessed labels would cause (Ash et al. 2020).

    The gradient of a linear layer is the outer product of the error in probabilities and the
    image's vector; distances of outer products need neither of them multiplied out.
    """
    free = pool.free
    error = _shares(pool)[free].astype(np.float64)  # (m, C)
    error[np.arange(len(free)), error.argmax(1)] -= 1
    vectors = pool.vectors[free].astype(np.float64)
    length = (error**2).sum(1) * (vectors**2).sum(1)  # squared, of the gradient
    squared, nearest = np.full(len(free), np.inf), length.copy()
    picks: list[Pick] = []
    for number in range(min(count, len(free))):
        if not number:
            best = int(length.argmax())
        elif nearest.sum() > 0:
            best = int(rng.choice(len(free), p=nearest / nearest.sum()))
        else:  # no gradient differs from those picked
            best = int(rng.choice(np.flatnonzero(np.isfinite(squared))))
        reason = f"its label would move the classifier by {length[best] ** 0.5:.2f}, another way"
        picks.append(Pick(int(free[best]), float(length[best] ** 0.5), reason))
        product = (error @ error[best]) * (vectors @ vectors[best])
        away = np.maximum(length + length[best] - 2 * product, 0)
        squared = np.minimum(squared, away)
        squared[best] = -np.inf
        nearest = np.maximum(squared, 0)
    return picks


# ---- to compare with ----------------------------------------------------------------------------


def coreset(pool: Pool, count: int, rng: np.random.Generator) -> list[Pick]:
    """Pick, one by one, the image farthest from all labelled ones (Sener and Savarese 2018).

    Greedy k-centre; without a label the first image is drawn at random.
    """
    free = pool.free
    nearest = likest(pool.vectors[free], pool.vectors[pool.labelled])  # by cosine
    picks: list[Pick] = []
    for _ in range(min(count, len(free))):
        known = bool(picks) or bool(pool.labelled.any())
        best = int(nearest.argmin()) if known else int(rng.integers(len(free)))
        away = math.sqrt(max(0.0, 2 - 2 * float(nearest[best]))) if known else 2.0
        told = f"the farthest from any labelled image, by {away:.2f}" if known else "at random"
        picks.append(Pick(int(free[best]), away, told))
        nearest = np.maximum(nearest, pool.vectors[free] @ pool.vectors[free[best]])
        nearest[best] = np.inf
    return picks


def uniform(pool: Pool, count: int, rng: np.random.Generator) -> list[Pick]:
    """Pick at random."""
    drawn = rng.permutation(pool.free)[:count]
    return [Pick(int(place), 0.0, "at random") for place in drawn]


def balanced(labels: NDArray[np.int64]) -> Strategy:
    """Return the strategy that draws as many of each class as it can, at random within each.

    It knows the labels, so it is a yardstick for studies and nothing to label by.

    Parameters
    ----------
    labels : ndarray
        ``(n,)`` the class of each image of the pool.
    """

    def strategy(pool: Pool, count: int, rng: np.random.Generator) -> list[Pick]:
        free = rng.permutation(pool.free)
        own = labels[free]
        turn = np.bincount(labels[pool.labelled], minlength=int(labels.max()) + 1)[own]
        for name in np.unique(own):  # the k-th of a class comes after all (k-1)-th
            turn[own == name] += np.arange((own == name).sum())
        order = np.lexsort((rng.random(len(free)), turn))[:count]
        return [Pick(int(free[place]), 0.0, "at random from its class") for place in order]

    return strategy


STRATEGIES: dict[str, Strategy] = {
    "typicality": typicality,
    "coverage": coverage,
    "spread_margin": spread_margin,
    "margin": margin,
    "badge": badge,
    "coreset": coreset,
    "uniform": uniform,
}
BY_DOUBT = ("spread_margin", "margin", "badge")  # these need a classifier
