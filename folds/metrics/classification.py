"""Compute scores of labels and predictions; numpy only.

Training, ensembling and reports share these functions, so a metric has the same definition everywhere. Intervals over
people are in `folds/metrics/intervals.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from folds.errors import UsageError
from folds.metrics import label_scores, numbers
from folds.metrics.columns import BOTH, POSITIVES, ColumnScore, mean_of_known
from folds.metrics.metric_spec import PARAMETERS, is_spec, parse_spec, spec_text
from folds.metrics.ranking import (
    AREA_MICRO,
    AVERAGE_PRECISION,
    RankScore,
    area,
    area_without_each,
    at_sensitivity,
    at_specificity,
    partial_area_above,
)
from folds.metrics.task_names import ALL_TASKS, BINARY, CLASSES, ORDINAL
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
    only_positive : whether, with two classes, the sums are those of the second alone.
    """

    terms: Callable[[NDArray, NDArray, NDArray], tuple[NDArray, ...]]
    score: Callable[[Sequence[NDArray], int], NDArray[np.float64]]
    only_positive: bool = False

    def weights(self, classes: int) -> NDArray[np.float64]:
        """Return (classes,) the weight of the summands of each class: 1, or 0 for the negative one."""
        return np.array([0.0, 1.0]) if self.only_positive and classes == 2 else np.ones(classes)


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


