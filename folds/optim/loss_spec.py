"""Parse a loss expression: terms with settings, added up; without torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from folds.errors import UsageError, unknown_name

WEIGHTS = ("none", "inverse", "effective")
GRAMMAR = "[WEIGHT*]NAME[:KEY=VALUE…], joined by +, as in focal:gamma=1+.5*f1"

# Every loss with its keys and their defaults; that of `smoothing` is the recipe's.
_WEIGHTED: Mapping[str, float | str] = {"weights": "none", "beta": 0.999, "drw": 0.0}
LOSSES: dict[str, Mapping[str, float | str]] = {
    "ce": {"smoothing": 0.0},
    "wce": {"smoothing": 0.0, **_WEIGHTED, "weights": "inverse"},
    "focal": {"gamma": 2.0, "smoothing": 0.0, **_WEIGHTED},
    "ldam": {"margin": 0.5, "s": 1.0, "smoothing": 0.0, **_WEIGHTED, "weights": "effective", "drw": 0.6},
    "bce": {"smoothing": 0.0, **_WEIGHTED},
    "f1": {},
}

_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "smoothing": (lambda v: 0 <= v < 1, "from 0 to below 1"),
    "beta": (lambda v: 0 <= v < 1, "from 0 to below 1"),
    "drw": (lambda v: 0 <= v <= 1, "from 0 (at once) to 1 (never)"),
    "gamma": (lambda v: 0 <= v <= 100, "from 0 to 100"),
    "margin": (lambda v: 0 <= v <= 1000, "from 0 to 1000"),
    "s": (lambda v: 0 < v <= 1000, "above 0, up to 1000"),
}


@dataclass(frozen=True)
class Term:
    """One loss with its settings; those that it does not have stay at what changes nothing.

    Attributes
    ----------
    factor : what it is multiplied by in the sum.
    smoothing : the share of a target that is spread over all classes.
    weights : what an image counts by its class: ``none`` (all alike), ``inverse`` (1/images of the class) or
        ``effective``
        (1/effective number, with `beta`), from the share `drw` of the epochs on.
    gamma : how fast `focal` forgets what is learnt.
    margin, s : the margin of the rarest class and the scale of the logits in `ldam`.
    """

    name: str
    factor: float = 1.0
    smoothing: float = 0.0
    weights: str = "none"
    beta: float = 0.0
    drw: float = 0.0
    gamma: float = 0.0
    margin: float = 0.0
    s: float = 1.0

    @property
    def needs_counts(self) -> bool:
        """Return whether it must know how many images each class has."""
        return self.weights != "none" or self.name == "ldam"


@dataclass(frozen=True)
class LossSpec:
    """The terms of an expression, in its order."""

    expression: str
    terms: tuple[Term, ...]

    @property
    def needs_counts(self) -> bool:
        """Return whether it must know how many images each class has."""
        return any(term.needs_counts for term in self.terms)


def parse_loss(expression: str, label_smoothing: float = 0.0) -> LossSpec:
    """Read ``[WEIGHT*]NAME[:KEY=VALUE…]``, joined by ``+``: ``focal+f1``, ``.5*ce:smoothing=.1+f1``,
    ``ldam:margin=1:drw=.8``.

    Parameters
    ----------
    label_smoothing : the smoothing of the terms that do not name their own; `f1` has none.

    Raises
    ------
    UsageError : an unknown name or key, with the nearest known one; an impossible value; settings that contradict each
        other.
    """
    return LossSpec(
        expression, tuple(_parse_term(text.strip(), expression, label_smoothing) for text in expression.split("+"))
    )


def _parse_term(text: str, expression: str, label_smoothing: float) -> Term:
    weight, star, rest = text.rpartition("*")
    name, *settings = (part.strip() for part in rest.split(":"))
    if not name:
        raise UsageError(
            f"--loss {expression}: expected the name of a loss, found '{text}'",
            hint=f"{GRAMMAR}; known: {', '.join(LOSSES)}",
        )
    if name not in LOSSES:
        raise unknown_name("--loss", name, list(LOSSES))
    factor = (
        _number(weight, f"--loss {expression}: the weight of {name}", lambda v: 0 < v < math.inf, "a number above 0")
        if star
        else 1.0
    )
    values: dict[str, Any] = dict(LOSSES[name])
    if "smoothing" in values:
        values["smoothing"] = label_smoothing
    given: set[str] = set()
    for setting in settings:
        key, _, value = (part.strip() for part in setting.partition("="))
        if key not in values:
            hint = f"keys of {name}: {', '.join(values)}" if values else f"{name} has no settings"
            raise unknown_name(f"key of --loss {name}", key, list(values), hint)
        if key in given:
            raise UsageError(f"--loss {expression}: {key} of {name} is given twice")
        given.add(key)
        values[key] = _value(key, value, f"--loss {expression}: {key} of {name}")
    if "beta" in given and values["weights"] != "effective":
        raise UsageError(
            f"--loss {expression}: beta of {name} is for effective numbers only",
            hint=f"{name}:weights=effective:beta={values['beta']:g}",
        )
    if "drw" in given and values["weights"] == "none":
        raise UsageError(
            f"--loss {expression}: drw of {name} has no weights to defer",
            hint=f"{name}:weights=effective:drw={values['drw']:g}",
        )
    return Term(name, factor, **values)


def _value(key: str, text: str, where: str) -> float | str:
    if key != "weights":
        return _number(text, where, *_RANGES[key])
    if text not in WEIGHTS:
        raise unknown_name("weights of --loss", text, WEIGHTS)
    return text


def _number(text: str, where: str, fits: Callable[[float], bool], expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not fits(value):
        raise UsageError(f"{where} must be {expected}, found '{text.strip()}'")
    return value
