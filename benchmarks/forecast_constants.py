"""Where the priors of the forecast come from, and how often its intervals hold on such curves.

    python benchmarks/forecast_constants.py

Finds the constants under which what `learning_curves.csv` holds at 4 and 16 times the most labels
is likeliest, given two to four points before. Every source in turn is then left out, the constants
are found from the others, and it is counted how often the intervals hold what the source shows.
Prints the constants, and the counts by metric. Minutes.
"""

from __future__ import annotations

import csv
import math
import sys
from collections import defaultdict

import numpy as np
from record import HERE
from scipy import optimize, special

from fewlabels.evaluation import forecast
from fewlabels.evaluation.forecast import Prior, predict

Curve = list[tuple[int, float, float]]  # labels, error, its standard error
Case = tuple[Curve, tuple[int, float], float | None]  # seen, hidden, error of guessing


def read() -> dict[bool, dict[str, list[Case]]]:
    """Return what is seen and what is hidden, by whether it is a share, and by source."""
    curves: dict[tuple[str, str, str, int], Curve] = defaultdict(list)
    with (HERE / "learning_curves.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            key = (row["source"], row["model"], row["metric"], int(row["classes"]))
            value = float(row["mean"])
            error = 1 - value if row["metric"] == "accuracy" else value
            curves[key].append((int(row["shots"]), error, float(row["se"])))
    found: dict[bool, dict[str, list[Case]]] = {True: {}, False: {}}
    for (source, _, metric, classes), curve in curves.items():
        share = metric == "accuracy"
        guess = 1 - 1 / classes if share else None
        found[share].setdefault(source, []).extend(cases(sorted(curve), guess))
    return found


def cases(curve: Curve, guess: float | None) -> list[Case]:
    """Return the ways in which a curve is seen: two to four points, each four times the last."""
    found = []
    for first in range(2):
        for count in (2, 3, 4):
            seen = curve[first::2][:count]
            for times in (4, 16):
                hidden = [(n, e) for n, e, _ in curve if n == times * seen[-1][0]]
                if len(seen) == count and hidden:
                    found.append((seen, hidden[0], guess))
    return found


def density(case: Case, prior: Prior) -> float:
    """Return the logarithm of the density that the forecast gives to what was hidden, in z."""
    seen, (count, error), guess = case
    x = np.log2([float(n) for n, _, _ in seen])
    y, se = np.array([e for _, e, _ in seen]), np.array([s for _, _, s in seen])
    target = np.array([math.log2(count)]) - x[0]
    logs, evidence = [], []
    for share in forecast.FLOORS:
        line = forecast._line(x - x[0], y, se, target, share * y.min(), guess, prior)
        z, steep = forecast.z_of(np.array([error]), line.floor, guess, se[-1:] / 2)
        off = (z - line.mean) ** 2 / line.variance + np.log(line.variance)
        logs.append(float(-0.5 * off[0] + np.log(steep[0])))
        evidence.append(line.evidence)
    return float(special.logsumexp(special.log_softmax(evidence) + logs))


def fitted(sources: dict[str, list[Case]]) -> Prior:
    """Return the constants under which hidden points are likeliest, each source counting alike."""

    def unlikely(logs: np.ndarray) -> float:
        prior = Prior(*map(float, np.exp(logs)))
        likely = [np.mean([density(case, prior) for case in found]) for found in sources.values()]
        return -float(np.sum(likely))

    start = np.log([0.3, 0.2, 0.1])
    options = {"xatol": 0.02, "fatol": 0.01, "maxfev": 150}
    best = optimize.minimize(unlikely, start, method="Nelder-Mead", options=options)
    return Prior(*(round(float(v), 3) for v in np.exp(best.x)))


def held(sources: list[Case], prior: Prior) -> np.ndarray:
    """Return whether each interval holds what was hidden."""
    found = []
    for seen, (count, error), guess in sources:
        shots, errors, spreads = zip(*seen, strict=True)
        one = predict(shots, errors, spreads, [count], guess=guess, prior=prior)[0]
        found.append(one.low <= error <= one.high)
    return np.array(found)


def main() -> None:
    """Print the constants, and what intervals hold where the source is left out."""
    for share, sources in read().items():
        sys.stdout.write(f"{'shares' if share else 'losses'}: {fitted(sources)}\n")
        counts = []
        for name, own in sources.items():
            others = {key: value for key, value in sources.items() if key != name}
            counts.append(held(own, fitted(others)))
            sys.stdout.write(f"  {name}: {counts[-1].mean():.2f} of {len(own)}\n")
        every = np.concatenate(counts)
        sys.stdout.write(f"  in all: {every.mean():.3f} of {len(every)}\n")


if __name__ == "__main__":
    main()
