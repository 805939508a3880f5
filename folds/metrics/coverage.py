"""Say where the coverage of an interval over people is lower than its level, as measured in simulations."""

from __future__ import annotations

from folds.metrics.classification import Metric
from folds.metrics.grouping import people_with_class
from folds.metrics.scored_rows import ScoredRows

# Coverage of 95% CIs in simulations, in percent, by the number of people in the rarest class (docs/benchmarks.md).
_EMPIRICAL_COVERAGE = {
    "macro_f1": {0: 50, 1: 90},
    "balanced_accuracy": {0: 90, 1: 90, 2: 90},
    "roc_auc": {0: 90, 1: 90, 2: 90},
    "youden": {0: 90, 1: 90, 2: 90},  # balanced accuracy on another scale
    "f_beta": {0: 50, 1: 90},  # macro F1 with another weight of recall
}
# The same of scores of two classes.
_EMPIRICAL_COVERAGE_OF_TWO: dict[str, dict[int, int]] = {
    "average_precision": {1: 65, 2: 90},
    "pauc": {1: 20, 2: 85},
    "mcc": {1: 80, 2: 65},
    "column_log_loss": {1: 20, 2: 45},
    "f_beta": {},
}
# Fewest people beyond the threshold of a score at a quantile for which the coverage is near the nominal one.
_MIN_BEYOND = 3


def coverage_warning(metric: Metric, rows: ScoredRows, constant: bool) -> str:
    """Return why an interval of `metric` may have a lower coverage than its level; empty if no reason is known.

    Parameters
    ----------
    constant : whether the score is the same for every left-out person.
    """
    if rows.people == 1:
        return "only one person: no confidence interval can be computed"
    if constant:
        same = f"all {rows.people:,} people have the same score"
        return f"{same}: their variation is unknown, and the interval is too narrow"
    if rows.has_columns:
        return _warning_of_columns(metric, rows)
    if metric.at_quantile is not None and rows.classes == 2:
        deciding, share = metric.at_quantile
        beyond = share * float(people_with_class(rows.labels, rows.persons, 2)[deciding])
        if 0 < beyond < _MIN_BEYOND:
            return (
                f"about {beyond:.1f} people decide where the threshold lies: 95% CIs of {metric.title} covered the "
                f"true value in only about {87 if beyond >= 0.4 else 70}% of simulations"
            )
    rarest = rows.fewest_people
    known = _EMPIRICAL_COVERAGE.get(metric.family, {})
    if rows.classes == 2:
        known = _EMPIRICAL_COVERAGE_OF_TWO.get(metric.family, known)
    percent = known.get(rarest)
    if percent is None:
        return ""
    found = ("no sample", "only one person", "only two people")[rarest]
    return (
        f"a class has {found}: 95% CIs of {metric.title} covered the true value in only about {percent}% of simulations"
    )


def _warning_of_columns(metric: Metric, rows: ScoredRows) -> str:
    return ""
