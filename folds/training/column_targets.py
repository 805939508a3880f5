"""Make targets of several labels and of numbers from shares in a table and from predictions; numpy only.

A target is a probability of each label, or a number, and nan where nothing is to be learned
(`folds.optim.column_losses`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from folds.data.table import SampleTable
from folds.errors import EnsembleError
from folds.metrics.label_scores import is_predicted
from folds.metrics.task_names import MULTILABEL
from folds.predictions.files import LABEL
from folds.predictions.predictions import Predictions
from folds.predictions.reading import rows_by_id
from folds.training.sample_weights import number_column

_ROUNDING = 1e-6  # of probabilities in files


def label_shares(prefix: str, table: SampleTable) -> NDArray[np.float64]:
    """Return (n, labels) the shares in the columns ``PREFIX<label>`` of a table, nan where a cell is empty.

    Raises
    ------
    EnsembleError : a label has no column, a cell is no number from 0 to 1, or all cells are empty.
    """
    columns = [number_column(table, f"{prefix}{name}", "soft_columns", empty=True) for name in table.classes]
    values = np.stack(columns, axis=1)
    wrong = np.argwhere((values < 0) | (values > 1))
    if len(wrong):
        row, column = wrong[0].tolist()
        raise EnsembleError(
            f"`soft_columns={prefix}`: expected shares from 0 to 1, found {values[row, column]:g} in column "
            f"'{prefix}{table.classes[column]}' of {table.locations[row]}",
            hint="divide the votes for a label by the number of raters; an empty cell is not known",
        )
    if np.isnan(values).all():
        raise EnsembleError(f"`soft_columns={prefix}`: all cells are empty", hint="fill in some shares from 0 to 1")
    return np.where(np.isnan(values), np.nan, values)


def predicted_columns(
    found: Predictions, ids: NDArray[np.str_], table: SampleTable, source: str, images: str, *, hint: str
) -> NDArray[np.float64]:
    """Return (n, columns) what a file predicts for the samples `ids` (n,), its columns in the order of the table.

    Parameters
    ----------
    source, images : what the predictions and the samples are, in errors.

    Raises
    ------
    EnsembleError : the file has another task or other columns, lacks a sample, or has a value that is no probability or
        no finite number.
    """
    if found.metadata.target != LABEL or found.task != table.task or set(found.classes) != set(table.classes):
        raise EnsembleError(
            f"{source} has predictions of the task {found.task} with the columns {', '.join(found.classes[:10])}, "
            f"expected {table.task} with {', '.join(table.classes[:10])}",
            hint="a teacher predicts all labels or numbers of the table, and no others",
        )
    values = rows_by_id(found, ids, source, images, hint=hint)
    values = values[:, [found.classes.index(name) for name in table.classes]]
    fits = np.isfinite(values)
    if table.task == MULTILABEL:
        fits &= (values >= -_ROUNDING) & (values <= 1 + _ROUNDING)
    wrong = np.argwhere(~fits)
    if len(wrong):
        row, column = wrong[0].tolist()
        expected = "probabilities from 0 to 1" if table.task == MULTILABEL else "finite numbers"
        raise EnsembleError(
            f"{source}: expected {expected}, found {values[row, column]:g} for '{table.classes[column]}' of "
            f"'{ids[row]}'",
            hint="logits need a sidecar with kind = logit" if table.task == MULTILABEL else "leave out this model",
        )
    return np.clip(values, 0, 1) if table.task == MULTILABEL else values


def chosen_labels(
    values: NDArray[np.float64], may: NDArray[np.bool_], confidence: float, most: int | None, soft: bool
) -> NDArray[np.float32]:
    """Return (n, labels) the targets that probabilities (n, labels) give; nan where they are not confident enough.

    Each cell is a decision of its own: its answer, with the label (above 0.5) or without, has the probability p or
    1 − p.

    Parameters
    ----------
    may : (n,) images that may be learned.
    confidence : smallest probability of the answer.
    most : the largest number of cells of each answer of each label, the most confident ones; None for all.
    soft : whether the probability is learned instead of the answer.
    """
    answers = is_predicted(values)
    of_answer = np.where(answers, values, 1 - values)
    used = may[:, None] & (of_answer >= confidence)
    if most is not None:
        for column in range(values.shape[1]):
            for answer in (False, True):
                rows = np.flatnonzero(used[:, column] & (answers[:, column] == answer))
                order = np.argsort(-of_answer[rows, column], kind="stable")
                used[rows[order[most:]], column] = False
    return np.where(used, values if soft else answers, np.nan).astype(np.float32)


def chosen_numbers(
    of_teachers: NDArray[np.float64], may: NDArray[np.bool_], largest: NDArray[np.float64] | None
) -> NDArray[np.float32]:
    """Return (n, columns) the mean number of the teachers; nan where they differ by too much.

    Parameters
    ----------
    of_teachers : (teachers, n, columns).
    may : (n,) images that may be learned.
    largest : (columns,) largest difference between two teachers, in the unit of the number; None for any.
    """
    used = np.repeat(may[:, None], of_teachers.shape[2], axis=1)
    if largest is not None:
        used &= np.ptp(of_teachers, axis=0) <= largest
    return np.where(used, of_teachers.mean(axis=0), np.nan).astype(np.float32)
