"""Hold out-of-fold predictions of several labels or numbers, from which decision rules are fitted; numpy only."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ensemble.decisions.oof import check_decidable
from ensemble.decisions.record import CROSS_FITTED, ONE_MODEL, STUDENT, UNKNOWN, DecisionSource
from ensemble.decisions.rows import LabeledRows
from ensemble.learning.nested import outer_fold_ids
from folds.errors import EnsembleError, UsageError
from folds.metrics.grouping import average_by_person
from folds.metrics.scored_units import known_rows, rows_of_known_people
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.predictions.label_columns import encode_labels
from folds.predictions.predictions import Predictions
from folds.utils.files import sha256_bytes
from folds.utils.numeric import factorize


@dataclass(frozen=True, eq=False)
class NumberRows:
    """The out-of-fold predictions of one number, on the rows where it is known.

    Attributes
    ----------
    values, truth : (n,) the predicted and the true number.
    persons, parts : (n,) person from 0, every number used, and outer fold.
    spread : (n,) how much the predictions of the members differ; None if it is not known.
    """

    values: NDArray[np.float64]
    truth: NDArray[np.float64]
    persons: NDArray[np.int64]
    parts: NDArray[np.int64]
    spread: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def people(self) -> int:
        """Return the number of people."""
        return int(self.persons.max(initial=-1)) + 1

    def take(self, rows: NDArray[np.integer]) -> NumberRows:
        """Return some rows, with the people numbered anew."""
        return NumberRows(
            self.values[rows],
            self.truth[rows],
            np.unique(self.persons[rows], return_inverse=True)[1].astype(np.int64),
            self.parts[rows],
            None if self.spread is None else self.spread[rows],
        )


@dataclass(frozen=True, eq=False)
class LabeledColumns:
    """Out-of-fold predictions of several labels or numbers, from which decision rules are fitted.

    Attributes
    ----------
    values : (n, columns) float64: probabilities of labels, or numbers.
    labels : (n, columns) 0 and 1, or numbers; nan if unknown.
    persons, parts : (n,) person, and outer fold; all rows of a person are in the same one.
    ids : (n,).
    names : the labels or numbers.
    spread : (n, columns) how much the predictions of the members differ; None if it is not known.
    """

    values: NDArray[np.float64]
    labels: NDArray[np.float64]
    persons: NDArray[np.int64]
    parts: NDArray[np.int64]
    ids: NDArray[np.str_]
    names: tuple[str, ...]
    spread: NDArray[np.float64] | None = None

    def of_label(self, column: int) -> LabeledRows:
        """Return the rows where a label is known, as two classes: without and with it; outer folds as `_known`."""
        rows, persons, parts = self._known(column)
        yes = self.values[rows, column]
        return LabeledRows(
            np.stack([1 - yes, yes], axis=1),
            self.labels[rows, column].astype(np.int64),
            persons,
            parts,
            self.ids[rows],
            (f"not {self.names[column]}", self.names[column]),
        )

    def of_number(self, column: int) -> NumberRows:
        """Return the rows where a number is known; outer folds as `_known`."""
        rows, persons, parts = self._known(column)
        spread = None if self.spread is None else self.spread[rows, column]
        return NumberRows(self.values[rows, column], self.labels[rows, column], persons, parts, spread)

    def _known(self, column: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows where a column is known, their people numbered anew, and their outer folds.

        If they are all in one outer fold, as of a label that only one site knows, their people are assigned to new
        parts, so that each is decided by a rule that was fitted to others.
        """
        rows = np.flatnonzero(~np.isnan(self.labels[:, column]))
        persons = np.unique(self.persons[rows], return_inverse=True)[1].astype(np.int64)
        parts, labels = self.parts[rows], self.labels[rows, column]
        if len(rows) and len(np.unique(parts)) < 2:
            is_label = bool(np.isin(labels, (0, 1)).all())
            parts = outer_fold_ids(persons, labels.astype(np.int64) if is_label else labels[:, None], None)
        return rows, persons, parts


