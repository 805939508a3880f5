"""Compute scores from the probabilities of each row, and from their order; numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from folds.errors import UsageError
from folds.metrics.columns import mean_of_known, ratio
from folds.metrics.confusion import Labels, Probabilities, argmax_classes, f1_of
from folds.metrics.ranking import area


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


def per_row_column_log_loss(labels: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    """Return (n,) the mean over classes of the log loss of "this class or not"; p is clipped as in
    `per_row_log_loss`.
    """
    p = np.asarray(probabilities)
    smallest = np.finfo(p.dtype).eps
    p = np.clip(p, smallest, 1 - smallest).astype(np.float64)
    true = p[np.arange(len(labels)), labels]
    others = np.log1p(-p)
    return -(others.sum(axis=1) - np.log1p(-true) + np.log(true)) / p.shape[1]


def per_row_in_top_k(k: int, labels: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    """Return (n,) 1 where fewer than k classes precede the true one, else 0; of equal values the lower index precedes,
    as in a decision.

    Raises
    ------
    UsageError : there are not more than k classes.
    """
    values = np.asarray(probabilities)
    if k >= values.shape[1]:
        raise UsageError(
            f"top-{k} accuracy of {values.shape[1]} classes is always 1",
            hint="choose a `k` below the number of classes",
        )
    true = values[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(values.shape[1]) < np.asarray(labels)[:, None]
    return (((values > true) | ((values == true) & earlier)).sum(axis=1) < k).astype(np.float64)


def per_row_grade_error(labels: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    """Return (n,) how many grades, in the order of the classes, the most probable class is from the true one."""
    return np.abs(argmax_classes(probabilities) - labels).astype(np.float64)


def grade_sums(labels: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    """Return (n, 5): 1, label, decision, the sum of both squares, and the product, for `quadratic_kappa_of`."""
    label, decided = np.asarray(labels, np.float64), argmax_classes(probabilities).astype(np.float64)
    return np.stack([np.ones(len(label)), label, decided, label**2 + decided**2, label * decided], axis=1)


def quadratic_kappa_of(sums: NDArray) -> NDArray[np.float64]:
    """Return (…) Cohen's kappa with quadratic weights from (…, 5) sums of `grade_sums`: 1 − the mean squared distance
    of label and decision over that of independent ones with the same frequencies; 0 if the latter is 0.
    """
    rows, label, decided, squares, products = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
    expected = rows * squares - 2 * label * decided
    return ratio(expected - rows * (squares - 2 * products), expected)


def probabilistic_sums(labels: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    """Return (n, 3 × classes): p of the true class, the label as 0 and 1, and p; of the second of two classes alone."""
    p = np.asarray(probabilities, np.float64)
    truth = np.asarray(labels)[:, None] == np.arange(p.shape[1])
    if p.shape[1] == 2:
        p, truth = p[:, 1:], truth[:, 1:]
    return np.concatenate([p * truth, truth, p], axis=1)


def probabilistic_f1_of(sums: NDArray) -> NDArray[np.float64]:
    """Return (…) the mean over classes of F1 with the sums of probabilities as counts, from `probabilistic_sums`."""
    counts = np.asarray(sums).reshape(*np.shape(sums)[:-1], 3, -1)
    return f1_of(counts).mean(axis=-1)


def roc_auc_per_class(labels: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    """Return (classes,) the probability that a sample of the class has a higher value for it than a sample of another
    class.

    Equal values count one half. Computed from mean ranks (Mann and Whitney, 1947); nan for a class that no sample or
    every sample has.
    """
    return np.array([area(labels == one, column) for one, column in enumerate(np.asarray(probabilities).T)])


def roc_auc(labels: Labels, probabilities: Probabilities) -> float:
    """Return the mean of `roc_auc_per_class` over the classes where it is defined; nan if only one class occurs.

    Equals ``roc_auc_score(multi_class="ovr")`` if all classes occur.
    """
    return float(mean_of_known(roc_auc_per_class(labels, probabilities)))