def _of_positive(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (…) the value of the positive class, the second of two, or the mean over (…, classes)."""
    return values[..., 1] if values.shape[-1] == 2 else values.mean(axis=-1)


def _f_beta_of(beta: float, counts: NDArray) -> NDArray[np.float64]:
    square = beta * beta
    found = _ratio((1 + square) * counts[..., 0, :], square * counts[..., 1, :] + counts[..., 2, :])
    return _of_positive(found)


def _f_beta_terms(beta: float, true_positives: NDArray, support: NDArray, predictions: NDArray) -> tuple[NDArray, ...]:
    square = beta * beta
    return (_ratio((1 + square) * true_positives, square * support + predictions),)


def _f_beta_of_sums(sums: Sequence[NDArray], classes: int) -> NDArray[np.float64]:
    return np.asarray(sums[0] / (1 if classes == 2 else classes), np.float64)


def _mcc_terms(true_positives: NDArray, support: NDArray, predictions: NDArray) -> tuple[NDArray, ...]:
    return true_positives, support, support * predictions, np.square(support), np.square(predictions)


def _mcc_of_sums(sums: Sequence[NDArray], classes: int) -> NDArray[np.float64]:
    """Return the correlation of labels and decisions (Gorodkin, 2004); 0 if all labels or all decisions are equal."""
    true_positives, rows, products, supports, decided = (np.asarray(one, np.float64) for one in sums)
    covariance = true_positives * rows - products
    return _ratio(covariance, np.sqrt(np.maximum((rows**2 - decided) * (rows**2 - supports), 0)))


def _mcc_of(counts: NDArray) -> NDArray[np.float64]:
    counts = np.asarray(counts, np.float64)
    terms = _mcc_terms(counts[..., 0, :], counts[..., 1, :], counts[..., 2, :])
    return _mcc_of_sums([one.sum(-1) for one in terms], counts.shape[-1])


def _youden_of_sums(sums: Sequence[NDArray], classes: int) -> NDArray[np.float64]:
    return _ratio(np.asarray(sums[0] - 1.0), np.asarray(sums[1] - 1.0))


def _youden_of(counts: NDArray) -> NDArray[np.float64]:
    return _youden_of_sums([recall_of(counts).sum(-1), (counts[..., 1, :] > 0).sum(-1)], counts.shape[-1])


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
    return _ratio(expected - rows * (squares - 2 * products), expected)


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


@dataclass(frozen=True)
class Metric:
    """A score of (labels, probabilities), computed in one of six ways.

    Attributes
    ----------
    from_counts : (…, 3, classes) true positives, support and predictions (see `confusion_counts`) → (…).
    per_row : labels, probabilities → (n,) a value per row; the score is their mean.
    rank_based : whether it is `roc_auc`.
    ranking : a score of the order of rows, of each class; the score is the mean over the classes where it is defined.
    row_sums, of_sums : labels, probabilities → (n, m) numbers of each row; their sums (…, m) → (…).
    function : labels (n,), probabilities (n, classes) → the score; for a function of the user.
    lower_bound, upper_bound : the range of its values.
    class_sums : the same as `from_counts`, by sums over classes; set if that is set.
    sha : hex SHA-256 of the file with a user's function.
    macro_averaged : whether it is a mean over classes, in which rare classes have the same weight as others.
    at_quantile : with two classes, the class whose rows decide where the threshold lies, and their share beyond it.
    of_positive : whether, with two classes, it is a score of the second one alone, the positive class.
    columns : the score of several labels or numbers, whose labels are (n, columns); None if it has no such meaning.
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
    ranking: RankScore | None = None
    row_sums: Callable[[Labels, Probabilities], NDArray] | None = None
    of_sums: Callable[[NDArray], NDArray] | None = None
    of_positive: bool = False
    at_quantile: tuple[int, float] | None = None
    columns: ColumnScore | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Return the tasks whose predictions it scores, of `folds.metrics.task_names.ALL_TASKS`."""
        if self.function is not None:
            return ALL_TASKS
        of_columns = () if self.columns is None else (self.columns.task,)
        return ((CLASSES, BINARY, ORDINAL) if self._scores_classes else ()) + of_columns

    @property
    def _scores_classes(self) -> bool:
        return self.is_additive or self.rank_based or self.ranking is not None

    def column_score(self) -> ColumnScore:
        """Return `columns`.

        Raises
        ------
        UsageError : it has no meaning for several labels or numbers.
        """
        if self.columns is None:
            raise UsageError(f"`metric={self.name}` scores exclusive classes, not several labels or numbers")
        return self.columns

    @property
    def family(self) -> str:
        """Return the name without settings."""
        return self.name.partition(":")[0]

    @property
    def is_additive(self) -> bool:
        """Return whether it follows from sums over the rows, so that rows can be scored part by part."""
        return self.from_counts is not None or self.per_row is not None or self.of_sums is not None

    def __call__(self, labels: Labels | NDArray[np.floating], probabilities: Probabilities) -> float:
        """Return the score of `probabilities` (n, classes) against `labels` (n,) class indices; of several labels or
        numbers, of predictions (n, columns) against (n, columns) float64, nan where a label is not known.

        Raises
        ------
        UsageError : the metric has no meaning for such labels.
        """
        if self.function is None and np.ndim(labels) == 2:
            return self.column_score()(np.asarray(labels, np.float64), probabilities)
        self.check_classes()
        labels = cast(Labels, labels)
        if self.from_counts is not None:
            return float(
                self.from_counts(confusion_counts(labels, argmax_classes(probabilities), np.shape(probabilities)[1]))
            )
        if self.per_row is not None:
            return float(self.per_row(labels, probabilities).mean())
        if self.function is not None:
            return self.function(labels, probabilities)
        if self.row_sums is not None and self.of_sums is not None:
            return float(self.of_sums(self.row_sums(labels, probabilities).sum(axis=0)))
        if self.ranking is not None:
            return float(mean_of_known(self.ranking.of_classes(labels, probabilities)))
        return roc_auc(labels, probabilities)

    def check_classes(self) -> None:
        """Raise UsageError if it does not score exclusive classes."""
        if self.function is None and not self._scores_classes:
            raise UsageError(f"`metric={self.name}` scores {', '.join(self.tasks)}, not exclusive classes")

    def __reduce__(self) -> Any:
        """Pickle a built-in metric by its name, because its functions have none."""
        return (_built_in, (self.name,)) if built_in_metric(self.name) is self else super().__reduce__()


def _f_beta(beta: float) -> Metric:
    return Metric(
        _named("f_beta", beta=beta),
        f"F{beta:g}",
        from_counts=partial(_f_beta_of, beta),
        macro_averaged=True,
        class_sums=ClassSums(partial(_f_beta_terms, beta), _f_beta_of_sums, only_positive=True),
        of_positive=True,
        columns=label_scores.decided(partial(_f_beta_of, beta), weights=POSITIVES),
    )


def _partial_auc(tpr: float, scaled: float) -> Metric:
    score, best = partial_area_above(tpr, bool(scaled)), 1.0 if scaled else 1 - tpr
    return Metric(
        _named("pauc", tpr=tpr, scaled=scaled),
        f"{'scaled ' if scaled else ''}partial AUC above TPR {tpr:g}",
        upper_bound=best,
        macro_averaged=True,
        ranking=score,
        of_positive=True,
        columns=label_scores.ranked(score, upper_bound=best),
    )


def _sensitivity_at(specificity: float) -> Metric:
    return Metric(
        _named("sensitivity_at", specificity=specificity),
        f"sensitivity at specificity {specificity:g}",
        macro_averaged=True,
        ranking=at_specificity(specificity),
        of_positive=True,
        columns=label_scores.ranked(at_specificity(specificity)),
        at_quantile=(0, 1 - specificity),
    )


def _specificity_at(sensitivity: float) -> Metric:
    return Metric(
        _named("specificity_at", sensitivity=sensitivity),
        f"specificity at sensitivity {sensitivity:g}",
        macro_averaged=True,
        ranking=at_sensitivity(sensitivity),
        of_positive=True,
        columns=label_scores.ranked(at_sensitivity(sensitivity)),
        at_quantile=(1, 1 - sensitivity),
    )


def _top_k(k: float) -> Metric:
    return Metric(_named("top_k", k=k), f"top-{k:g} accuracy", per_row=partial(per_row_in_top_k, int(k)))


def _named(name: str, **values: float) -> str:
    return spec_text(name, values)


_WITH_SETTINGS: dict[str, Callable[..., Metric]] = {
    "f_beta": _f_beta,
    "pauc": _partial_auc,
    "sensitivity_at": _sensitivity_at,
    "specificity_at": _specificity_at,
    "top_k": _top_k,
}
_NEW = (
    Metric(
        "mcc",
        "MCC",
        from_counts=_mcc_of,
        lower_bound=-1.0,
        class_sums=ClassSums(_mcc_terms, _mcc_of_sums),
        columns=label_scores.decided(_mcc_of, lower_bound=-1.0, weights=BOTH),
    ),
    Metric(
        "youden",
        "Youden's J",
        from_counts=_youden_of,
        lower_bound=-1.0,
        macro_averaged=True,
        class_sums=ClassSums(_recall_terms, _youden_of_sums),
        columns=label_scores.decided(_youden_of, lower_bound=-1.0, weights=BOTH),
    ),
    Metric(
        "average_precision",
        "average precision",
        macro_averaged=True,
        ranking=AVERAGE_PRECISION,
        of_positive=True,
        columns=label_scores.ranked(AVERAGE_PRECISION, weights=POSITIVES),
    ),
    Metric("roc_auc_micro", "micro ROC-AUC", ranking=AREA_MICRO, columns=label_scores.ranked(AREA_MICRO)),
    Metric(
        "probabilistic_f1",
        "probabilistic F1",
        macro_averaged=True,
        row_sums=probabilistic_sums,
        of_sums=probabilistic_f1_of,
        of_positive=True,
        columns=label_scores.PROBABILISTIC_F1,
    ),
    Metric("quadratic_kappa", "quadratic kappa", lower_bound=-1.0, row_sums=grade_sums, of_sums=quadratic_kappa_of),
    Metric(
        "grade_mae",
        "mean absolute error of grades",
        greater_is_better=False,
        per_row=per_row_grade_error,
        upper_bound=math.inf,
    ),
    Metric(
        "column_log_loss",
        "column-wise log loss",
        greater_is_better=False,
        per_row=per_row_column_log_loss,
        upper_bound=math.inf,
        columns=label_scores.LOG_LOSS,
    ),
)
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "macro_f1",
            "macro F1",
            from_counts=_macro_f1_of,
            macro_averaged=True,
            class_sums=ClassSums(_f1_terms, lambda sums, classes: sums[0] / classes),
            columns=label_scores.decided(partial(_f_beta_of, 1.0), weights=POSITIVES),
        ),
        Metric(
            "accuracy",
            "accuracy",
            from_counts=accuracy_of,
            class_sums=ClassSums(_accuracy_terms, lambda sums, classes: _ratio(sums[0], sums[1])),
            columns=label_scores.decided(accuracy_of),
        ),
        Metric(
            "balanced_accuracy",
            "balanced accuracy",
            from_counts=_balanced_accuracy_of,
            macro_averaged=True,
            class_sums=ClassSums(_recall_terms, lambda sums, classes: _ratio(sums[0], sums[1])),
            columns=label_scores.decided(_balanced_accuracy_of, weights=BOTH),
        ),
        Metric(
            "kappa",
            "kappa",
            from_counts=_kappa_of,
            lower_bound=-1.0,
            class_sums=ClassSums(_kappa_terms, _kappa_of_sums),
            columns=label_scores.decided(_kappa_of, lower_bound=-1.0, weights=BOTH),
        ),
        Metric(
            "log_loss",
            "log loss",
            greater_is_better=False,
            per_row=per_row_log_loss,
            upper_bound=math.inf,
            columns=label_scores.LOG_LOSS,
        ),
        Metric(
            "brier",
            "Brier score",
            greater_is_better=False,
            per_row=per_row_brier,
            upper_bound=2.0,
            columns=label_scores.BRIER,
        ),
        Metric(
            "roc_auc",
            "ROC-AUC",
            rank_based=True,
            macro_averaged=True,
            columns=label_scores.ranked(RankScore(area, area_without_each)),
        ),
        *_NEW,
        *(make(**parse_spec(name)[1]) for name, make in _WITH_SETTINGS.items()),
    )
}


def _of_columns(name: str, title: str, columns: ColumnScore, greater_is_better: bool = True) -> Metric:
    """Return a metric that has no meaning for exclusive classes."""
    bounds = columns.lower_bound, columns.upper_bound
    return Metric(name, title, greater_is_better, lower_bound=bounds[0], upper_bound=bounds[1], columns=columns)


def _within(error: float) -> Metric:
    return _of_columns(_named("within", error=error), f"share within {error:g}", numbers.within(error))


_COLUMNS_WITH_SETTINGS: dict[str, Callable[..., Metric]] = {"within": _within}
# The metrics that score only several labels or numbers.
COLUMN_METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _of_columns("micro_f1", "micro F1", label_scores.MICRO_F1),
        _of_columns("subset_accuracy", "subset accuracy", label_scores.SUBSET_ACCURACY),
        _of_columns("mae", "mean absolute error", numbers.MAE, False),
        _of_columns("mse", "mean squared error", numbers.MSE, False),
        _of_columns("rmse", "root mean squared error", numbers.RMSE, False),
        _of_columns("median_ae", "median absolute error", numbers.MEDIAN_AE, False),
        _of_columns("r2", "R²", numbers.R2),
        _of_columns("pearson", "Pearson's correlation", numbers.PEARSON),
        _of_columns("concordance", "Lin's concordance", numbers.CONCORDANCE),
        _of_columns("c_index", "concordance index", numbers.C_INDEX),
        *(make(**parse_spec(name)[1]) for name, make in _COLUMNS_WITH_SETTINGS.items()),
    )
}
_BUILT_IN = METRICS | COLUMN_METRICS


def metric_forms() -> list[str]:
    """Return how each metric of exclusive classes is written, with the defaults of its settings: ``f_beta:beta=1``."""
    return [metric_form(name) for name in METRICS]


def metric_form(name: str) -> str:
    """Return how a built-in metric is written, with the defaults of its settings."""
    return ":".join([name, *(f"{key}={one.default:g}" for key, one in PARAMETERS.get(name, {}).items())])


def built_in_metric(name: str) -> Metric | None:
    """Return a built-in metric, with its settings; None for another name. It never imports a function of the user.

    Raises
    ------
    UsageError : the settings of a built-in metric are wrong.
    """
    if not is_spec(name, _BUILT_IN):
        return _BUILT_IN.get(name.strip())
    head, values = parse_spec(name)
    return _with_settings(head, tuple(values.items()))


def recorded_metric(name: object) -> Metric | None:
    """Return the built-in metric that a file names; None for anything else, wrong settings included."""
    try:
        return built_in_metric(name) if isinstance(name, str) else None
    except UsageError:
        return None


@lru_cache(maxsize=256)
def _with_settings(name: str, values: tuple[tuple[str, float], ...]) -> Metric:
    known = spec_text(name, dict(values))
    return _BUILT_IN[known] if known in _BUILT_IN else (_WITH_SETTINGS | _COLUMNS_WITH_SETTINGS)[name](**dict(values))


def _built_in(name: str) -> Metric:
    found = built_in_metric(name)
    assert found is not None  # noqa: S101 - the name of a built-in metric
    return found
