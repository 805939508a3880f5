"""Read tables of predictions: probabilities (a column for each class, or one of the positive class) or answers.

The meaning of a column follows from its name and its content. Numbers that are not whole are never classes. A column of
true labels beside predictions does not vote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ensemble.members.columns import (
    ColumnNames,
    check_class_names,
    check_ids,
    is_fractional,
    listed,
    numbers,
    persons_of,
    stacked,
)
from folds.errors import CONTROL, EnsembleError, printable
from folds.predictions.columns import ColumnRoles, find_columns
from folds.utils.csv_table import CsvTable, read_header
from folds.utils.frames import FEATHER, PARQUET
from folds.utils.spelling import spelling_key
from folds.utils.tables import read_table_file, table_suffix

# Text before the name of the class in the name of a column; it is left out if all columns have it.
PREFIXES = ("prob_", "proba_", "probability_", "p_", "pred_", "prediction_", "class_", "oof_", "score_", "prob.", "p.")
_LEAST = 10  # rows from which a label that is always the most probable class is doubted
_MAX_TOLERANCE = 0.1  # of the sum of rounded probabilities
TOLERANCE = 2e-3  # of the sum of a row of probabilities


@dataclass(frozen=True)
class PredictionTable:
    """The content of a table of predictions.

    Attributes
    ----------
    ids : (n,) of str; None if the table has none, so that its rows are in an order of their own.
    values : (n, classes) numbers, or (n, 1) of the positive class; None for answers.
    classes : the class of each column, without a common prefix; () for one column.
    prefix : the prefix that was left out of `classes`.
    positive : the only column of probabilities, otherwise "".
    answers : (n,) of str, the predicted classes; None for probabilities.
    labels, persons, fold : (n,) the other columns, if the table has them.
    columns : all columns.
    summary : which columns were read, for the reader, without the name of the file.
    warnings : doubts about the table.
    """

    ids: NDArray[np.str_] | None
    values: NDArray[np.float64] | None
    classes: tuple[str, ...]
    prefix: str
    positive: str
    answers: NDArray[np.str_] | None
    labels: NDArray[np.str_] | None
    persons: NDArray[np.str_] | None
    fold: NDArray[np.int64] | None
    columns: tuple[str, ...]
    summary: str
    warnings: tuple[str, ...] = ()


def read_prediction_table(path: Path, names: ColumnNames | None = None, logits: bool = False) -> PredictionTable:
    """Return the predictions in a table; its format follows from its suffix.

    Parameters
    ----------
    names : columns that the user named.
    logits : whether numbers are logits, so that rows need not sum to 1.

    Raises
    ------
    EnsembleError : the table has no header, no column of predictions, or several that could be meant; an id is empty or
        repeated; or it lists samples and their true labels only.
    """
    _check_has_header(path)
    table = read_table_file(path)
    return _Reader(table, names or ColumnNames(), logits).read()


class _Reader:
    """The columns of one table, with their roles and numbers."""

    def __init__(self, table: CsvTable, names: ColumnNames, logits: bool) -> None:
        self.table, self.names, self.logits = table, names, logits
        self.columns = list(table.columns)
        self.numbers = cache(lambda name: numbers(table.columns[name]))
        self.given = names.given(self.columns)
        named = self.given.get("label")
        if named is not None and _are_probabilities(self.numbers(named)):
            del self.given["label"]  # probabilities in a column with the name of that of the labels
        order = ("id", "path", "prediction", "person", "fold", "label", "split")
        self.roles = find_columns(self.columns, table.source, order, self.given)
        # A column of numbers that are not whole is no label, fold or person, whatever its name.
        self.role = {
            role: name
            for role, name in self.roles.names.items()
            if role in self.given or not is_fractional(self.numbers(name))
        }
        taken = {*self.role.values()}
        self.free = [name for name in self.columns if name not in taken]

    def read(self) -> PredictionTable:
        """Return the predictions."""
        chosen = self._probabilities()
        answers = "" if chosen else self._answers()
        id_column = self._id_column(chosen, answers)
        label = self.role.get("label")
        label = None if label in (answers, id_column) else label
        used: dict[str, str] = {} if id_column is None else {"id": id_column}
        if len(chosen) > 1:
            used["probabilities"] = listed(chosen)
        elif chosen:
            used["probability of the positive class"] = chosen[0]
        else:
            used["answers"] = answers
        ids = None if id_column is None else self.table.columns[id_column]
        if ids is not None:
            check_ids(self.table, ids)
        persons, fold, warnings = self._others(ids, used)
        prefix = _common_prefix(chosen)
        if label is not None:
            check_class_names(self.table, label)
            self._check_is_truth(label, chosen, prefix)
            used["label"] = label
        if ids is None and len(used) > 1:
            raise EnsembleError(
                f"{self.table.source} has {', '.join(list(used)[1:])} but no column of ids",
                hint="name the column of ids with `id=COLUMN`; pandas writes an index without a name as a column "
                "without a name, which is left out: frame.rename_axis('id').to_csv(FILE)",
            )
        values, rounded = self._values(chosen) if chosen else (None, "")
        answered = None
        if not chosen:
            check_class_names(self.table, answers)
            answered = np.array(self.table.columns[answers], dtype=str)
            warnings += _constant_answers(self.table.source, answers, answered)
        elif values is not None:
            warnings += _constant_values(self.table.source, values)
        return PredictionTable(
            None if ids is None else np.array(ids, dtype=str),
            values,
            tuple(name[len(prefix) :] for name in chosen) if len(chosen) > 1 else (),
            prefix,
            chosen[0] if len(chosen) == 1 else "",
            answered,
            None if label is None else np.array(self.table.columns[label], dtype=str),
            persons,
            fold,
            tuple(self.columns),
            self._said(used, chosen) + rounded,
            tuple(warnings),
        )

    def _probabilities(self) -> tuple[str, ...]:
        """Return the columns of probabilities; () if the table holds answers."""
        named = self.names.probabilities
        present = [name for name in named if name in self.columns]
        if present:
            if len(present) < len(named):
                missing = next(name for name in named if name not in present)
                raise EnsembleError(
                    f"{self.table.source} has {present[0]} but no column '{missing}' of `probabilities`",
                    hint=f"its columns are {', '.join(self.columns[:30])}",
                )
            self._check_numeric(present)
            return tuple(present)
        prediction = self.role.get("prediction")
        sets = self._candidate_sets()
        for columns in sets:
            if len(columns) > 1 and (not self._all_whole(columns) or prediction is None) and self._sum_to_one(columns):
                return columns
        fractional = tuple(name for name in self.free if is_fractional(self.numbers(name)))
        if prediction is not None:
            return ()  # other numbers, such as the confidence of the answer, do not vote
        several = next((columns for columns in sets[:-1] if len(columns) > 1 and not self._all_whole(columns)), ())
        if self.logits and len(fractional) > 1:
            return self._prefixed() or fractional
        if several:
            return several  # the sums of its rows are refused with the first wrong row
        return self._one_column(fractional)

    def _one_column(self, fractional: Sequence[str]) -> tuple[str, ...]:
        """Return the only column of probabilities; () if there is none."""
        called = self.roles.get("prediction")
        candidates = [called] if called is not None and called in fractional else list(fractional)
        if not candidates:
            return ()
        if len(candidates) > 1:
            raise EnsembleError(
                f"{self.table.source}: {listed(candidates)} hold numbers that are not whole, and it is unknown which "
                "of them are the probabilities",
                hint=f"name the column or columns: `probabilities={candidates[0]}`",
            )
        column = candidates[0]
        values = self.numbers(column)
        assert values is not None  # noqa: S101
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        if (low < 0 or high > 1) and not self.logits:
            if self.role.get("label") is not None and not self._is_role(column):
                return ()
            distinct = len(np.unique(values))
            raise EnsembleError(
                f"{self.table.source}: the column {column} holds {distinct:,} different numbers from {low:g} to "
                f"{high:g}: neither classes nor probabilities",
                hint="add `logits=True` if these are logits; otherwise write probabilities between 0 and 1, or one "
                "whole number per class",
            )
        label = self.role.get("label")
        if label is not None and not self._is_role(column) and not self._is_of_positive(values, label):
            raise EnsembleError(
                f"{self.table.source}: it is unknown whether {column} is the probability of a class beside the true "
                f"label {label}, or {label} is the answer and {column} its confidence",
                hint=f"`probabilities={column}` if {label} is the true label, `prediction={label}` if it is the answer",
            )
        return (column,)

    def _is_of_positive(self, values: NDArray[np.float64], label: str) -> bool:
        """Return whether a column beside a label is the probability of the positive class: it cannot be the confidence
        of the label as an answer, which would be 0.5 or more in each row.
        """
        if label in self.given.values():
            return True
        classes = list(dict.fromkeys(self.table.columns[label]))
        if len(classes) != 2 or not (values < 0.5).any():
            return False
        first = np.array(self.table.columns[label]) == classes[0]
        above = values >= 0.5
        return bool((first != above).any() and (first == above).any())

    def _check_is_truth(self, label: str, chosen: Sequence[str], prefix: str) -> None:
        """Raise EnsembleError if a label equals the most probable class in each row: it may be the answer."""
        if label in self.given.values() or len(chosen) < 2 or len(self.table) < _LEAST or "fold" in self.role:
            return
        best = self._stacked(chosen).argmax(axis=1)
        labels = list(map(spelling_key, self.table.columns[label]))
        for names in (chosen, [name[len(prefix) :] for name in chosen]):
            keys = list(map(spelling_key, names))
            if labels == [keys[column] for column in best.tolist()]:
                raise EnsembleError(
                    f"{self.table.source}: {label} is the most probable class in all {len(labels):,} rows, so it may "
                    "be the answer and not the true label",
                    hint=f"`label={label}` if it is the true label, otherwise remove the column",
                )

    def _is_role(self, column: str) -> bool:
        return column in (self.roles.get("prediction"), self.roles.get("label"))

    def _candidate_sets(self) -> list[tuple[str, ...]]:
        """Return the sets of columns that may be the probabilities of all classes, the most certain one first."""
        unit = tuple(name for name in self.free if self._in_unit(name))
        fractional = tuple(name for name in unit if is_fractional(self.numbers(name)))
        labels = {self.role.get(role) for role in ("label", "prediction") if role not in self.given}
        wide = tuple(name for name in self.columns if name in unit or (name in labels and self._in_unit(name)))
        return [self._prefixed(), unit, fractional, wide]

    def _prefixed(self) -> tuple[str, ...]:
        """Return the numeric columns with the prefix that most columns have; () without two such columns."""
        best: tuple[str, ...] = ()
        for prefix in PREFIXES:
            found = tuple(
                name
                for name in self.columns
                if name.lower().startswith(prefix) and len(name) > len(prefix) and self.numbers(name) is not None
                if name not in (self.role.get("id"), self.role.get("person"), self.role.get("fold"))
                if name in self.free
            )
            best = found if len(found) > max(1, len(best)) else best
        return best

    def _in_unit(self, name: str) -> bool:
        values = self.numbers(name)
        # An empty cell is refused later, with its row.
        return values is not None and bool((np.isnan(values) | ((values >= -1e-6) & (values <= 1 + 1e-6))).all())

    def _stacked(self, columns: Sequence[str]) -> NDArray[np.float64]:
        return stacked([self.numbers(name) for name in columns], len(self.table))

    def _all_whole(self, columns: Sequence[str]) -> bool:
        return not any(is_fractional(self.numbers(name)) for name in columns)

    def _sum_to_one(self, columns: Sequence[str]) -> bool:
        total = self._stacked(columns).sum(axis=1)
        wrong = np.abs(total - 1) > self._tolerance(columns, total)
        return not wrong.any()

    def _tolerance(self, columns: Sequence[str], total: NDArray[np.float64]) -> float:
        """Return how far a sum may be from 1: half of the last digit that the table writes, for each column."""
        if (np.abs(total - 1) <= TOLERANCE).all():
            return TOLERANCE
        digits = max(len(cell.rpartition(".")[2]) for name in columns for cell in self.table.columns[name][:200])
        return min(max(TOLERANCE, 0.5 * len(columns) * 10.0 ** -min(digits, 9)), _MAX_TOLERANCE)

    def _values(self, columns: Sequence[str]) -> tuple[NDArray[np.float64], str]:
        """Return (n, columns) the numbers, and a remark if rounded rows were scaled to sum to 1."""
        self._check_numeric(columns)
        values = self._stacked(columns)
        if len(columns) == 1 or self.logits:
            return values, ""
        total = values.sum(axis=1)
        off = np.abs(total - 1)
        if (off > TOLERANCE).any() and (off <= self._tolerance(columns, total)).all() and (values >= 0).all():
            return values / total[:, None], "; rounded rows are scaled to sum to 1"
        return values, ""

    def _check_numeric(self, columns: Sequence[str]) -> None:
        for name in columns:
            values = self.numbers(name)
            if values is None or not np.isfinite(values).all():
                cells = self.table.columns[name]
                row = (
                    next(i for i, cell in enumerate(cells) if not _is_finite(cell))
                    if values is None
                    else int(np.flatnonzero(~np.isfinite(values))[0])
                )
                raise EnsembleError(
                    f"{self.table.source} row {self.table.numbers[row]}: column {name} holds "
                    f"'{printable(cells[row])}', expected a finite number",
                    hint="remove the rows of samples that have no prediction",
                )
            if CONTROL.search(name):
                raise EnsembleError(f"{self.table.source}: the column '{printable(name)}' has control characters")

    def _answers(self) -> str:
        """Return the column of predicted classes."""
        prediction = self.role.get("prediction")
        if prediction is not None:
            return prediction
        label = self.role.get("label")
        others: list[str] = [role for role in ("fold", "person") if role in self.role]
        others += ["path"] if "id" in self.role and "path" in self.role else []
        if label is not None and not others:
            return label
        if label is not None or "fold" in self.role:
            raise EnsembleError(
                f"{self.table.source} lists samples with their true labels, expected predictions "
                f"({self.roles.text().removeprefix(f'{self.table.source}: ')})",
                hint="name its predictions with `prediction=COLUMN` or `probabilities=COLUMNS`; to score against these "
                f"labels: ensemble blend runs/*.npy --labels {self.table.source}",
            )
        if len(self.columns) == 2:
            return self.columns[1]
        for role in ("prediction", "label"):
            if role in self.roles.ambiguous:
                self.roles.require(role)
        missing = "ids" if self.role.get("id") is None and self.role.get("path") is None else "labels"
        raise EnsembleError(
            f"{self.table.source}: expected a column of {missing}, found {', '.join(self.columns[:20])}",
            hint="name the columns ImageID,ans, or id and one column of probabilities per class; or name them with "
            "`id=COLUMN`, `prediction=COLUMN` and `probabilities=COLUMNS`",
        )

    def _id_column(self, chosen: Sequence[str], answers: str) -> str | None:
        found = self.role.get("id") or self.role.get("path")
        if found is not None and found not in chosen and found != answers:
            return found
        if "id" in self.roles.ambiguous and len(self.columns) > 2:
            return self.roles.require("id")
        if len(self.columns) == 2:
            return next((name for name in self.columns if name not in (*chosen, answers)), None)
        others = [name for name in self.free if name not in chosen and name != answers]
        texts = [name for name in others if len(set(self.table.columns[name])) == len(self.table)]
        texts = [name for name in texts if not is_fractional(self.numbers(name))]
        if len(texts) == 1:
            return texts[0]
        if chosen and not texts:
            return None
        raise EnsembleError(
            f"{self.table.source}: expected a column of ids, found {', '.join(self.columns[:20])}",
            hint="name it with `id=COLUMN`, or name the columns ImageID,ans",
        )

    def _others(
        self, ids: Sequence[str] | None, used: dict[str, str]
    ) -> tuple[NDArray[np.str_] | None, NDArray[np.int64] | None, list[str]]:
        """Return persons, folds, and warnings; their columns are added to `used`."""
        persons, fold = None, None
        warnings: list[str] = []
        person, fold_column = self.role.get("person"), self.role.get("fold")
        if person is not None and ids is not None:
            persons, warnings = persons_of(self.table.source, self.table.columns[person], ids)
            used["person"] = person
        if fold_column is not None:
            values = self.numbers(fold_column)
            if values is None or not ((np.isnan(values)) | ((values >= -1) & (values == np.round(values)))).all():
                raise EnsembleError(
                    f"{self.table.source}: the column {fold_column} must hold the fold of each row, a whole number",
                    hint="rename the column if it is something else",
                )
            fold = np.nan_to_num(values, nan=-1).astype(np.int64)
            used["fold"] = fold_column
        return persons, fold, warnings

    def _said(self, used: Mapping[str, str], chosen: Sequence[str]) -> str:
        taken = {*used.values(), *chosen}
        ambiguous = {role: found for role, found in self.roles.ambiguous.items() if role == "person"}
        doubtful = {name for found in ambiguous.values() for name in found}
        unused = tuple(name for name in self.columns if name not in taken and name not in doubtful)
        return ColumnRoles("", dict(used), frozenset(), ambiguous, unused).text().removeprefix(": ")


def _common_prefix(columns: Sequence[str]) -> str:
    """Return the prefix that all columns share, as the first one writes it; "" if there is none."""
    if len(columns) < 2:
        return ""
    for prefix in PREFIXES:
        size = len(prefix)
        if all(name.lower().startswith(prefix) and len(name) > size for name in columns):
            return columns[0][:size] if len({name[size:] for name in columns}) == len(columns) else ""
    return ""


def _are_probabilities(values: NDArray[np.float64] | None) -> bool:
    """Return whether numbers are from 0 to 1 and not only whole ones."""
    return values is not None and is_fractional(values) and bool(((values >= 0) & (values <= 1)).all())


def _is_finite(cell: str) -> bool:
    try:
        return bool(np.isfinite(float(cell.replace(",", "."))))
    except ValueError:
        return False


def _check_has_header(path: Path) -> None:
    """Raise EnsembleError if the first row of a text table is numbers, as ``np.savetxt`` writes it."""
    suffix = table_suffix(path.name)
    if suffix in PARQUET | FEATHER or suffix.endswith(".gz"):
        return
    header = read_header(path)
    values = numbers([name for name in header if name]) if any(header) else None
    if values is None or (len(values) > 1 and values.tolist() == list(range(len(values)))):
        return
    if len(header) > 1 or is_fractional(values):
        raise EnsembleError(
            f"{path}: expected a header row, found numbers ({listed(header)})",
            hint="write a first row: id and the name of each class; or save the array with np.save('NAME.npy', array)",
        )


def _constant_answers(source: str, column: str, answers: NDArray[np.str_]) -> list[str]:
    if len(answers) > 1 and (answers == answers[0]).all():
        return [
            f"{source}: all {len(answers):,} rows of {column} are '{answers[0]}', as in a sample submission, not in "
            "predictions"
        ]
    return []


def _constant_values(source: str, values: NDArray[np.float64]) -> list[str]:
    if len(values) > 1 and (values == values[0]).all():
        return [f"{source}: all {len(values):,} rows are equal, as in a sample submission, not in predictions"]
    return []
