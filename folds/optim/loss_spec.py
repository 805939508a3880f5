"""Parse a loss expression: a sum of terms with settings. It does not import torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from folds.errors import UsageError, unknown_name

WEIGHTS = ("none", "inverse", "effective")
GRAMMAR = "[WEIGHT*]NAME[:KEY=VALUE…], joined by +, as in focal:gamma=1+.5*f1"

# Loss → its keys and their defaults. `smoothing` without a value of its own is that of the recipe or, without one,
# that of `default_smoothing`.
_WEIGHTED: Mapping[str, float | str] = {"weights": "none", "beta": 0.999, "drw": 0.0}
LOSSES: dict[str, Mapping[str, float | str]] = {
    "ce": {"smoothing": 0.0, "ordinal": 0.0},
    "wce": {"smoothing": 0.0, "ordinal": 0.0, **_WEIGHTED, "weights": "inverse"},
    "focal": {"gamma": 2.0, "smoothing": 0.0, **_WEIGHTED},
    "ldam": {"margin": 0.5, "s": 1.0, "smoothing": 0.0, **_WEIGHTED, "weights": "effective", "drw": 0.6},
    "bce": {"smoothing": 0.0, **_WEIGHTED},
    "logit_adjusted": {"tau": 1.0, "smoothing": 0.0, **_WEIGHTED},
    "balanced_softmax": {"smoothing": 0.0, **_WEIGHTED},
    "corn": {"smoothing": 0.0, **_WEIGHTED},
    "cumulative": {"smoothing": 0.0, **_WEIGHTED},
    "f1": {},
    "asymmetric": {"gamma_pos": 1.0, "gamma_neg": 4.0, "clip": 0.05, "smoothing": 0.0},
    "huber": {"delta": 1.0},
    "l1": {},
    "mse": {},
    "gaussian": {},
}
# Losses of several labels and of numbers (`folds.optim.column_losses`), the usual one first.
COLUMN_LOSSES: Mapping[str, tuple[str, ...]] = {
    "multilabel": ("bce", "asymmetric", "focal"),
    "regression": ("huber", "l1", "mse", "gaussian"),
}
GAUSSIAN = "gaussian"  # it needs a model with a second output for each number
# Losses that only a task of columns has.
_OF_COLUMNS = {"asymmetric": "multilabel"} | dict.fromkeys(COLUMN_LOSSES["regression"], "regression")
# Losses of ordered classes that need a model with one output fewer than classes (`folds.models.ordinal_head`).
ORDERED = ("corn", "cumulative")
# Losses that can be added to them: functions of the class probabilities.
_BESIDE_ORDERED = (*ORDERED, "ce", "wce", "focal", "f1")
# Losses to which smoothing belongs. The others are made for hard targets: focal's weights are of the true class, the
# margin of ldam is that of the true class, bce has no distribution over classes, and a target spread over all classes
# would pull adjusted logits to the rarest ones.
_SMOOTHED = ("ce", "wce")
SMOOTHING = 0.1

_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "smoothing": (lambda v: 0 <= v < 1, "from 0 to below 1"),
    "beta": (lambda v: 0 <= v < 1, "from 0 to below 1"),
    "drw": (lambda v: 0 <= v <= 1, "from 0 (from the start) to 1 (never)"),
    "gamma": (lambda v: 0 <= v <= 100, "from 0 to 100"),
    "ordinal": (lambda v: 0 < v <= 50, "above 0, up to 50"),
    "tau": (lambda v: 0 <= v <= 10, "from 0 (cross-entropy) to 10"),
    "margin": (lambda v: 0 <= v <= 1000, "from 0 to 1000"),
    "s": (lambda v: 0 < v <= 1000, "above 0, up to 1000"),
    "gamma_pos": (lambda v: 0 <= v <= 100, "from 0 to 100"),
    "gamma_neg": (lambda v: 0 <= v <= 100, "from 0 to 100"),
    "clip": (lambda v: 0 <= v < 1, "from 0 to below 1"),
    "delta": (lambda v: 0 < v <= 1000, "above 0, up to 1000"),
}


@dataclass(frozen=True)
class Term:
    """One loss with its settings; the settings of other losses have values without effect.

    Attributes
    ----------
    factor : the weight of the loss in the sum.
    smoothing : share of a target that is spread over all classes.
    weights : weight of an image by its class: ``none`` (equal weights), ``inverse`` (1/images of the class) or
        ``effective`` (1/effective number of images, with `beta`). The weights apply from the share `drw` of the epochs.
    gamma : exponent of `focal`; a larger value reduces the weight of well-classified images more.
    margin, s : margin of the rarest class, and scale of the logits, in `ldam`.
    tau : strength of the adjustment in `logit_adjusted`.
    ordinal : if above 0, the target of grade c is spread over all grades j in proportion to exp(−ordinal·|j − c|).
    gamma_pos, gamma_neg, clip : of `asymmetric`: the exponents for labels that are there and that are not, and what is
        subtracted from the probability of a label that is not there.
    delta : of `huber`: the error up to which it is quadratic, in standard deviations of the number.
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
    tau: float = 1.0
    ordinal: float = 0.0
    gamma_pos: float = 0.0
    gamma_neg: float = 0.0
    clip: float = 0.0
    delta: float = 1.0

    @property
    def is_of_grades(self) -> bool:
        """Return whether the loss needs ordered classes."""
        return self.name in ORDERED or self.ordinal > 0

    @property
    def needs_counts(self) -> bool:
        """Return whether the loss needs the number of images of each class."""
        return self.weights != "none" or self.name in ("ldam", "logit_adjusted", "balanced_softmax")


