"""Define the metrics, of classes and of columns of labels and numbers, and find them by name; numpy only.

Training, ensembling and reports share these functions, so a metric has the same definition everywhere. Intervals over
people are in `folds/metrics/intervals.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from folds.errors import UsageError
from folds.metrics import label_scores, numbers
from folds.metrics.columns import BOTH, POSITIVES, ColumnScore, mean_of_known
from folds.metrics.confusion import (
    ACCURACY_SUMS,
    F1_SUMS,
    KAPPA_SUMS,
    MCC_SUMS,
    RECALL_SUMS,
    YOUDEN_SUMS,
    ClassSums,
    Labels,
    Probabilities,
    accuracy_of,
    argmax_classes,
    balanced_accuracy_of,
    confusion_counts,
    f_beta_of,
    f_beta_sums,
    kappa_of,
    macro_f1_of,
    mcc_of,
    youden_of,
)
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
from folds.metrics.row_scores import (
    grade_sums,
    per_row_brier,
    per_row_column_log_loss,
    per_row_grade_error,
    per_row_in_top_k,
    per_row_log_loss,
    probabilistic_f1_of,
    probabilistic_sums,
    quadratic_kappa_of,
    roc_auc,
)
from folds.metrics.task_names import ALL_TASKS, BINARY, CLASSES, ORDINAL


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
        from_counts=partial(f_beta_of, beta),
        macro_averaged=True,
        class_sums=f_beta_sums(beta),
        of_positive=True,
        columns=label_scores.decided(partial(f_beta_of, beta), weights=POSITIVES),
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
        from_counts=mcc_of,
        lower_bound=-1.0,
        class_sums=MCC_SUMS,
        columns=label_scores.decided(mcc_of, lower_bound=-1.0, weights=BOTH),
    ),
    Metric(
        "youden",
        "Youden's J",
        from_counts=youden_of,
        lower_bound=-1.0,
        macro_averaged=True,
        class_sums=YOUDEN_SUMS,
        columns=label_scores.decided(youden_of, lower_bound=-1.0, weights=BOTH),
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
            from_counts=macro_f1_of,
            macro_averaged=True,
            class_sums=F1_SUMS,
            columns=label_scores.decided(partial(f_beta_of, 1.0), weights=POSITIVES),
        ),
        Metric(
            "accuracy",
            "accuracy",
            from_counts=accuracy_of,
            class_sums=ACCURACY_SUMS,
            columns=label_scores.decided(accuracy_of),
        ),
        Metric(
            "balanced_accuracy",
            "balanced accuracy",
            from_counts=balanced_accuracy_of,
            macro_averaged=True,
            class_sums=RECALL_SUMS,
            columns=label_scores.decided(balanced_accuracy_of, weights=BOTH),
        ),
        Metric(
            "kappa",
            "kappa",
            from_counts=kappa_of,
            lower_bound=-1.0,
            class_sums=KAPPA_SUMS,
            columns=label_scores.decided(kappa_of, lower_bound=-1.0, weights=BOTH),
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
