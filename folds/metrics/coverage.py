"""Say where the coverage of an interval over people is lower than its level, as measured in simulations."""

from __future__ import annotations

import numpy as np

from folds.metrics.classification import Metric
from folds.metrics.grouping import people_with_class, people_with_label
from folds.metrics.scored_rows import ScoredRows
from folds.metrics.task_names import REGRESSION

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
# Lower ones of one label, where they were found: the lowest of the worlds of docs/benchmarks.md and of others.
_EMPIRICAL_COVERAGE_OF_ONE_LABEL: dict[str, dict[int, int]] = {
    "roc_auc": {1: 40, 2: 88},
    "roc_auc_micro": {1: 40, 2: 88},
    "average_precision": {1: 56},
    "balanced_accuracy": {2: 87, 3: 80},
    "youden": {2: 87, 3: 80},
    "kappa": {2: 84},
    "pauc": {2: 64} | dict.fromkeys(range(3, 13), 70),
}
# The same of means over labels, by the number of people of the rarest label.
_EMPIRICAL_COVERAGE_OF_LABELS: dict[str, dict[int, int]] = {
    "macro_f1": {0: 74, 1: 88},
    "f_beta": {0: 63, 1: 87},
    "balanced_accuracy": {0: 89},
    "youden": {0: 65},
    "kappa": {0: 73, 1: 87},
    "mcc": {0: 73, 1: 89},
    "probabilistic_f1": {0: 76, 1: 89},
    "pauc": {0: 90, 1: 90, 2: 86},
    "log_loss": {0: 89},
    "column_log_loss": {0: 89},
    "subset_accuracy": {0: 89},
}
# Of differences of these.
_EMPIRICAL_COVERAGE_OF_DIFFERENCES: dict[str, dict[int, int]] = {
    "accuracy": {0: 90},
    "log_loss": {0: 90, 1: 90},
    "column_log_loss": {0: 90, 1: 90},
    "brier": {0: 92, 1: 91},
    "probabilistic_f1": {0: 84},
}
# The same of means of squared errors of numbers of fewer people than this, where a few have much larger errors.
_EMPIRICAL_COVERAGE_OF_SQUARES = {"mse": 88, "rmse": 89}
_FEW_PEOPLE = 60
# Fewest people beyond the threshold of a score at a quantile for which the coverage is near the nominal one.
_MIN_BEYOND = 3
# The same of means over labels, for thresholds that at most this share of the people of a label lies beyond.
_MIN_BEYOND_OF_LABELS, _FAR = 0.5, 0.1


def coverage_warning(metric: Metric, rows: ScoredRows, constant: bool, of_difference: bool = False) -> str:
    """Return why an interval of `metric` may have a lower coverage than its level; empty if no reason is known.

    Parameters
    ----------
    of_difference : whether it is the interval of a difference of two scores; those of classes are treated as one.
    constant : whether the score is the same for every left-out person.
    """
    if rows.people == 1:
        return "only one person: no confidence interval can be computed"
    if constant:
        same = f"all {rows.people:,} people have the same score"
        return f"{same}: their variation is unknown, and the interval is too narrow"
    if rows.has_columns:
        return _warning_of_columns(metric, rows, of_difference)
    if metric.at_quantile is not None and rows.classes == 2:
        deciding, share = metric.at_quantile
        few = _of_few_beyond(metric, share * float(people_with_class(rows.labels, rows.persons, 2)[deciding]))
        if few:
            return few
    rarest = rows.fewest_people
    known = _EMPIRICAL_COVERAGE.get(metric.family, {})
    if rows.classes == 2:
        known = _EMPIRICAL_COVERAGE_OF_TWO.get(metric.family, known)
    percent = known.get(rarest)
    return "" if percent is None else _of_rarest("class", rarest, metric, percent)


def _of_few_beyond(metric: Metric, beyond: float) -> str:
    """Return the warning for a threshold of two classes that few people lie beyond; "" if these are enough."""
    if not 0 < beyond < _MIN_BEYOND:
        return ""
    return (
        f"about {beyond:.1f} people decide where the threshold lies: 95% CIs of {metric.title} covered the "
        f"true value in only about {87 if beyond >= 0.4 else 70}% of simulations"
    )


def _warning_of_one_label(metric: Metric, rows: ScoredRows, of_difference: bool) -> str:
    """Return the warning for one label, a decision of two classes: nothing averages out, as it does over labels."""
    if metric.at_quantile is not None:
        deciding, share = metric.at_quantile
        few = _of_few_beyond(metric, share * float(people_with_label(rows.labels, rows.persons, deciding)[0]))
        if few:
            return few
    family = metric.family
    of_two = next(
        (
            known[family]
            for known in (_EMPIRICAL_COVERAGE_OF_TWO, _EMPIRICAL_COVERAGE, _EMPIRICAL_COVERAGE_OF_LABELS)
            if family in known
        ),
        {},
    )
    found = [of_two, _EMPIRICAL_COVERAGE_OF_ONE_LABEL.get(family, {})]
    found += [_EMPIRICAL_COVERAGE_OF_DIFFERENCES.get(family, {})] if of_difference else []
    percents = [known[rows.fewest_people] for known in found if rows.fewest_people in known]
    return _of_rarest("label", rows.fewest_people, metric, min(percents)) if percents else ""


def _warning_of_columns(metric: Metric, rows: ScoredRows, of_difference: bool) -> str:
    column = metric.columns
    if column is None:  # a function of the user
        return ""
    if column.task == REGRESSION:
        percent = _EMPIRICAL_COVERAGE_OF_SQUARES.get(metric.name)
        if percent is None or rows.people >= _FEW_PEOPLE or of_difference:
            return ""
        return (
            f"{rows.people:,} people: where a few have much larger errors than others, 95% CIs of {metric.title} "
            f"covered the true value in only about {percent}% of simulations"
        )
    if rows.classes == 1:
        return _warning_of_one_label(metric, rows, of_difference)
    if metric.name == "roc_auc_micro":  # one ranking of all cells, whatever their labels are
        some = np.where((rows.labels == 1).any(axis=1), 1.0, 0.0)[:, None]
        people = int(people_with_label(some, rows.persons)[0])
        percent = _EMPIRICAL_COVERAGE_OF_ONE_LABEL[metric.name].get(people)
        return "" if percent is None else _of_rarest("label", people, metric, percent)
    if metric.at_quantile is not None:
        deciding, share = metric.at_quantile
        beyond = share * float(people_with_label(rows.labels, rows.persons, deciding).min())
        if not (share <= _FAR and 0 < beyond < _MIN_BEYOND_OF_LABELS):
            return ""
        return (
            f"of a label about {beyond:.1f} people decide where the threshold lies: 95% CIs of {metric.title} covered "
            f"the true value in only about {85 if beyond >= _MIN_BEYOND_OF_LABELS / 2 else 75}% of simulations"
        )
    known = _EMPIRICAL_COVERAGE_OF_DIFFERENCES if of_difference else _EMPIRICAL_COVERAGE_OF_LABELS
    family = metric.name if metric.family == "pauc" else metric.family  # measured with its default only
    percent = known.get(family, {}).get(rows.fewest_people)
    return "" if percent is None else _of_rarest("label", rows.fewest_people, metric, percent)


def _of_rarest(what: str, people: int, metric: Metric, percent: int) -> str:
    words = ("no sample", "only one person", "only two people", "only three people")
    found = words[people] if people < len(words) else f"only {people} people"
    held = f"95% CIs of {metric.title} covered the true value in only about {percent}% of simulations"
    return f"a {what} has {found}: {held}"
