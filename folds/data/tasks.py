"""Name the tasks of a table: what the classes of a label mean to each other."""

from __future__ import annotations

from folds.predictions.files import CLASSES, ORDINAL

TASKS = (CLASSES, ORDINAL)
