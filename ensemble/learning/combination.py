"""Describe how runs are combined into one prediction, as plain numbers: the result of every fitted method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.further_columns import ColumnModel
from ensemble.learning.stack import Stack
from ensemble.pooling.pooling import Pooling
from ensemble.voting.base import FLOOR, Options, VoteInput
from ensemble.voting.vote import DEFAULTS, METHODS, method_of
from folds.errors import EnsembleError
from folds.metrics.classification import Metric
from folds.utils.files import sha256_bytes
from folds.utils.number_arrays import NumberFields
from folds.utils.numeric import softmax
from folds.utils.schema import (
    ANYTHING,
    NUMBER,
    ONE_LINE,
    TEXT,
    either,
    list_of,
    mapping_of,
    one_of,
    optional,
    raise_problems,
    validate_fields,
)

# Range of fitted temperatures, and of temperatures in files.
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
_DIGITS = 9  # represents a float32 exactly
_MAX_NUMBER = 1e6  # limit of numbers in files: fitted values are far smaller, and sums and products stay finite
_HINT = "blend again to write the file anew"
# Numbers of a field that are written as text; a stacked model of 1,000 classes has millions, and is kept as an array.
LARGE = 4096
MAX_NUMBERS = 1 << 26  # of all arrays of a combination: 512 MiB
ARRAYS = ("weights", "temperature_before", "offset_before", "offset_after", "stacked", "bias")


@dataclass(frozen=True)
class Calibration:
    """The calibration p → softmax(log p / temperature + offset).

    Attributes
    ----------
    temperature : scalar, or (runs, 1, 1) before pooling; values above 1 make predictions less confident.
    offset : (classes,), or (runs, 1, classes) before pooling; None for no offset.
    """

    temperature: NDArray[np.float64]
    offset: NDArray[np.float64] | None = None

    def __call__(self, probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the calibrated probabilities (…, m, classes); values below `FLOOR` count as `FLOOR`."""
        logs = np.log(np.maximum(probabilities, FLOOR, dtype=np.float64))
        logs /= self.temperature
        if self.offset is not None:
            logs += self.offset
        return softmax(logs, out=logs)


