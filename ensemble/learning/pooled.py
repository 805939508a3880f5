"""Fit how a person's images are pooled, and combine the runs for people; numpy only.

A fitted rule is fitted to the people of the training part alone, run by run, and the combination is then fitted to
people whom the rule did not see: each inner part is pooled by a rule that was fitted without it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.combination import Combination, Fitter
from ensemble.learning.logistic import Part
from ensemble.learning.nested import held_out
from ensemble.learning.stack import Stack
from ensemble.learning.stacking import choose_strength
from ensemble.pooling.evidence import STATISTICS, damped_log_odds, statistics
from ensemble.pooling.pooling import Pooling
from ensemble.pooling.spec import AUTO, FIXED, LOG_ODDS, MEAN, RULES, PoolSpec
from ensemble.voting.base import FLOOR
from folds.metrics.classification import Metric

DAMPINGS = tuple(np.linspace(0, 1, 9).tolist())


def fixed_pooling(spec: PoolSpec, ordered: bool) -> Pooling:
    """Return the pooling of a rule that fits nothing; the mean for other rules, for scores of the runs alone."""
    return Pooling(spec.name if spec.name in FIXED else MEAN, ordered, spec.k)


def fit_pooling(spec: PoolSpec, stack: Stack, ordered: bool) -> Pooling:
    """Return the rule, fitted to the people of a stack with images.

    ``log-odds`` learns the prior of each run, which is its mean prediction, and the damping with the smallest log loss.
    ``learned`` is a multinomial logistic regression on the `STATISTICS` of each class, regularized to the mean
    log-probability, with the strength that has the smallest log loss on held-out people.
    """
    if spec.name in FIXED:
        return fixed_pooling(spec, ordered)
    if spec.name == LOG_ODDS:
        found = [_fit_log_odds(spec, stack, run) for run in range(stack.runs)]
        damping, prior = np.array([one for one, _ in found]), np.stack([one for _, one in found])
        return Pooling(spec.name, ordered, runs=stack.names, damping=damping, prior=prior)
    coefficients = np.stack([_fit_learned(stack, run) for run in range(stack.runs)])
    return Pooling(spec.name, ordered, runs=stack.names, coefficients=coefficients)


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
    coefs = np.zeros((stack.classes, len(STATISTICS) + 1))
    coefs[:, 0] = 1
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


def pooled_choices(fitter: Fitter, spec: PoolSpec, ordered: bool) -> list[Fitter]:
    """Return the fitter for people by a rule, or by each rule for ``auto``; the mean is the first one then."""
    specs = [PoolSpec(name) for name in RULES] if spec.name == AUTO else [spec]
    return [pooled(fitter, one, ordered) for one in specs]


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
    if pooling.damping is not None:
        return "damping of the log-odds " + ", ".join(f"{value:g}" for value in pooling.damping.tolist())
    if pooling.coefficients is not None:
        start = np.zeros(pooling.coefficients.shape[1:])
        start[:, 0] = 1
        changed = np.abs(pooling.coefficients - start).max() > 1e-9
        return f"images by a regression on {', '.join(STATISTICS)}" if changed else "images by their mean log-odds"
    return f"images by {spec.text}"
