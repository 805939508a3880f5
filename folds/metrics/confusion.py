"""Compute scores from counts of decisions: true positives, support and predictions of each class; numpy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from folds.metrics.columns import ratio
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


def recall_of(counts: NDArray) -> NDArray[np.float64]:
    """Return (…, classes) recall from (…, 3, classes) counts: true positives / support, 0 without any."""
    return ratio(counts[..., 0, :], counts[..., 1, :])


def precision_of(counts: NDArray) -> NDArray[np.float64]:
    """Return (…, classes) precision from (…, 3, classes) counts: true positives / predictions, 0 without any."""
    return ratio(counts[..., 0, :], counts[..., 2, :])


def f1_of(counts: NDArray) -> NDArray[np.float64]:
    """Return (…, classes) F1 from (…, 3, classes) counts: 2·true positives / (support + predictions), 0 where both are
    0.
    """
    return ratio(2.0 * counts[..., 0, :], counts[..., 1, :] + counts[..., 2, :])


def accuracy_of(counts: NDArray) -> NDArray[np.float64]:
    """Return (…) the accuracy from (…, 3, classes) counts: true positives / support."""
    return ratio(counts[..., 0, :].sum(-1), counts[..., 1, :].sum(-1))


def macro_f1_of(counts: NDArray) -> NDArray[np.float64]:
    """Return (…) macro F1 from (…, 3, classes) counts: the mean of F1 over the classes."""
    return f1_of(counts).mean(axis=-1)


def balanced_accuracy_of(counts: NDArray) -> NDArray[np.float64]:
    """Return (…) the mean recall of the classes that occur, from (…, 3, classes) counts."""
    return ratio(recall_of(counts).sum(-1), (counts[..., 1, :] > 0).sum(-1))


def kappa_of(counts: NDArray) -> NDArray[np.float64]:
    """Return (…) Cohen's kappa from (…, 3, classes) counts; 0 if all labels and decisions are of one class."""
    expected_agreement = ratio((counts[..., 1, :] * counts[..., 2, :]).sum(-1), counts[..., 1, :].sum(-1) ** 2)
    return ratio(accuracy_of(counts) - expected_agreement, 1 - expected_agreement)


@dataclass(frozen=True)
class ClassSums:
    """A metric of counts as a function of sums over classes, for scores that change in a few classes at a time.

    Attributes
    ----------
    terms : true positives, support and predictions of classes, each (…) → the summands of each class, each (…).
    score : the sums of these over all classes, and the number of classes → (…).
    only_positive : whether, with two classes, the sums are those of the second alone.
    """

    terms: Callable[[NDArray, NDArray, NDArray], tuple[NDArray, ...]]
    score: Callable[[Sequence[NDArray], int], NDArray[np.float64]]
    only_positive: bool = False

    def weights(self, classes: int) -> NDArray[np.float64]:
        """Return (classes,) the weight of the summands of each class: 1, or 0 for the negative one."""
        return np.array([0.0, 1.0]) if self.only_positive and classes == 2 else np.ones(classes)


def _f1_terms(true_positives: NDArray, support: NDArray, predictions: NDArray) -> tuple[NDArray, ...]:
    return (ratio(2.0 * true_positives, support + predictions),)


def _recall_terms(true_positives: NDArray, support: NDArray, predictions: NDArray) -> tuple[NDArray, ...]:
    return ratio(true_positives, support), support > 0


def _accuracy_terms(true_positives: NDArray, support: NDArray, predictions: NDArray) -> tuple[NDArray, ...]:
    return true_positives, support


def _kappa_terms(true_positives: NDArray, support: NDArray, predictions: NDArray) -> tuple[NDArray, ...]:
    return true_positives, support, support * predictions


def _kappa_of_sums(sums: Sequence[NDArray], classes: int) -> NDArray[np.float64]:
    true_positives, rows, products = sums
    expected_agreement = ratio(products, np.square(rows))
    return ratio(ratio(true_positives, rows) - expected_agreement, 1 - expected_agreement)


