"""Write predictions as the CSV that a competition or a colleague expects."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from folds.errors import EnsembleError, UsageError, unknown_name
from folds.metrics.label_scores import THRESHOLD, is_predicted
from folds.metrics.task_names import CLASSES, COLUMN_TASKS, MULTILABEL, REGRESSION
from folds.predictions.label_columns import label_matrix
from folds.predictions.links import answers_of
from folds.predictions.predictions import Predictions
from folds.utils.csv_table import csv_bytes
from folds.utils.tables import read_table_file

logger = logging.getLogger(__name__)

LABEL_FORM, SET_FORM = "label", "sets"
DECISION_FORM = "decisions"  # of several labels
FORMS = (LABEL_FORM, "probabilities", SET_FORM)
# Of several labels and of numbers.
_FORMS_OF = {MULTILABEL: (LABEL_FORM, "probabilities", DECISION_FORM), REGRESSION: ("numbers",)}
PREFIX = "prob_"


def submission(
    predictions: Predictions,
    form: str | None = None,
    columns: Sequence[str] | None = None,
    like: Path | None = None,
    labels: Sequence[str] | None = None,
    sets: Sequence[str] | None = None,
) -> bytes:
    """Return a CSV of predictions; see `submission_columns`."""
    return bytes(csv_bytes(submission_columns(predictions, form, columns, like, labels, sets)))


def submission_columns(
    predictions: Predictions,
    form: str | None = None,
    columns: Sequence[str] | None = None,
    like: Path | None = None,
    labels: Sequence[str] | None = None,
    sets: Sequence[str] | None = None,
) -> dict[str, list[str]]:
    """Return the columns of a CSV of predictions, with their names, ids first.

    Parameters
    ----------
    form : ``label``: one column with the predicted class; ``probabilities``: one column per class; ``sets``: one column
        with the classes of the prediction set, joined by ``|``; None for the form of `like`, else ``label``. Several
        labels are joined by ``;`` in one column, or have a column of probabilities each, or of 0 and 1, ``decisions``;
        numbers have a column each, ``numbers``.
    columns : names of the columns, id first; by default ``id,label``, or ``id,prob_<class>,…``. Columns with the names
        of the classes get what their names say, other names are in the order of the classes. Two names with
        ``probabilities`` of two classes: the second column gets the probability of the second class, the positive one,
        unless it is named as the first.
    like : a sample submission, whose rows, row order and column names are used. Its first column holds the ids, with or
        without folder and suffix. Its other columns are one for the label or one per class. Predictions of other ids
        are left out, with a note.
    labels : (n,) label of each prediction, by decision rules; None for the most probable class, or for the labels with
        a probability above .5.
    sets : (n,) text of each prediction set, for ``sets``.

    Raises
    ------
    UsageError : an unknown form, or names that do not fit the number of columns.
    EnsembleError : the sample submission has other ids or columns.
    """
    has_sets, has_rules = sets is not None, labels is not None
    task = predictions.metadata.task
    columns, ids, rows, form, order = _planned(
        predictions.ids.tolist(), predictions.classes, form, columns, like, has_sets, task, has_rules=has_rules
    )
    values = predictions.probabilities[rows]
    if form == DECISION_FORM:
        given = is_predicted(values).astype(np.float64)
        if labels is not None:
            texts = np.array([labels[row] for row in rows.tolist()], dtype=str)
            given = label_matrix(texts, predictions.classes, MULTILABEL)
        marks = [["" if math.isnan(one) else f"{one:.0f}" for one in given[:, column].tolist()] for column in order]
        return dict(zip(columns, [ids, *marks], strict=True))
    if form == LABEL_FORM:
        names = answers_of(task, values, predictions.classes).tolist()
        if labels is not None:
            names = [labels[row] for row in rows.tolist()]
            unanswered = [] if task == MULTILABEL else [name for name in names if name not in predictions.classes]
            if like is not None and unanswered:
                logger.warning(
                    "%d rows have the label '%s', which %s may not allow", len(unanswered), unanswered[0], like
                )
        return {columns[0]: ids, columns[1]: names}
    if form == SET_FORM and sets is not None:
        return {columns[0]: ids, columns[1]: [sets[row] for row in rows.tolist()]}
    cells = [[f"{value:.9g}" for value in values[:, column].tolist()] for column in order]
    return dict(zip(columns, [ids, *cells], strict=True))


def check_submission(
    ids: Sequence[str],
    classes: Sequence[str],
    form: str | None = None,
    columns: Sequence[str] | None = None,
    like: Path | None = None,
    has_sets: bool = False,
    task: str = CLASSES,
) -> None:
    """Raise the errors of `submission_columns` before anything is predicted.

    Parameters
    ----------
    ids : (n,) of all predictions that there will be.
    has_sets : whether there will be prediction sets.
    task : what the columns of the predictions are.
    """
    _planned(list(ids), classes, form, columns, like, has_sets, task, is_said=False)


def _planned(
    known: list[str],
    classes: Sequence[str],
    form: str | None,
    columns: Sequence[str] | None,
    like: Path | None,
    has_sets: bool,
    task: str,
    is_said: bool = True,
    has_rules: bool = False,
) -> tuple[Sequence[str], list[str], np.ndarray, str, list[int]]:
    """Return names of the columns, ids, rows of the predictions, form, and order of the classes of a CSV.

    Parameters
    ----------
    known : ids of the predictions.
    is_said : whether to say what was guessed.
    has_rules : whether decision rules give the labels.
    """
    forms = _FORMS_OF.get(task, FORMS)
    if form is not None and form not in forms:
        if form in (*FORMS, DECISION_FORM) and (task in COLUMN_TASKS or form == DECISION_FORM):
            raise UsageError(f"`form={form}` is not for the task {task}", hint=f"expected {' or '.join(forms)}")
        raise unknown_name("`form`", form, forms)
    notes: list[str] = []
    ids, rows, order = known, np.arange(len(known)), list(range(len(classes)))
    if like is not None:
        if columns is not None:
            raise UsageError("`like` and `columns` both name the columns", hint="give one of them")
        read = _as_sample if task not in COLUMN_TASKS else partial(_columns_as_sample, task)
        columns, ids, rows, form, order, notes = read(known, classes, like, form)
    form = form or forms[0]
    if task == MULTILABEL and form == LABEL_FORM and not has_rules:
        notes.append(
            f"a label is given above a probability of {THRESHOLD:g} (`form=probabilities` writes the probabilities)"
        )
    if task == MULTILABEL and form == "probabilities" and has_rules:
        notes.append("probabilities are the same with decision rules (`form=decisions`: 0 or 1 by the rules)")
    named = columns if like is None else None  # by the user; others are in the order of the sample, or of the classes
    has_two = named is not None and len(named) == 2 and len(classes) == 2
    if has_two and named is not None and form == "probabilities" and task not in COLUMN_TASKS:
        order = [_one_of_two(named[1], classes)]
        ours, other = classes[order[0]], classes[1 - order[0]]
        notes.append(f"column '{named[1]}' gets the probability of class {ours}, against {other}")
    expected = 2 if form in (LABEL_FORM, SET_FORM) else 1 + len(order)
    if columns is None and form == SET_FORM:
        columns = ["id", "set"]
    if columns is None:
        prefix = PREFIX if form == "probabilities" else ""
        columns = ["id", "label"] if form == LABEL_FORM else ["id", *(f"{prefix}{name}" for name in classes)]
    if len(columns) != expected:
        raise UsageError(
            f"`columns={','.join(columns)}`: expected {expected} names for `form={form}`, found {len(columns)}",
            hint="the first is the column of the ids",
        )
    if len(set(columns)) < len(columns):
        raise UsageError(f"`columns={','.join(columns)}` repeats a name", hint="every column needs its own name")
    if named is not None and len(named) == 1 + len(classes) and form not in (LABEL_FORM, SET_FORM):
        order = _order_of_names(named[1:], classes, task, notes)
    if form == SET_FORM and not has_sets:
        raise UsageError("`form=sets` needs prediction sets", hint="ensemble predict makes them with `sets=0.9`")
    for note in notes if is_said else ():
        logger.info(note)
    return columns, ids, rows, form, order


def _as_sample(
    known: Sequence[str], classes: Sequence[str], like: Path, form: str | None
) -> tuple[list[str], list[str], np.ndarray, str, list[int], list[str]]:
    """Return column names, ids, rows of the predictions, form and column order that a sample submission asks for.

    The last value is what a reader must know: what was guessed, and which predictions are left out.
    """
    table = read_table_file(like)
    first, *rest = table.columns
    order: list[int] = list(range(len(classes)))
    notes: list[str] = []
    found = None if form == SET_FORM else _class_columns(rest, classes)
    if form == SET_FORM and len(rest) == 1:
        pass  # the column gets the sets
    elif found is not None and form != "label":
        form, order = "probabilities", found
        notes.append(f"{like}: its columns get the probabilities of the classes, in the order of the columns")
    elif (
        len(rest) == 1
        and len(classes) == 2
        and form != SET_FORM
        and (form == "probabilities" or _has_decimals(table.columns[rest[0]]))
    ):
        form, order = "probabilities", [_one_of_two(rest[0], classes)]
        notes.append(
            f"{like}: column '{rest[0]}' gets the probability of class {classes[order[0]]} (`form=label`: the class)"
        )
    elif len(rest) == 1 and form not in ("probabilities", SET_FORM):
        form = "label"
        if len(classes) != 2:
            notes.append(f"{like}: column '{rest[0]}' gets the predicted class")
        else:
            notes.append(
                f"{like}: column '{rest[0]}' gets the predicted class (`form=probabilities`: the probability of class "
                f"{classes[_one_of_two(rest[0], classes)]})"
            )
    else:
        raise EnsembleError(
            f"expected a column for the label, or one per class ({', '.join(classes[:10])}), after '{first}' "
            f"in {like}, found {', '.join(rest[:10])}",
            hint="name the columns yourself with `columns`",
        )
    rows, note = _rows_of(known, table.columns[first], like)
    return [first, *rest], table.columns[first], rows, form, order, notes + ([note] if note else [])


def _columns_as_sample(
    task: str, known: Sequence[str], classes: Sequence[str], like: Path, form: str | None
) -> tuple[list[str], list[str], np.ndarray, str, list[int], list[str]]:
    """Return what `_as_sample` does, of several labels or numbers.

    A column for each of them is found by its name. One column gets the only number, or the names of the labels; of a
    single label the probability, if the sample has decimals.
    """
    table = read_table_file(like)
    first, *rest = table.columns
    whole = "numbers" if task == REGRESSION else "probabilities"
    found = _class_columns(rest, classes) if rest else None
    if len(rest) == 1 == len(classes) and (
        task == REGRESSION or form == DECISION_FORM or _has_decimals(table.columns[rest[0]])
    ):
        found = [0]
    if found is not None and form == DECISION_FORM:
        notes = [f"{like}: its columns get 1 where a label is there, else 0"]
    elif found is not None and form != LABEL_FORM:
        what = "numbers" if task == REGRESSION else "probabilities of the labels"
        form, notes = whole, [f"{like}: its columns get the {what}, by their names"] if len(classes) > 1 else []
    elif len(rest) == 1 and task == MULTILABEL and form in (None, LABEL_FORM):
        form, found, notes = LABEL_FORM, list(range(len(classes))), [f"{like}: column '{rest[0]}' gets the labels"]
    else:
        one = "one for each number" if task == REGRESSION else "one for the labels, or one for each label"
        raise EnsembleError(
            f"expected {one} ({', '.join(classes[:10])}) after '{first}' in {like}, found {', '.join(rest[:10])}",
            hint="name the columns yourself with `columns`",
        )
    rows, note = _rows_of(known, table.columns[first], like)
    return [first, *rest], table.columns[first], rows, form, found, notes + ([note] if note else [])


def _one_of_two(name: str, classes: Sequence[str]) -> int:
    """Return which of two classes a single column of probabilities gets: the second one, unless it names the first."""
    return 0 if name.casefold() == classes[0].casefold() != classes[1].casefold() else 1


def _order_of_names(names: Sequence[str], classes: Sequence[str], task: str, notes: list[str]) -> list[int]:
    """Return the class of each column that the user named: by its name, else in the order of the classes.

    Raises
    ------
    UsageError : a column has the name of another label or number than the one that it would get.
    """
    found = _class_columns(names, classes)
    if found is not None:
        if found != list(range(len(classes))):
            notes.append("the columns are the classes in another order: each gets what its name says")
        return found
    ours = list(map(str.casefold, classes))
    theirs = [(at, name) for at, name in enumerate(names) if name.casefold() in ours and name.casefold() != ours[at]]
    if theirs and task in COLUMN_TASKS:  # classes may be renamed to numbers that are those of other classes
        at, name = theirs[0]
        raise UsageError(
            f"`columns`: column '{name}' would get the {'number' if task == REGRESSION else 'label'} '{classes[at]}'",
            hint=f"name all of them, in any order: {', '.join(classes[:20])}; or other names, in this order",
        )
    return list(range(len(classes)))


def _class_columns(names: Sequence[str], classes: Sequence[str]) -> list[int] | None:
    """Return the class of each column; None if the columns are not the classes, with or without a common prefix.

    Case counts only if two classes differ in nothing else.
    """
    if len(set(map(str.casefold, classes))) == len(classes):
        names, classes = list(map(str.casefold, names)), list(map(str.casefold, classes))
    for cut in range(min(map(len, names), default=0) + 1):
        if len({name[:cut] for name in names}) > 1:
            break
        short = [name[cut:] for name in names]
        if sorted(short) == sorted(classes):
            return [list(classes).index(name) for name in short]
    return None


def _has_decimals(cells: Sequence[str]) -> bool:
    """Return whether a column holds probabilities: numbers from 0 to 1, and not only whole ones."""
    if any("," in cell for cell in cells) and not any("." in cell for cell in cells):
        cells = [cell.replace(",", ".") for cell in cells]  # 0,5 of a table separated by semicolons
    try:
        values = np.array(cells, dtype=np.float64)
    except ValueError:
        return False
    return bool(((values >= 0) & (values <= 1)).all() and (values % 1 != 0).any())


# Ways to compare ids: as they are, without folder, without folder and suffix.
ID_FORMS: tuple[Callable[[str], str], ...] = (
    lambda name: name,
    lambda name: PurePosixPath(name).name,
    lambda name: PurePosixPath(name).stem,
)


def _rows_of(known: Sequence[str], wanted: Sequence[str], like: Path) -> tuple[np.ndarray, str]:
    """Return the row of the predictions for each id of a sample submission, and a note if some are left out."""
    for key in ID_FORMS:
        ours, theirs = list(map(key, known)), list(map(key, wanted))
        if len(set(ours)) < len(ours) or len(set(theirs)) < len(theirs):
            continue
        position = {name: row for row, name in enumerate(ours)}
        if all(name in position for name in theirs):
            note = ""
            if len(ours) > len(theirs):
                wanted_ids = set(theirs)
                first = next(row for row, name in enumerate(ours) if name not in wanted_ids)
                note = (
                    f"{like} has {len(theirs):,} ids: the other {len(ours) - len(theirs):,} of {len(ours):,} predicted "
                    f"samples are not in the CSV, e.g. '{known[first]}'"
                )
            return np.array([position[name] for name in theirs], dtype=np.int64), note
    repeated = [name for name, count in Counter(wanted).items() if count > 1]
    if repeated:
        raise EnsembleError(
            f"{like} repeats {len(repeated):,} ids, e.g. '{repeated[0]}'", hint="every id needs one row"
        )
    absent = sorted(set(wanted) - set(known))
    raise EnsembleError(
        f"{len(absent):,} of {len(wanted):,} ids of {like} were not predicted, e.g. '{absent[0]}'; "
        f"predicted ids look like '{known[0]}'",
        hint="predict the images of the submission; ids are compared with and without folder and suffix",
    )
