"""Compute scores of labels and predictions; numpy only.

Training, ensembling and reports share these functions, so a metric has the same definition everywhere. Intervals over
people are in `folds/metrics/intervals.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.utils.memmap import blocks

_AT_ONCE = 1 << 20  # numbers of a block; the pages of a memory map are released after each

Labels = NDArray[np.integer]
Probabilities = NDArray[np.floating]


def argmax_classes(probabilities: Probabilities) -> NDArray[np.int64]:
    """Return (n,) the class with the highest value in each row of (n, classes); the lowest index among equals."""
    values = np.asarray(probabilities)
    if values.size <= _AT_ONCE:
        return values.argmax(axis=1)
    return np.concatenate([block.argmax(axis=1) for block in blocks(values, _AT_ONCE)])


def confusion_counts(labels: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    """Return (3, classes): true positives, support and predictions of each class; F1, accuracy, recall and kappa follow
    from them.
    """
    true_positives = np.bincount(labels[labels == predicted], minlength=classes)
    return np.stack([true_positives, np.bincount(labels, minlength=classes), np.bincount(predicted, minlength=classes)])


def _ratio(numerator: NDArray, denominator: NDArray) -> NDArray[np.float64]:
    """Return numerator / denominator, 0 where the denominator is 0."""
    return np.divide(
        numerator,
        denominator,
        out=np.zeros(np.broadcast_shapes(np.shape(numerator), np.shape(denominator))),
        where=denominator > 0,
    )


def recall_of(counts: NDArray) -> NDArray[np.float64]:
    """Return (…, classes) recall from (…, 3, classes) counts: true positives / support, 0 without any."""
    return _ratio(counts[..., 0, :], counts[..., 1, :])


def precision_of(counts: NDArray) -> NDArray[np.float64]:
    """Return (…, classes) precision from (…, 3, classes) counts: true positives / predictions, 0 without any."""
    return _ratio(counts[..., 0, :], counts[..., 2, :])


def f1_of(counts: NDArray) -> NDArray[np.float64]:
    """Return (…, classes) F1 from (…, 3, classes) counts: 2·true positives / (support + predictions), 0 where both are
    0.
    """
    return _ratio(2.0 * counts[..., 0, :], counts[..., 1, :] + counts[..., 2, :])


def accuracy_of(counts: NDArray) -> NDArray[np.float64]:
    """Return (…) the accuracy from (…, 3, classes) counts: true positives / support."""
    return _ratio(counts[..., 0, :].sum(-1), counts[..., 1, :].sum(-1))


def _macro_f1_of(counts: NDArray) -> NDArray[np.float64]:
    return f1_of(counts).mean(axis=-1)


def _balanced_accuracy_of(counts: NDArray) -> NDArray[np.float64]:
    return _ratio(recall_of(counts).sum(-1), (counts[..., 1, :] > 0).sum(-1))


def _kappa_of(counts: NDArray) -> NDArray[np.float64]:
    expected_agreement = _ratio((counts[..., 1, :] * counts[..., 2, :]).sum(-1), counts[..., 1, :].sum(-1) ** 2)
    return _ratio(accuracy_of(counts) - expected_agreement, 1 - expected_agreement)


@dataclass(frozen=True)
class ClassSums:
    """A metric of counts as a function of sums over classes, for scores that change in a few classes at a time.

    Attributes
    ----------
    terms : true positives, support and predictions of classes, each (…) → the summands of each class, each (…).
    score : the sums of these over all classes, and the number of classes → (…).
    """

    terms: Callable[[NDArray, NDArray, NDArray], tuple[NDArray, ...]]
    score: Callable[[Sequence[NDArray], int], NDArray[np.float64]]


def _f1_terms(true_positives: NDArray, support: NDArray, predictions: NDArray) -> tuple[NDArray, ...]:
    return (_ratio(2.0 * true_positives, support + predictions),)


def _recall_terms(true_positives: NDArray, support: NDArray, predictions: NDArray) -> tuple[NDArray, ...]:
    return _ratio(true_positives, support), support > 0


def _accuracy_terms(true_positives: NDArray, support: NDArray, predictions: NDArray) -> tuple[NDArray, ...]:
    return true_positives, support


def _kappa_terms(true_positives: NDArray, support: NDArray, predictions: NDArray) -> tuple[NDArray, ...]:
    return true_positives, support, support * predictions


def _kappa_of_sums(sums: Sequence[NDArray], classes: int) -> NDArray[np.float64]:
    true_positives, rows, products = sums
    expected_agreement = _ratio(products, np.square(rows))
    return _ratio(_ratio(true_positives, rows) - expected_agreement, 1 - expected_agreement)


def f1_per_class(labels: Labels, predicted: Labels, classes: int) -> NDArray[np.float64]:
    """Return (classes,) F1 of each class, 0 for a class that neither occurs nor is predicted."""
    return f1_of(confusion_counts(labels, predicted, classes))


def macro_f1(labels: Labels, predicted: Labels, classes: int) -> float:
    """Return macro F1 over all declared classes.

    Equals ``f1_score(labels=range(classes), average="macro", zero_division=0)`` of scikit-learn.
    """
    return float(_macro_f1_of(confusion_counts(labels, predicted, classes)))


def accuracy(labels: Labels, predicted: Labels) -> float:
    """Return the share of rows whose predicted class is right."""
    return float(np.mean(np.asarray(labels) == np.asarray(predicted)))


def per_row_log_loss(labels: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    """Return (n,) −log p of the true class; p is clipped by the machine epsilon of its dtype, as in scikit-learn."""
    p = np.asarray(probabilities)[np.arange(len(labels)), labels]
    smallest = np.finfo(p.dtype).eps
    return -np.log(np.clip(p, smallest, 1 - smallest), dtype=np.float64)


def log_loss(labels: Labels, probabilities: Probabilities) -> float:
    """Return the mean of `per_row_log_loss`."""
    return float(per_row_log_loss(labels, probabilities).mean())


def per_row_brier(labels: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    """Return (n,) Σ over classes of (p − 1 for the true class, p for the others)²: from 0 to 2.

    The mean is Brier's original score (1950), ``brier_score_loss(scale_by_half=False)`` in scikit-learn; for two
    classes it is twice the score that is often called by this name.
    """
    p = np.asarray(probabilities, np.float64)
    true = p[np.arange(len(labels)), labels]
    return (p**2).sum(axis=1) - 2 * true + 1


def roc_auc_per_class(labels: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    """Return (classes,) the probability that a sample of the class has a higher value for it than a sample of another
    class.

    Equal values count one half. Computed from mean ranks (Mann and Whitney, 1947); nan for a class that no sample or
    every sample has.
    """
    found = np.full(np.shape(probabilities)[1], np.nan)
    for one, column in enumerate(np.asarray(probabilities).T):
        mine = labels == one
        positives, negatives = int(mine.sum()), int((~mine).sum())
        if positives and negatives:
            _, position, count = np.unique(column, return_inverse=True, return_counts=True)
            ranks = (np.cumsum(count) - (count - 1) / 2)[position]
            found[one] = (ranks[mine].sum() - positives * (positives + 1) / 2) / (positives * negatives)
    return found


def mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (…) the mean over the last axis of (…, classes) without nan; nan where all values are nan."""
    known = ~np.isnan(values)
    return np.where(known.any(-1), np.where(known, values, 0).sum(-1) / np.maximum(known.sum(-1), 1), np.nan)


