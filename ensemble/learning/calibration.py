"""Fit calibrations, before pooling (each run) or after it: a temperature, optionally with an offset for each class."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.combination import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    Calibration,
    Combination,
    Fitter,
    combine,
)
from ensemble.learning.nested import held_out
from ensemble.learning.stack import Stack
from ensemble.voting.base import FLOOR
from folds.errors import unknown_name
from folds.metrics.classification import Metric

KINDS = {"temperature": "one temperature", "vector": "a temperature, and an offset for each class"}
PLACES = {"before": "each run before pooling", "after": "the pooled prediction"}
# L2 penalty of the offsets, added to the summed log losses: strength / 2 · Σ offset². A class with few labels keeps an
# offset near 0. Stronger before pooling: if every run lowers a rare class, no run predicts it any more.
OFFSET_STRENGTH = {"before": 30.0, "after": 10.0}
# Maximum steps of a solver; curvature of the loss in 1/T for one row of log p, which affects only the speed.
_STEPS, _CURVATURE = 200, 0.05


def temperature(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Return the T in p → softmax(log p / T) with the smallest log loss, from .05 to 20 (Guo et al., ICML 2017).

    The loss is convex in 1/T: Newton's method with a bracket; a step outside the bracket is replaced by its geometric
    mean. SciPy's bounded scalar search takes 1.1 to 1.8 times as long (300 to 20,000 rows, 4 to 100 classes) and needs
    an import.

    Parameters
    ----------
    probabilities : (n, classes); values below `FLOOR` count as `FLOOR`, so 0 and 1 are valid.
    labels : (n,) class indices; without rows, the result is 1.
    """
    return _best_temperature(_normalized_logs(probabilities), labels)