@dataclass(frozen=True)
class LossSpec:
    """The terms of a loss expression, in its order."""

    expression: str
    terms: tuple[Term, ...]

    @property
    def needs_counts(self) -> bool:
        """Return whether a term needs the number of images of each class."""
        return any(term.needs_counts for term in self.terms)

    @property
    def ordered_head(self) -> str | None:
        """Return the loss of `ORDERED` that the model must be made for; None without one."""
        return next((term.name for term in self.terms if term.name in ORDERED), None)

    @property
    def is_of_grades(self) -> bool:
        """Return whether a term needs ordered classes."""
        return any(term.is_of_grades for term in self.terms)

    @property
    def has_spread(self) -> bool:
        """Return whether a term learns the variance of each number as well."""
        return any(term.name == GAUSSIAN for term in self.terms)

    def check_task(self, task: str) -> None:
        """Raise UsageError if a term is not a loss of this task.

        Parameters
        ----------
        task : a task of columns, ``multilabel`` or ``regression``; other tasks are those of one class per image.
        """
        fitting = COLUMN_LOSSES.get(task) or tuple(name for name in LOSSES if name not in _OF_COLUMNS)
        wrong = next((term.name for term in self.terms if term.name not in fitting), None)
        if wrong is None:
            return
        if task in COLUMN_LOSSES:
            hint = f"losses of this task: {', '.join(fitting)}"
            raise UsageError(f"`loss={self.expression}`: {wrong} is not a loss of `task={task}`", hint=hint)
        raise UsageError(
            f"`loss={self.expression}`: {wrong} is a loss of `task={_OF_COLUMNS[wrong]}`",
            hint=f"losses of classes: {', '.join(fitting)}",
        )


def default_smoothing(losses: Iterable[str]) -> float | None:
    """Return the label smoothing that the terms of these expressions have by default: 0.1, 0, or None if they differ.

    Raises
    ------
    UsageError : an invalid expression.
    """
    terms = {(term.name, term.ordinal > 0) for loss in losses for term in parse_loss(loss).terms if term.name != "f1"}
    smoothed = {(name, spread) for name, spread in terms if name in _SMOOTHED and not spread}
    return (SMOOTHING if smoothed == terms else None) if smoothed else 0.0