@dataclass(frozen=True)
class Combination:
    """A combination of runs into one prediction.

    The steps are `before` for each run, the pool (or the stacked model), `after`, and `bias`. The bias is added to log
    p. It adapts decisions to a metric, so the probabilities are no longer calibrated.

    Attributes
    ----------
    runs : names of the runs, in order.
    pool : a key of `ensemble.voting.vote.METHODS`.
    weights : (runs,), or (runs, classes) with weights for each class; ≥ 0.
    before, after : calibration of each run, and of the pooled prediction.
    stacked : (runs × classes + 1, classes) coefficients of log p (minus the mean of each row) and, in the last row, the
        intercept; used instead of a pool.
    bias : (classes,).
    summary : the fitted values in a few words.
    power, trim : parameters of the pools ``power`` and ``trimmed``; None for other pools and for the defaults.
    pooling : how each run's images of a person become one row; the steps above are then for people. None for images.
    extra : what further columns of the samples add to the logits of a stacked model.
    """

    runs: tuple[str, ...]
    pool: str = "soft"
    weights: NDArray[np.float64] | None = None
    before: Calibration | None = None
    after: Calibration | None = None
    stacked: NDArray[np.float64] | None = None
    bias: NDArray[np.float64] | None = None
    summary: str = ""
    power: float | None = None
    trim: float | None = None
    pooling: Pooling | None = None
    extra: ColumnModel | None = None

    @property
    def options(self) -> Options:
        """Return the options of the pool."""
        return replace(
            DEFAULTS,
            power=DEFAULTS.power if self.power is None else self.power,
            trim=DEFAULTS.trim if self.trim is None else self.trim,
        )

    @property
    def shares(self) -> NDArray[np.float64]:
        """Return (runs,) the total weight of each run; the sum is 1."""
        if self.stacked is not None:
            size = np.abs(self.stacked[:-1]).reshape(len(self.runs), -1).sum(axis=1)
        elif self.weights is None:
            size = np.ones(len(self.runs))
        else:
            size = self.weights if self.weights.ndim == 1 else self.weights.mean(axis=1)
        return size / size.sum() if size.sum() > 0 else np.full(len(self.runs), 1 / len(self.runs))

    def apply(self, inputs: VoteInput) -> tuple[NDArray[np.float64], int]:
        """Return (m, classes) probabilities, whose largest is the predicted class, and the number of ties.

        Runs are present where `inputs.weights` (runs, m) are above 0. On rows where no present run has a weight above 0
        in the combination, all present runs get equal weights.
        """
        present = inputs.weights > 0
        values = (
            inputs.probabilities
            if self.before is None
            else np.where(present[:, :, None], self.before(inputs.probabilities), 0)
        )
        ties = 0
        if self.stacked is not None:
            pooled = _stacked(values, present, self.stacked, inputs.offset)
        elif self.weights is not None and self.weights.ndim == 2:
            pooled = _by_class(values, present, self.weights)
        else:
            run_weights = np.ones(len(self.runs)) if self.weights is None else self.weights
            pooled, ties = method_of(self.pool, self.options).combine(
                replace(inputs, probabilities=values, weights=scaled_weights(run_weights, present))
            )
        pooled = np.maximum(pooled, 0)
        # Ranks and products can be 0 in every class: these rows get the mean.
        empty = np.flatnonzero(pooled.max(axis=1) <= 0)
        if len(empty):
            pooled[empty] = np.einsum(
                "rm,rmc->mc", scaled_weights(np.ones(len(self.runs)), present)[:, empty], values[:, empty]
            )
        pooled /= pooled.sum(axis=1, keepdims=True)
        if self.after is not None:
            pooled = self.after(pooled)
        if self.bias is not None:
            pooled = pooled * np.exp(self.bias - self.bias.max())
            pooled /= pooled.sum(axis=1, keepdims=True)
        return pooled, ties

    @property
    def _arrays(self) -> dict[str, NDArray[np.float64] | None]:
        before, after = self.before, self.after
        return {
            "weights": self.weights,
            "temperature_before": None if before is None else before.temperature.reshape(-1),
            "offset_before": None if before is None or before.offset is None else before.offset[:, 0],
            "offset_after": None if after is None else after.offset,
            "stacked": self.stacked,
            "bias": self.bias,
        }

    def large_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return field → its numbers, for the fields with more than `LARGE`, which `as_record` can leave out."""
        return {name: array for name, array in self._arrays.items() if array is not None and array.size > LARGE}

    def as_record(self, inline: bool = True) -> dict[str, Any]:
        """Return the combination as plain values for a file; None for absent steps.

        Parameters
        ----------
        inline : if False, a field of `large_arrays` has only the shape and the hash of its array.
        """
        apart = {} if inline else self.large_arrays()
        numbers = {
            name: {"shape": list(apart[name].shape), "sha": array_sha(apart[name])}
            if name in apart
            else plain_numbers(array)
            for name, array in self._arrays.items()
        }
        return {
            "runs": list(self.runs),
            "pool": self.pool,
            "power": self.power,
            "trim": self.trim,
            "weights": numbers["weights"],
            "temperature_before": numbers["temperature_before"],
            "offset_before": numbers["offset_before"],
            "temperature_after": None if self.after is None else float(self.after.temperature),
            "offset_after": numbers["offset_after"],
            "stacked": numbers["stacked"],
            "bias": numbers["bias"],
            "said": self.summary,
            **({} if self.pooling is None else {"pooling": self.pooling.as_record()}),
            **({} if self.extra is None else {"extra": self.extra.as_record()}),
        }

    @staticmethod
    def from_record(
        record: Mapping[str, Any], classes: int, source: str, arrays: Mapping[str, NDArray[np.float64]] | None = None
    ) -> Combination:
        """Return the combination of a record from `as_record`; `source` is the name of the file in errors.

        Parameters
        ----------
        arrays : field → numbers that are not in the record.

        Raises
        ------
        EnsembleError : a field is missing, has the wrong type or shape for the classes and runs, or is out of range.
        """
        problems = validate_fields(record, _FIELDS)
        record = {**record, **(arrays or {})}
        problems = problems or _contradictions(record)
        raise_problems(problems, source, _HINT)
        n, numbers_of = len(record["runs"]), NumberFields(record, source, _MAX_NUMBER, _HINT).get
        weights = numbers_of("weights", (n,), (n, classes))
        if weights is not None and ((weights < 0).any() or not (weights.reshape(n, -1).sum(axis=0) > 0).all()):
            raise EnsembleError(f"{source}: 'weights' must be ≥ 0, with at least one above 0", hint=_HINT)
        temperatures, offsets = numbers_of("temperature_before", (n,)), numbers_of("offset_before", (n, classes))
        temperature_after = record.get("temperature_after")
        _check_temperatures(
            source,
            [
                *([] if temperatures is None else temperatures.tolist()),
                *([] if temperature_after is None else [temperature_after]),
            ],
        )
        before = after = None
        if temperatures is not None:
            before = Calibration(temperatures.reshape(-1, 1, 1), None if offsets is None else offsets[:, None])
        if temperature_after is not None:
            after = Calibration(np.array(float(temperature_after)), numbers_of("offset_after", (classes,)))
        return Combination(
            runs=tuple(record["runs"]),
            pool=record["pool"],
            weights=weights,
            before=before,
            after=after,
            stacked=numbers_of("stacked", (n * classes + 1, classes)),
            bias=numbers_of("bias", (classes,)),
            summary=record.get("said") or "",
            power=None if record.get("power") is None else float(record["power"]),
            trim=None if record.get("trim") is None else float(record["trim"]),
            pooling=_part_of(record, "pooling", Pooling.from_record, classes, source),
            extra=_part_of(record, "extra", ColumnModel.from_record, classes, source),
        )


_Part = TypeVar("_Part")


def _part_of(
    record: Mapping[str, Any],
    name: str,
    read: Callable[[Mapping[str, Any], int, str], _Part],
    classes: int,
    source: str,
) -> _Part | None:
    """Return a part of a combination with a record of its own; None if it is absent."""
    return None if record.get(name) is None else read(record[name], classes, source)


def array_sha(values: NDArray[np.float64]) -> str:
    """Return the SHA-256 of the numbers of an array, in order, as float64."""
    return sha256_bytes(np.ascontiguousarray(values, "<f8").data)


def _check_temperatures(source: str, temperatures: Sequence[float]) -> None:
    tolerance = 1e-6  # numbers in files are rounded
    found = np.array(temperatures)
    if ((found < MIN_TEMPERATURE * (1 - tolerance)) | (found > MAX_TEMPERATURE * (1 + tolerance))).any():
        raise EnsembleError(
            f"{source}: temperatures must be from {MIN_TEMPERATURE:g} to {MAX_TEMPERATURE:g}", hint=_HINT
        )


_VECTOR, _MATRIX = optional(list_of(NUMBER)), optional(list_of(list_of(NUMBER)))
_FIELDS = {
    "runs": list_of(ONE_LINE),
    "pool": one_of(*METHODS),
    "power": optional(NUMBER),
    "trim": optional(NUMBER),
    "weights": optional(either(_VECTOR, _MATRIX)),
    "temperature_before": _VECTOR,
    "offset_before": _MATRIX,
    "temperature_after": optional(NUMBER),
    "offset_after": _VECTOR,
    "stacked": _MATRIX,
    "bias": _VECTOR,
    "said": optional(TEXT),
    "pooling": optional(mapping_of(ANYTHING)),
    "extra": optional(mapping_of(ANYTHING)),
}


def _contradictions(record: Mapping[str, Any]) -> list[str]:
    """Return one line for each contradiction between fields that are valid on their own."""
    runs, problems = record["runs"], []
    if not runs or not all(runs) or len(set(runs)) < len(runs):
        problems.append("'runs' must be one or more names, none empty and none repeated")
    for step in ("before", "after"):
        if record.get(f"offset_{step}") is not None and record.get(f"temperature_{step}") is None:
            problems.append(f"'offset_{step}' needs 'temperature_{step}'")
    for name, pool in (("power", "power"), ("trim", "trimmed")):
        if record.get(name) is not None and record["pool"] != pool:
            problems.append(f"'{name}' needs the pool {pool}, found {record['pool']}")
    if record.get("trim") is not None and not 0 <= record["trim"] < 0.5:
        problems.append("'trim' must be from 0 to below .5")
    if record.get("extra") is not None and record.get("stacked") is None:
        problems.append("'extra' needs 'stacked'")
    return problems


Fit = Callable[[Stack, Metric, int], Combination]


@dataclass(frozen=True)
class Fitter:
    """A method of fitting a combination.

    Attributes
    ----------
    name : value of ``--method``.
    title : the method in words.
    fit : (stack, metric, seed) → `Combination`.
    is_fitted : whether anything is fitted; if not, the optimism is 0.
    adds_bias : whether it adds a class bias, which has an effect only for metrics of counts.
    """

    name: str
    title: str
    fit: Fit
    is_fitted: bool = True
    adds_bias: bool = False


def combine(stack: Stack, combination: Combination) -> NDArray[np.float32]:
    """Return (n, classes) the predictions of a combination on the samples of a stack with the same runs.

    The images of people are pooled as the combination states; a stack without images is pooled already.

    Raises
    ------
    ValueError : the combination has other runs than the stack, or another order.
    """
    if combination.runs != stack.names:
        raise ValueError(f"expected a combination of {stack.names}, the runs of the stack, found {combination.runs}")
    if combination.pooling is not None and stack.images is not None:
        stack = stack.pooled(combination.pooling)
    pool = METHODS[combination.pool]
    out = np.empty((len(stack), stack.classes), np.float32)
    offset = None
    if combination.extra is not None:
        offset = combination.extra.logits({column.name: column.texts for column in stack.extra}, len(stack))
    for part, inputs in stack.ballots(combination.stacked is None and pool.counts_votes, pool.needs_all_rows):
        out[part] = combination.apply(inputs if offset is None else replace(inputs, offset=offset[part]))[0]
    return out


def scaled_weights(run_weights: NDArray[np.float64], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return (runs, m) weights that sum to 1 over the present runs; equal ones where all present runs have weight 0."""
    weights = run_weights[:, None] * present
    total = weights.sum(axis=0)
    uncovered = total <= 0
    if uncovered.any():
        weights[:, uncovered] = present[:, uncovered]
        total = weights.sum(axis=0)
    return weights / np.where(total > 0, total, 1)


