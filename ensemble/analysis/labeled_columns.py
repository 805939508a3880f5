"""Hold images with known labels or numbers, what is predicted for them, and what each member says; numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.columns import Column
from folds.utils.numeric import factorize


@dataclass(frozen=True, eq=False)
class LabeledColumns:
    """Images of which a label or a number is known, and their predictions.

    Attributes
    ----------
    ids, persons : (n,) text.
    labels : float64 (n, columns), 0 and 1 or numbers; nan where one is not known.
    names : of the columns.
    task : ``multilabel`` or ``regression``.
    values : (n, columns) the predictions that are judged: probabilities, or numbers.
    members : name → (n, columns) what the member predicts, nan in rows that it does not predict.
    """

    ids: NDArray[np.str_]
    persons: NDArray[np.str_]
    labels: NDArray[np.float64]
    names: tuple[str, ...]
    task: str
    values: NDArray[np.floating]
    members: Mapping[str, NDArray[np.floating]]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def people(self) -> tuple[list[str], NDArray[np.int64]]:
        """Return the names of the people, and (n,) the index of the person of each row."""
        return factorize(self.persons)

    @cached_property
    def columns(self) -> list[Column]:
        """Return each label or number on the rows where it is known."""
        made = []
        for at, name in enumerate(self.names):
            rows = np.flatnonzero(np.isfinite(self.labels[:, at]))
            values = np.asarray(self.values[rows, at], np.float64)
            persons = factorize(self.persons[rows])[1] if len(rows) else np.zeros(0, np.int64)
            made.append(Column(name, rows, self.labels[rows, at], values, persons, len(self)))
        return made
