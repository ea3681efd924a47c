"""Splits keyed by content: adding images or labels moves nothing into or out of test.

Each key (the SHA-256 of a file, or its group) is hashed to a number in [0, 1) that
decides alone, so the classes are balanced between the splits in expectation and not
by quota: a quota would move old images whenever new ones arrive.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np

TRAIN, VAL, TEST, OUT = 0, 1, 2, -1
NAMES = ("train", "val", "test")


def uniform(keys: Iterable[str], seed: int, stream: str) -> np.ndarray:
    """Return ``(N,)`` float64 in [0, 1) that depend on (seed, stream, key) alone.

    Examples
    --------
    >>> float(uniform(["a"], 0, "split")[0]) == float(uniform(["b", "a"], 0, "split")[1])
    True
    """
    secret = blake2b(f"{seed}/{stream}".encode(), digest_size=32).digest()
    digests = bytearray()
    for key in keys:
        text = key.encode("utf-8", "surrogateescape")
        digests += blake2b(text, digest_size=8, key=secret).digest()
    bits = np.frombuffer(bytes(digests), ">u8") >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def assign(
    keys: Sequence[str],
    given: Sequence[str | None],
    seed: int,
    *,
    labelled: np.ndarray | None = None,
    val: float = 0.1,
    test: float = 0.1,
) -> np.ndarray:
    """Return the split of each row: 0 train, 1 val, 2 test.

    What is given stands. Rows given as train or not at all are the pool, from which
    come a test split (if no labelled row is given as test) and a val split (if no
    labelled row is given as val), each by the hash of the key.

    An unlabelled row of the pool whose key falls to val goes to train, unless a
    labelled row shares its key. One that falls to test stays in test, where nothing
    reads it: once pre-trained on, it could not serve as a test image when its label
    arrives.

    Parameters
    ----------
    keys : sequence of str
        Content or group of each row; equal keys stay together within the pool.
    given : sequence of (str or None)
        ``train``, ``val``, ``test`` or None.
    seed : int
        Which random split.
    labelled : ndarray, optional
        ``(N,)`` bool; all by default.
    val, test : float
        Shares of the pool.

    Returns
    -------
    ndarray
        ``(N,)`` int8.
    """
    codes = np.fromiter(
        (OUT if name is None else NAMES.index(name) for name in given), np.int8, len(given)
    )
    has_label = np.ones(len(codes), bool) if labelled is None else labelled
    split = np.maximum(codes, TRAIN)
    pool = np.flatnonzero(split == TRAIN)
    u = uniform(keys, seed, "split")[pool]
    open_test = not (has_label & (codes == TEST)).any()
    open_val = not (has_label & (codes == VAL)).any()
    if open_test:
        split[pool[u < test]] = TEST
    if open_val:
        known = has_label[pool]
        bound = (u >= test) & (u < test + val)
        split[pool[bound & (known | np.isin(u, u[known & bound]))]] = VAL
    return split
