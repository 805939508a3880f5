"""Compare predicted probabilities with shares in bins, for reliability diagrams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.units import Unit
from ensemble.decisions.rows import share_interval
from folds.metrics.intervals import Interval
from folds.utils.charts.series import Calibrated


@dataclass(frozen=True)
class ShareBin:
    """Rows with similar probabilities.

    Attributes
    ----------
    low, high, mean : of the probabilities.
    share : of the rows that are positive, with its interval over people.
    count : rows.
    """

    low: float
    high: float
    mean: float
    share: Interval
    count: int


def share_bins(
    values: NDArray[np.floating], positive: NDArray, persons: NDArray[np.int64], bins: int
) -> list[ShareBin]:
    """Return bins with about equally many rows; rows with equal probabilities stay together.

    Parameters
    ----------
    values : (n,) probabilities.
    positive : (n,) bool, or 0 and 1: what the probabilities are of.
    persons : (n,) from 0.
    """
    people = int(persons.max()) + 1
    edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)))
    index = np.clip(np.searchsorted(edges, values, side="left") - 1, 0, max(len(edges) - 2, 0))
    found = []
    for number in np.unique(index).tolist():
        rows = index == number
        whole = np.bincount(persons[rows], minlength=people).astype(np.float64)
        hits = np.bincount(persons[rows], positive[rows].astype(np.float64), people).astype(np.float64)
        inside = values[rows]
        share = share_interval(hits, whole)
        found.append(ShareBin(float(inside.min()), float(inside.max()), float(inside.mean()), share, int(rows.sum())))
    return found


def calibrated(name: str, bins: Sequence[ShareBin], unit: Unit, tone: int = 0) -> Calibrated:
    """Return the curve for a reliability diagram."""
    return Calibrated(
        name,
        [one.mean for one in bins],
        [one.share.value for one in bins],
        [one.share.low for one in bins],
        [one.share.high for one in bins],
        [one.count for one in bins],
        tone,
        unit.many,
    )
