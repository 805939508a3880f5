"""Summarize several labels or numbers of samples: counts of each label, mean and range of each number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.metrics.columns import counted_cells, units_with
from folds.metrics.task_names import MULTILABEL


def column_summary(
    values: NDArray[np.float64] | None, owners: NDArray[np.int64] | None, names: Sequence[str], task: str
) -> dict[str, dict[str, Any]]:
    """Return name → summary of each column, as plain values.

    Parameters
    ----------
    values : (n, columns) labels or numbers, nan if not known; None if there are none.
    owners : (n,) the person of each sample, from 0; None if unknown.

    Returns
    -------
    With several labels: samples ``with`` and ``without`` it, ``unknown`` ones, and ``people`` with it. Of numbers:
    ``known`` and ``unknown`` samples, ``people``, ``mean``, ``sd``, ``min`` and ``max``.
    """
    if values is None:
        return {name: {} for name in names}
    found: dict[str, dict[str, Any]] = {}
    counted = counted_cells(values, task)
    of_people = [None] * len(names) if owners is None else units_with(counted, owners).tolist()
    for name, column, has, people in zip(names, values.T, counted.T, of_people, strict=True):
        known = ~np.isnan(column)
        if task == MULTILABEL:
            counts = {"with": has.sum(), "without": (column == 0).sum(), "unknown": (~known).sum()}
            found[name] = {key: int(count) for key, count in counts.items()} | {"people": people}
            continue
        numbers = column[known]
        found[name] = {"known": int(known.sum()), "unknown": int((~known).sum()), "people": people}
        found[name] |= (
            {"mean": None, "sd": None, "min": None, "max": None}
            if not len(numbers)
            else {
                "mean": float(numbers.mean()),
                "sd": float(numbers.std()),
                "min": float(numbers.min()),
                "max": float(numbers.max()),
            }
        )
    return found


def column_rows(summary: Mapping[str, Mapping[str, Any]], task: str) -> tuple[list[str], list[list[object]]]:
    """Return header and rows of the table of a `column_summary`."""
    keys = ["with", "without", "unknown", "people"]
    header = ["label", "samples with it", "without it", "unknown", "people with it"]
    if task != MULTILABEL:
        keys = ["known", "unknown", "people", "mean", "sd", "min", "max"]
        header = ["number", "samples", "unknown", "people", "mean", "sd", "lowest", "highest"]
    return header, [[name, *(_shown(one[key]) for key in keys)] for name, one in summary.items()]


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
