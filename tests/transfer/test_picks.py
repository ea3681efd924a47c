"""Strategies on geometries whose answer is known, and against definitions written out."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, pairwise_distances
from sklearn.neighbors import NearestNeighbors

from fewlabels.transfer import picks
from fewlabels.transfer.picks import BY_DOUBT, STRATEGIES, balanced
from fewlabels.transfer.pool import Pick, Pool, choose

CLASSES = ("cat", "dog", "eel")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def bunches(sizes: tuple[int, ...], *, seed: int = 0, width: int = 16) -> np.ndarray:
    """Return bunches of unit vectors about axes, one after the other."""
    noise = rng(seed).normal(size=(sum(sizes), width)) * 0.12
    return unit(np.eye(width)[np.repeat(np.arange(len(sizes)), sizes)] + noise)


def pool(x: np.ndarray, labelled: tuple[int, ...] = (), shares: np.ndarray | None = None) -> Pool:
    known = np.zeros(len(x), bool)
    known[list(labelled)] = True
    return Pool(x, known, shares, CLASSES)


def places(found: list[Pick]) -> list[int]:
    return [one.place for one in found]


SIZES = (40, 30, 20, 10)
OWN = np.repeat(np.arange(4), SIZES)


def guesses(x: np.ndarray, seed: int = 0) -> np.ndarray:
    return rng(seed).dirichlet(np.ones(3), len(x)).astype(np.float32)


# ---- every strategy -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRATEGIES)
def test_picks_are_new_different_and_as_many_as_asked(name: str) -> None:
    x = bunches(SIZES)
    found = choose(pool(x, (0, 1, 50), guesses(x)), 30, STRATEGIES[name], rng())
    assert len(set(places(found))) == 30
    assert not {0, 1, 50} & set(places(found))
    assert all(np.isfinite(one.score) and one.reason for one in found)


@pytest.mark.parametrize("name", STRATEGIES)
def test_one_seed_picks_the_same_twice(name: str) -> None:
    x = bunches(SIZES)
    first, again = (
        choose(pool(x, (3, 44), guesses(x)), 12, STRATEGIES[name], rng(5)) for _ in range(2)
    )
    assert first == again


@pytest.mark.parametrize("name", STRATEGIES)
def test_fewer_images_than_asked_for(name: str) -> None:
    x = bunches((3, 2))
    found = choose(pool(x, (0,), guesses(x)), 50, STRATEGIES[name], rng())
    assert sorted(places(found)) == [1, 2, 3, 4]


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - set(BY_DOUBT)))
def test_without_any_label_or_classifier(name: str) -> None:
    x = bunches(SIZES)
    assert len(choose(pool(x), 8, STRATEGIES[name], rng())) == 8


@pytest.mark.parametrize("name", BY_DOUBT)
def test_doubt_needs_a_classifier(name: str) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        choose(pool(bunches((4, 4))), 2, STRATEGIES[name], rng())


@pytest.mark.parametrize("name", STRATEGIES)
def test_copies_are_skipped(name: str) -> None:
    x = bunches((6, 6))
    x = np.concatenate([x, x, unit(x + 1e-3)])  # 12 images, each there three times
    found = choose(pool(x, (0,), np.tile(guesses(x[:12]), (3, 1))), 36, STRATEGIES[name], rng())
    assert sorted(place % 12 for place in places(found)) == list(range(1, 12))


# ---- the cold start -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["typicality", "coverage"])
def test_the_largest_groups_come_first(name: str) -> None:
    found = choose(pool(bunches(SIZES)), 4, STRATEGIES[name], rng())
    assert sorted(OWN[places(found)]) == [0, 1, 2, 3]
    assert OWN[found[0].place] == 0  # the group of 40


@pytest.mark.parametrize("name", ["typicality", "coverage", "coreset"])
def test_labelled_groups_are_left_alone(name: str) -> None:
    x = bunches(SIZES)
    middles = [int(np.flatnonzero(one == OWN)[0]) for one in (0, 1)]
    found = choose(pool(x, tuple(middles)), 2, STRATEGIES[name], rng())
    assert sorted(OWN[places(found)]) == [2, 3]


def test_typicality_is_that_of_the_paper() -> None:
    x = bunches((60,))
    (found,) = choose(pool(x), 1, STRATEGIES["typicality"], rng())
    distances, _ = NearestNeighbors(n_neighbors=21).fit(x).kneighbors(x)  # itself included
    typical = 1 / distances[:, 1:].mean(1)
    assert found.place == typical.argmax()
    assert found.score == pytest.approx(typical.max(), rel=1e-4)
    assert (
        found.reason == "the most typical of 60 images that look alike, none of them labelled yet"
    )


def test_a_burst_of_one_scene_is_not_typical() -> None:
    burst = unit(
        np.eye(16)[[0] * 30] + np.eye(16)[[5] * 30] * 0.9 + rng().normal(0, 1e-3, (30, 16))
    )
    x = np.concatenate([bunches((60,)), burst])
    (found,) = choose(pool(x), 1, STRATEGIES["typicality"], rng())
    assert found.place < 60


def test_many_members_are_judged_among_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picks, "WITNESSES", 50)
    monkeypatch.setattr(picks, "CANDIDATES", 40)
    x = bunches((120, 80))
    for name in ("typicality", "coverage"):
        found = choose(pool(x), 2, STRATEGIES[name], rng())
        assert sorted(place >= 120 for place in places(found)) == [False, True]


def test_mini_batches_find_the_same_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    x = bunches(SIZES)
    reference = KMeans(4, n_init=5, random_state=0).fit_predict(x)
    for limit in (10**9, 0):
        monkeypatch.setattr(picks, "WHOLE_CLUSTERING", limit)
        assert adjusted_rand_score(reference, picks.k_means(x, 4, rng())) == 1


def test_coverage_is_plain_greedy() -> None:
    x = bunches((12, 9, 5), seed=3)
    found = choose(pool(x, (2,)), 6, STRATEGIES["coverage"], rng())
    near = np.exp(-(pairwise_distances(x) ** 2) / 2)
    stood, left = near[2], set(range(len(x))) - {2}
    for one in found:
        gains = {place: np.maximum(near[place] - stood, 0).mean() for place in left}
        best = max(gains, key=lambda place: gains[place])
        assert (one.place, one.score) == (best, pytest.approx(gains[best], rel=1e-4))
        nearest = f"nearest labelled image to {(near[best] > stood + 1e-6).mean():.1%} of all"
        assert nearest in one.reason
        stood = np.maximum(stood, near[best])
        left.remove(best)


# ---- with a classifier --------------------------------------------------------------------------

DOUBTS = np.array(
    [[0.9, 0.1, 0], [0.5, 0.45, 0.05], [0.6, 0.4, 0], [0.34, 0.33, 0.33], [0, 0.3, 0.7]], np.float32
)


def test_margin_orders_by_the_two_largest() -> None:
    found = choose(pool(bunches((5,)), (), DOUBTS), 3, STRATEGIES["margin"], rng())
    assert places(found) == [3, 1, 2]
    assert [one.score for one in found] == pytest.approx([0.99, 0.95, 0.8])
    assert found[0].reason == "either cat (34%) or eel (33%): the most doubtful of 5 images"
    assert found[1].reason == (
        "either cat (50%) or dog (45%): one of the 2 most doubtful of 5 images"
    )


def test_spread_margin_takes_one_of_each_look() -> None:
    x = bunches((20, 20, 20))
    doubt = np.full((60, 3), [0.5, 0.5, 0], np.float32)
    doubt[20:] = [0.6, 0.4, 0]  # the first group is in the most doubt
    plain = choose(pool(x, (), doubt), 3, STRATEGIES["margin"], rng())
    spread = choose(pool(x, (), doubt), 3, STRATEGIES["spread_margin"], rng())
    assert {place // 20 for place in places(plain)} == {0}
    assert sorted(place // 20 for place in places(spread)) == [0, 1, 2]


def test_badge_works_on_the_gradients() -> None:
    x, shares = bunches((30, 30)), guesses(np.empty(60))
    error = shares - np.eye(3)[shares.argmax(1)]
    gradients = np.einsum("nc,nk->nck", error, x).reshape(60, -1)
    found = choose(pool(x, (), shares), 2, STRATEGIES["badge"], rng())
    assert found[0].place == np.linalg.norm(gradients, axis=1).argmax()
    # The second is drawn by the squared distance to the first.
    drawn = [picks.badge(pool(x, (), shares), 2, rng(seed))[1].place for seed in range(4000)]
    expected = pairwise_distances(gradients, gradients[[found[0].place]])[:, 0] ** 2
    seen = np.bincount(drawn, minlength=60) / 4000
    assert np.abs(seen - expected / expected.sum()).max() < 0.012
    assert np.corrcoef(seen, expected)[0, 1] > 0.9


def test_badge_goes_on_where_all_gradients_are_alike() -> None:
    x = bunches((9,))
    sure = np.tile(np.array([1.0, 0, 0], np.float32), (9, 1))
    assert sorted(places(picks.badge(pool(x, (), sure), 9, rng()))) == list(range(9))


# ---- to compare with ----------------------------------------------------------------------------


def test_coreset_is_greedy_k_centre() -> None:
    x = bunches((15, 10, 5), seed=1)
    found = choose(pool(x, (4,)), 7, STRATEGIES["coreset"], rng())
    centres = [4]
    for one in found:
        away = pairwise_distances(x, x[centres]).min(1)
        assert one.place == away.argmax()
        assert one.score == pytest.approx(away.max(), rel=1e-4)
        centres.append(one.place)


def test_random_is_uniform() -> None:
    x = bunches((10,))
    drawn = [places(picks.uniform(pool(x, (7,)), 3, rng(seed))) for seed in range(3000)]
    counts = np.bincount(np.concatenate(drawn), minlength=10)
    assert counts[7] == 0
    assert counts[counts > 0].min() > 900  # 1,000 each are expected, give or take 26
    assert len(counts[counts > 0]) == 9


def test_balanced_evens_the_classes_out() -> None:
    x, labels = bunches(SIZES), OWN
    found = choose(pool(x, (0, 1, 2, 40)), 8, balanced(labels), rng())
    counts = np.bincount(labels[[0, 1, 2, 40, *places(found)]])
    assert counts.tolist() == [3, 3, 3, 3]
    some = [places(picks.balanced(labels)(pool(x), 2, rng(seed))) for seed in range(200)]
    met = {int(labels[place]) for two in some for place in two}
    assert met == {0, 1, 2, 3}  # where it cannot be even, chance decides
    assert all(len({int(labels[place]) for place in two}) == 2 for two in some)


def test_balanced_gives_what_a_small_class_lacks_to_others() -> None:
    labels = np.repeat([0, 1], [20, 2])
    found = choose(pool(bunches((20, 2))), 10, balanced(labels), rng())
    assert np.bincount(labels[places(found)]).tolist() == [8, 2]