def vector(
    probabilities: NDArray[np.floating], labels: NDArray[np.int64], strength: float
) -> tuple[float, NDArray[np.float64]]:
    """Return T and offset (classes,) of p → softmax(log p / T + offset) with the smallest penalized loss.

    The loss is Σ log loss + strength/2 · Σ offset². The penalty does not grow with the number of samples, so a class
    with few labels keeps an offset near 0.
    """
    from scipy.optimize import minimize

    logs = _normalized_logs(probabilities)
    n, classes = logs.shape
    if not n:
        return 1.0, np.zeros(classes)
    counts, true = np.bincount(labels, minlength=classes), float(logs[np.arange(n), labels].sum())
    # Scaled by these, the curvature is about equal in every direction (1/T, then the offsets).
    scale = 1 / np.sqrt(np.concatenate([[_CURVATURE * max(float((logs**2).sum()), 1e-9)], 0.2 * counts + strength]))

    def loss(scaled: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        x = scaled * scale
        p = x[0] * logs + x[1:]
        top = p.max(axis=1, keepdims=True)
        p -= top
        total = np.exp(p, out=p).sum(axis=1, keepdims=True)
        p /= total
        value = (np.log(total) + top).sum() - x[0] * true - counts @ x[1:] + strength / 2 * (x[1:] @ x[1:])
        slope = np.concatenate([[(p * logs).sum() - true], p.sum(axis=0) - counts + strength * x[1:]])
        return float(value), slope * scale

    start = np.concatenate([[1 / _best_temperature(logs, labels)], np.zeros(classes)])
    bounds = [(1 / MAX_TEMPERATURE / scale[0], 1 / MIN_TEMPERATURE / scale[0]), *[(None, None)] * classes]
    limits = {"maxiter": _STEPS, "ftol": 1e-12, "gtol": 1e-6}
    found = minimize(loss, start / scale, jac=True, method="L-BFGS-B", bounds=bounds, options=limits).x * scale
    return float(1 / found[0]), found[1:]


def fit_calibration(
    kind: str, place: str, probabilities: NDArray[np.floating], labels: NDArray[np.int64]
) -> Calibration:
    """Return the calibration of one matrix (n, classes): of a run before pooling, or of the pooled prediction."""
    if kind == "temperature":
        return Calibration(np.array(temperature(probabilities, labels)))
    fitted_temperature, offset = vector(probabilities, labels, OFFSET_STRENGTH[place])
    return Calibration(np.array(fitted_temperature), offset)


def calibrate_runs(stack: Stack, kind: str) -> Calibration:
    """Return the calibration of each run, fitted on the samples where it is present."""
    temperatures, offsets = np.ones((stack.runs, 1, 1)), np.zeros((stack.runs, 1, stack.classes))
    for i in range(stack.runs):
        values, labels = stack.probabilities[i], stack.labels
        if stack.present is not None:
            values, labels = values[stack.present[i]], labels[stack.present[i]]
        found = fit_calibration(kind, "before", values, labels)
        temperatures[i] = found.temperature
        if found.offset is not None:
            offsets[i] = found.offset
    return Calibration(temperatures, offsets if kind == "vector" else None)


def apply_calibration(stack: Stack, calibration: Calibration) -> Stack:
    """Return the stack with calibrated predictions of each run; 0 where it is absent."""
    values = np.empty_like(stack.probabilities)
    for i in range(stack.runs):
        offset = None if calibration.offset is None else calibration.offset[i]
        values[i] = Calibration(calibration.temperature[i], offset)(stack.probabilities[i])
        if stack.present is not None:
            values[i, ~stack.present[i]] = 0
    return replace(stack, probabilities=values)


def calibrated(fitter: Fitter, kind: str = "temperature", place: str = "after") -> Fitter:
    """Return a fitter whose runs are calibrated before the fit, or whose pooled predictions are calibrated after it.

    In-sample pooled predictions are overconfident. So a calibration after pooling is fitted on out-of-fold predictions:
    each part is predicted by a fit without it. A class bias of the fitter is transformed so that decisions do not
    change.
    """
    fit = partial(_before if place == "before" else _after, fitter, kind)  # not a closure, which cannot be pickled
    return Fitter(f"{fitter.name}+{place}:{kind}", f"{fitter.title}; {KINDS[kind]} for {PLACES[place]}", fit)


def _before(fitter: Fitter, kind: str, stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    calibration = calibrate_runs(stack, kind)
    inner = fitter.fit(apply_calibration(stack, calibration), metric, seed)
    temperatures = calibration.temperature.reshape(-1)
    text = (
        f"temperatures {temperatures.min():.2g} to {temperatures.max():.2g}"
        if stack.runs > 1
        else f"temperature {temperatures[0]:.2g}"
    )
    return replace(inner, before=calibration, summary="; ".join(filter(None, [text, inner.summary])))


def _after(fitter: Fitter, kind: str, stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    inner, pooled = pool_out_of_fold(fitter, stack, metric, seed)
    calibration = fit_calibration(kind, "after", pooled, stack.labels)
    bias = inner.bias
    if bias is not None:
        bias = bias / calibration.temperature - (0 if calibration.offset is None else calibration.offset)
    text = f"temperature {float(calibration.temperature):.2g}"
    return replace(inner, after=calibration, bias=bias, summary="; ".join(filter(None, [inner.summary, text])))


def pool_out_of_fold(
    fitter: Fitter, stack: Stack, metric: Metric, seed: int = 0
) -> tuple[Combination, NDArray[np.float32]]:
    """Return a fitter's combination and (n, classes) its out-of-fold pooled predictions, without class bias.

    Each part is predicted by a fit without it.

    Raises
    ------
    ValueError : the fitter already calibrates after pooling.
    """
    full = fitter.fit(stack, metric, seed)
    if full.after is not None:
        raise ValueError(f"{fitter.name} is already calibrated after pooling")
    pooled = combine(stack, replace(full, bias=None))
    for inside, outside in held_out(stack) if fitter.is_fitted else []:
        part = fitter.fit(stack.take(outside), metric, seed)
        pooled[inside] = combine(stack.take(inside), replace(part, bias=None))
    return full, pooled


def parse_calibration(text: str) -> tuple[str, str]:
    """Return the kind and place of ``before:temperature``; ``temperature`` without a place is after pooling.

    Raises
    ------
    UsageError : the kind or the place is unknown.
    """
    place, colon, kind = text.strip().rpartition(":")
    place = place.strip() if colon else "after"
    kind = kind.strip()
    hint = "`calibrate=before:temperature`; " + ", ".join(f"{a}:{b}" for a in PLACES for b in KINDS)
    if place not in PLACES:
        raise unknown_name("place of `calibrate`", place, list(PLACES), hint)
    if kind not in KINDS:
        raise unknown_name("calibration", kind, list(KINDS), hint)
    return kind, place


def _normalized_logs(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    logs = np.log(np.maximum(probabilities, FLOOR, dtype=np.float64))
    return logs - logs.max(axis=-1, keepdims=True)


def _best_temperature(logs: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the temperature for log p (n, classes), where the largest value of each row is 0."""
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
        if slope == 0:  # rows of equal probabilities do not depend on T
            break
        low, high = (beta, high) if slope < 0 else (low, beta)
        step = slope / curve if curve > 0 else np.inf
        updated = beta - step if low < beta - step < high else (low * high) ** 0.5
        if abs(updated - beta) < 1e-7 * beta:
            break
        beta = updated
    return 1 / beta