def columns_of_predictions(
    found: Predictions,
    name: str,
    kind: str,
    per_person: bool,
    fold: int | None = None,
    spread: NDArray[np.float64] | None = None,
) -> tuple[LabeledColumns, DecisionSource]:
    """Return the rows with a known label or number, and their source.

    Parameters
    ----------
    fold : only the rows of this fold, which one model has predicted; None for all.
    spread : (n, columns) of all predictions; see `LabeledColumns`.

    Raises
    ------
    UsageError : `per_person` without persons, or only persons are labeled and `per_person` is not given.
    EnsembleError : there are no labels, or not of two people.
    """
    check_decidable(found, name, per_person)
    if found.labels is None or not (found.labels != "").any():
        raise EnsembleError(f"the predictions of {name} have no labels, to which decision rules are fitted")
    if fold is not None and found.fold is not None:
        rows = np.flatnonzero(found.fold == fold)
        found, spread = found.take(rows), None if spread is None else spread[rows]
    assert found.labels is not None  # noqa: S101 - checked above
    task = REGRESSION if found.metadata.task == REGRESSION else MULTILABEL
    made, source = columns_of_arrays(
        found.probabilities,
        encode_labels(found.labels, found.classes, task),
        found.persons,
        found.fold,
        found.ids,
        found.classes,
        per_person,
        (name, kind),
        task,
        spread,
    )
    return made, replace(source, basis=STUDENT if found.metadata.teacher else source.basis)


def columns_of_arrays(
    values: NDArray[np.floating],
    labels: NDArray[np.float64],
    persons: NDArray[np.str_] | None,
    folds: NDArray[np.int64] | None,
    ids: NDArray[np.str_],
    names: tuple[str, ...],
    per_person: bool,
    name_and_kind: tuple[str, str],
    task: str = MULTILABEL,
    spread: NDArray[np.float64] | None = None,
) -> tuple[LabeledColumns, DecisionSource]:
    """Return the rows of arrays and their source; parameters and errors as `columns_of_predictions`."""
    if persons is None and per_person:
        raise UsageError(
            "rules for people need the person of each image",
            hint="name the person of each image: a column of the table, or `groups` of decide() for arrays",
        )
    known = np.flatnonzero(
        known_rows(labels) if persons is None or not per_person else rows_of_known_people(labels, persons)
    )
    values, labels, ids = np.asarray(values, np.float64)[known], labels[known], ids[known]
    spread = None if spread is None else np.asarray(spread, np.float64)[known]
    persons, folds = None if persons is None else persons[known], None if folds is None else folds[known]
    people = factorize(ids if persons is None else persons)[1]
    sha = sha256_bytes(values.tobytes() + labels.tobytes() + repr(names).encode())
    distinct = 0 if folds is None else len(np.unique(folds))
    basis = UNKNOWN if folds is None else ONE_MODEL if distinct == 1 else CROSS_FITTED
    images = len(values)
    if per_person and persons is not None:
        first = np.unique(people, return_index=True)[1]
        several = folds is not None and len(np.unique(np.stack([people, folds]), axis=1).T) > len(first)
        if spread is not None:
            spread = average_by_person(labels, spread, persons, len(names), task)[1]
        labels, values, owners, _ = average_by_person(labels, values, persons, len(names), task)
        folds = None if folds is None or several else folds[first]
        people, ids = np.arange(len(owners)), np.array(owners, dtype=str)
    if len(np.unique(people)) < 2:
        raise EnsembleError("decision rules need two people or more, found one")
    parts = outer_fold_ids(people, labels, folds)
    rows = LabeledColumns(values, labels, people, parts, ids, names, spread)
    count = int(people.max()) + 1
    return rows, DecisionSource(*name_and_kind, sha, count, images, basis, persons is not None)
