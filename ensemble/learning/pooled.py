"""Fit how a person's images are pooled, and combine the runs for people; numpy only.

A fitted rule is fitted to the people of the training part alone, run by run, and the combination is then fitted to
people whom the rule did not see: each inner part is pooled by a rule that was fitted without it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.columns.pool_rules import columns_summary, fit_columns, fixed_columns
from ensemble.learning.columns.stack import ColumnStack
from ensemble.learning.combination import Combination, Fitter
from ensemble.learning.nested import held_out
from ensemble.learning.pool_rules import fit_rule
from ensemble.learning.stack import Stack
from ensemble.pooling.columns import ColumnPooling
from ensemble.pooling.evidence import STATISTICS
from ensemble.pooling.pooling import Pooling
from ensemble.pooling.spec import AUTO, FIXED, MEAN, PoolSpec, rules_of
from folds.metrics.classification import Metric
from folds.metrics.task_names import CLASSES, COLUMN_TASKS, ORDINAL


def fixed_pooling(spec: PoolSpec, task: str, columns: tuple[str, ...]) -> Pooling:
    """Return the pooling of a rule that fits nothing; the mean for other rules, for scores of the runs alone.

    Parameters
    ----------
    columns : the classes, labels or numbers, in order.
    """
    if task in COLUMN_TASKS:
        return fixed_columns(spec, task, columns)
    return _fixed_classes(spec, task == ORDINAL)


def _fixed_classes(spec: PoolSpec, ordered: bool) -> Pooling:
    return Pooling(spec.name if spec.name in FIXED else MEAN, ordered, spec.k)


def fit_pooling(spec: PoolSpec, stack: Stack, ordered: bool) -> Pooling:
    """Return the rule, fitted to the people of a stack with images; see `fit_rule` and `fit_columns`."""
    if isinstance(stack, ColumnStack):
        return fit_columns(spec, stack)
    return _fixed_classes(spec, ordered) if spec.name in FIXED else fit_rule(spec, stack, ordered)


def pooled(fitter: Fitter, spec: PoolSpec, ordered: bool) -> Fitter:
    """Return the fitter for people, whose images are pooled by a rule before the fit."""
    fit = partial(_fit_pooled, fitter, spec, ordered)  # not a closure, which cannot be pickled
    return Fitter(
        f"{fitter.name}, {spec.text}",
        f"{fitter.title}; images of a person by {spec.text}",
        fit,
        fitter.is_fitted or spec.is_fitted,
        fitter.adds_bias,
    )


def pooled_choices(fitter: Fitter, spec: PoolSpec, task: str = CLASSES) -> list[Fitter]:
    """Return the fitter for people by a rule, or by each rule of the task for ``auto``; the mean is the first one
    then.
    """
    specs = [PoolSpec(name) for name in rules_of(task)] if spec.name == AUTO else [spec]
    return [pooled(fitter, one, task == ORDINAL) for one in specs]


def _fit_pooled(
    fitter: Fitter, spec: PoolSpec, ordered: bool, stack: Stack, metric: Metric, seed: int = 0
) -> Combination:
    pooling = fit_pooling(spec, stack, ordered)
    people = stack.pooled(pooling)
    if fitter.is_fitted and spec.is_fitted:
        people = replace(people, probabilities=_pooled_out_of_fold(spec, stack, ordered, people.probabilities))
    inner = fitter.fit(people, metric, seed)
    text = "; ".join(filter(None, [_summary(pooling, spec), inner.summary]))
    return replace(inner, pooling=pooling, summary=text)


def _pooled_out_of_fold(
    spec: PoolSpec, stack: Stack, ordered: bool, in_sample: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return (runs, people, classes) each part of the people pooled by a rule that was fitted without it."""
    values = in_sample.copy()
    for inside, outside in held_out(stack):
        pooling = fit_pooling(spec, stack.take(outside), ordered)
        values[:, inside] = stack.take(inside).pooled(pooling).probabilities
    return values


def _summary(pooling: Pooling, spec: PoolSpec) -> str:
    if isinstance(pooling, ColumnPooling) and pooling.runs:
        return columns_summary(pooling)
    if pooling.damping is not None:
        return "damping of the log-odds " + ", ".join(f"{value:g}" for value in pooling.damping.tolist())
    if pooling.coefficients is not None:
        start = np.zeros(pooling.coefficients.shape[1:])
        start[:, 0] = 1
        changed = np.abs(pooling.coefficients - start).max() > 1e-9
        return f"images by a regression on {', '.join(STATISTICS)}" if changed else "images by their mean log-odds"
    return f"images by {spec.text}"