def roc_auc(labels: Labels, probabilities: Probabilities) -> float:
    """Return the mean of `roc_auc_per_class` over the classes where it is defined; nan if only one class occurs.

    Equals ``roc_auc_score(multi_class="ovr")`` if all classes occur.
    """
    return float(mean_of_known(roc_auc_per_class(labels, probabilities)))


@dataclass(frozen=True)
class Metric:
    """A score of (labels, probabilities), computed in one of four ways.

    Attributes
    ----------
    from_counts : (…, 3, classes) true positives, support and predictions (see `confusion_counts`) → (…).
    per_row : labels, probabilities → (n,) a value per row; the score is their mean.
    rank_based : whether it is `roc_auc`.
    function : labels (n,), probabilities (n, classes) → the score; for a function of the user.
    lower_bound, upper_bound : the range of its values.
    class_sums : the same as `from_counts`, by sums over classes; set if that is set.
    sha : hex SHA-256 of the file with a user's function.
    macro_averaged : whether it is a mean over classes, in which rare classes have the same weight as others.
    """

    name: str
    title: str
    greater_is_better: bool = True
    from_counts: Callable[[NDArray], NDArray] | None = None
    per_row: Callable[[Labels, Probabilities], NDArray] | None = None
    rank_based: bool = False
    function: Callable[[Labels, Probabilities], float] | None = None
    lower_bound: float = 0.0
    upper_bound: float = 1.0
    macro_averaged: bool = False
    sha: str = ""
    class_sums: ClassSums | None = None

    def __call__(self, labels: Labels, probabilities: Probabilities) -> float:
        """Return the score of `probabilities` (n, classes) against `labels` (n,) class indices."""
        if self.from_counts is not None:
            return float(
                self.from_counts(confusion_counts(labels, argmax_classes(probabilities), np.shape(probabilities)[1]))
            )
        if self.per_row is not None:
            return float(self.per_row(labels, probabilities).mean())
        if self.function is not None:
            return self.function(labels, probabilities)
        return roc_auc(labels, probabilities)

    def __reduce__(self) -> Any:
        """Pickle a built-in metric by its name, because its functions have none."""
        return (_built_in, (self.name,)) if METRICS.get(self.name) is self else super().__reduce__()


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "macro_f1",
            "macro F1",
            from_counts=_macro_f1_of,
            macro_averaged=True,
            class_sums=ClassSums(_f1_terms, lambda sums, classes: sums[0] / classes),
        ),
        Metric(
            "accuracy",
            "accuracy",
            from_counts=accuracy_of,
            class_sums=ClassSums(_accuracy_terms, lambda sums, classes: _ratio(sums[0], sums[1])),
        ),
        Metric(
            "balanced_accuracy",
            "balanced accuracy",
            from_counts=_balanced_accuracy_of,
            macro_averaged=True,
            class_sums=ClassSums(_recall_terms, lambda sums, classes: _ratio(sums[0], sums[1])),
        ),
        Metric(
            "kappa",
            "kappa",
            from_counts=_kappa_of,
            lower_bound=-1.0,
            class_sums=ClassSums(_kappa_terms, _kappa_of_sums),
        ),
        Metric("log_loss", "log loss", greater_is_better=False, per_row=per_row_log_loss, upper_bound=math.inf),
        Metric("brier", "Brier score", greater_is_better=False, per_row=per_row_brier, upper_bound=2.0),
        Metric("roc_auc", "ROC-AUC", rank_based=True, macro_averaged=True),
    )
}


def _built_in(name: str) -> Metric:
    return METRICS[name]
