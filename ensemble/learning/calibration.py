"""Calibration, learnt: a temperature, or also an offset for each class, of each run before pooling or of the pooled
prediction after.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.combination import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    Calibration,
    Combination,
    Fit,
    Fitter,
    combine,
)
from ensemble.learning.nested import held_out
from ensemble.learning.stack import Stack
from ensemble.voting.base import FLOOR
from folds.errors import unknown_name
from folds.metrics.classification import Metric

HOWS = {"temperature": "one temperature", "vector": "a temperature, and an offset for each class"}
WHERES = {"before": "each run before pooling", "after": "the pooled prediction"}
# How hard the offsets are held to 0: Σ offset² · strength / 2 beside the log losses, summed. So a class needs labels to
# move.
# Before pooling harder: what each of many runs takes off a rare class, none of them says any more.
OFFSET_STRENGTH = {"before": 30.0, "after": 10.0}
# Steps of a solver at most. What a row of log p counts in the curvature of the loss for 1/T: only how fast it is done
# depends on it.
_STEPS, _CURVATURE = 200, 0.05


def temperature(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Return the T in p → softmax(log p / T) with the least log loss, from .05 to 20 (Guo et al., ICML 2017).

    The loss is convex in 1/T, so where it falls and rises is bracketed, and Newton's steps that leave the bracket are
    halved. Probabilities below `FLOOR` count as `FLOOR`, so 0 and 1 are as good as any. SciPy's bounded scalar search
    takes
    1.1 to 1.8 times as long (300 to 20,000 rows, 4 to 100 classes), and has to be imported.

    Parameters
    ----------
    probabilities : (n, classes); `labels` (n,). 1 where n is 0.
    """
    return _scaled(_logs(probabilities), labels)


