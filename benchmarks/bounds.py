"""What no interval can do: the least that the best one covers where it covers most.

    python benchmarks/bounds.py

The mean of a table of seeds by draws, as in `coverage.py`, but easier: how much the rest varies is
known, and so is the variance of the test images; only what seeds and draws add is not. An
interval's half-width is chosen by their two mean squares, even at random, in any way but two: it
is never below what it would have to be if neither seeds nor draws made a difference, and the truth
is held in 93 % of cases at least, whatever they add. That leaves a linear program, on a grid, for
the least of the largest coverage. Where it says more than 97 %, intervals between 93 and 97 %
throughout do not exist. Takes a few minutes.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from record import HERE, MADE, made, replace
from scipy import optimize, sparse, special, stats

COMMAND = "python benchmarks/bounds.py"
COLUMNS = ("pretraining", "draws", "images", "least", "most", *MADE)
LEAST = 0.93
TRUE = np.array([1, 1.5, 2.5, 4, 7, 15, 40, 150.0])  # mean squares, the rest's being 1
EDGES = np.concatenate([[0], np.geomspace(0.05, 300, 22), [np.inf]])  # of those observed
WIDER = np.geomspace(1, 60, 20)  # than the shortest half-width allowed


def covered(seeds: int, draws: int, images: float) -> sparse.csr_matrix:
    """Return what each observation and half-width adds to the coverage at each truth."""

    def seen(true: float, df: int) -> np.ndarray:
        return np.diff(stats.chi2.cdf(EDGES * df / true, df))

    half, rows = 1.959964 * np.sqrt(1 + images) * WIDER, []
    for one in TRUE:
        for other in TRUE:
            both = np.outer(seen(one, seeds - 1), seen(other, draws - 1)).ravel()
            held = 2 * special.ndtr(half / np.sqrt(one + other - 1 + images)) - 1
            rows.append(np.outer(both, held).ravel())
    found = np.array(rows)
    return sparse.csr_matrix(np.where(found < 1e-9, 0.0, found))


def least_most(seeds: int, draws: int, images: float) -> float:
    """Return the least possible largest coverage of an interval that covers `LEAST` throughout.

    Parameters
    ----------
    images : float
        Variance of the mean over test images, in units of the rest's; known.
    """
    held = covered(seeds, draws, images)
    truths, cells = held.shape[0], (len(EDGES) - 1) ** 2
    above = sparse.hstack([-held, sparse.csr_matrix((truths, 1))])
    below = sparse.hstack([held, sparse.csr_matrix(-np.ones((truths, 1)))])
    once = sparse.kron(sparse.eye(cells), np.ones((1, len(WIDER))))
    found = optimize.linprog(
        np.append(np.zeros(held.shape[1]), 1.0),
        A_ub=sparse.vstack([above, below]).tocsr(),
        b_ub=np.append(np.full(truths, -LEAST), np.zeros(truths)),
        A_eq=sparse.hstack([once, sparse.csr_matrix((cells, 1))]).tocsr(),
        b_eq=np.ones(cells),
        method="highs-ipm",
    )
    return float(found.fun)


def main() -> None:
    """Write the table."""
    about, rows = made(COMMAND), []
    for images in (0, 1):
        for seeds in (2, 3, 5):
            for draws in (5, 10, 20):
                most = least_most(seeds, draws, images)
                row: dict[str, Any] = {"pretraining": seeds, "draws": draws, "images": images}
                rows.append({**row, "least": LEAST, "most": f"{most:.4f}", **about})
                sys.stderr.write(f"{seeds} x {draws}, images {images}: {most:.4f}\n")
    replace(HERE / "bounds.csv", COLUMNS, rows, COLUMNS[:3])


if __name__ == "__main__":
    main()
