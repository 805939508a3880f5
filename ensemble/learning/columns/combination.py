"""Describe how runs with a column for each label or number are combined, as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.columns.stack import fill_absent
from ensemble.learning.combination import Combination, plain_numbers, scaled_weights
from ensemble.pooling.columns import ColumnPooling
from ensemble.voting.base import VoteInput
from ensemble.voting.label_columns import VOTES, one_label, pool_columns
from ensemble.voting.vote import method_of
from folds.errors import EnsembleError
from folds.metrics.task_names import COLUMN_TASKS, LARGEST_NUMBER, MULTILABEL, REGRESSION
from folds.predictions.label_columns import places_of
from folds.utils.number_arrays import NumberFields
from folds.utils.schema import ANYTHING, NUMBER, ONE_LINE, TEXT, list_of, mapping_of, one_of, optional, validate_fields

MAX_COLUMNS = 10_000
_HINT = "blend again to write the file anew"
_OF_PEOPLE = {task: f"{task} of people" for task in COLUMN_TASKS}  # how a file names a combination for people


@dataclass(frozen=True)
class ColumnCombination(Combination):
    """A combination of runs whose columns are labels or numbers, each pooled by itself.

    `pool`, `weights` (runs,), `power` and `trim` are shared by all columns, unless one of these is set:

    Attributes
    ----------
    task : ``multilabel`` or ``regression``.
    columns : the labels or numbers.
    each : of labels, the combination of each as two classes, without and with it; () for a shared one.
    linear : of numbers, (runs, columns) coefficients, with an absent run at the mean of the others; None for a pool.
    intercept : (columns,) added to `linear`; None for 0.
    """

    task: str = MULTILABEL
    columns: tuple[str, ...] = ()
    each: tuple[Combination, ...] = ()
    linear: NDArray[np.float64] | None = None
    intercept: NDArray[np.float64] | None = None

    @property
    def shares(self) -> NDArray[np.float64]:
        """Return (runs,) the total weight of each run; the sum is 1."""
        if self.each:
            return np.mean([one.shares for one in self.each], axis=0)
        if self.linear is None:
            return Combination.shares.fget(self)  # type: ignore[attr-defined, no-any-return]
        size = np.abs(self.linear)
        total = size.sum(axis=0)
        shares = np.where(total > 0, size / np.where(total > 0, total, 1), 1 / len(self.runs)).mean(axis=1)
        return shares / shares.sum()

    def in_order(self, names: Sequence[str]) -> ColumnCombination:
        """Return the combination with its columns in the order of `names`.

        Raises
        ------
        EnsembleError : `names` are other columns.
        """
        if tuple(names) == self.columns:
            return self
        at = places_of(names, self.columns, "a combination")
        return replace(
            self,
            columns=tuple(names),
            each=tuple(self.each[column] for column in at) if self.each else (),
            linear=None if self.linear is None else self.linear[:, at],
            intercept=None if self.intercept is None else self.intercept[at],
            pooling=self.pooling.in_order(names) if isinstance(self.pooling, ColumnPooling) else self.pooling,
        )

    @property
    def counts_votes(self) -> bool:
        """Return whether votes of the runs' models are needed."""
        return self.linear is None and not self.each and method_of(self.pool).counts_votes

    def apply(self, inputs: VoteInput) -> tuple[NDArray[np.float64], int]:
        """Return (m, columns) probabilities of the labels, or numbers, and the number of ties.

        Runs are present where `inputs.weights` (runs, m) are above 0. On rows where no present run has a weight above 0
        in the combination, all present runs get equal weights.
        """
        present = inputs.weights > 0
        if self.linear is not None:
            values = fill_absent(inputs.probabilities, present)
            total = np.einsum("rmc,rc->mc", values, self.linear)
            return (total if self.intercept is None else total + self.intercept), 0
        if self.each:
            out, ties = np.empty(inputs.probabilities.shape[1:]), 0
            for column, one in enumerate(self.each):
                pooled, tied = one.apply(one_label(inputs, column))
                out[:, column], ties = pooled[:, 1], ties + tied
            return out, ties
        weights = np.ones(len(self.runs)) if self.weights is None else self.weights
        rule = method_of(self.pool, self.options)
        scaled = replace(inputs, weights=scaled_weights(weights, present))
        return pool_columns(scaled, self.pool, rule, self.options, self.task)

    def large_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return {}: the numbers of a label are few, and are written with the rest."""
        return {}

    def as_record(self, inline: bool = True) -> dict[str, Any]:
        """Return the combination as plain values for a file; None for absent steps."""
        # A task of its own, which versions that would leave out the pooling refuse.
        task = self.task if self.pooling is None else _OF_PEOPLE[self.task]
        return {
            "task": task,
            "columns": list(self.columns),
            "runs": list(self.runs),
            "pool": self.pool,
            "power": self.power,
            "trim": self.trim,
            "weights": plain_numbers(self.weights),
            "linear": plain_numbers(self.linear),
            "intercept": plain_numbers(self.intercept),
            "each": None if not self.each else [_without_runs(one.as_record()) for one in self.each],
            "said": self.summary,
            **({} if self.pooling is None else {"pooling": self.pooling.as_record()}),
        }

    @staticmethod
    def of_record(record: Mapping[str, Any], columns: tuple[str, ...], source: str) -> ColumnCombination:
        """Return the combination of a record from `as_record`; `source` is the name of the file in errors.

        Parameters
        ----------
        columns : the labels or numbers of the blend.

        Raises
        ------
        EnsembleError : a field is missing, has the wrong type or shape, or is out of range.
        """
        problems = validate_fields(record, _FIELDS)
        of_people = record.get("task") in _OF_PEOPLE.values()
        if not problems and of_people:
            record = {**record, "task": next(task for task, of in _OF_PEOPLE.items() if of == record["task"])}
        problems = problems or _contradictions(record, columns)
        if not problems and of_people != (record.get("pooling") is not None):
            problems = ["'pooling' must be there if the task is of people, and only then"]
        if problems:
            raise EnsembleError(f"{source}: {problems[0]}", hint=_HINT, details=problems[1:6])
        runs, task = tuple(record["runs"]), record["task"]
        shape = len(runs), len(columns)
        numbers_of = NumberFields(record, source, LARGEST_NUMBER, _HINT).get
        weights = numbers_of("weights", shape[:1])
        if weights is not None and ((weights < 0).any() or not weights.sum() > 0):
            raise EnsembleError(f"{source}: 'weights' must be ≥ 0, with at least one above 0", hint=_HINT)
        each = tuple(
            Combination.from_record({**one, "runs": list(runs)}, 2, f"{source}: label '{name}'")
            for name, one in zip(columns, record.get("each") or [], strict=False)
        )
        return ColumnCombination(
            runs=runs,
            pool=record["pool"],
            weights=weights,
            summary=record.get("said") or "",
            power=None if record.get("power") is None else float(record["power"]),
            trim=None if record.get("trim") is None else float(record["trim"]),
            task=task,
            columns=columns,
            each=each,
            linear=numbers_of("linear", shape),
            intercept=numbers_of("intercept", shape[1:]),
            pooling=ColumnPooling.of_record(record["pooling"], columns, task, source) if of_people else None,
        )


def _without_runs(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "runs" and value not in (None, "")}


_VECTOR = optional(list_of(NUMBER))
_FIELDS = {
    "task": one_of(*COLUMN_TASKS, *_OF_PEOPLE.values()),
    "columns": list_of(ONE_LINE),
    "runs": list_of(ONE_LINE),
    "pool": one_of(*dict.fromkeys(name for names in VOTES.values() for name in names)),
    "power": optional(NUMBER),
    "trim": optional(NUMBER),
    "weights": _VECTOR,
    "linear": optional(list_of(list_of(NUMBER))),
    "intercept": _VECTOR,
    "each": optional(list_of(mapping_of(ANYTHING))),
    "said": optional(TEXT),
    "pooling": optional(mapping_of(ANYTHING)),
}


def _contradictions(record: Mapping[str, Any], columns: tuple[str, ...]) -> list[str]:
    """Return one line for each contradiction between fields that are valid on their own."""
    runs, task, found = record["runs"], record["task"], []
    if not runs or not all(runs) or len(set(runs)) < len(runs):
        found.append("'runs' must be one or more names, none empty and none repeated")
    if tuple(record["columns"]) != columns or len(columns) > MAX_COLUMNS:
        found.append("'columns' must be the classes of the blend")
    if record["pool"] not in VOTES[task]:
        found.append(f"'pool' of {task} must be one of {', '.join(VOTES[task])}, found {record['pool']}")
    if record.get("each") is not None and (task != MULTILABEL or len(record["each"]) != len(columns)):
        found.append(f"'each' must have one combination for each of {len(columns)} labels")
    for name, one in zip(columns, record.get("each") or (), strict=False):
        found += _wrong_for_a_label(name, one)
    if task != REGRESSION and record.get("linear") is not None:
        found.append(f"'linear' is for {REGRESSION}")
    if record.get("intercept") is not None and record.get("linear") is None:
        found.append("'intercept' needs 'linear'")
    for name, pool in (("power", "power"), ("trim", "trimmed")):
        if record.get(name) is not None and record["pool"] != pool:
            found.append(f"'{name}' needs the pool {pool}, found {record['pool']}")
    if record.get("trim") is not None and not 0 <= record["trim"] < 0.5:
        found.append("'trim' must be from 0 to below .5")
    return found


def _wrong_for_a_label(name: str, one: Mapping[str, Any]) -> list[str]:
    """Return one line for each field of the combination of a label that would not be applied."""
    pools = [pool for pool in VOTES[MULTILABEL] if not method_of(pool).counts_votes]
    unused = [field for field in ("pooling", "extra") if one.get(field) is not None]
    wrong = [f"label '{name}': '{field}' is for classes" for field in unused]
    if one.get("pool") not in pools:
        wrong.append(f"label '{name}': 'pool' must be one of {', '.join(pools)}, found {one.get('pool')}")
    return wrong