def vector(
    probabilities: NDArray[np.floating], labels: NDArray[np.int64], strength: float
) -> tuple[float, NDArray[np.float64]]:
    """Return (T, offset (classes,)) of p → softmax(log p / T + offset) with the least Σ log loss + strength/2 · Σ
    offset².

    The penalty does not grow with the samples, so a class with few labels hardly moves.
    """
    from scipy.optimize import minimize

    logs = _logs(probabilities)
    n, classes = logs.shape
    if not n:
        return 1.0, np.zeros(classes)
    counts, true = np.bincount(labels, minlength=classes), float(logs[np.arange(n), labels].sum())
    # In these units every direction (1/T, then the offsets) is about equally curved.
    unit = 1 / np.sqrt(np.concatenate([[_CURVATURE * max(float((logs**2).sum()), 1e-9)], 0.2 * counts + strength]))

    def loss(scaled: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        x = scaled * unit
        p = x[0] * logs + x[1:]
        top = p.max(axis=1, keepdims=True)
        p -= top
        total = np.exp(p, out=p).sum(axis=1, keepdims=True)
        p /= total
        value = (np.log(total) + top).sum() - x[0] * true - counts @ x[1:] + strength / 2 * (x[1:] @ x[1:])
        slope = np.concatenate([[(p * logs).sum() - true], p.sum(axis=0) - counts + strength * x[1:]])
        return float(value), slope * unit

    start = np.concatenate([[1 / _scaled(logs, labels)], np.zeros(classes)])
    bounds = [(1 / MAX_TEMPERATURE / unit[0], 1 / MIN_TEMPERATURE / unit[0]), *[(None, None)] * classes]
    limits = {"maxiter": _STEPS, "ftol": 1e-12, "gtol": 1e-6}
    found = minimize(loss, start / unit, jac=True, method="L-BFGS-B", bounds=bounds, options=limits).x * unit
    return float(1 / found[0]), found[1:]


def fitted(how: str, where: str, probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> Calibration:
    """The calibration of one matrix (n, classes): a run's, before pooling, or the pooled."""
    if how == "temperature":
        return Calibration(np.array(temperature(probabilities, labels)))
    heat, offset = vector(probabilities, labels, OFFSET_STRENGTH[where])
    return Calibration(np.array(heat), offset)


def of_runs(stack: Stack, how: str) -> Calibration:
    """The calibration of each run, on the samples where it is present."""
    heats, offsets = np.ones((stack.runs, 1, 1)), np.zeros((stack.runs, 1, stack.classes))
    for i in range(stack.runs):
        values, labels = stack.probabilities[i], stack.labels
        if stack.present is not None:
            values, labels = values[stack.present[i]], labels[stack.present[i]]
        found = fitted(how, "before", values, labels)
        heats[i] = found.temperature
        if found.offset is not None:
            offsets[i] = found.offset
    return Calibration(heats, offsets if how == "vector" else None)


def transformed(stack: Stack, calibration: Calibration) -> Stack:
    """The stack with each run's predictions calibrated; 0 where it is absent."""
    values = np.empty_like(stack.probabilities)
    for i in range(stack.runs):
        offset = None if calibration.offset is None else calibration.offset[i]
        values[i] = Calibration(calibration.temperature[i], offset)(stack.probabilities[i])
        if stack.present is not None:
            values[i, ~stack.present[i]] = 0
    return replace(stack, probabilities=values)


def calibrated(fitter: Fitter, how: str = "temperature", where: str = "after") -> Fitter:
    """A fitter whose runs are calibrated before it learns, or whose pooled predictions are after.

    After: what the pooled predictions of a fitter that learns say of the samples it learnt on is too sure. So each
    part's are
    of what was fitted without it, and the calibration is learnt on those. A bias that the fitter has is moved along, so
    that decisions stay.
    """
    fit = _before(fitter, how) if where == "before" else _after(fitter, how)
    return Fitter(f"{fitter.name}+{where}:{how}", f"{fitter.title}; {HOWS[how]} for {WHERES[where]}", fit)


def _before(fitter: Fitter, how: str) -> Fit:
    def fit(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
        calibration = of_runs(stack, how)
        inner = fitter.fit(transformed(stack, calibration), metric, seed)
        heats = calibration.temperature.reshape(-1)
        said = (
            f"temperatures {heats.min():.2g} to {heats.max():.2g}" if stack.runs > 1 else f"temperature {heats[0]:.2g}"
        )
        return replace(inner, before=calibration, summary="; ".join(filter(None, [said, inner.summary])))

    return fit


def _after(fitter: Fitter, how: str) -> Fit:
    def fit(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
        inner, pooled = pooled_honestly(fitter, stack, metric, seed)
        calibration = fitted(how, "after", pooled, stack.labels)
        bias = inner.bias
        if bias is not None:
            bias = bias / calibration.temperature - (0 if calibration.offset is None else calibration.offset)
        said = f"temperature {float(calibration.temperature):.2g}"
        return replace(inner, after=calibration, bias=bias, summary="; ".join(filter(None, [inner.summary, said])))

    return fit


def pooled_honestly(
    fitter: Fitter, stack: Stack, metric: Metric, seed: int = 0
) -> tuple[Combination, NDArray[np.float32]]:
    """What a fitter finds, and (n, classes) what it predicts, without calibration after and bias: each part by what was
    fitted without it.
    """
    whole = fitter.fit(stack, metric, seed)
    if whole.after is not None:
        raise ValueError(f"{fitter.name} is calibrated after pooling already")
    pooled = combine(stack, replace(whole, bias=None))
    for inside, outside in held_out(stack) if fitter.is_fitted else []:
        part = fitter.fit(stack.take(outside), metric, seed)
        pooled[inside] = combine(stack.take(inside), replace(part, bias=None))
    return whole, pooled


def parse_calibration(text: str) -> tuple[str, str]:
    """``before:temperature`` as (how, where); ``temperature`` alone is after.

    Raises
    ------
    UsageError : neither.
    """
    where, colon, how = text.strip().rpartition(":")
    where = where.strip() if colon else "after"
    how = how.strip()
    hint = "`calibrate=before:temperature`; " + ", ".join(f"{a}:{b}" for a in WHERES for b in HOWS)
    if where not in WHERES:
        raise unknown_name("place of `calibrate`", where, list(WHERES), hint)
    if how not in HOWS:
        raise unknown_name("calibration", how, list(HOWS), hint)
    return how, where


def _logs(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    logs = np.log(np.maximum(probabilities, FLOOR, dtype=np.float64))
    return logs - logs.max(axis=-1, keepdims=True)


def _scaled(logs: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The temperature of log p (n, classes), whose largest of each row is 0."""
    if not len(labels):
        return 1.0
    true = logs[np.arange(len(labels)), labels]
    low, high, beta = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE, 1.0
    for _ in range(_STEPS):
        p = np.exp(beta * logs)
        p /= p.sum(axis=1, keepdims=True)
        weighted = p * logs
        mean = weighted.sum(axis=1)
        slope, curve = float((mean - true).mean()), float((weighted * logs).sum(axis=1).mean() - (mean**2).mean())
        if slope == 0:  # rows without preference say nothing of T
            break
        low, high = (beta, high) if slope < 0 else (low, beta)
        step = slope / curve if curve > 0 else np.inf
        moved = beta - step if low < beta - step < high else (low * high) ** 0.5
        if abs(moved - beta) < 1e-7 * beta:
            break
        beta = moved
    return 1 / beta
