"""Numbers and names in the reader's words: percentages, intervals, durations, arms."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

Record = dict[str, Any]

DASH, MINUS, TIMES = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
MISSING = DASH
METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "precision_macro": "macro precision",
    "recall_macro": "macro recall",
    "f1_macro": "macro F1",
}
_STARTS = {
    "scratch": "Training from scratch",
    "pixels": "Raw pixels",
    "mean": "Mean of the labels",
    "random": "Untrained encoder",
    "autoencoder": "Autoencoder",
    "denoising": "Denoising autoencoder",
    "dense_autoencoder": "Dense autoencoder",
    "simclr": "SimCLR",
    "byol": "BYOL",
    "vicreg": "VICReg",
    "barlow_twins": "Barlow Twins",
    "dino": "DINO",
    "emp": "EMP-SSL",
    "kmeans": "k-means patches",
    "masked": "Masked autoencoder",
    "rotation": "Rotation prediction",
    "vae": "Variational autoencoder",
    "gan": "GAN",
}
_TRANSFERS = {
    "features": "frozen features",
    "parameters": "fine-tuning",
    "structure": "changed structure",
    "spreading": "label spreading",
    "label_spreading": "label spreading",
    "logistic": "logistic regression",
    "ridge": "ridge regression",
    "svm": "linear SVM",
    "centroid": "nearest class mean",
    "knn": "nearest neighbours",
}
_PLAIN_STARTS = ("scratch", "pixels", "mean", "random")


def number(value: Any) -> float | None:
    """Return a finite float, or None for anything that is not one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def records(value: Any) -> list[Record]:
    """Return the dicts of a list; anything else counts as missing."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def texts(value: Any) -> list[str]:
    """Return the entries of a list as text, blanks left out."""
    return [str(entry) for entry in value if entry] if isinstance(value, list) else []


def name_of(value: Any) -> str:
    """Return a name as text, a dash where it is missing."""
    return MISSING if value is None else str(value)


def record(value: Any) -> Record:
    """Return a dict, empty when `value` is none."""
    return value if isinstance(value, dict) else {}


def percent(value: Any) -> str:
    """Return a share in [0, 1] as a percentage with one decimal.

    Examples
    --------
    >>> percent(0.8213)
    '82.1'
    >>> percent(None) == MISSING
    True
    """
    share = number(value)
    return MISSING if share is None else f"{100 * share:.1f}"


def spread(low: Any, high: Any) -> str:
    """Return the bounds of an interval of shares as ``(79.0-85.2)`` with a dash, or nothing."""
    if number(low) is None or number(high) is None:
        return ""
    return f"({percent(low)}{DASH}{percent(high)})"


def interval(value: Any) -> tuple[str, str]:
    """Return mean and bounds of ``{"value", "low", "high"}`` or of a bare number."""
    if isinstance(value, dict):
        return percent(value.get("value")), spread(value.get("low"), value.get("high"))
    return percent(value), ""


def points(value: Any) -> str:
    """Return a difference of shares in percentage points, with its sign.

    Examples
    --------
    >>> points(0.0312), points(-0.0001), points(-0.0312).replace(MINUS, '-')
    ('+3.1', '0.0', '-3.1')
    """
    share = number(value)
    if share is None:
        return MISSING
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def duration(seconds: Any) -> str:
    """Return seconds in the largest units that stay readable.

    Examples
    --------
    >>> duration(200), duration(0.42), duration(5400)
    ('3 min 20 s', '0.42 s', '1 h 30 min')
    """
    value = number(seconds)
    if value is None:
        return MISSING
    if value < 10:
        return f"{value:.2g} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 3600:
        return f"{round(value / 60)} min"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count(value: Any) -> str:
    """Return a whole number with thousands separated."""
    amount = number(value)
    return MISSING if amount is None else f"{round(amount):,}"


def budget(value: Any) -> str:
    """Return a budget as a user wrote it with its number and unit apart.

    Examples
    --------
    >>> budget("2000000images"), budget("90s")
    ('2,000,000 images', '90 s')
    """
    said = MISSING if value is None else str(value).strip()
    return re.sub(r"^[\d.]+ *", lambda found: f"{float(found[0]):,.12g} ", said)


def large(value: Any) -> str:
    """Return a large number with three digits and a unit's prefix behind it.

    Examples
    --------
    >>> large(174_363_443_200), large(12.0), large(999_600)
    ('174 G', '12 ', '1 M')
    """
    amount = number(value)
    if amount is None:
        return MISSING
    for prefix in ("", "k", "M", "G", "T", "P"):
        if abs(amount) < 999.5:
            return f"{amount:.3g} {prefix}"
        amount /= 1_000
    return f"{amount:.3g} E"


def memory(megabytes: Any) -> str:
    """Return a size in MB or GB."""
    size = number(megabytes)
    if size is None:
        return MISSING
    return f"{size / 1024:.1f} GB" if size >= 1024 else f"{size:.0f} MB"


def probability(value: Any) -> str:
    """Return a p value, never rounded down to zero."""
    p = number(value)
    if p is None:
        return MISSING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def shots_words(shots: Any) -> str:
    """Return ``25 labels per class``, or ``all your labels`` where none were hidden."""
    amount = number(shots)
    if not amount:
        return "all your labels"
    return f"{amount:g} label{'' if amount == 1 else 's'} per class"


def joined(parts: Sequence[str]) -> str:
    """Return ``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else list(parts))


def shortened(text: str, limit: int) -> str:
    """Return `text` cut to `limit` characters, the cut shown."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def method_title(name: Any) -> str:
    """Return the readable name of a method or start; unknown ones stay as they are."""
    return _STARTS.get(str(name), str(name))


def start_of(arm: Record) -> str:
    """Return what an arm starts from: ``scratch``, ``pixels``, ``random`` or a method."""
    name = str(arm.get("name", "")).split("+")[0].split(":")[0]
    known = arm.get("method") or arm.get("source") or arm.get("start")
    return name if name in _PLAIN_STARTS else str(known or name)


def is_plain(arm: Record) -> bool:
    """Return whether an arm uses no pre-training: scratch, raw pixels, untrained."""
    return start_of(arm) in _PLAIN_STARTS


def _arm_title(arm: Record) -> str:
    start = start_of(arm)
    if start not in _STARTS:
        return str(arm.get("name", MISSING))
    suffix = str(arm.get("name", "")).partition("+")[2] or str(arm.get("transfer") or "")
    if start in ("scratch", "mean") or not suffix or suffix == "none":
        return _STARTS[start]
    return f"{_STARTS[start]} + {_TRANSFERS.get(suffix, suffix)}"


def arm_titles(arms: list[Record]) -> dict[str, str]:
    """Return a readable, unambiguous title for each arm name."""
    titles = {str(arm.get("name")): _arm_title(arm) for arm in arms}
    seen = Counter(titles.values())
    return {name: name if seen[title] > 1 else title for name, title in titles.items()}


def inside(title: str) -> str:
    """Return a title as it stands inside a sentence: no capital but in names like SimCLR."""
    first = title.split(" ")[0]
    return title[:1].lower() + title[1:] if first[1:].islower() else title
