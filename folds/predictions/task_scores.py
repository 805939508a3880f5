"""Which metrics are always measured beside the one that was asked for, by task."""

from __future__ import annotations

from collections.abc import Mapping

from folds.predictions.label_columns import MULTILABEL, REGRESSION

_OF_CLASSES = ("macro_f1", "accuracy", "log_loss")
_OF_COLUMNS: Mapping[str, tuple[str, ...]] = {
    MULTILABEL: ("roc_auc", "macro_f1", "log_loss"),
    REGRESSION: ("mae", "rmse", "r2"),
}


def measured(task: str) -> tuple[str, ...]:
    """Return the metrics of every training of a task: of each epoch, of each fold and in the ledger."""
    return _OF_COLUMNS.get(task, _OF_CLASSES)
