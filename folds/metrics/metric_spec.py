"""Parse the name of a built-in metric with settings: ``f_beta:beta=2``. It imports the standard library only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from folds.errors import UsageError, unknown_name

GRAMMAR = "NAME[:KEY=VALUE…], as in f_beta:beta=2 or sensitivity_at:specificity=.9"


@dataclass(frozen=True)
class Parameter:
    """A setting of a metric: its default and its range.

    Attributes
    ----------
    whole : whether it is a whole number.
    open_low, open_high : whether the ends of the range are excluded.
    """

    default: float
    low: float
    high: float
    open_low: bool = False
    open_high: bool = False
    whole: bool = False

    def accepts(self, value: float) -> bool:
        """Return whether a value is in the range."""
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and (not self.whole or value == int(value))

    @property
    def text(self) -> str:
        """Return the range, for messages."""
        kind = "a whole number " if self.whole else ""
        if math.isinf(self.high):
            return f"{kind}{'above' if self.open_low else 'from'} {self.low:g}"
        low = f"above {self.low:g}" if self.open_low else f"from {self.low:g}"
        return f"{kind}{low} to {'below ' if self.open_high else ''}{self.high:g}"


# Metric → its settings. `scaled` is 0 or 1.
PARAMETERS: dict[str, Mapping[str, Parameter]] = {
    "f_beta": {"beta": Parameter(1.0, 0, 100, open_low=True)},
    "pauc": {"tpr": Parameter(0.8, 0, 1, open_high=True), "scaled": Parameter(0, 0, 1, whole=True)},
    "sensitivity_at": {"specificity": Parameter(0.95, 0, 1)},
    "specificity_at": {"sensitivity": Parameter(0.95, 0, 1)},
    "top_k": {"k": Parameter(3, 1, math.inf, whole=True)},
    "within": {"error": Parameter(5.0, 0, math.inf)},
}


def is_spec(name: str, known: Mapping[str, object]) -> bool:
    """Return whether `name` is a built-in metric (a key of `known`) with settings, and no ``module:function``.

    A function cannot have an equals sign in its name, so a module of the user with the name of a metric without
    settings still works.
    """
    head, colon, rest = name.partition(":")
    return bool(colon) and (head.strip() in PARAMETERS or (head.strip() in known and "=" in rest))


def parse_spec(text: str) -> tuple[str, dict[str, float]]:
    """Return the name and all settings of ``NAME[:KEY=VALUE…]``; NAME must be a built-in metric.

    Raises
    ------
    UsageError : an unknown key (the message suggests the closest one), a repeated key, or a value out of range.
    """
    name, *settings = (part.strip() for part in text.split(":"))
    known = PARAMETERS.get(name, {})
    values = {key: one.default for key, one in known.items()}
    given: set[str] = set()
    for setting in settings:
        key, equals, value = (part.strip() for part in setting.partition("="))
        if key not in known or not equals:
            form = ":".join(f"{one}={parameter.default:g}" for one, parameter in known.items())
            hint = f"write {name}:{form}" if known else f"{name} has no settings"
            raise unknown_name(f"setting of `metric={name}`", key, list(known), hint)
        if key in given:
            raise UsageError(f"`metric={text}`: {key} is given twice")
        given.add(key)
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if math.isnan(number) or not known[key].accepts(number):
            raise UsageError(f"`metric={text}`: {key} must be {known[key].text}, found '{value}'")
        values[key] = number
    return name, values


def spec_text(name: str, values: Mapping[str, float]) -> str:
    """Return the one spelling of a metric with settings: those with their default are left out."""
    known = PARAMETERS.get(name, {})
    changed = [f"{key}={value:.10g}" for key, value in values.items() if value != known[key].default]
    return ":".join([name, *changed])
