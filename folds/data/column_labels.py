"""Decide whether a table has several labels or numbers for each sample, and read them from its cells.

Labels are columns of 0 and 1, or the names in one column, ``hat|glasses``; numbers are one column or several. What is
decided is said with the reason. A sample's labels become one text (`folds.predictions.label_columns`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from folds.data.label_cells import check_named_labels
from folds.errors import EnsembleError, UsageError, combine_errors
from folds.metrics.task_names import COLUMN_TASKS, LARGEST_NUMBER, MULTILABEL, REGRESSION
from folds.predictions.label_columns import (
    COLUMN_NAMES,
    NOTHING_CELLS,
    UNKNOWN,
    UNKNOWN_CELLS,
    check_column_names,
    label_matrix,
    label_texts,
    separator_of,
)
from folds.predictions.uncertain import HINT, UNCERTAIN_CELLS, decided_cells, uncertain_text
from folds.utils.csv_table import CsvTable
from folds.utils.spelling import merged_note, merged_spellings, spelling_key, spelling_warning
from folds.utils.text import sort_classes

_ONES, _ZEROS = frozenset({"1", "1.0", "1.", "true", "yes"}), frozenset({"0", "0.0", "0.", "false", "no"})
_FLAGS = _ONES | _ZEROS | UNCERTAIN_CELLS | UNKNOWN_CELLS  # what columns of 0 and 1 hold
# A smaller share of rows that have not exactly one 1 is taken for mistakes in a table of exclusive classes.
_SEVERAL_SHARE = 0.1
# Numbers are taken for classes, such as codes of diseases (401.9), unless more of them differ than this, and than this
# share of the people: an age in years differs from person to person, a code is that of many.
_MANY_NUMBERS, _OF_PEOPLE = 30, 1 / 3
_EXAMPLES = 3


@dataclass(frozen=True)
class ColumnLabels:
    """The labels or numbers of samples.

    Attributes
    ----------
    task : `MULTILABEL` or `REGRESSION`.
    names : name of each label or number.
    texts : n texts of `label_texts`.
    notes, warnings : lines for the user.
    """

    task: str
    names: tuple[str, ...]
    texts: list[str]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def read_column_labels(
    table: CsvTable,
    columns: Sequence[str],
    index: Sequence[int] | None,
    task: str | None,
    classes: Sequence[str] | None = None,
    people: int | None = None,
    *,
    merge: bool = False,
    training: bool = True,
    uncertain: str | None = None,
) -> ColumnLabels | None:
    """Return the labels or numbers in `columns`; None if the table has one class for each sample.

    Parameters
    ----------
    columns : columns that hold labels; one column of names, or one or several of 0 and 1 or of numbers.
    index : rows to read; None for all.
    task : what the labels are; None to decide by the cells.
    classes : known names of labels in one column; None for those that occur.
    people : number of people in these rows; None if each row may be one.
    merge : whether spellings of one name in one column are the same label.
    training : whether labels must say which images do not have them.
    uncertain : what labels of -1 are read as, one of `folds.metrics.task_names.UNCERTAIN`; None: they are an error.

    Raises
    ------
    EnsembleError : a cell is no label or number, or there is nothing to learn.
    UsageError : what is meant cannot be known, or a name cannot be that of a label.
    """
    if task not in (None, *COLUMN_TASKS) or not columns:
        return None
    cells = _Cells(table, columns, index)
    notes = cells.decide(uncertain) if task != REGRESSION and (task or len(columns) > 1) else []
    if task is None:
        if len(columns) > 1:
            # With `uncertain` they are labels, so anything else in these columns is an error, and no number or class.
            asked = uncertain is not None and not cells.are_flags()
            task, reason = (MULTILABEL, "some of them are uncertain") if notes or asked else _task_of_columns(cells)
        else:
            reason = _fractions(cells.cells[0], people)
            task = REGRESSION if reason else None
        if task is None:
            return None
        if len(columns) == 1:
            what = f"'{columns[0]}' is a number to predict (`task=regression`), because {reason}; `task=classes` reads "
            what += "classes"
        elif task == REGRESSION:
            what = f"{', '.join(columns)} are numbers to predict (`task=regression`), because {reason}"
        else:
            what = f"{', '.join(columns)} are several labels of an image (`task=multilabel`), because {reason}; "
            what += "`task=classes` reads one class of each image"
        notes.insert(0, f"{table.source}: {what}")
    if task == REGRESSION:
        return _numbers(cells, notes)
    if len(columns) == 1 and not _FLAGS.issuperset(cells.folded(0)):
        return _names(cells, notes, classes, merge)
    return _flags(cells, notes, training)


def class_notes(cells: Sequence[str], column: str, source: str) -> list[str]:
    """Return a note if the classes in a column may be several labels or numbers, which has to be asked for."""
    distinct = set(cells)
    if may_be_numbers(distinct):
        return [
            f"{source}: the {len(distinct):,} different numbers in '{column}' are read as classes; "
            "`task=regression` predicts the number"
        ]
    if _finite(distinct) is not None:
        return []
    for mark in ("|", ";"):
        several = [cell for cell in distinct if mark in cell]
        counts = Counter(part.strip() for cell in distinct for part in cell.split(mark))
        if any(counts[part.strip()] > 1 for cell in several for part in cell.split(mark)):
            return [
                f"{source}: values of '{column}' such as '{min(several)[:40]}' are read as classes of their own; "
                f"`task=multilabel` reads several labels, separated by '{mark}'"
            ]
    return []


def may_be_numbers(distinct: set[str]) -> bool:
    """Return whether the names of classes are numbers with fractions, or more than classes usually are."""
    numbers = _finite(distinct)
    return numbers is not None and (len(distinct) > _MANY_NUMBERS or _have_fractions(numbers))


def are_many_fractions(labels: NDArray[np.str_]) -> bool:
    """Return whether labels without a task could be read as numbers, if there were few people."""
    return bool(_fractions(labels.tolist(), 1))


class _Cells:
    """The cells of some columns and rows of a table."""

    def __init__(self, table: CsvTable, columns: Sequence[str], index: Sequence[int] | None) -> None:
        self.source, self.names = table.source, tuple(columns)
        every = [table.column(name, "`label`") for name in columns]
        self.cells = every if index is None else [[column[i] for i in index] for column in every]
        self.locations = table.location() if index is None else table.location().take(index)

    def folded(self, column: int) -> set[str]:
        """Return the distinct cells of a column in lower case."""
        return {cell.strip().lower() for cell in set(self.cells[column])}

    def are_flags(self) -> bool:
        """Return whether every cell is 0, 1, -1 or empty."""
        return all(_FLAGS.issuperset(self.folded(i)) for i in range(len(self.names)))

    def decide(self, uncertain: str | None) -> list[str]:
        """Replace the cells of uncertain labels by what they are read as, and return a note; [] if there are none.

        Several columns are labels then, whatever else they hold, which is an error later on. One column may hold names.
        """
        if uncertain is None or (len(self.names) == 1 and not self.are_flags()):
            return []
        counts = {}
        for i, name in enumerate(self.names):
            self.cells[i], counts[name] = decided_cells(self.cells[i], uncertain)
        text = uncertain_text(uncertain, counts)
        return [f"{self.source}: {text}"] if text else []

    def values(self, numbers: dict[str, float | None], column: int, expected: str, hint: str) -> NDArray[np.float64]:
        """Return (n,) the value of each cell by the distinct cells; raise EnsembleError for those without one."""
        cells = self.cells[column]
        if any(value is None for value in numbers.values()):
            lines = [f"{self.locations[i]}: '{cell}'" for i, cell in enumerate(cells) if numbers[cell] is None]
            raise combine_errors(
                lines, f"cells of column '{self.names[column]}' of {self.source} are not {expected}", hint
            )
        return np.array([numbers[cell] for cell in cells], dtype=np.float64)


def _flag(cell: str) -> float | None:
    cell = cell.strip().lower()
    return 1.0 if cell in _ONES else 0.0 if cell in _ZEROS else math.nan if cell in UNKNOWN_CELLS else None


def _number(cell: str) -> float | None:
    """Return a number of at most `LARGEST_NUMBER`, nan for a missing one, and None for other text."""
    cell = cell.strip()
    if cell.lower() in UNKNOWN_CELLS:
        return math.nan
    try:
        value = float(cell) if cell.isascii() and "_" not in cell else math.inf
    except ValueError:
        return None
    return value if abs(value) <= LARGEST_NUMBER else None


def _finite(distinct: set[str]) -> list[float] | None:
    """Return the numbers that distinct cells hold, without missing ones; None if one is no number, or there is none."""
    found = []
    for cell in distinct:
        value = _number(cell)
        if value is None:
            return None
        if not math.isnan(value):
            found.append(value)
    return found or None


def _have_fractions(numbers: Sequence[float]) -> bool:
    return not all(value.is_integer() for value in numbers)


def _fractions(cells: Sequence[str], people: int | None) -> str:
    """Return why the cells of one column are numbers; "" if they may be classes.

    Parameters
    ----------
    people : None if each cell may be of another one.
    """
    numbers = _finite(set(cells))
    many = max(_MANY_NUMBERS, _OF_PEOPLE * (len(cells) if people is None else people))
    if numbers is None or len(numbers) <= many or not _have_fractions(numbers):
        return ""
    return f"it holds {len(numbers):,} different numbers with fractions"


def _task_of_columns(cells: _Cells) -> tuple[str | None, str]:
    """Return the task of several columns and the reason; None for one-hot classes, and for what is none of them."""
    if cells.are_flags():
        _check_certain(cells)
        # nan is counted as missing, and as no 1
        flags = [{cell: _flag(cell) for cell in set(column)} for column in cells.cells]
        values = np.array(
            [[own[cell] for cell in column] for own, column in zip(flags, cells.cells, strict=True)], np.float64
        )
        missing, ones = np.isnan(values), np.nansum(values, axis=0)
        wrong = (ones != 1) | missing.any(axis=0)
        if wrong.sum() < _SEVERAL_SHARE * len(wrong) or not len(wrong):
            return None, ""
        several, empty = int((ones > 1).sum()), int(missing.sum())
        none = int(((ones == 0) & ~missing.any(axis=0)).sum())
        found = [f"{several:,} of {len(wrong):,} rows have two or more of them"] if several else []
        found += [f"{none:,} of {len(wrong):,} rows have none of them"] if none else []
        return MULTILABEL, ", ".join(found + ([f"{empty:,} cells are empty"] if empty else []))
    if all(_finite(set(column)) is not None for column in cells.cells):
        return REGRESSION, "they hold numbers other than 0 and 1"
    return None, ""


def _check_certain(cells: _Cells) -> None:
    """Raise UsageError for cells of -1, which some data sets use for labels that are uncertain."""
    if not any(UNCERTAIN_CELLS & cells.folded(i) for i in range(len(cells.names))):
        return
    count = sum(cell.strip() in UNCERTAIN_CELLS for column in cells.cells for cell in column)
    raise UsageError(
        f"{count:,} cells of the labels {', '.join(cells.names)} of {cells.source} are -1, and whether this is "
        "uncertain, unknown or no cannot be known",
        hint=HINT,
    )


def _flags(cells: _Cells, notes: list[str], training: bool) -> ColumnLabels:
    """Return several labels from columns of 0 and 1."""
    _check_certain(cells)
    columns = [
        cells.values(
            {cell: _flag(cell) for cell in set(column)},
            i,
            "0 or 1",
            "a label is 1 (or true, yes), 0 (or false, no), or empty where it is not known",
        )
        for i, column in enumerate(cells.cells)
    ]
    values = np.stack(columns, axis=1)
    empty = int(np.isnan(values).sum())
    if training and empty and not (values == 0).any():
        raise EnsembleError(
            f"{cells.source}: no cell of {', '.join(cells.names)} is 0, and {empty:,} of {values.size:,} cells are "
            "empty, which says that a label is not known",
            hint="write 0 where an image does not have a label; in Python: frame.fillna(0)",
        )
    return _labels(values, cells, cells.names, notes)


def _names(cells: _Cells, notes: list[str], classes: Sequence[str] | None, merge: bool) -> ColumnLabels:
    """Return several labels from one column of their names."""
    column = cells.cells[0]
    counts = Counter(column)
    known = set(classes or ())
    if merge:
        keys = {spelling_key(name) for name in known}
        known |= {cell for cell in counts if spelling_key(cell) in keys}
    written = [cell for cell in counts if cell.strip().lower() not in UNKNOWN_CELLS | NOTHING_CELLS]
    mark = separator_of(written, known)
    parts = {
        cell: [cell.strip()] if mark is None or cell in known else [part.strip() for part in cell.split(mark)]
        for cell in written
    }
    parts = {cell: [part for part in own if part] for cell, own in parts.items()}
    warnings = []
    spelled = Counter(name for cell, own in parts.items() for name in _bare(own) for _ in range(counts[cell]))
    if merge:
        target = merged_spellings(spelled, classes)
        if target:
            notes.append(merged_note(target, cells.source, "label", "labels"))
        parts = {cell: [_spelled(part, target) for part in own] for cell, own in parts.items()}
    elif not classes:
        effect = "each spelling is a label of its own"
        warnings = spelling_warning(spelled, cells.source, "label is", "labels are", effect)
    check_named_labels(parts, known, column, cells.locations, f"column '{cells.names[0]}' of {cells.source}")
    names = (
        tuple(classes) if classes else sort_classes([p.removeprefix(UNKNOWN) for own in parts.values() for p in own])
    )
    check_column_names(names, MULTILABEL)
    place = {name: i for i, name in enumerate(names)}
    strange = {cell for cell, own in parts.items() if not all(part.removeprefix(UNKNOWN) in place for part in own)}
    if strange:
        raise combine_errors(
            [f"{cells.locations[i]}: '{cell}'" for i, cell in enumerate(column) if cell in strange],
            f"labels of {cells.source} are not among the {len(names)} known ones",
            f"known labels: {', '.join(names[:20])}",
        )
    none = [cell for cell in counts if cell.strip().lower() in NOTHING_CELLS]
    rows = {cell: [0.0] * len(names) for cell in (*written, *none)} | {
        cell: [math.nan] * len(names) for cell in counts if cell.strip().lower() in UNKNOWN_CELLS
    }
    for cell, own in parts.items():
        for part in own:
            rows[cell][place[part.removeprefix(UNKNOWN)]] = math.nan if part.startswith(UNKNOWN) else 1.0
    shown = {" ": "a blank", None: "nothing (each image has at most one label)"}
    texts = f"{cells.source}: the labels in '{cells.names[0]}' are separated by {shown.get(mark, repr(mark))}"
    texts += f"; {', '.join(map(repr, none))} ({sum(counts[cell] for cell in none):,} rows) is none of them" * bool(
        none
    )
    notes.append(texts)
    read = _labels(np.array([rows[cell] for cell in column]).reshape(-1, len(names)), cells, names, notes)
    return replace(read, warnings=(*warnings, *read.warnings))


def _bare(parts: Sequence[str]) -> list[str]:
    """Return the different names of labels in a cell, in order, without the mark of unknown ones."""
    return list(dict.fromkeys(part.removeprefix(UNKNOWN) for part in parts))


def _spelled(part: str, target: Mapping[str, str]) -> str:
    name = part.removeprefix(UNKNOWN)
    return part.removesuffix(name) + target.get(name, name)


def _labels(values: NDArray[np.float64], cells: _Cells, names: Sequence[str], notes: list[str]) -> ColumnLabels:
    lines, warnings = cell_lines(values, names, MULTILABEL, cells.source)
    texts = label_texts(values, names, MULTILABEL).tolist()
    return ColumnLabels(MULTILABEL, tuple(names), texts, (*notes, *lines), tuple(warnings))


def cell_lines(
    values: NDArray[np.float64], names: Sequence[str], task: str, source: str
) -> tuple[list[str], list[str]]:
    """Return notes and warnings about cells (n, columns) that are not known, and labels that are all alike."""
    unknown = int(np.isnan(values).sum())
    notes, warnings = [], []
    if unknown and (task == MULTILABEL or len(names) > 1):
        notes.append(
            f"{source}: {unknown:,} of {values.size:,} {COLUMN_NAMES[task]} are not known (empty cells): they count "
            "neither in the training nor in scores"
        )
    for name, column in zip(names, values.T, strict=True) if task == MULTILABEL else ():
        found = set(column[~np.isnan(column)].tolist())
        if len(found) < 2:
            only = "is not known for any image" if not found else f"is {int(found.pop())} for all images it is known of"
            more = ", and an empty cell is not known; write 0 where an image does not have it"
            more = more if only.startswith("is 1") and np.isnan(column).any() else ""
            warnings.append(f"{source}: the label {name} {only}: it can be neither learned nor scored{more}")
    return notes, warnings


def with_all_columns(read: ColumnLabels, declared: Sequence[str], source: str) -> ColumnLabels:
    """Return the labels or numbers of test samples with those of the training that their table lacks: not known."""
    lacking = [name for name in declared if name not in read.names]
    if not lacking or not set(read.names) < set(declared):
        return read
    values = np.full((len(read.texts), len(declared)), math.nan)
    own = [list(declared).index(name) for name in read.names]
    values[:, own] = label_matrix(np.array(read.texts, dtype=str), read.names, read.task)
    what = f"columns {', '.join(lacking)}" if len(lacking) > 1 else f"column '{lacking[0]}'"
    note = f"{source} has no {what}: not known, and not scored"
    texts = label_texts(values, declared, read.task).tolist()
    return replace(read, names=tuple(declared), texts=texts, notes=(*read.notes, note))


def _numbers(cells: _Cells, notes: list[str]) -> ColumnLabels:
    """Return one or several numbers from their columns."""
    columns = [
        cells.values(
            {cell: _number(cell) for cell in set(column)},
            i,
            "numbers",
            f"expected numbers with a decimal point, such as 34.5, up to {LARGEST_NUMBER:g}, or an empty cell where it "
            "is not known",
        )
        for i, column in enumerate(cells.cells)
    ]
    values = np.stack(columns, axis=1)
    notes += cell_lines(values, cells.names, REGRESSION, cells.source)[0]
    return ColumnLabels(REGRESSION, cells.names, label_texts(values, cells.names, REGRESSION).tolist(), tuple(notes))


def check_columns(
    labels: Sequence[str] | None, names: Sequence[str], declared: Sequence[str], task: str, source: str
) -> None:
    """Raise EnsembleError if labels or numbers are not the declared ones, or cannot be learned.

    Parameters
    ----------
    labels : texts of the labels of training samples; None for test samples, which may lack some and need not differ.
    names, declared : names of the labels of these samples, and of the training.
    """
    other = sorted(set(names) - set(declared) if labels is None else set(names) ^ set(declared))
    if other:
        raise EnsembleError(
            f"the labels of {source} are not the declared ones: {', '.join(other[:10])}",
            hint=f"declared: {', '.join(declared)}",
        )
    if labels is None:
        return
    values = label_matrix(np.array(list(dict.fromkeys(labels)), dtype=str), declared, task)
    for column in values.T:
        known = column[~np.isnan(column)]
        if len(known) and known.min() < known.max():
            return
    what = "a label that some images have and others not" if task == MULTILABEL else "numbers that differ"
    raise EnsembleError(
        f"expected {what} in {source}, found none in {', '.join(declared)}", hint="is `label` the right column?"
    )
