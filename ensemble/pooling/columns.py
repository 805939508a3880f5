"""Describe how a person's images become one prediction of several labels, or of numbers; numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.pooling.bags import Bags
from ensemble.pooling.evidence import NUMBER_STATISTICS, learned_numbers
from ensemble.pooling.pooling import HINT, Pooling, plain_values
from ensemble.pooling.rules import pool_values
from ensemble.pooling.spec import DEFAULT_K, FITTED, FIXED, MEAN, rules_of
from folds.errors import EnsembleError
from folds.metrics.task_names import LARGEST_NUMBER, MULTILABEL
from folds.predictions.label_columns import places_of
from folds.utils.number_arrays import NumberFields
from folds.utils.schema import (
    ANYTHING,
    NUMBER,
    ONE_LINE,
    integer,
    list_of,
    mapping_of,
    one_of,
    optional,
    raise_problems,
    validate_fields,
)

_OF_A_LABEL = ("damping", "prior", "coefficients")


@dataclass(frozen=True)
class ColumnPooling(Pooling):
    """A pooling rule for predictions with a column for each label or number, each of which is pooled by itself.

    A label is a decision of two classes, so what is fitted to it is the rule of two classes, without and with it.

    Attributes
    ----------
    task : ``multilabel`` or ``regression``.
    columns : the labels or numbers.
    each : of labels, the fitted rule of each; () for rules that fit nothing.
    linear : of numbers, (runs, columns, statistics + 1) coefficients of ``learned``; None for other rules.
    """

    task: str = MULTILABEL
    columns: tuple[str, ...] = ()
    each: tuple[Pooling, ...] = ()
    linear: NDArray[np.float64] | None = None

    def takes_highest(self, classes: int) -> bool:
        """Return False: a person has the labels of any image, and the mean of the numbers, whatever the rule."""
        return False

    def in_order(self, names: Sequence[str]) -> ColumnPooling:
        """Return the rule with its columns in the order of `names`.

        Raises
        ------
        EnsembleError : `names` are other columns.
        """
        if tuple(names) == self.columns:
            return self
        at = places_of(names, self.columns, "a pooling rule")
        each = tuple(self.each[column] for column in at) if self.each else ()
        linear = None if self.linear is None else self.linear[:, at]
        return replace(self, columns=tuple(names), each=each, linear=linear)

    def apply(self, run: str, probabilities: NDArray[np.floating], bags: Bags) -> NDArray[np.float64]:
        """Return (people, columns) the predictions of people by one run; 0 for people without an image.

        Parameters
        ----------
        probabilities : (n, columns) probabilities of the labels, or numbers, of the images by one model of the run.

        Raises
        ------
        EnsembleError : the rule is fitted, and not to this run.
        """
        values = np.asarray(probabilities, np.float64)
        if self.task == MULTILABEL and self.rule != MEAN:
            values = np.clip(values, 0, 1)
        if self.rule in FIXED:
            return pool_values(values, bags, self.rule, self.k)
        at = self.place(run)
        if self.linear is not None:
            return learned_numbers(values, bags, self.linear[at])
        out = np.empty((bags.people, len(self.columns)))
        for column, one in enumerate(self.each):
            two = np.stack([1 - values[:, column], values[:, column]], axis=1)
            out[:, column] = one.apply(run, two, bags)[:, 1]
        return out

    def as_record(self) -> dict[str, Any]:
        """Return plain values for a file, without what is not set; the task and the columns are those of the blend."""
        record = super().as_record()
        if self.each:
            record["each"] = [
                {name: value for name, value in one.as_record().items() if name in _OF_A_LABEL} for one in self.each
            ]
        if self.linear is not None:
            record["linear"] = plain_values(self.linear)
        return record

    @staticmethod
    def of_record(record: Mapping[str, Any], columns: tuple[str, ...], task: str, source: str) -> ColumnPooling:
        """Return the pooling of a record of `as_record`; `source` is the name of the file in errors.

        Raises
        ------
        EnsembleError : a field is missing, unknown, has the wrong type or shape, or is out of range.
        """
        fields = _FIELDS | {"rule": one_of(*rules_of(task))}
        problems = validate_fields(record, fields, others=False)
        raise_problems(problems, f"{source}: pooling", HINT)
        rule, runs, each = record["rule"], tuple(record.get("runs") or ()), record.get("each")
        fitted = rule in FITTED
        if fitted != bool(runs) or len(set(runs)) < len(runs):
            raise EnsembleError(f"{source}: pooling: 'runs' must be the runs of a fitted rule", hint=HINT)
        of_labels, of_numbers = fitted and task == MULTILABEL, fitted and task != MULTILABEL
        if len(each or ()) != (len(columns) if of_labels else 0):
            raise EnsembleError(f"{source}: pooling: 'each' must have the fit of each label", hint=HINT)
        if not of_numbers and record.get("linear") is not None:
            raise EnsembleError(f"{source}: pooling: 'linear' is for a fitted rule of numbers", hint=HINT)
        labels = tuple(
            _of_label(one, rule, runs, f"{source}: label '{name}'")
            for name, one in zip(columns, each or (), strict=False)
        )
        shape = len(runs), len(columns), len(NUMBER_STATISTICS) + 1
        numbers_of = NumberFields(record, f"{source}: pooling", LARGEST_NUMBER, HINT).require
        return ColumnPooling(
            rule,
            k=int(record.get("k") or DEFAULT_K),
            runs=runs,
            task=task,
            columns=columns,
            each=labels,
            linear=numbers_of("linear", shape) if of_numbers else None,
        )


def _of_label(record: Mapping[str, Any], rule: str, runs: tuple[str, ...], source: str) -> Pooling:
    unknown = next((name for name in record if name not in _OF_A_LABEL), None)
    if unknown is not None:
        raise EnsembleError(f"{source}: pooling: '{unknown}' is not known", hint=HINT)
    return Pooling.from_record({**record, "rule": rule, "runs": list(runs)}, 2, source)


_FIELDS = {
    "rule": ONE_LINE,
    "k": optional(integer(1, 2**31 - 1)),
    "runs": optional(list_of(ONE_LINE)),
    "each": optional(list_of(mapping_of(ANYTHING))),
    "linear": optional(list_of(list_of(list_of(NUMBER)))),
}
