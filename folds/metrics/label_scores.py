"""Define the scores of several labels: each label is a decision, yes or no, at a probability of 0.5; numpy only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from folds.metrics.columns import BOTH, POSITIVES, ROWS, ColumnScore, Floats, OrderScore, ratio
from folds.metrics.ranking import RankScore
from folds.metrics.task_names import MULTILABEL

THRESHOLD = 0.5  # a label is predicted above it


def is_predicted(probabilities: NDArray) -> NDArray[np.bool_]:
    """Return whether a label is predicted, without decision rules of its own: above `THRESHOLD`, not at it.

    Scores, answers, CSVs, servers and reports all ask this function, so that they agree.
    """
    return np.asarray(np.asarray(probabilities) > THRESHOLD)


def _decision_sums(truth: NDArray, values: NDArray) -> Floats:
    """Return (k, 4): 1, the label, the decision, and both."""
    label, decided = np.asarray(truth, np.float64), is_predicted(values).astype(np.float64)
    return np.stack([np.ones(len(label)), label, decided, label * decided], axis=1)


def _two_classes(sums: Floats) -> Floats:
    """Return (…, 3, 2) the hits, support and decisions of "no" and "yes", as of two classes."""
    rows, labels, decided, hits = np.moveaxis(sums, -1, 0)
    no = [rows - labels - decided + hits, rows - labels, rows - decided]
    return np.moveaxis(np.stack([no, [hits, labels, decided]]), (0, 1), (-1, -2))


def _of_decisions(from_counts: Callable[[NDArray], NDArray], sums: Floats) -> Floats:
    return np.where(sums[..., 0] > 0, from_counts(_two_classes(sums)), np.nan)


def decided(
    from_counts: Callable[[NDArray], NDArray], *, lower_bound: float = 0.0, is_share: bool = True, weights: str = ROWS
) -> ColumnScore:
    """Return the mean over labels of a score of decisions.

    Parameters
    ----------
    from_counts : (…, 3, 2) hits, support and decisions of "no" and "yes" → (…).
    """
    return ColumnScore(
        MULTILABEL,
        cell_sums=_decision_sums,
        of_sums=partial(_of_decisions, from_counts),
        lower_bound=lower_bound,
        is_share=is_share and lower_bound == 0,
        of_decisions=True,
        weights=weights,
    )


def ranked(score: RankScore, *, upper_bound: float = 1.0, weights: str = BOTH) -> ColumnScore:
    """Return the mean over labels of a score of the order, without labels that no row or every row has."""
    order = OrderScore(score.score, score.without_each)
    return ColumnScore(
        MULTILABEL, order=order, pooled=score.pooled, upper_bound=upper_bound, is_share=True, weights=weights
    )


def _log_loss_sums(truth: NDArray, values: NDArray) -> Floats:
    p = np.asarray(values)
    p = p if p.dtype.kind == "f" else p.astype(np.float64)
    smallest = np.finfo(p.dtype).eps
    p = np.clip(p, smallest, 1 - smallest)
    loss = -np.where(truth, np.log(p, dtype=np.float64), np.log1p(-p, dtype=np.float64))
    return np.stack([np.ones(len(loss)), loss], axis=1)


def _squared_sums(truth: NDArray, values: NDArray) -> Floats:
    error = np.square(np.asarray(values, np.float64) - truth)
    return np.stack([np.ones(len(error)), error], axis=1)


def mean_of_sums(sums: Floats) -> Floats:
    """Return (…) the mean from (…, 2) the number of cells and the sum of a value; nan of no cell."""
    return ratio(sums[..., 1], sums[..., 0], np.nan)


def _probable_sums(truth: NDArray, values: NDArray) -> Floats:
    p = np.asarray(values, np.float64)
    return np.stack([np.ones(len(p)), np.asarray(truth, np.float64), p, p * truth], axis=1)


def _f1_of_sums(sums: Floats) -> Floats:
    rows, labels, decided, hits = np.moveaxis(sums, -1, 0)
    return np.where(rows > 0, ratio(2 * hits, labels + decided), np.nan)


def _micro_sums(labels: Floats, values: NDArray) -> Floats:
    known = ~np.isnan(labels)
    truth, yes = labels == 1, is_predicted(values) & known
    return np.stack([known.sum(1), truth.sum(1), yes.sum(1), (truth & yes).sum(1)], axis=1).astype(np.float64)


def _subset_sums(labels: Floats, values: NDArray) -> Floats:
    known = ~np.isnan(labels)
    right = ((labels == 1) == is_predicted(values)) | ~known
    counted = known.any(axis=1)
    return np.stack([counted, counted & right.all(axis=1)], axis=1).astype(np.float64)


LOG_LOSS = ColumnScore(MULTILABEL, cell_sums=_log_loss_sums, of_sums=mean_of_sums, upper_bound=np.inf)
BRIER = ColumnScore(MULTILABEL, cell_sums=_squared_sums, of_sums=mean_of_sums, is_share=True)
PROBABILISTIC_F1 = ColumnScore(
    MULTILABEL, cell_sums=_probable_sums, of_sums=_f1_of_sums, is_share=True, weights=POSITIVES
)
MICRO_F1 = ColumnScore(
    MULTILABEL, row_sums=_micro_sums, of_sums=_f1_of_sums, is_share=True, of_decisions=True, weights=POSITIVES
)
SUBSET_ACCURACY = ColumnScore(MULTILABEL, row_sums=_subset_sums, of_sums=mean_of_sums, is_share=True, of_decisions=True)
