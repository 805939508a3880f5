"""Read the tables ``[space]`` and ``[tune]`` of `ensemble tune`, and sample the settings of each trial."""

from __future__ import annotations

import math
import random
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from folds.config.column_tasks import USUAL_METRIC
from folds.config.lookup import key_of, known_hint, known_settings, spellings_of
from folds.config.recipe import Recipe
from folds.errors import EnsembleError, close_matches
from folds.metrics.classification import COLUMN_METRICS, METRICS, recorded_metric
from folds.metrics.custom import find_metric
from folds.utils.files import derive_seed
from folds.utils.schema import shown

ALWAYS = ("macro_f1", "accuracy", "log_loss")  # measured after every epoch, whatever the metric
_EXAMPLE = "[space], then lr = {low = 1e-4, high = 1e-2, log = true} or batch_size = [16, 32, 64]"
_ATTEMPTS = 10_000  # to sample settings that differ from all earlier trials, before the space counts as exhausted
_MAX_TRIALS = 2_000
_MAX_CHOICES = 1_000  # of one setting
_DIGITS = 3  # significant digits of a sampled number, so that it is short to type


@dataclass(frozen=True)
class Parameter:
    """One setting of the space and its values: the `choices`, or the numbers from `low` to `high`, both included.

    Attributes
    ----------
    log : sampled uniformly on a logarithmic scale.
    integer : integers only.
    """

    key: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    integer: bool = False

    @property
    def size(self) -> float:
        """Return the number of different values; infinite for a range of real numbers."""
        if self.choices:
            return len(self.choices)
        return self.high - self.low + 1 if self.integer else math.inf

    @property
    def maximum(self) -> float:
        """Return the largest value of a numeric setting."""
        return float(max(self.choices)) if self.choices else self.high

    def at(self, share: float) -> Any:
        """Return the quantile `share`, in [0, 1), of the values."""
        if self.choices:
            return self.choices[int(share * len(self.choices))]
        end = self.high + 1 if self.integer else self.high
        value = (
            math.exp(math.log(self.low) + share * math.log(end / self.low))
            if self.log
            else self.low + share * (end - self.low)
        )
        if self.integer:
            return int(min(max(math.floor(value), self.low), self.high))
        return min(max(float(f"{value:.{_DIGITS}g}"), self.low), self.high)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``tuning.json``."""
        if self.choices:
            return {"choices": list(self.choices)}
        return {"low": self.low, "high": self.high, "log": self.log, "int": self.integer}


@dataclass(frozen=True)
class TuneOptions:
    """The options of a study: the table ``[tune]``.

    Attributes
    ----------
    trials : number of trials; a space with fewer combinations of values has fewer trials.
    folds : folds that each trial is trained and scored on, one after the other.
    grace : grace period of ASHA: epochs, of the longest trial, that each trial is trained for before it can be stopped.
    reduction : reduction factor of ASHA: one trial in `reduction` continues at each comparison.
    seed : seed of the sampled settings; the recipe has its own seed.
    metric : metric by which trials are compared; if it is not given, that of the task (`folds.tuning.objective`).
    cpus : cores and threads per trial.
    gpus : GPUs per trial; 0.5 trains two trials on one GPU. None for 1, or 0 without a GPU.
    parallel : maximum number of trials in parallel; None for as many as the cluster has room for.
    """

    trials: int = 20
    folds: tuple[int, ...] = (0,)
    grace: int = 1
    reduction: float = 3.0
    seed: int = 0
    metric: str = USUAL_METRIC
    cpus: int = 1
    gpus: float | None = None
    parallel: int | None = None

    @property
    def lower_is_better(self) -> bool:
        """Return whether a lower score is better."""
        return not find_metric(self.metric).greater_is_better


def read_space(path: Path | str, table: Any) -> tuple[Parameter, ...]:
    """Return the parameters of a ``[space]`` table.

    Raises
    ------
    EnsembleError : no table or an empty one, a key that is neither a setting of a recipe nor ``arch``, fewer than two
        values, or an invalid range.
    """
    if not isinstance(table, dict) or not table:
        found = "the table [space] is missing" if table == {} else f"'space' must be a table, found {shown(table)}"
        raise EnsembleError(f"{path}: {found}", hint=_EXAMPLE)
    space = [_parameter(f"{path}: [space]", name, value) for name, value in table.items()]
    twice = next((axis for i, axis in enumerate(space) if axis.key in [other.key for other in space[:i]]), None)
    if twice is not None:
        names = " and ".join(f"`{name}`" for name in table if key_of(name) == twice.key)
        raise EnsembleError(f"{path}: [space] {names} are two spellings of one setting", hint="give one of them")
    return tuple(space)


def _parameter(where: str, name: str, value: Any) -> Parameter:
    key = key_of(name)
    kinds = known_settings()
    own = sorted({field.name for field in fields(Recipe)} - {"seed"} | {"arch"})
    if key is None or key not in own:
        if key is not None:
            hint = (
                "put it above [space]; ensemble kfold repeats the best trial with other folds or seeds"
                if key != "seed"
                else "the seed of the sampled settings is [tune] seed"
            )
            raise EnsembleError(
                f"{where} '{name}' determines the data, the folds or the seed, which are the same for all trials",
                hint=hint,
            )
        raise EnsembleError(
            f"{where} unknown setting '{name}'{_meant(name.replace('-', '_'), spellings_of(own))}", hint=known_hint(own)
        )
    if isinstance(value, list):
        if len(value) < 2:
            raise EnsembleError(
                f"{where} {name} = {shown(value)}: expected two values or more", hint="put a single value above [space]"
            )
        if len(value) > _MAX_CHOICES:
            raise EnsembleError(f"{where} {name}: expected at most {_MAX_CHOICES:,} values, found {len(value):,}")
        twice = next((one for i, one in enumerate(value) if one in value[:i]), None)
        if twice is not None:
            raise EnsembleError(f"{where} {name}: found {shown(twice)} twice", hint="list each value once")
        return Parameter(key, tuple(value))
    if isinstance(value, dict):
        return _range(f"{where} {name}", key, value, set(typing.get_args(kinds[key])) | {kinds[key]})
    raise EnsembleError(f"{where} {name} = {shown(value)}: expected a list of values, or a range", hint=_EXAMPLE)


def _range(where: str, key: str, table: Mapping[str, Any], kinds: set[Any]) -> Parameter:
    if not kinds & {int, float}:
        raise EnsembleError(f"{where} is not a number, so it has no range", hint=f"list its values: {key} = [A, B]")
    known = ("low", "high", "log", "int")
    wrong = next((name for name in table if name not in known), None)
    if wrong is not None:
        raise EnsembleError(
            f"{where}: unknown key '{wrong}' of a range{_meant(wrong, known)}",
            hint="{low = A, high = B}, log = true, int = true",
        )
    is_integer = table.get("int", float not in kinds)
    for name in ("low", "high"):
        number = table.get(name)
        if (
            isinstance(number, bool)
            or not isinstance(number, int if is_integer else int | float)
            or not math.isfinite(number)
        ):
            expected = "a whole number" if is_integer else "a number"
            raise EnsembleError(
                f"{where}: {name} must be {expected}, found {shown(number)}", hint="{low = A, high = B}"
            )
    log = table.get("log", False)
    for name, flag in (("log", log), ("int", is_integer)):
        if not isinstance(flag, bool):
            raise EnsembleError(f"{where}: {name} must be true or false, found {shown(flag)}")
    if float not in kinds and not is_integer:
        raise EnsembleError(f"{where} is a whole number, found int = false", hint="remove int")
    low, high = table["low"], table["high"]
    if low >= high:
        raise EnsembleError(f"{where}: low must be below high, found {low} and {high}")
    if log and low <= 0:
        raise EnsembleError(
            f"{where}: low of a logarithmic range must be above 0, found {low}", hint="raise low, or remove log"
        )
    return Parameter(key, (), low, high, log, is_integer)


def read_options(path: Path | str, table: Any, trials: int | None = None, metric: str | None = None) -> TuneOptions:
    """Return the options of a ``[tune]`` table.

    Parameters
    ----------
    trials : replaces the number of trials in the table.

    Raises
    ------
    EnsembleError : an unknown key (with close matches) or an invalid value.
    """
    if not isinstance(table, dict):
        raise EnsembleError(f"{path}: 'tune' must be a table, found {shown(table)}", hint="[tune], then trials = 20")
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
        if key == "metric":  # the one spelling of its settings, as in the history of a fold
            values[key] = find_metric(value).name
    if trials is not None:
        _check_option("`trials`", "trials", trials)
        values["trials"] = trials
    if metric is not None:
        values["metric"] = find_metric(metric).name
    return TuneOptions(**values)


def _check_option(where: str, key: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63
    valid, expected = {
        "folds": (
            isinstance(value, list) and value and all(type(one) is int and one >= 0 for one in value),
            "a list of folds, such as [0]",
        ),
        "metric": (recorded_metric(value) is not None, " or ".join([*METRICS, *COLUMN_METRICS])),
        "reduction": (number and value > 1, "a number above 1"),
        "gpus": (number and (0 <= value < 1 or value == int(value) >= 0), "a fraction of one GPU, or a whole number"),
        "trials": (type(value) is int and 1 <= value <= _MAX_TRIALS, f"a whole number from 1 to {_MAX_TRIALS:,}"),
        "seed": (type(value) is int and value >= 0, "a whole number from 0"),
    }.get(key, (type(value) is int and value >= 1, "a whole number from 1"))
    if not valid:
        close = _meant(value, [*METRICS, *COLUMN_METRICS]) if key == "metric" and isinstance(value, str) else ""
        raise EnsembleError(f"{where}: expected {expected}, found {shown(value)}{close}")


def _meant(name: str, known: Sequence[str] | set[str]) -> str:
    close = close_matches(name, sorted(known))
    return f"; did you mean {' or '.join(close)}?" if close else ""


def sample_settings(space: Sequence[Parameter], options: TuneOptions) -> list[dict[str, Any]]:
    """Return the settings of each trial, by number: all different, and each a function of (seed, number, setting).

    So a study with more trials starts with the same ones, and a resumed study samples the same settings again. If the
    space has at most `options.trials` combinations, all of them are returned.
    """
    sampled: list[dict[str, Any]] = []
    total = math.prod(axis.size for axis in space)
    while len(sampled) < min(options.trials, total):
        for attempt in range(_ATTEMPTS):
            shares = {
                axis.key: random.Random(derive_seed("tune", options.seed, len(sampled), axis.key, attempt)).random()
                for axis in space
            }
            one = {axis.key: axis.at(shares[axis.key]) for axis in space}
            if one not in sampled:
                sampled.append(one)
                break
        else:
            return sampled
    return sampled
