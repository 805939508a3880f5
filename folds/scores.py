"""Metrics from label and prediction arrays, and their intervals over people; numpy only.

Training, the combiner and the reports share these, so that one number means one thing everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

# Units of a bootstrap at most; the spread that so many show is known to 2 %.
BAGS = 4096

Labels = NDArray[np.integer]
Probabilities = NDArray[np.floating]


def argmax_classes(probabilities: Probabilities) -> NDArray[np.int64]:
    """(n, classes) → (n,) the class with the highest value; the lowest index among equals."""
    return np.asarray(probabilities).argmax(axis=1)


def person_codes(persons: NDArray) -> NDArray[np.int64]:
    """(n,) names → (n,) numbers in order of first appearance.

    A bootstrap draws people by number, so every score of the same rows must number them alike.
    """
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in persons.tolist()], dtype=np.int64)


def class_counts(labels: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    """(3, classes): hits, labels and predictions of each class; what F1, accuracy and recall are made of."""
    hits = np.bincount(labels[labels == predicted], minlength=classes)
    return np.stack([hits, np.bincount(labels, minlength=classes), np.bincount(predicted, minlength=classes)])


def _f1(counts: NDArray) -> NDArray[np.float64]:
    """(…, 3, classes) → (…, classes) F1 = 2·hits / (labels + predictions), 0 where both are 0."""
    hits, total = counts[..., 0, :], counts[..., 1, :] + counts[..., 2, :]
    return np.divide(2.0 * hits, total, out=np.zeros(np.shape(hits), float), where=total > 0)


def _macro_f1_of(counts: NDArray) -> NDArray[np.float64]:
    return _f1(counts).mean(axis=-1)


def _accuracy_of(counts: NDArray) -> NDArray[np.float64]:
    return counts[..., 0, :].sum(-1) / np.maximum(counts[..., 1, :].sum(-1), 1)


def _balanced_accuracy_of(counts: NDArray) -> NDArray[np.float64]:
    # As scikit-learn: the mean recall over the classes that occur.
    hits, total = counts[..., 0, :], counts[..., 1, :]
    recall = np.divide(hits, total, out=np.zeros(np.shape(hits), float), where=total > 0)
    return recall.sum(-1) / np.maximum((total > 0).sum(-1), 1)


def f1_per_class(labels: Labels, predicted: Labels, classes: int) -> NDArray[np.float64]:
    """(classes,) F1 of each class, 0 where a class neither occurs nor is predicted."""
    return _f1(class_counts(labels, predicted, classes))


def macro_f1(labels: Labels, predicted: Labels, classes: int) -> float:
    """Macro F1 over all declared classes, as ``f1_score(labels=range(classes), average="macro", zero_division=0)``."""
    return float(_macro_f1_of(class_counts(labels, predicted, classes)))


def accuracy(labels: Labels, predicted: Labels) -> float:
    """Share of the rows whose class is right."""
    return float(np.mean(np.asarray(labels) == np.asarray(predicted)))


def log_loss(labels: Labels, probabilities: Probabilities) -> float:
    """Mean −log p of the true class, p kept off 0 by the machine epsilon of its dtype (as scikit-learn)."""
    p = np.asarray(probabilities)[np.arange(len(labels)), labels]
    smallest = np.finfo(p.dtype).eps
    return float(-np.log(np.clip(p, smallest, 1 - smallest), dtype=np.float64).mean())


@dataclass(frozen=True)
class Metric:
    """A score of (labels, probabilities).

    `of_counts` takes (…, 3, classes) hits/labels/predictions (see `class_counts`) and gives (…); it is None for a
    metric that needs the probabilities, which `of_rows` turns into one value a row, averaged.
    """

    name: str
    title: str
    greater_is_better: bool = True
    of_counts: Callable[[NDArray], NDArray] | None = None
    of_rows: Callable[[Labels, Probabilities], NDArray] | None = None

    def __call__(self, labels: Labels, probabilities: Probabilities) -> float:
        """The score of `probabilities` (n, classes) against `labels` (n,) class indices."""
        if self.of_counts is not None:
            predicted = argmax_classes(probabilities)
            return float(self.of_counts(class_counts(labels, predicted, np.shape(probabilities)[1])))
        assert self.of_rows is not None  # noqa: S101 - one of the two is always given
        return float(self.of_rows(labels, probabilities).mean())


def _row_log_loss(labels: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    p = np.asarray(probabilities)[np.arange(len(labels)), labels]
    smallest = np.finfo(p.dtype).eps
    return -np.log(np.clip(p, smallest, 1 - smallest), dtype=np.float64)


METRICS: dict[str, Metric] = {
    "macro_f1": Metric("macro_f1", "macro F1", of_counts=_macro_f1_of),
    "accuracy": Metric("accuracy", "accuracy", of_counts=_accuracy_of),
    "balanced_accuracy": Metric("balanced_accuracy", "balanced accuracy", of_counts=_balanced_accuracy_of),
    "log_loss": Metric("log_loss", "log loss", greater_is_better=False, of_rows=_row_log_loss),
}


@dataclass(frozen=True)
class Interval:
    """A score and the range that holds it for other people from the same population, with probability `level`."""

    score: float
    low: float
    high: float
    level: float = 0.95
    people: int = 0


def interval_over_people(
    metric: Metric,
    labels: Labels,
    probabilities: Probabilities,
    persons: NDArray,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Bootstrap interval of a score, people (not images) drawn with replacement.

    Images of one person are right or wrong together, so an interval over images is too narrow. Each person is
    reduced to its hits, labels and predictions a class (or its sum of row losses), so a resample is a matrix product.
    For macro F1 the percentile interval is bias-corrected (Efron, 1981): its bootstrap is skewed downwards, since a
    rare class can drop out of a resample. More than `BAGS` people are put into that many bags at random, and bags are
    drawn: sums over people vary as much, and 30,000 people take as long as 4,000.

    Parameters
    ----------
    labels : (n,) class indices.
    probabilities : (n, classes).
    persons : (n,) any values; equal values are one person.
    """
    score = metric(labels, probabilities)
    codes, units, people, rng = _units(persons, seed)
    stats = _stats(metric, labels, probabilities, codes, units)
    drawn = np.concatenate([_score_of(metric, sums) for sums in _resampled(stats, resamples, rng)])
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if metric.name == "macro_f1":
        tails = _bias_corrected(tails, drawn, score)
    low, high = np.quantile(drawn, tails)
    return Interval(score, float(low), float(high), level, people)


