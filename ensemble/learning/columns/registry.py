"""Register the methods for predictions with a column for each label or number; which task has which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from ensemble.learning.calibration import calibrated, parse_calibration
from ensemble.learning.class_bias import biased
from ensemble.learning.columns.combination import ColumnCombination
from ensemble.learning.columns.greedy import greedy_columns
from ensemble.learning.columns.labels import each_label, exponential_labels, on_scores, per_label, simplex_labels
from ensemble.learning.columns.numbers import nnls_numbers, simplex_numbers, stacking_numbers
from ensemble.learning.columns.stack import ColumnStack
from ensemble.learning.combination import Combination, Fitter
from ensemble.learning.registry import FITTERS, GIVEN, PLAIN, STACKING, memoize_fit
from ensemble.learning.stack import Stack
from ensemble.learning.weights import best_single
from ensemble.voting.label_columns import VOTES
from ensemble.voting.vote import METHODS
from folds.errors import UsageError
from folds.metrics.classification import Metric
from folds.metrics.task_names import MULTILABEL, REGRESSION

AUTO = "auto"
# Votes that a calibration of each label is fitted with.
CALIBRATED = ("soft", "geometric", "median", "trimmed", "power", "stacking")
_NUMBERS = {"soft": "mean", "median": "median", "trimmed": "trimmed mean"}


def _plain(task: str, name: str) -> Fitter:
    title = f"{_NUMBERS[name]} of the numbers" if task == REGRESSION else METHODS[name].title
    return Fitter(name, title, partial(_equal_weights, name), is_fitted=False)


def _equal_weights(method: str, stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    assert isinstance(stack, ColumnStack)  # noqa: S101 - the methods of columns are fitted to columns
    return ColumnCombination(stack.names, pool=method, task=stack.task, columns=stack.columns)


_BEST = Fitter("best", "the best single run", on_scores(best_single))
_GREEDY = Fitter("greedy", "greedy selection of runs", memoize_fit(greedy_columns))
_OF_LABELS = (
    _BEST,
    _GREEDY,
    Fitter("simplex", "mean, weights with the smallest log loss", memoize_fit(simplex_labels)),
    Fitter("exp", "mean, weights exp(−t · log loss)", memoize_fit(exponential_labels)),
    Fitter("per-class", "mean, weights for each label", memoize_fit(per_label)),
    replace(each_label(replace(biased(PLAIN["soft"]), title="mean and a bias")), name="bias"),
    replace(each_label(replace(biased(PLAIN["geometric"]), title="geometric mean and a bias")), name="bias-geometric"),
    replace(each_label(STACKING), name="stacking"),
    replace(each_label(replace(biased(STACKING), title="logistic regression and a bias")), name="stacking-bias"),
)
_OF_NUMBERS = (
    _BEST,
    _GREEDY,
    Fitter("simplex", "mean, weights with the smallest squared error", simplex_numbers),
    Fitter("nnls", "least squares, coefficients of at least 0", nnls_numbers),
    Fitter("stacking", "linear model of the runs", memoize_fit(stacking_numbers)),
)
COLUMN_FITTERS: Mapping[str, Mapping[str, Fitter]] = {
    task: {name: _plain(task, name) for name in VOTES[task] if name != GIVEN} | {one.name: one for one in fitted}
    for task, fitted in ((MULTILABEL, _OF_LABELS), (REGRESSION, _OF_NUMBERS))
}


def fitters_of(task: str) -> Mapping[str, Fitter]:
    """Return name → fitter of a task; of classes those of `ensemble.learning.registry`."""
    return COLUMN_FITTERS.get(task, FITTERS)


def methods_of(task: str) -> tuple[str, ...]:
    """Return the methods of a task with a column for each label or number: votes, learned ones, and ``auto``."""
    return tuple(dict.fromkeys([*VOTES[task], *COLUMN_FITTERS[task], AUTO]))


def check_method(name: str, task: str) -> None:
    """Raise UsageError, with the methods of the task, if a method does not combine its predictions."""
    if name not in methods_of(task):
        raise UsageError(
            f"`method={name}` does not combine predictions of the task {task}",
            hint=f"its methods are {', '.join(methods_of(task))}",
        )


def calibrated_labels(name: str, calibrate: str) -> Fitter:
    """Return a method with a calibration of each label.

    Raises
    ------
    UsageError : the method has no calibration of each label.
    """
    if name not in CALIBRATED:
        raise UsageError(
            f"`method={name}` is not calibrated for each label", hint=f"`calibrate` works with {', '.join(CALIBRATED)}"
        )
    return each_label(calibrated(FITTERS[name], *parse_calibration(calibrate)))


def column_candidates(task: str, metric: Metric) -> Sequence[Fitter]:
    """Return the fitters that ``auto`` compares; calibrations replace biases if the metric is not of decisions."""
    known = list(COLUMN_FITTERS[task].values())
    if task == REGRESSION:
        return known
    of_decisions = metric.columns is not None and metric.columns.of_decisions
    if of_decisions:
        return known
    calibrations = [calibrated_labels(name, "after:temperature") for name in ("soft", "geometric")]
    return [*(fitter for fitter in known if not fitter.adds_bias), *calibrations]
