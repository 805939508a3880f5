"""Fit stacking: multinomial logistic regression on the runs' log probabilities, regularized to the geometric mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.combination import MAX_NUMBERS, Combination, features
from ensemble.learning.further_columns import ColumnModel, encode, fit_encodings
from ensemble.learning.logistic import ALL, OWN, Part, Path, PathCache, log_loss
from ensemble.learning.nested import held_out
from ensemble.learning.stack import Stack
from folds.errors import EnsembleError
from folds.metrics.classification import Metric

# L2 penalties towards the geometric mean, strongest first: Σ log loss + strength/2 · (runs · Σ Δ² + Σ intercept²).
STRENGTHS = (1000.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
# The path stops at a strength whose log loss per sample exceeds the best one so far by more than this.
_WORSE = 0.01
_PATHS = PathCache()


def stacking(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    """Return a combination with logits Σ over runs of coefficients · log p + intercept.

    First, the logit of each class depends on the same class of every run. Then, if there are at least as many samples
    as coefficients (runs · classes²), a second fit on top of the first uses all classes. Each of the two strengths is
    the one with the smallest log loss on held-out people. Infinite strength, which is the geometric mean for the first
    fit, is one of the choices.

    Further columns of the samples are added to the logits of each class, with coefficients of the same penalty; the
    second fit is left out then.

    Raises
    ------
    EnsembleError : the predictions do not fit into memory.
    """
    stack.check_memory(1, "stacking")
    if (size := (stack.runs * stack.classes + 1) * stack.classes) > MAX_NUMBERS:
        raise EnsembleError(
            f"stacking of {stack.runs:,} runs × {stack.classes:,} classes has {size:,} coefficients, the limit is "
            f"{MAX_NUMBERS:,}",
            hint="use `method=simplex`, which has one weight per run, or fewer runs with `runs`",
        )
    inner = held_out(stack)
    encodings = fit_encodings(stack.extra)
    more = encode(encodings, {column.name: column.texts for column in stack.extra}, len(stack))
    parts = [_part(stack, rows, more[rows]) for rows, _ in inner]
    inputs = stack.runs + more.shape[1]
    coefs, notes = np.full((stack.classes, inputs + 1), 1 / stack.runs), []
    coefs[:, stack.runs :] = 0
    if parts:
        every = [tuple(part for part in parts if part is not one) for one in parts]
        chosen, paths, all_samples = choose_strength(parts, every, [coefs] * len(parts), coefs)
        coefs = all_samples.final(chosen, parts)
        all_samples.release()
        notes += [f"{OWN}, strength {STRENGTHS[chosen - 1]:g}"] if chosen else []
        if not encodings and len(stack) >= stack.runs * stack.classes**2:
            offsets = [_all_classes(path.final(chosen, rest)) for path, rest in zip(paths, every, strict=True)]
            for path in paths:
                path.release()
            chosen, _, all_samples = choose_strength(parts, every, offsets, _all_classes(coefs))
            coefs = all_samples.final(chosen, parts)
            all_samples.release()
            notes += [f"{ALL}, strength {STRENGTHS[chosen - 1]:g}"] if chosen else []
    columns = None
    if encodings:
        columns = ColumnModel(encodings, coefs[:, stack.runs : -1].T.copy())
        coefs = np.concatenate([coefs[:, : stack.runs], coefs[:, -1:]], axis=1)
        notes += [f"with {', '.join(columns.names)}"] if notes else []
    wide = coefs if coefs.shape[1] == stack.runs * stack.classes + 1 else _all_classes(coefs)
    stacked = wide.T.copy()
    stacked[-1] *= inputs**0.5
    summary = "; ".join(notes) or "geometric mean, nothing fitted"
    return Combination(stack.names, pool="geometric", stacked=stacked, summary=summary, extra=columns)


def choose_strength(
    parts: list[Part], every: list[tuple[Part, ...]], offsets: list[NDArray[np.float64]], offset: NDArray[np.float64]
) -> tuple[int, list[Path], Path]:
    """Return the number of strengths to use, by log loss on held-out people, and the paths: without each part, of all.

    Parameters
    ----------
    every : for each part, all others.
    offsets, offset : the coefficients to start from: without each part, and of all samples.
    """
    paths = [_PATHS.path(rest, start, STRENGTHS) for rest, start in zip(every, offsets, strict=True)]
    best, lowest, samples = 0, np.inf, sum(map(len, parts))
    for step in range(len(STRENGTHS) + 1):
        loss = sum(log_loss([part], path.at(step, rest)) for part, path, rest in zip(parts, paths, every, strict=True))
        if loss < lowest:
            best, lowest = step, loss
        elif loss > lowest + _WORSE * samples:
            break
    for path in paths:
        path.release()
    return best, paths, _PATHS.path(parts, offset, STRENGTHS)


def _all_classes(coefs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return coefficients for the same class of each run as (classes, runs · classes + 1) coefficients for all."""
    classes, runs = coefs.shape[0], coefs.shape[1] - 1
    wide = np.zeros((classes, runs * classes + 1))
    for run in range(runs):
        np.fill_diagonal(wide[:, run * classes : (run + 1) * classes], coefs[:, run])
    wide[:, -1] = coefs[:, -1]
    return wide


def _part(stack: Stack, rows: NDArray[np.int64], more: NDArray[np.float64] | None = None) -> Part:
    """Return log p of the samples at `rows`, as in `Combination.apply`, and their other columns as further runs that
    say the same of every class.
    """
    inside = stack.take(rows)
    more = np.zeros((len(rows), 0)) if more is None else more
    values = np.empty((stack.runs + more.shape[1], stack.classes, len(rows)), np.float32)
    values[stack.runs :] = more.T[:, None]
    for block, ballots in inside.ballots():
        logs = features(ballots.probabilities, ballots.weights > 0)
        values[: stack.runs, :, block] = logs.reshape(len(logs), stack.runs, stack.classes).transpose(1, 2, 0)
    return Part.of(values, inside.labels)
