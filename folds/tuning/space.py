"""The tables ``[space]`` and ``[tune]``: among which settings `ensemble tune` chooses, and how; the settings of each
trial.
"""

from __future__ import annotations

import math
import random
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from folds.config.recipe import Recipe, key_of, known_hint, known_settings, spellings_of
from folds.errors import EnsembleError, close_matches
from folds.utils.files import derive_seed

METRICS = ("macro_f1", "accuracy", "log_loss")
_EXAMPLE = "[space], then lr = {low = 1e-4, high = 1e-2, log = true} or batch_size = [16, 32, 64]"
_ATTEMPTS = 10_000  # at settings that no earlier trial has; a space that gives none has none left
_DIGITS = 3  # of a number that is drawn: more would only be longer to type


@dataclass(frozen=True)
class Parameter:
    """One setting and what it may be: one of `choices`, or a number from `low` to `high`, both included.

    Attributes
    ----------
    log : drawn evenly on a logarithmic scale.
    whole : whole numbers only.
    """

    key: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    @property
    def size(self) -> float:
        """Return how many different values there are; infinite for a range of numbers that need not be whole."""
        if self.choices:
            return len(self.choices)
        return self.high - self.low + 1 if self.whole else math.inf

    @property
    def largest(self) -> float:
        """Return the largest value of a setting that is a number."""
        return float(max(self.choices)) if self.choices else self.high

    def at(self, share: float) -> Any:
        """Return the value at a share in [0, 1) of the way."""
        if self.choices:
            return self.choices[int(share * len(self.choices))]
        end = self.high + 1 if self.whole else self.high
        value = (
            math.exp(math.log(self.low) + share * math.log(end / self.low))
            if self.log
            else self.low + share * (end - self.low)
        )
        if self.whole:
            return int(min(max(math.floor(value), self.low), self.high))
        return min(max(float(f"{value:.{_DIGITS}g}"), self.low), self.high)

    def to_dict(self) -> dict[str, Any]:
        """For the record."""
        if self.choices:
            return {"choices": list(self.choices)}
        return {"low": self.low, "high": self.high, "log": self.log, "int": self.whole}


@dataclass(frozen=True)
class TuneOptions:
    """How a choice is made: the table ``[tune]``.

    Attributes
    ----------
    trials : how many settings are tried; fewer where there are not so many different ones.
    folds : what they are scored on, one after the other.
    grace : epochs, of the longest trial, that each is trained for before it may be stopped.
    reduction : one in so many goes on at each comparison.
    seed : of the draws; the recipe has its own.
    cpus : cores, and threads, a trial.
    gpus : GPUs a trial, a half for two on one; None: 1 where there are any.
    parallel : trials at a time, at most; None: as many as there is room for.
    """

    trials: int = 20
    folds: tuple[int, ...] = (0,)
    grace: int = 1
    reduction: float = 3.0
    seed: int = 0
    metric: str = "macro_f1"
    cpus: int = 1
    gpus: float | None = None
    parallel: int | None = None

    @property
    def lower_is_better(self) -> bool:
        """Return whether a small score is a good one."""
        return self.metric == "log_loss"


def read_space(path: Path, table: Any) -> tuple[Parameter, ...]:
    """Return the axes of a ``[space]`` table.

    Raises
    ------
    EnsembleError : no table or an empty one, a key that is no setting of a recipe nor ``arch``, fewer than two values,
        an
        impossible range; what was found and what was expected are said.
    """
    if not isinstance(table, dict) or not table:
        found = "there is no table [space]" if table == {} else f"'space' must be a table, found {table!r}"
        raise EnsembleError(f"{path}: {found}", hint=_EXAMPLE)
    space = [_axis(f"{path}: [space]", name, value) for name, value in table.items()]
    twice = next((axis for i, axis in enumerate(space) if axis.key in [other.key for other in space[:i]]), None)
    if twice is not None:
        names = " and ".join(f"`{name}`" for name in table if key_of(name) == twice.key)
        raise EnsembleError(f"{path}: [space] {names} are two spellings of one setting", hint="give one of them")
    return tuple(space)


def _axis(where: str, name: str, value: Any) -> Parameter:
    key = key_of(name)
    kinds = known_settings()
    own = sorted({field.name for field in fields(Recipe)} - {"seed"} | {"arch"})
    if key is None or key not in own:
        if key is not None:
            hint = (
                "put it above [space]; repeats and seeds of the best are for ensemble kfold"
                if key != "seed"
                else "[tune] has a seed of the draws"
            )
            raise EnsembleError(
                f"{where} '{name}' decides the data, the folds or the draws, which all trials share", hint=hint
            )
        raise EnsembleError(
            f"{where} unknown setting '{name}'{_meant(name.replace('-', '_'), spellings_of(own))}", hint=known_hint(own)
        )
    if isinstance(value, list):
        if len(value) < 2:
            raise EnsembleError(
                f"{where} {name} = {value!r}: expected two values or more", hint="one value alone stands above [space]"
            )
        twice = next((one for i, one in enumerate(value) if one in value[:i]), None)
        if twice is not None:
            raise EnsembleError(f"{where} {name}: {twice!r} is there twice", hint="name each value once")
        return Parameter(key, tuple(value))
    if isinstance(value, dict):
        return _range(f"{where} {name}", key, value, set(typing.get_args(kinds[key])) | {kinds[key]})
    raise EnsembleError(f"{where} {name} = {value!r}: expected a list of values, or a range", hint=_EXAMPLE)


