"""Name the tasks: what the labels of a table are, and the metric of each. It imports the standard library only."""

from folds.errors import UsageError, unknown_name

CLASSES, BINARY, ORDINAL = "classes", "binary", "ordinal"
MULTILABEL, REGRESSION = "multilabel", "regression"
# Tasks with a column of labels (0, 1 or not known) or numbers for each column of the predictions.
COLUMN_TASKS = (MULTILABEL, REGRESSION)
# The largest absolute value of a number of a regression, and of what is fitted to numbers: near the end of float32, in
# which numbers are predicted. Tables are read, and files of combinations are written and read, up to it.
LARGEST_NUMBER = 1e38
ALL_TASKS = (CLASSES, BINARY, ORDINAL, *COLUMN_TASKS)
# What a label that a table calls uncertain can be read as.
UNCERTAIN = ("unknown", "absent", "present")

_DEFAULTS = {
    CLASSES: "macro_f1",
    BINARY: "macro_f1",
    ORDINAL: "macro_f1",
    MULTILABEL: "roc_auc",
    REGRESSION: "mae",
}


def default_metric(task: str) -> str:
    """Return the name of the metric of a task if none is given.

    Raises
    ------
    UsageError : the task is unknown.

    Examples
    --------
    >>> default_metric("multilabel"), default_metric("regression")
    ('roc_auc', 'mae')
    """
    check_task(task)
    return _DEFAULTS[task]


def check_task(task: str) -> None:
    """Raise UsageError unless the task is one of `ALL_TASKS`; similar names are suggested."""
    if task not in ALL_TASKS:
        raise unknown_name("`task`", task, list(ALL_TASKS))


def require_classes(task: str, what: str, hint: str = "") -> None:
    """Raise UsageError, with what does not support it, if each column is a label or a number of its own.

    Parameters
    ----------
    what : the setting, the command or the result that is for classes, as a message names it.
    """
    if task in COLUMN_TASKS:
        hint = hint or "it needs classes that exclude each other"
        raise UsageError(f"{what} does not support the task {task}", hint=hint)