@dataclass(frozen=True)
class Difference:
    """Two scores on the same rows, and what the second has more than the first.

    Attributes
    ----------
    difference : second − first, with its interval over people.
    chance : how often people drawn again show no difference or one of the other sign (two-sided); above 1 − level the interval holds 0.
    """

    first: float
    second: float
    difference: Interval
    chance: float


def difference_over_people(
    metric: Metric,
    labels: Labels,
    first: Probabilities,
    second: Probabilities,
    persons: NDArray,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Paired bootstrap of a difference of scores: both are scored on the same people, drawn with replacement.

    What is hard is hard for both, so the difference is known better than either score. Plain percentile interval: a
    difference has no skew worth correcting. It says whether other people would show the difference, not whether other
    seeds of training would.

    Parameters
    ----------
    labels : (n,) class indices.
    first, second : (n, classes) of the same rows.
    persons : (n,) any values; equal values are one person.
    """
    scores = metric(labels, first), metric(labels, second)
    codes, units, people, rng = _units(persons, seed)
    stats = np.stack([_stats(metric, labels, values, codes, units) for values in (first, second)], axis=1)
    drawn = np.concatenate([_score_of(metric, sums) for sums in _resampled(stats, resamples, rng)])
    change = drawn[:, 1] - drawn[:, 0]
    low, high = np.quantile(change, [(1 - level) / 2, (1 + level) / 2])
    # One is added to both: what was never seen in so many draws may still be.
    beyond = min(int(np.sum(change <= 0)), int(np.sum(change >= 0)))
    chance = min(1.0, 2 * (beyond + 1) / (resamples + 1))
    return Difference(*scores, Interval(scores[1] - scores[0], float(low), float(high), level, people), chance)


def _units(persons: NDArray, seed: int) -> tuple[NDArray[np.int64], int, int, np.random.Generator]:
    """(n,) what each row is drawn with, how many of these there are, how many people, and the generator that draws."""
    _, codes = np.unique(persons, return_inverse=True)
    people = units = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    if people > BAGS:
        codes, units = rng.permutation(people)[codes] % BAGS, BAGS
    return codes, units, people, rng


def _stats(metric: Metric, labels: Labels, probabilities: Probabilities, codes: NDArray[np.int64], units: int) -> NDArray[np.float64]:
    """(units, …) what adds up over units and makes the score: (3, classes) counts, or (2, 1) a sum of row values and its rows."""
    if metric.of_counts is not None:
        classes = np.shape(probabilities)[1]
        predicted = argmax_classes(probabilities)
        hit = labels == predicted
        tallies = [_tally(codes[hit], labels[hit], units, classes), _tally(codes, labels, units, classes), _tally(codes, predicted, units, classes)]
        return np.stack(tallies, axis=1)
    assert metric.of_rows is not None  # noqa: S101
    rows = metric.of_rows(labels, probabilities)
    summed: NDArray = np.stack([np.bincount(codes, rows), np.bincount(codes)], axis=1)
    return summed[:, :, None]


def _resampled(stats: NDArray[np.float64], resamples: int, rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    """Blocks (size, …) of sums over units drawn with replacement, `resamples` in all."""
    units, flat = len(stats), stats.reshape(len(stats), -1)
    block = max(1, 2_000_000 // units)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        # Counting what was drawn is ten times as fast as multinomial draws.
        picks = rng.integers(0, units, size=(size, units)) + units * np.arange(size)[:, None]
        weights = np.bincount(picks.ravel(), minlength=size * units).reshape(size, units).astype(float)
        yield (weights @ flat).reshape(size, *stats.shape[1:])


def _score_of(metric: Metric, sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """(…) scores of sums (…, 3, classes) or (…, 2, 1)."""
    return metric.of_counts(sums) if metric.of_counts is not None else sums[..., 0, 0] / np.maximum(sums[..., 1, 0], 1)


def _tally(rows: NDArray, columns: NDArray, height: int, width: int) -> NDArray[np.float64]:
    """(height, width): how often each pair of (row, column) occurs."""
    return np.bincount(rows * width + columns, minlength=height * width).reshape(height, width).astype(float)


def _bias_corrected(tails: NDArray, drawn: NDArray, score: float) -> NDArray:
    below = (np.sum(drawn < score) + 0.5 * np.sum(drawn == score)) / len(drawn)
    normal = NormalDist()
    shift = 2 * normal.inv_cdf(min(max(below, 1 / len(drawn)), 1 - 1 / len(drawn)))
    return np.array([normal.cdf(shift + normal.inv_cdf(tail)) for tail in tails])


def average_by_person(
    labels: Labels, probabilities: Probabilities, persons: NDArray, classes: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray, int]:
    """One row a person: the mean of its rows' probabilities, and its most frequent label (lowest index among equals).

    Returns
    -------
    labels (people,), probabilities (people, classes), persons (people,), and how many people carry several labels.
    """
    names, codes = np.unique(persons, return_inverse=True)
    tallies = _tally(codes, labels, len(names), classes)
    sums = np.zeros((len(names), classes))
    np.add.at(sums, codes, probabilities)
    return tallies.argmax(1), sums / tallies.sum(1, keepdims=True), names, int(np.sum((tallies > 0).sum(1) > 1))
