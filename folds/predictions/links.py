"""Turn the outputs of a model into predictions, for each task; numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from folds.predictions.files import NUMBERS
from folds.predictions.label_columns import MULTILABEL, REGRESSION
from folds.utils.numeric import sigmoid, softmax


def predictions_of(task: str, outputs: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return (…, columns) predictions from the outputs of a model.

    They are class probabilities (softmax); with several labels, a probability for each (sigmoid); or numbers, which
    the model returns in their own unit.

    Parameters
    ----------
    task : one of `folds.predictions.files.TASKS`.
    """
    if task == REGRESSION:
        return np.asarray(outputs, dtype=np.float64)
    return sigmoid(outputs) if task == MULTILABEL else softmax(outputs)


def kind_of(task: str) -> str:
    """Return the `kind` of prediction files of a task: ``probability`` or ``number``."""
    return NUMBERS if task == REGRESSION else "probability"
