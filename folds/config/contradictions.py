"""Refuse settings that contradict each other, and let settings of a higher precedence replace others."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from folds.errors import UsageError

# Settings that make or choose a split in different ways exclude each other.
CONTRADICTIONS = {
    ("holdout", "k"): "`holdout` makes a single split: give one of them",
    ("folds", "holdout"): "give one of them",
    ("folds", "stratify"): "`folds=FILE` is an existing split; create a stratified one with ensemble folds --stratify",
    ("folds", "repeats"): "`folds=FILE` is one split: train each of its repeats separately, or omit `folds`",
    ("holdout", "repeats"): "`holdout` makes a single split: give one of them",
    ("fold_column", "holdout"): "give one of them",
    ("fold_column", "stratify"): "`fold_column` is an existing split: omit it to make a stratified one",
    ("fold_column", "repeats"): "`fold_column` is one split: omit it to make several",
    **{
        ("leave_out", other): f"`leave_out` makes one fold of each value of a column: omit `{other}`"
        for other in ("k", "folds", "fold_column", "holdout", "stratify", "repeats", "group_within")
    },
    ("folds", "group_within"): "`folds=FILE` is an existing split; create one with ensemble folds --group-within",
    ("fold_column", "group_within"): "`fold_column` is an existing split: omit it to make a balanced one",
}
# Settings that a setting with higher precedence removes. A run records `k` beside its `folds` or `holdout`, so `k` does
# not contradict them within one place.
_REPLACES = {
    "k": ("holdout", "leave_out"),
    "holdout": ("folds", "repeats", "fold_column", "leave_out"),
    "folds": ("holdout", "stratify", "repeats", "leave_out", "group_within"),
    "fold_column": ("folds", "holdout", "stratify", "repeats", "leave_out", "group_within"),
    "stratify": ("folds", "fold_column", "leave_out"),
    "repeats": ("folds", "holdout", "fold_column", "leave_out"),
    "group_within": ("folds", "fold_column", "leave_out"),
    "leave_out": ("k", "folds", "holdout", "fold_column", "stratify", "repeats", "group_within"),
}


def check_contradictions(given: Mapping[str, bool]) -> None:
    """Raise UsageError if two settings contradict each other.

    Parameters
    ----------
    given : key of `CONTRADICTIONS` → whether it is set.
    """
    for (one, other), hint in CONTRADICTIONS.items():
        if given.get(one) and given.get(other):
            raise UsageError(f"`{one}` and `{other}` contradict each other", hint=hint)


def displace(values: MutableMapping[str, Any], layer: Mapping[str, Any]) -> None:
    """Remove from `values`, which have lower precedence, the settings that those of `layer` replace."""
    for key in layer:
        for other in _REPLACES.get(key, ()):
            if other not in layer:
                values.pop(other, None)