def _of_positive(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (…) the value of the positive class, the second of two, or the mean over (…, classes)."""
    return values[..., 1] if values.shape[-1] == 2 else values.mean(axis=-1)


def f_beta_of(beta: float, counts: NDArray) -> NDArray[np.float64]:
    """Return (…) F-beta of the second of two classes, or its mean over more, from (…, 3, classes) counts."""
    square = beta * beta
    found = ratio((1 + square) * counts[..., 0, :], square * counts[..., 1, :] + counts[..., 2, :])
    return _of_positive(found)


def _f_beta_terms(beta: float, true_positives: NDArray, support: NDArray, predictions: NDArray) -> tuple[NDArray, ...]:
    square = beta * beta
    return (ratio((1 + square) * true_positives, square * support + predictions),)


def _f_beta_of_sums(sums: Sequence[NDArray], classes: int) -> NDArray[np.float64]:
    return np.asarray(sums[0] / (1 if classes == 2 else classes), np.float64)


def _mcc_terms(true_positives: NDArray, support: NDArray, predictions: NDArray) -> tuple[NDArray, ...]:
    return true_positives, support, support * predictions, np.square(support), np.square(predictions)


def _mcc_of_sums(sums: Sequence[NDArray], classes: int) -> NDArray[np.float64]:
    """Return the correlation of labels and decisions (Gorodkin, 2004); 0 if all labels or all decisions are equal."""
    true_positives, rows, products, supports, decided = (np.asarray(one, np.float64) for one in sums)
    covariance = true_positives * rows - products
    return ratio(covariance, np.sqrt(np.maximum((rows**2 - decided) * (rows**2 - supports), 0)))


def mcc_of(counts: NDArray) -> NDArray[np.float64]:
    """Return (…) the correlation of labels and decisions from (…, 3, classes) counts."""
    counts = np.asarray(counts, np.float64)
    terms = _mcc_terms(counts[..., 0, :], counts[..., 1, :], counts[..., 2, :])
    return _mcc_of_sums([one.sum(-1) for one in terms], counts.shape[-1])


def _youden_of_sums(sums: Sequence[NDArray], classes: int) -> NDArray[np.float64]:
    return ratio(np.asarray(sums[0] - 1.0), np.asarray(sums[1] - 1.0))


def youden_of(counts: NDArray) -> NDArray[np.float64]:
    """Return (…) Youden's J from (…, 3, classes) counts: of two classes, sensitivity + specificity − 1."""
    return _youden_of_sums([recall_of(counts).sum(-1), (counts[..., 1, :] > 0).sum(-1)], counts.shape[-1])


def f1_per_class(labels: Labels, predicted: Labels, classes: int) -> NDArray[np.float64]:
    """Return (classes,) F1 of each class, 0 for a class that neither occurs nor is predicted."""
    return f1_of(confusion_counts(labels, predicted, classes))


def macro_f1(labels: Labels, predicted: Labels, classes: int) -> float:
    """Return macro F1 over all declared classes.

    Equals ``f1_score(labels=range(classes), average="macro", zero_division=0)`` of scikit-learn.
    """
    return float(macro_f1_of(confusion_counts(labels, predicted, classes)))


def accuracy(labels: Labels, predicted: Labels) -> float:
    """Return the share of rows whose predicted class is right."""
    return float(np.mean(np.asarray(labels) == np.asarray(predicted)))


def f_beta_sums(beta: float) -> ClassSums:
    """Return `f_beta_of` by sums over classes."""
    return ClassSums(partial(_f_beta_terms, beta), _f_beta_of_sums, only_positive=True)


F1_SUMS = ClassSums(_f1_terms, lambda sums, classes: sums[0] / classes)
ACCURACY_SUMS = ClassSums(_accuracy_terms, lambda sums, classes: ratio(sums[0], sums[1]))
RECALL_SUMS = ClassSums(_recall_terms, lambda sums, classes: ratio(sums[0], sums[1]))
KAPPA_SUMS = ClassSums(_kappa_terms, _kappa_of_sums)
MCC_SUMS = ClassSums(_mcc_terms, _mcc_of_sums)
YOUDEN_SUMS = ClassSums(_recall_terms, _youden_of_sums)
