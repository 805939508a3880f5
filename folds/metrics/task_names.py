"""Name the tasks: what the labels of a table are. It imports nothing."""

CLASSES, BINARY, ORDINAL = "classes", "binary", "ordinal"
MULTILABEL, REGRESSION = "multilabel", "regression"
# Tasks with a column of labels (0, 1 or not known) or numbers for each column of the predictions.
COLUMN_TASKS = (MULTILABEL, REGRESSION)
ALL_TASKS = (CLASSES, BINARY, ORDINAL, *COLUMN_TASKS)