def parse_loss(expression: str, label_smoothing: float | None = 0.0) -> LossSpec:
    """Parse ``[WEIGHT*]NAME[:KEY=VALUE…]``, joined by ``+``: ``.5*ce:smoothing=.1+f1``, ``ldam:margin=1:drw=.8``.

    Parameters
    ----------
    label_smoothing : smoothing of the terms without a smoothing of their own; `f1` has none. None: 0.1 for `ce` and
        `wce`, none for the others.

    Raises
    ------
    UsageError : an unknown name or key (the message suggests the closest ones), an invalid value, or settings that
        contradict each other.
    """
    terms = tuple(_parse_term(text.strip(), expression, label_smoothing) for text in expression.split("+"))
    ordered = [term.name for term in terms if term.name in ORDERED]
    other = next((term.name for term in terms if ordered and term.name not in _BESIDE_ORDERED), None)
    if len(set(ordered)) > 1 or other is not None:
        raise UsageError(
            f"`loss={expression}`: {ordered[0]} cannot be added to {other or ordered[-1]}, which needs other outputs",
            hint=f"{ordered[0]} goes with ce, wce, focal and f1: {ordered[0]}+.5*f1",
        )
    return LossSpec(expression, terms)


def _parse_term(text: str, expression: str, label_smoothing: float | None) -> Term:
    weight, star, rest = text.rpartition("*")
    name, *settings = (part.strip() for part in rest.split(":"))
    if not name:
        raise UsageError(
            f"`loss={expression}`: expected the name of a loss, found '{text}'",
            hint=f"{GRAMMAR}; known: {', '.join(LOSSES)}",
        )
    if name not in LOSSES:
        raise unknown_name("`loss`", name, list(LOSSES))
    factor = (
        _number(weight, f"`loss={expression}`: the weight of {name}", lambda v: 0 < v < math.inf, "a number above 0")
        if star
        else 1.0
    )
    values: dict[str, Any] = dict(LOSSES[name])
    if "smoothing" in values:
        spread = any(setting.partition("=")[0].strip() == "ordinal" for setting in settings)
        own = SMOOTHING if name in _SMOOTHED and not spread else 0.0
        values["smoothing"] = own if label_smoothing is None else label_smoothing
    given: set[str] = set()
    for setting in settings:
        key, _, value = (part.strip() for part in setting.partition("="))
        if key not in values:
            hint = f"keys of {name}: {', '.join(values)}" if values else f"{name} has no settings"
            raise unknown_name(f"key of `loss={name}`", key, list(values), hint)
        if key in given:
            raise UsageError(f"`loss={expression}`: {key} of {name} is given twice")
        given.add(key)
        values[key] = _value(key, value, f"`loss={expression}`: {key} of {name}")
    if "ordinal" in given and values["smoothing"]:
        raise UsageError(
            f"`loss={expression}`: ordinal and label smoothing of {name} both spread the target over the classes",
            hint="give one of them: ordinal gives more to the neighboring grades",
        )
    if "beta" in given and values["weights"] != "effective":
        raise UsageError(
            f"`loss={expression}`: beta of {name} needs weights=effective, found weights={values['weights']}",
            hint=f"{name}:weights=effective:beta={values['beta']:g}",
        )
    if "drw" in given and values["weights"] == "none":
        raise UsageError(
            f"`loss={expression}`: drw of {name} needs class weights, found weights=none",
            hint=f"{name}:weights=effective:drw={values['drw']:g}",
        )
    return Term(name, factor, **values)


def _value(key: str, text: str, subject: str) -> float | str:
    if key != "weights":
        return _number(text, subject, *_RANGES[key])
    if text not in WEIGHTS:
        raise unknown_name("weights of `loss`", text, WEIGHTS)
    return text


def _number(text: str, subject: str, is_valid: Callable[[float], bool], valid_range: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not is_valid(value):
        raise UsageError(f"{subject} must be {valid_range}, found '{text.strip()}'")
    return value