def _range(where: str, key: str, table: Mapping[str, Any], kinds: set[Any]) -> Parameter:
    if not kinds & {int, float}:
        raise EnsembleError(f"{where} is not a number, so it has no range", hint=f"a list of values: {key} = [A, B]")
    known = ("low", "high", "log", "int")
    wrong = next((name for name in table if name not in known), None)
    if wrong is not None:
        raise EnsembleError(
            f"{where}: unknown key '{wrong}' of a range{_meant(wrong, known)}",
            hint="{low = A, high = B}, log = true, int = true",
        )
    whole = table.get("int", float not in kinds)
    for name in ("low", "high"):
        number = table.get(name)
        if (
            isinstance(number, bool)
            or not isinstance(number, int if whole else int | float)
            or not math.isfinite(number)
        ):
            expected = "a whole number" if whole else "a number"
            raise EnsembleError(f"{where}: {name} must be {expected}, found {number!r}", hint="{low = A, high = B}")
    log = table.get("log", False)
    for name, flag in (("log", log), ("int", whole)):
        if not isinstance(flag, bool):
            raise EnsembleError(f"{where}: {name} must be true or false, found {flag!r}")
    if float not in kinds and not whole:
        raise EnsembleError(f"{where} is a whole number, found int = false", hint="leave int out")
    low, high = table["low"], table["high"]
    if low >= high:
        raise EnsembleError(f"{where}: low must be below high, found {low} and {high}")
    if log and low <= 0:
        raise EnsembleError(
            f"{where}: a logarithmic range begins above 0, found {low}", hint="a low above 0, or without log"
        )
    return Parameter(key, (), low, high, log, whole)


def read_options(path: Path, table: Any, trials: int | None = None) -> TuneOptions:
    """Return the options of a ``[tune]`` table.

    Parameters
    ----------
    trials : instead of the table's.

    Raises
    ------
    EnsembleError : an unknown key (the nearest are offered) or an impossible value.
    """
    if not isinstance(table, dict):
        raise EnsembleError(f"{path}: 'tune' must be a table, found {table!r}", hint="[tune], then trials = 20")
    known = [field.name for field in fields(TuneOptions)]
    values: dict[str, Any] = {}
    for name, value in table.items():
        key = name.replace("-", "_")
        if key not in known:
            raise EnsembleError(
                f"{path}: [tune] unknown key '{name}'{_meant(key, known)}", hint="known: " + ", ".join(known)
            )
        _check_option(f"{path}: [tune] {name}", key, value)
        values[key] = tuple(sorted(set(value))) if key == "folds" else value
    if trials is not None:
        _check_option("--trials", "trials", trials)
        values["trials"] = trials
    return TuneOptions(**values)


def _check_option(where: str, key: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    right, expected = {
        "folds": (
            isinstance(value, list) and value and all(type(one) is int and one >= 0 for one in value),
            "a list of folds, such as [0]",
        ),
        "metric": (value in METRICS, " or ".join(METRICS)),
        "reduction": (number and value > 1, "a number above 1"),
        "gpus": (number and (0 <= value < 1 or value == int(value) >= 0), "a share of one GPU, or a whole number"),
        "seed": (type(value) is int and value >= 0, "a whole number from 0"),
    }.get(key, (type(value) is int and value >= 1, "a whole number from 1"))
    if not right:
        close = _meant(value, METRICS) if key == "metric" and isinstance(value, str) else ""
        raise EnsembleError(f"{where}: expected {expected}, found {value!r}{close}")


def _meant(name: str, known: Sequence[str] | set[str]) -> str:
    close = close_matches(name, sorted(known))
    return f"; did you mean {' or '.join(close)}?" if close else ""


def draw(space: Sequence[Parameter], options: TuneOptions) -> list[dict[str, Any]]:
    """Return the settings of each trial, in order: all different, and each from (seed, number, setting) alone.

    So a tuning with more trials begins with the same ones, and one that goes on draws what it drew before. Where the
    space
    has no more than `options.trials` combinations, they are all of them.
    """
    drawn: list[dict[str, Any]] = []
    total = math.prod(axis.size for axis in space)
    while len(drawn) < min(options.trials, total):
        for attempt in range(_ATTEMPTS):
            shares = {
                axis.key: random.Random(derive_seed("tune", options.seed, len(drawn), axis.key, attempt)).random()
                for axis in space
            }
            one = {axis.key: axis.at(shares[axis.key]) for axis in space}
            if one not in drawn:
                drawn.append(one)
                break
        else:
            return drawn
    return drawn
