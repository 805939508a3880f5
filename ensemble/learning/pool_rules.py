"""Fit the rules that pool a person's images, run by run, to the people of a stack of classes; numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.logistic import Part
from ensemble.learning.nested import held_out
from ensemble.learning.stack import Stack
from ensemble.learning.stacking import choose_strength
from ensemble.pooling.evidence import STATISTICS, damped_log_odds, statistics
from ensemble.pooling.pooling import Pooling
from ensemble.pooling.spec import LOG_ODDS, PoolSpec
from ensemble.voting.base import FLOOR

DAMPINGS = tuple(np.linspace(0, 1, 9).tolist())


def fit_rule(spec: PoolSpec, stack: Stack, ordered: bool) -> Pooling:
    """Return a fitted rule, fitted to the people of a stack with images.

    ``log-odds`` learns the prior of each run, which is its mean prediction, and the damping with the smallest log loss.
    ``learned`` is a multinomial logistic regression on the `STATISTICS` of each class, regularized to the mean
    log-probability, with the strength that has the smallest log loss on held-out people.
    """
    if spec.name == LOG_ODDS:
        found = [_fit_log_odds(spec, stack, run) for run in range(stack.runs)]
        damping, prior = np.array([one for one, _ in found]), np.stack([one for _, one in found])
        return Pooling(spec.name, ordered, runs=stack.names, damping=damping, prior=prior)
    coefficients = np.stack([_fit_learned(stack, run) for run in range(stack.runs)])
    return Pooling(spec.name, ordered, runs=stack.names, coefficients=coefficients)


def mean_rule(spec: PoolSpec, stack: Stack) -> Pooling:
    """Return a fitted rule as the mean of the log-odds, for a stack to which nothing can be fitted."""
    if spec.name == LOG_ODDS:
        given = 1.0 if spec.damping is None else spec.damping
        return fit_rule(PoolSpec(spec.name, damping=given), stack, False)
    return Pooling(spec.name, runs=stack.names, coefficients=np.stack([_start(stack.classes)] * stack.runs))


def _start(classes: int) -> NDArray[np.float64]:
    """Return (classes, statistics + 1) the coefficients of the mean log-probability."""
    coefs = np.zeros((classes, len(STATISTICS) + 1))
    coefs[:, 0] = 1
    return coefs


def _fit_log_odds(spec: PoolSpec, stack: Stack, run: int) -> tuple[float, NDArray[np.float64]]:
    assert stack.images is not None  # noqa: S101 - fitted to people
    values, bags = stack.images.of_run(run)
    shown = bags.shown
    if not len(shown):
        return 1.0, np.full(stack.classes, 1 / stack.classes)
    prior = bags.mean(values.astype(np.float64))[shown].mean(axis=0)
    if spec.damping is not None:
        return spec.damping, prior
    losses = []
    for damping in DAMPINGS:
        pooled = damped_log_odds(values, bags, damping, prior)[shown, stack.labels[shown]]
        losses.append(-np.log(np.maximum(pooled, FLOOR)).mean())
    return DAMPINGS[int(np.argmin(losses))], prior


def _fit_learned(stack: Stack, run: int) -> NDArray[np.float64]:
    """Return (classes, statistics + 1) coefficients; those of the mean log-probability for one person alone."""
    assert stack.images is not None  # noqa: S101 - fitted to people
    values, bags = stack.images.of_run(run)
    features = statistics(values, bags).transpose(0, 2, 1).astype(np.float32)
    shown = bags.counts > 0
    coefs = _start(stack.classes)
    groups = [rows[shown[rows]] for rows, _ in held_out(stack)]
    parts = [Part.of(np.ascontiguousarray(features[:, :, rows]), stack.labels[rows]) for rows in groups if len(rows)]
    if len(parts) < 2:
        return coefs
    every = [tuple(part for part in parts if part is not one) for one in parts]
    chosen, _, all_samples = choose_strength(parts, every, [coefs] * len(parts), coefs)
    found = all_samples.final(chosen, parts).copy()
    all_samples.release()
    found[:, -1] *= len(STATISTICS) ** 0.5
    return found
