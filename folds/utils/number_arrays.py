"""Read arrays of numbers from the fields of a record, with their shapes and range checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError

_SHOWN_WHOLE = 1e15  # larger limits are shown as 1e+38


@dataclass(frozen=True)
class NumberFields:
    """The fields with numbers of a record.

    Attributes
    ----------
    record : name of a field → lists of numbers, nested, or an array.
    source : the file, as errors name it.
    largest : the largest absolute value; nan is none.
    hint : of errors.
    """

    record: Mapping[str, Any]
    source: str
    largest: float
    hint: str

    def get(self, name: str, *shapes: tuple[int, ...]) -> NDArray[np.float64] | None:
        """Return the numbers of a field with one of `shapes`; None if it is absent.

        Raises
        ------
        EnsembleError : it has another shape, or a number out of range.
        """
        return None if self.record.get(name) is None else self.require(name, *shapes)

    def require(self, name: str, *shapes: tuple[int, ...]) -> NDArray[np.float64]:
        """Return the same of a field that must be there."""
        try:
            values = np.asarray(self.record.get(name), dtype=np.float64)
        except (ValueError, TypeError):  # rows of different lengths, or no numbers
            values = np.zeros(0)
        if values.shape not in shapes:
            expected = " or ".join(" × ".join(map(str, shape)) for shape in shapes)
            raise EnsembleError(f"{self.source}: '{name}' must be {expected} numbers", hint=self.hint)
        largest = f"{self.largest:,.0f}" if self.largest < _SHOWN_WHOLE else f"{self.largest:g}"
        if values.size and not (values.min() >= -self.largest and values.max() <= self.largest):  # False for nan
            raise EnsembleError(
                f"{self.source}: '{name}' must be numbers from -{largest} to {largest}",
                hint=self.hint,
            )
        return values
