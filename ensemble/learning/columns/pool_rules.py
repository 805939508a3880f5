"""Fit the rules that pool a person's images to several labels, or to numbers; numpy only.

A label is fitted as two classes, without and with it, on the people of whom it is known; a number by a linear model of
the statistics of its images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.columns.labels import has_both
from ensemble.learning.columns.numbers import STRENGTHS, ridge
from ensemble.learning.columns.stack import ColumnStack
from ensemble.learning.nested import held_out
from ensemble.learning.pool_rules import fit_rule, mean_rule
from ensemble.learning.stack import Stack, StackImages
from ensemble.pooling.columns import ColumnPooling
from ensemble.pooling.evidence import NUMBER_STATISTICS, STATISTICS, number_statistics
from ensemble.pooling.pooling import Pooling
from ensemble.pooling.spec import FIXED, LOG_ODDS, MEAN, PoolSpec
from folds.metrics.task_names import REGRESSION

Floats = NDArray[np.float64]
_SHOWN = 5  # labels of a summary
_SAME = 1e-9  # a smaller change of a coefficient is none


def fixed_columns(spec: PoolSpec, task: str, columns: tuple[str, ...]) -> ColumnPooling:
    """Return the pooling of a rule that fits nothing; the mean for other rules."""
    return ColumnPooling(spec.name if spec.name in FIXED else MEAN, k=spec.k, task=task, columns=columns)


def fit_columns(spec: PoolSpec, stack: ColumnStack) -> ColumnPooling:
    """Return the rule, fitted to the people of a stack with images; cells that are not known take no part.

    A label has the rule of two classes (`ensemble.learning.pool_rules.fit_rule`) with a damping, a prior or
    coefficients of its own. A label that fewer than two people have, or lack, has the mean of its log-odds.

    ``learned`` of a number is a ridge regression on `NUMBER_STATISTICS`, penalized towards the mean of its images, with
    the strength that has the smallest squared error on held-out people; the mean itself is one of the choices.
    """
    plain = fixed_columns(spec, stack.task, stack.columns)
    if spec.name in FIXED:
        return plain
    if stack.task == REGRESSION:
        linear = [[_fit_number(stack, run, column) for column in range(stack.classes)] for run in range(stack.runs)]
        return replace(plain, rule=spec.name, runs=stack.names, linear=np.array(linear))
    each = tuple(_fit_label(spec, _of_label(stack, column)) for column in range(stack.classes))
    return replace(plain, rule=spec.name, runs=stack.names, each=each)


def _fit_label(spec: PoolSpec, one: Stack) -> Pooling:
    return fit_rule(spec, one, False) if has_both(one) else mean_rule(spec, one)


def _of_label(stack: ColumnStack, column: int) -> Stack:
    """Return the people of whom a label is known, with their images, as a stack of two classes."""
    images = _images(stack).take(stack.known_rows(column))
    values = images.probabilities[:, :, column].clip(0, 1)
    two = np.stack([1 - values, values], axis=2)
    two[~images.present] = 0
    return replace(stack.of_label(column), images=replace(images, probabilities=two))


def _images(stack: ColumnStack) -> StackImages:
    assert stack.images is not None  # noqa: S101 - rules are fitted to people
    return stack.images


def _fit_number(stack: ColumnStack, run: int, column: int) -> Floats:
    """Return (statistics + 1,) coefficients; those of the mean if nothing predicts other people better."""
    values, bags = _images(stack).of_run(run)
    found, truth = number_statistics(values[:, [column]], bags)[:, :, 0], stack.labels[:, column]
    used = (bags.counts > 0) & ~np.isnan(truth)
    # log n has no unit: it counts in standard deviations of the number, so that one penalty fits all statistics.
    scale = float(truth[used].std()) if used.any() else 0.0
    found[-1] *= scale
    parts = [(test[used[test]], rest[used[rest]]) for test, rest in held_out(stack)]
    coefficients, intercept = ridge(found[:, used], truth[used], _strength(found, truth, parts), _start())
    coefficients = coefficients.copy()
    coefficients[-1] *= scale
    return np.append(coefficients, intercept)


def _start() -> Floats:
    """Return (statistics,) the coefficients of the mean."""
    return np.eye(1, len(NUMBER_STATISTICS))[0]


def _strength(
    found: Floats, truth: Floats, parts: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]
) -> float | None:
    """Return the strength with the smallest squared error on held-out people; None for the mean of the images.

    Parameters
    ----------
    found : (statistics, people).
    parts : people who are held out, and those of the fit.
    """
    choices: tuple[float | None, ...] = (None, *STRENGTHS)
    losses = np.zeros(len(choices))
    for test, rest in parts:
        if not len(test) or not len(rest):
            continue
        for i, choice in enumerate(choices):
            coefficients, intercept = ridge(found[:, rest], truth[rest], choice, _start())
            losses[i] += np.square(coefficients @ found[:, test] + intercept - truth[test]).sum()
    return choices[int(np.argmin(losses))]


def columns_summary(pooling: ColumnPooling) -> str:
    """Return what was fitted in a few words."""
    if pooling.linear is not None:
        changed = np.abs(pooling.linear - np.append(_start(), 0)).max() > _SAME
        return f"images by a linear model of {', '.join(NUMBER_STATISTICS)}" if changed else "images by their mean"
    if pooling.rule == LOG_ODDS:
        dampings = [one.damping for one in pooling.each if one.damping is not None]
        texts = [
            f"{name} {', '.join(f'{value:g}' for value in values.tolist())}"
            for name, values in list(zip(pooling.columns, dampings, strict=True))[:_SHOWN]
        ]
        return f"damping of the log-odds of {'; '.join(texts)}" + ("; …" if len(dampings) > _SHOWN else "")
    start = np.eye(1, len(STATISTICS) + 1)[0]
    fits = [one.coefficients for one in pooling.each if one.coefficients is not None]
    count = sum(bool(np.abs(fit - start).max() > _SAME) for fit in fits)
    if not count:
        return "images by their mean log-odds"
    others = "; of the others by their mean log-odds" if count < len(fits) else ""
    return f"images of {count} of {len(fits)} labels by a regression on {', '.join(STATISTICS)}{others}"
