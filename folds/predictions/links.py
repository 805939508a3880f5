"""Turn the outputs of a model into predictions, for each task; numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from folds.metrics.label_scores import is_predicted
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.predictions.files import NUMBERS
from folds.predictions.label_columns import SEPARATOR, label_texts
from folds.utils.numeric import sigmoid, softmax


def predictions_of(task: str, outputs: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return (…, columns) predictions from the outputs of a model.

    They are class probabilities (softmax); with several labels, a probability for each (sigmoid); or numbers, which
    the model returns in their own unit.

    Parameters
    ----------
    task : one of `folds.metrics.task_names.ALL_TASKS`.
    """
    if task == REGRESSION:
        return np.asarray(outputs, dtype=np.float64)
    return sigmoid(outputs) if task == MULTILABEL else softmax(outputs)


def kind_of(task: str) -> str:
    """Return the `kind` of prediction files of a task: ``probability`` or ``number``."""
    return NUMBERS if task == REGRESSION else "probability"


def answers_of(task: str, values: NDArray[np.floating], names: Sequence[str]) -> NDArray[np.str_]:
    """Return (n,) the answer that predictions (n, columns) give.

    It is the most probable class; of several labels those with a probability above 0.5 (`is_predicted`), joined as
    in `folds.predictions.label_columns`; of numbers the numbers, with nine digits.

    Examples
    --------
    >>> answers_of("multilabel", np.array([[0.9, 0.5], [0.2, 0.1]]), ["hat", "glasses"]).tolist()
    ['hat', '-']
    >>> answers_of("regression", np.array([[34.5]], np.float32), ["age"]).tolist()
    ['34.5']
    """
    if task == MULTILABEL:
        return label_texts(is_predicted(values).astype(np.float64), names, task)
    if task == REGRESSION:
        numbers = [[f"{value:.9g}" for value in row] for row in np.asarray(values).tolist()]
        if len(names) == 1:
            return np.array([row[0] for row in numbers], dtype=str)
        return np.array(
            [SEPARATOR.join(f"{name}={one}" for name, one in zip(names, row, strict=True)) for row in numbers],
            dtype=str,
        )
    return np.array(names)[np.asarray(values).argmax(axis=1)]


def same_answers(task: str, one: NDArray[np.floating], other: NDArray[np.floating], tolerance: float) -> float:
    """Return the share of equal answers in two predictions (n, columns) of the same rows.

    An answer is the most probable class; with several labels whether a label is there, of every cell; of numbers every
    cell, equal within `tolerance` (`largest_difference`).
    """
    if task == MULTILABEL:
        return float((is_predicted(one) == is_predicted(other)).mean())
    if task == REGRESSION:
        return float((_differences(task, one, other) <= tolerance).mean())
    return float((one.argmax(1) == other.argmax(1)).mean())


def largest_difference(task: str, one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Return the largest difference of two predictions of the same rows.

    Differences of numbers are divided by the largest number of their column, because rounding grows with it.
    """
    return float(_differences(task, one, other).max())


def _differences(task: str, one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.floating]:
    found = np.abs(one - other)
    if task != REGRESSION:
        return found
    largest = np.abs(other).max(axis=0, initial=0)
    return np.asarray(found / np.where(largest > 0, largest, 1))


def outputs_kind_of(task: str) -> str:
    """Return the `kind` of files with the outputs of a model: ``logit``, or ``number``."""
    return NUMBERS if task == REGRESSION else "logit"
