"""Cross-validation where labels are too few for a test split: every one of them serves in turn.

The labelled images are dealt into folds; each fold is once the test set, and the others are
learned from. Another seed deals anew. No unlabelled image that is learned from has the key of a
labelled one, or is a copy of it: one pre-training on these is then honest in every fold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fewlabels.data.splits import NAMES, OUT, TEST, TRAIN, uniform

FOLDS = 5
TEST_SHARE = 0.1  # of a random split
LEAST_TEST = 30
"""Test images below which a split shows nothing: with fewer, no number of seeds could tell even the
largest difference on digits at 4 labels per class, (2.8 * 0.246 / 0.127)^2 = 29; the numbers are
those of ``benchmarks/spreads.csv``, the formula that of `evaluation.variances.least_visible`."""


def too_few(truth: np.ndarray, classes: int) -> str:
    """Say why a random split would hold too few test images, or return "".

    Parameters
    ----------
    truth : ndarray
        ``(n,)`` classes or numbers of the labelled images.
    classes : int
        How many there are; 0 for numbers.

    Examples
    --------
    >>> too_few(np.arange(60) % 4, 4)
    'a random split of 60 labelled images would hold about 6 test images, and 30 are needed'
    >>> too_few(np.arange(400) % 4, 4)
    ''
    """
    expected = TEST_SHARE * len(truth)
    least = max(LEAST_TEST, classes)  # one a class at least, or a class is not tested
    if expected >= least:
        return ""
    return (
        f"a random split of {len(truth)} labelled images would hold about {expected:.0f} test "
        f"images, and {least} are needed"
    )


def can_fold(truth: np.ndarray, classes: int) -> bool:
    """Say whether something can be learned of images left out: two classes with two labels each."""
    return len(truth) > 2 if not classes else int((np.bincount(truth) > 1).sum()) > 1


def deal(
    keys: Sequence[str], truth: np.ndarray, seed: int, folds: int, *, classes: int
) -> np.ndarray:
    """Return the fold of each labelled image, stratified by class or by number.

    Images with the same key stay together. In order of the class (within it at random), or in
    blocks of `folds` neighbours in order of the number (within them at random), they are dealt
    out one by one, so that folds differ by one image at most where no keys are shared.

    Parameters
    ----------
    keys : sequence of str
        ``n`` contents or groups.
    truth : ndarray
        ``(n,)`` classes, or numbers.
    seed : int
        Which dealing.
    folds : int
    classes : int
        0 for numbers.

    Returns
    -------
    ndarray
        ``(n,)`` int64 in ``[0, folds)``.

    Examples
    --------
    >>> found = deal([*"abcdefgh"], np.array([0, 0, 0, 0, 1, 1, 1, 1]), 0, 2, classes=2)
    >>> found[:4].sum(), found[4:].sum()
    (np.int64(2), np.int64(2))
    """
    names, first, inverse = np.unique(np.asarray(keys), return_index=True, return_inverse=True)
    stratum = truth[first]
    if not classes:
        stratum = np.argsort(np.argsort(stratum, kind="stable"), kind="stable") // folds
    order = np.lexsort((uniform(names.tolist(), seed, "folds"), stratum))
    dealt = np.empty(len(names), np.int64)
    dealt[order] = np.arange(len(names)) % folds
    return dealt[inverse]


def assign(keys: Sequence[str], given: Sequence[str | None], labelled: np.ndarray) -> np.ndarray:
    """Return the split of each row before folds are dealt: every labelled image is a test image.

    Unlabelled rows are train, but for those that came as val or test, and for those that share
    their key with a labelled one, which are left out.

    Parameters
    ----------
    keys : sequence of str
        Of every row.
    given : sequence of (str or None)
    labelled : ndarray
        ``(N,)`` bool.

    Returns
    -------
    ndarray
        ``(N,)`` int8 as `splits.assign`.
    """
    split = np.fromiter(
        (TRAIN if name is None else NAMES.index(name) for name in given), np.int8, len(given)
    )
    held = {keys[int(row)] for row in np.flatnonzero(labelled)}
    split[np.fromiter((key in held for key in keys), bool, len(split))] = OUT
    split[labelled] = TEST
    return split
