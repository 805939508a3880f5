"""Settings that say in different ways how the data are split: together they are refused, else the one that comes first in precedence holds."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from folds.errors import UsageError

# A split is made in one way, or is there already.
CONTRADICTIONS = {
    ("folds", "holdout"): "give one of them",
    ("folds", "stratify"): "--folds FILE is a split that is made: ensemble folds --stratify makes one",
    ("folds", "repeats"): "--folds FILE is one split: train each of its repeats by itself, or leave --folds out",
    ("holdout", "repeats"): "--holdout makes one split: give one of them",
}
# A recorded `k` stands beside the `folds` or the `holdout` that it was counted in, so it contradicts neither in one place.
_INSTEAD_OF = {
    "k": ("holdout",),
    "holdout": ("folds", "repeats"),
    "folds": ("holdout", "stratify", "repeats"),
    "stratify": ("folds",),
    "repeats": ("folds", "holdout"),
}


def refuse_contradictions(given: Mapping[str, bool]) -> None:
    """Refuse two settings that contradict each other; `given` says of each key of `CONTRADICTIONS` whether it is set."""
    for (one, other), hint in CONTRADICTIONS.items():
        if given[one] and given[other]:
            raise UsageError(f"--{one} and --{other} contradict each other", hint=hint)


def displace(values: MutableMapping[str, Any], layer: Mapping[str, Any]) -> None:
    """Take out of `values`, which come from further down in precedence, what those of `layer` stand in the place of."""
    for key in layer:
        for other in _INSTEAD_OF.get(key, ()):
            if other not in layer:
                values.pop(other, None)