def _by_class(
    values: NDArray[np.float64], present: NDArray[np.bool_], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    if present.all():
        return np.einsum("rmc,rc->mc", values, weights / weights.sum(axis=0))
    row_weights = weights[:, None, :] * present[:, :, None]
    uncovered = row_weights.sum(axis=0) <= 0
    row_weights = np.where(uncovered[None], present[:, :, None], row_weights)
    return (row_weights * values).sum(axis=0) / row_weights.sum(axis=0)


def features(values: NDArray[np.float64], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return log p minus the mean of each run: (runs, m, classes) → (m, runs × classes).

    Absent runs get the mean of the other runs.
    """
    logs = np.log(np.maximum(values, FLOOR))
    logs -= logs.mean(axis=2, keepdims=True)
    if not present.all():
        is_present = present[:, :, None]
        mean = np.where(is_present, logs, 0).sum(axis=0) / np.maximum(present.sum(axis=0), 1)[:, None]
        logs = np.where(is_present, logs, mean)
    return logs.transpose(1, 0, 2).reshape(values.shape[1], -1)


def _stacked(
    values: NDArray[np.float64],
    present: NDArray[np.bool_],
    coefficients: NDArray[np.float64],
    offset: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    logits = features(values, present) @ coefficients[:-1] + coefficients[-1]
    if offset is not None:
        logits += offset
    logits -= logits.max(axis=1, keepdims=True)
    return np.exp(logits)


def plain_numbers(values: NDArray[np.float64] | None) -> Any:
    """Return an array as lists of numbers that are written in a file; None for None."""
    if values is None:
        return None
    if values.ndim > 1:
        return [plain_numbers(row) for row in values]
    # Stacking on the class alone has millions of zeros.
    return [float(f"{value:.{_DIGITS}g}") if value else 0.0 for value in values.tolist()]
