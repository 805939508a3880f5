"""How runs become one prediction, as plain numbers: what every fitted method gives, and what is applied to new
samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.stack import Stack
from ensemble.voting.base import FLOOR, Options, VoteInput
from ensemble.voting.vote import DEFAULTS, METHODS, method_of
from folds.errors import EnsembleError
from folds.metrics.classification import Metric
from folds.utils.numeric import softmax
from folds.utils.schema import NUMBER, ONE_LINE, TEXT, either, list_of, one_of, optional, validate_fields

# Temperatures that are looked for, and that a file may hold.
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
_DIGITS = 9  # of a float32, to the bit
_MOST = 1e6  # of any number in a file: what is learnt stays far below, and sums and products of these stay finite
_MENDED = "blend again, to have it written anew"


@dataclass(frozen=True)
class Calibration:
    """p → softmax(log p / temperature + offset): what turns confidences into frequencies.

    Attributes
    ----------
    temperature : scalar, or (runs, 1, 1) before pooling; above 1 it makes predictions less sure.
    offset : (classes,), or (runs, 1, classes) before pooling; None for none.
    """

    temperature: NDArray[np.float64]
    offset: NDArray[np.float64] | None = None

    def __call__(self, probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
        """(…, m, classes) probabilities, likewise; values below `FLOOR` count as `FLOOR`."""
        logs = np.log(np.maximum(probabilities, FLOOR, dtype=np.float64))
        logs /= self.temperature
        if self.offset is not None:
            logs += self.offset
        return softmax(logs, out=logs)


@dataclass(frozen=True)
class Combination:
    """How runs become one prediction.

    In this order: `before` for each run, then the pool (or the stacked model), `after`, and `bias`, which is added to
    log p: it
    moves decisions towards what a metric wants, and away from what the probabilities say.

    Attributes
    ----------
    runs : their names, in order.
    pool : a key of `ensemble.voting.METHODS`.
    weights : (runs,), or (runs, classes) where each class has its own; ≥ 0.
    before : calibration of each run; `after` of the pooled.
    stacked : (runs × classes + 1, classes) coefficients of log p (each row's mean taken off) and, last, the intercept;
        instead of a pool.
    bias : (classes,).
    power, trim : what the pools of these names are told; None for others, and for their defaults.
    said : what was found, in a few words, for the reader.
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

    @property
    def options(self) -> Options:
        """What the pool is told."""
        return replace(
            DEFAULTS,
            power=DEFAULTS.power if self.power is None else self.power,
            trim=DEFAULTS.trim if self.trim is None else self.trim,
        )

    @property
    def shares(self) -> NDArray[np.float64]:
        """(runs,) what each run's word is worth on the whole; they sum to 1."""
        if self.stacked is not None:
            size = np.abs(self.stacked[:-1]).reshape(len(self.runs), -1).sum(axis=1)
        elif self.weights is None:
            size = np.ones(len(self.runs))
        else:
            size = self.weights if self.weights.ndim == 1 else self.weights.mean(axis=1)
        return size / size.sum() if size.sum() > 0 else np.full(len(self.runs), 1 / len(self.runs))

    def apply(self, ballots: VoteInput) -> tuple[NDArray[np.float64], int]:
        """(m, classes) values ≥ 0 whose rows sum to 1 and whose largest is the decision, and the number of ties of hard
        votes.

        `ballots.weights` (runs, m) says who is present, by values above 0. Where none of those with a weight is, all
        who
        are present count alike.
        """
        present = ballots.weights > 0
        values = (
            ballots.probabilities
            if self.before is None
            else np.where(present[:, :, None], self.before(ballots.probabilities), 0)
        )
        ties = 0
        if self.stacked is not None:
            pooled = _stacked(values, present, self.stacked)
        elif self.weights is not None and self.weights.ndim == 2:
            pooled = _by_class(values, present, self.weights)
        else:
            share = np.ones(len(self.runs)) if self.weights is None else self.weights
            pooled, ties = method_of(self.pool, self.options).combine(
                replace(ballots, probabilities=values, weights=_shares(share, present))
            )
        pooled = np.maximum(pooled, 0)
        nothing = np.flatnonzero(
            pooled.max(axis=1) <= 0
        )  # ranks and products can be 0 in every class: there the mean decides
        if len(nothing):
            pooled[nothing] = np.einsum(
                "rm,rmc->mc", _shares(np.ones(len(self.runs)), present)[:, nothing], values[:, nothing]
            )
        pooled /= pooled.sum(axis=1, keepdims=True)
        if self.after is not None:
            pooled = self.after(pooled)
        if self.bias is not None:
            pooled = pooled * np.exp(self.bias - self.bias.max())
            pooled /= pooled.sum(axis=1, keepdims=True)
        return pooled, ties

    def as_record(self) -> dict[str, Any]:
        """Plain values, for a file that says how to do it again; None where there is nothing."""
        before, after = self.before, self.after
        return {
            "runs": list(self.runs),
            "pool": self.pool,
            "power": self.power,
            "trim": self.trim,
            "weights": _plain(self.weights),
            "temperature_before": None if before is None else _plain(before.temperature.reshape(-1)),
            "offset_before": None if before is None or before.offset is None else _plain(before.offset[:, 0]),
            "temperature_after": None if after is None else float(after.temperature),
            "offset_after": None if after is None else _plain(after.offset),
            "stacked": _plain(self.stacked),
            "bias": _plain(self.bias),
            "said": self.summary,
        }

    @staticmethod
    def from_record(record: Mapping[str, Any], classes: int, where: str) -> Combination:
        """What `as_record` gave; `where` names the file in errors.

        Raises
        ------
        EnsembleError : a field is missing, of another kind or size than `classes` and the runs make it, or a number
            cannot be.
        """
        wrong = validate_fields(record, _FIELDS) or _impossible(record)
        if wrong:
            raise EnsembleError(f"{where}: {wrong[0]}", hint=_MENDED, details=wrong[1:6])
        n, sized = len(record["runs"]), partial(_sized, record, where)
        weights = sized("weights", (n,), (n, classes))
        if weights is not None and ((weights < 0).any() or not (weights.reshape(n, -1).sum(axis=0) > 0).all()):
            raise EnsembleError(f"{where}: 'weights' must be 0 or more, and not all 0", hint=_MENDED)
        heat, offsets = sized("temperature_before", (n,)), sized("offset_before", (n, classes))
        cooled = record.get("temperature_after")
        _check_temperatures(where, [*([] if heat is None else heat.tolist()), *([] if cooled is None else [cooled])])
        before = after = None
        if heat is not None:
            before = Calibration(heat.reshape(-1, 1, 1), None if offsets is None else offsets[:, None])
        if cooled is not None:
            after = Calibration(np.array(float(cooled)), sized("offset_after", (classes,)))
        return Combination(
            runs=tuple(record["runs"]),
            pool=record["pool"],
            weights=weights,
            before=before,
            after=after,
            stacked=sized("stacked", (n * classes + 1, classes)),
            bias=sized("bias", (classes,)),
            summary=record.get("said") or "",
            power=None if record.get("power") is None else float(record["power"]),
            trim=None if record.get("trim") is None else float(record["trim"]),
        )


def _sized(record: Mapping[str, Any], where: str, name: str, *shapes: tuple[int, ...]) -> NDArray[np.float64] | None:
    """Return the numbers of a field that has one of `shapes`; None where it is absent."""
    if record.get(name) is None:
        return None
    try:
        values = np.array(record[name], dtype=np.float64)
    except ValueError:  # rows of different lengths
        values = np.zeros(0)
    if values.shape not in shapes:
        expected = " or ".join(" × ".join(map(str, shape)) for shape in shapes)
        raise EnsembleError(f"{where}: '{name}' must be {expected} numbers", hint=_MENDED)
    if not (np.abs(values) <= _MOST).all():
        raise EnsembleError(f"{where}: '{name}' must be numbers up to {_MOST:,.0f}, either way", hint=_MENDED)
    return values


def _check_temperatures(where: str, temperatures: Sequence[float]) -> None:
    slack = 1e-6  # numbers are written rounded
    found = np.array(temperatures)
    if ((found < MIN_TEMPERATURE * (1 - slack)) | (found > MAX_TEMPERATURE * (1 + slack))).any():
        raise EnsembleError(
            f"{where}: a temperature must be from {MIN_TEMPERATURE:g} to {MAX_TEMPERATURE:g}", hint=_MENDED
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
}


def _impossible(record: Mapping[str, Any]) -> list[str]:
    """What cannot be of fields that are each of their kind, a line each."""
    runs, wrong = record["runs"], []
    if not runs or not all(runs) or len(set(runs)) < len(runs):
        wrong.append("'runs' must be one name or more, none of them empty and none twice")
    for place in ("before", "after"):
        if record.get(f"offset_{place}") is not None and record.get(f"temperature_{place}") is None:
            wrong.append(f"'offset_{place}' needs 'temperature_{place}'")
    for name, pool in (("power", "power"), ("trim", "trimmed")):
        if record.get(name) is not None and record["pool"] != pool:
            wrong.append(f"'{name}' goes with the pool {pool}, found {record['pool']}")
    if record.get("trim") is not None and not 0 <= record["trim"] < 0.5:
        wrong.append("'trim' must be from 0 to below .5")
    return wrong


Fit = Callable[[Stack, Metric, int], Combination]


@dataclass(frozen=True)
class Fitter:
    """A way to learn a combination.

    Attributes
    ----------
    name : as ``--method`` takes it.
    title : in words.
    fit : (stack, metric, seed) → `Combination`.
    learns : whether it learns anything; what does not has no optimism.
    moves : whether it moves decisions by a bias, which is none where a metric is not of counts.
    """

    name: str
    title: str
    fit: Fit
    is_fitted: bool = True
    moves: bool = False


def combine(stack: Stack, combination: Combination) -> NDArray[np.float32]:
    """(n, classes) the combination's predictions of a stack's samples, of the runs in the order of the stack."""
    if combination.runs != stack.names:
        raise ValueError(f"a combination of {combination.runs} for a stack of {stack.names}")
    pool = METHODS[combination.pool]
    out = np.empty((len(stack), stack.classes), np.float32)
    for part, ballots in stack.ballots(combination.stacked is None and pool.counts_votes, pool.needs_all_rows):
        out[part] = combination.apply(ballots)[0]
    return out


def _shares(share: NDArray[np.float64], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(runs, m) weights that sum to 1 over the runs present; equal ones where none with a weight is."""
    weights = share[:, None] * present
    total = weights.sum(axis=0)
    lonely = total <= 0
    if lonely.any():
        weights[:, lonely] = present[:, lonely]
        total = weights.sum(axis=0)
    return weights / np.where(total > 0, total, 1)


def _by_class(
    values: NDArray[np.float64], present: NDArray[np.bool_], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    if present.all():
        return np.einsum("rmc,rc->mc", values, weights / weights.sum(axis=0))
    each = weights[:, None, :] * present[:, :, None]
    lonely = each.sum(axis=0) <= 0
    each = np.where(lonely[None], present[:, :, None], each)
    return (each * values).sum(axis=0) / each.sum(axis=0)


def features(values: NDArray[np.float64], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(runs, m, classes) → (m, runs × classes): log p, each run's mean taken off; an absent run says what the others do
    on average.
    """
    logs = np.log(np.maximum(values, FLOOR))
    logs -= logs.mean(axis=2, keepdims=True)
    if not present.all():
        there = present[:, :, None]
        mean = np.where(there, logs, 0).sum(axis=0) / np.maximum(present.sum(axis=0), 1)[:, None]
        logs = np.where(there, logs, mean)
    return logs.transpose(1, 0, 2).reshape(values.shape[1], -1)


def _stacked(
    values: NDArray[np.float64], present: NDArray[np.bool_], coefficients: NDArray[np.float64]
) -> NDArray[np.float64]:
    logits = features(values, present) @ coefficients[:-1] + coefficients[-1]
    logits -= logits.max(axis=1, keepdims=True)
    return np.exp(logits)


def _plain(values: NDArray[np.float64] | None) -> Any:
    if values is None:
        return None
    return [_plain(row) for row in values] if values.ndim > 1 else [float(f"{value:.{_DIGITS}g}") for value in values]
