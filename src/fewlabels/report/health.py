"""What is known of the data, the machine and the settings behind the numbers."""

from __future__ import annotations

import json
from typing import Any

from fewlabels.data.likeness import APART
from fewlabels.report import words
from fewlabels.report.numbers import histogram, number_facts
from fewlabels.report.reading import Folder
from fewlabels.report.words import Record, number, record, records

_LEAK = ("split_a", "path_a", "split_b", "path_b")
_CONFLICT = ("path_a", "label_a", "path_b", "label_b")
_CLASSES, _LISTED, _CONFIG = 40, 50, 30_000
_VERSIONS = (
    ("fewlabels", "fewlabels"),
    ("commit", "commit"),
    ("python", "Python"),
    ("torch", "PyTorch"),
    ("platform", "system"),
    ("machine", "machine"),
    ("cpu", "processor"),
    ("cores", "cores"),
    ("threads", "threads"),
    ("device", "device"),
)


def data_health(found: Record) -> Record | None:
    """Return the facts of `inspect` in reading order, and what deserves a second look."""
    if not found:
        return None
    counts = {str(k): v for k, v in record(found.get("classes")).items() if number(v) is not None}
    return {
        "facts": _facts(found, counts),
        "classes": _class_bars(counts),
        "rest": _rest(counts),
        "histogram": histogram(record(found.get("target"))),
        "warnings": words.texts(found.get("warnings")),
        "quarantine": _rows(found.get("quarantine"), ("path", "reason")),
        "duplicates": [words.texts(group) for group in _list(found.get("duplicates"))][:_LISTED],
        "leaks": [_leak(row) for row in records(found.get("leaks"))[:_LISTED]],
        "conflicts": [_conflict(row) for row in records(found.get("label_conflicts"))[:_LISTED]],
    }


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _rows(value: Any, keys: tuple[str, ...]) -> list[list[str]]:
    """Return the named fields of each row as text."""
    return [[words.name_of(row.get(key)) for key in keys] for row in records(value)[:_LISTED]]


def _leak(row: Record) -> list[str]:
    """Return a leak as cells; leaks of an earlier version are exact."""
    return [*(words.name_of(row.get(key)) for key in _LEAK), _kind(row)]


def _conflict(row: Record) -> list[str]:
    return [*(words.name_of(row.get(key)) for key in _CONFLICT), _kind(row)]


def _kind(row: Record) -> str:
    near = row.get("kind") == "near"
    return f"near, likeness {number(row.get('likeness')) or 0:.3f}" if near else "exact"


def _facts(found: Record, counts: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return (label, value, tone): a tone of ``good`` or ``look`` where one can be given."""
    facts = [
        ("images", words.count(found.get("images")), ""),
        ("with a label", words.count(found.get("labelled")), ""),
        ("without", words.count(found.get("unlabelled")), ""),
        ("classes", str(len(counts)) if counts else words.MISSING, ""),
    ]
    facts += number_facts(record(found.get("target")))
    splits = record(found.get("splits"))
    facts += [(f"in {name}", words.count(amount), "") for name, amount in splits.items()]
    imbalance = number(found.get("imbalance"))
    if imbalance is not None:
        tone = "look" if imbalance >= 3 else "good"
        facts.append(("largest class over smallest", f"{imbalance:.1f}{words.TIMES}", tone))
    facts += likeness_facts(record(found.get("likeness")))
    troubles = (
        ("unreadable files", found.get("unreadable")),
        ("groups of duplicates", _length(found.get("duplicates"))),
        ("leaks between splits", _length(found.get("leaks"))),
    )
    for label, value in troubles:
        amount = number(value)
        if amount is not None:
            facts.append((label, words.count(amount), "look" if amount else "good"))
    return [fact for fact in facts if fact[1] != words.MISSING]


def likeness_facts(found: Record) -> list[tuple[str, str, str]]:
    """Return how near unlabelled images are to labelled ones, and how varied both are."""
    auc = number(found.get("auc"))
    if auc is None:
        return []
    pairs = f"in {100 * auc:.0f} of 100 pairs (50 by guessing)"
    varied = record(found.get("variety"))
    both = [number(varied.get(name)) for name in ("unlabelled", "labelled")]
    facts = [("unlabelled told from labelled", pairs, "look" if auc >= APART else "good")]
    if None not in both:
        facts.append(("variety, unlabelled and labelled", f"{both[0]:.0f} and {both[1]:.0f}", ""))
    return facts


def _length(value: Any) -> int | None:
    return len(value) if isinstance(value, list) else None


def _class_bars(counts: dict[str, Any]) -> list[Record]:
    """Return the classes with their counts, smallest first beyond the number shown."""
    most = max(counts.values(), default=0) or 1
    kept = counts.items()
    if len(counts) > _CLASSES:
        kept = dict(sorted(counts.items(), key=lambda item: item[1])[:_CLASSES]).items()
    return [
        {"name": name, "count": words.count(n), "bar": round(100 * n / most, 1)} for name, n in kept
    ]


def _rest(counts: dict[str, Any]) -> str:
    left = len(counts) - _CLASSES
    return f"The {_CLASSES} smallest classes; {left} larger ones are left out." if left > 0 else ""


def settings(folder: Folder) -> Record:
    """Return configuration, versions, and the command that repeats the run."""
    found, results = folder.comparison, folder.results
    environment = {**record(results.get("environment")), **record(found.get("environment"))}
    config = folder.config
    if not config:
        value = found.get("config") or results.get("config")
        config = json.dumps(value, indent=2, ensure_ascii=False) if value else ""
    shown = [(label, environment[key]) for key, label in _VERSIONS if environment.get(key)]
    known = {key for key, _ in _VERSIONS}
    shown += [(key, value) for key, value in environment.items() if key not in known and value]
    return {
        "config": config[:_CONFIG] + ("\n… (cut)" if len(config) > _CONFIG else ""),
        "versions": [(label, str(value)) for label, value in shown],
        "command": str(found.get("command") or results.get("command") or ""),
        "design": _design(record(found.get("design"))),
    }


def _design(design: Record) -> list[tuple[str, str]]:
    folds = design.get("folds")
    names = (
        ("folds", "folds"),
        ("splits", "folds in all" if folds else "random splits"),
        ("draws", "repeats" if folds else "draws of labels"),
        ("pretraining_seeds", "pre-training seeds"),
        ("images_train", "images to train on"),
        ("images_test", "test images"),
    )
    facts = [(label, words.count(design.get(key))) for key, label in names]
    timed = number(design.get("budget_seconds"))
    budget = words.budget(design.get("budget")) if timed is None else words.duration(timed)
    facts.append(("budget of each arm and draw", budget))
    return [fact for fact in facts if fact[1] != words.MISSING]
