"""Score one label of several, or one number, on the rows where it is known, with intervals over people; numpy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.units import IMAGE, Unit
from folds.metrics.classification import Metric
from folds.metrics.custom import metric_of
from folds.metrics.intervals import Interval, interval_over_people
from folds.utils.numeric import factorize

BINS = 10  # of the probabilities of a label, of equal width
MIN_PEOPLE = 5  # with a label, and without it, one for each of five folds


@dataclass(frozen=True, eq=False)
class Column:
    """The rows on which a label or a number is known and predicted.

    Attributes
    ----------
    rows : (n,) their index in the part.
    labels : (n,) 0 and 1, or numbers.
    values : (n,) probabilities, or numbers.
    persons : (n,) from 0.
    total : rows of which the column may be unknown.
    unit : what a row is.
    """

    name: str
    rows: NDArray[np.int64]
    labels: NDArray[np.float64]
    values: NDArray[np.float64]
    persons: NDArray[np.int64]
    total: int
    unit: Unit = IMAGE

    @property
    def people(self) -> int:
        """Return the number of people."""
        return len(np.unique(self.persons))

    @cached_property
    def two_columns(self) -> NDArray[np.float64]:
        """Return (n, 2) the probabilities without and with the label, as metrics of a decision take them."""
        return np.stack([1 - self.values, self.values], axis=1)

    def people_with(self, value: int) -> int:
        """Return the number of people with an image whose label is `value`, 0 or 1."""
        return len(np.unique(self.persons[self.labels == value]))

    @property
    def fewest(self) -> int:
        """Return the number of people with the label or without it, whichever is smaller."""
        return min(self.people_with(0), self.people_with(1))

    def score(self, metric: str | Metric) -> Interval | None:
        """Return a score of the label as a decision of its own; None unless both values occur."""
        name = metric if isinstance(metric, str) else metric.name
        if name not in self._scores:
            both = self.people_with(0) and self.people_with(1)
            self._scores[name] = self._interval(metric_of(metric)) if both else None
        return self._scores[name]

    @cached_property
    def _scores(self) -> dict[str, Interval | None]:
        return {}

    def mean(self, values: NDArray[np.floating]) -> Interval:
        """Return the mean of (n,) values with its interval over people."""
        zeros = np.zeros(len(self.labels), np.int64)
        return interval_over_people(MEAN, zeros, np.asarray(values, np.float64)[:, None], self.persons)

    def _interval(self, metric: Metric) -> Interval:
        return interval_over_people(metric, self.labels.astype(np.int64), self.two_columns, self.persons)

    @cached_property
    def calibration_error(self) -> Interval:
        """Return the mean distance of probability and share in `BINS` bins of the probability."""
        return self._interval(_CALIBRATION_ERROR)

    @cached_property
    def gap(self) -> Interval:
        """Return the mean probability minus the share of rows with the label."""
        return self._interval(_GAP)

    @property
    def errors(self) -> NDArray[np.float64]:
        """Return (n,) predicted minus true numbers."""
        return self.values - self.labels

    @cached_property
    def size(self) -> Interval:
        """Return the mean absolute error with its interval over people."""
        return interval_over_people(metric_of("mae"), self.labels[:, None], self.values[:, None], self.persons)

    @cached_property
    def slope(self) -> Interval:
        """Return by how much the prediction grows if the true number grows by 1, with its interval over people."""
        center = self.labels.mean() if len(self.labels) else 0.0  # without it sums of large numbers lose digits
        both = np.stack([self.labels - center, self.values - center], axis=1)
        return interval_over_people(_SLOPE, np.zeros(len(both), np.int64), both, self.persons)

    def take(self, kept: NDArray[np.bool_]) -> Column:
        """Return some of the rows."""
        persons = factorize(self.persons[kept])[1]
        return Column(self.name, self.rows[kept], self.labels[kept], self.values[kept], persons, self.total, self.unit)


def _in_bins(labels: NDArray[np.integer], values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return (n, bins + 1): label minus probability in the bin of the row, and 1."""
    probability = np.asarray(values, np.float64)[:, 1]
    bins = np.clip(np.ceil(probability * BINS).astype(np.int64) - 1, 0, BINS - 1)
    found = np.zeros((len(bins), BINS + 1))
    found[np.arange(len(bins)), bins] = labels - probability
    found[:, BINS] = 1
    return found


def _error_of_bins(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.abs(sums[..., :BINS]).sum(-1) / np.maximum(sums[..., BINS], 1)


def _products(labels: NDArray[np.integer], values: NDArray[np.floating]) -> NDArray[np.float64]:
    x, y = np.asarray(values, np.float64).T
    return np.stack([np.ones(len(x)), x, y, x * x, x * y], axis=1)


def _slope_of(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    n, x, y, xx, xy = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
    spread = n * xx - x * x
    return np.divide(n * xy - x * y, spread, out=np.full(np.shape(n), np.nan), where=spread > 1e-9 * np.maximum(xx, 1))


MEAN = Metric("mean", "mean", per_row=lambda labels, values: values[:, 0], lower_bound=-math.inf, upper_bound=math.inf)
_SLOPE = Metric("slope", "slope", row_sums=_products, of_sums=_slope_of, lower_bound=-math.inf, upper_bound=math.inf)
_GAP = Metric(
    "gap", "mean probability minus share", per_row=lambda labels, values: values[:, 1] - labels, lower_bound=-1.0
)
_CALIBRATION_ERROR = Metric(
    "calibration_error", "calibration error", greater_is_better=False, row_sums=_in_bins, of_sums=_error_of_bins
)


def unit_of_columns(columns: Sequence[Column]) -> Unit:
    """Return what a row of some columns is."""
    return columns[0].unit if columns else IMAGE


def decimals_for(scale: float) -> int:
    """Return with how many decimals numbers of this size are written, so that they have three digits that count."""
    if not (math.isfinite(scale) and scale > 0):
        return 2
    return int(np.clip(2 - math.floor(math.log10(scale)), 0, 6))


def number_text(interval: Interval, decimals: int, signed: bool = False) -> str:
    """Return ``5.12 [4.80, 5.44]``."""
    form = f"{'+' if signed else ''},.{decimals}f"
    if math.isnan(interval.low) or math.isnan(interval.high):
        return f"{interval.value:{form}} [unknown]"
    return f"{interval.value:{form}} [{interval.low:{form}}, {interval.high:{form}}]"
