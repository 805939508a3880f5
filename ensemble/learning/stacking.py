"""Stacking: a multinomial logistic regression on the runs' log probabilities, held to the geometric vote."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.combination import Combination, features
from ensemble.learning.nested import held_out
from ensemble.learning.stack import Stack
from folds.metrics.classification import Metric

STRUCTURES = ("own class", "all classes")
# How hard coefficients are held to the geometric vote, from the strongest: Σ log loss + strength/2 · (runs · Σ Δ² + Σ
# intercept²).
STRENGTHS = (1000.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
# A strength that is so much worse than the best one so far, in log loss a sample, ends the path.
_WORSE = 0.01
# Curvature of the log loss for one logit, p(1 − p), on the mean: only how fast it is done depends on it.
_CURVATURE = 0.05
_STEPS = 200
# Of the loss, where no more is asked for than which strength is better, or where to begin.
_ON_THE_WAY = 1e-5


@dataclass(frozen=True)
class Rotated:
    """The features, rotated so that their products are diagonal: what is fitted quickly at any strength.

    Attributes
    ----------
    values : (blocks, n, size) the features of a class in the eigenvectors of their products; one block where all
        classes
        have the same features. The intercept is a feature of its own, √runs.
    vectors : (blocks, features + 1, size).
    sizes : (blocks, size) eigenvalues.
    runs, classes : how many.
    """

    values: NDArray[np.float64]
    vectors: NDArray[np.float64]
    sizes: NDArray[np.float64]
    runs: int
    classes: int

    @property
    def start(self) -> NDArray[np.float64]:
        """(size, classes) coefficients that add nothing."""
        return np.zeros((self.values.shape[2], self.classes))

    def logits(self, at: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, classes) what coefficients (size, classes) add to the logits."""
        if len(self.values) == 1:
            return self.values[0] @ at
        return np.matmul(self.values, at.T[:, :, None])[:, :, 0].T

    def slope(self, rest: NDArray[np.float64]) -> NDArray[np.float64]:
        """(size, classes) the features' products with (n, classes)."""
        if len(self.values) == 1:
            return self.values[0].T @ rest
        return np.matmul(rest.T[:, None, :], self.values)[:, 0].T


def stacking(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    """Logits Σ over runs of coefficients · log p + intercept, at the strength that held-out people ask for by log loss.

    First each class learns from the same class of every run; at infinite strength that is the geometric vote, which is
    among
    the choices. Then, where there are at least as many samples as coefficients (runs · classes²), each class may learn
    from
    all classes what is left, with a strength of its own; infinite is among the choices again.

    Raises
    ------
    EnsembleError : it does not fit into memory.
    """
    stack.check_memory(4, "stacking")
    logs = _features(stack)
    parts = held_out(stack)
    vote = logs.reshape(len(stack), stack.runs, -1).mean(axis=1)
    bases, base = [vote] * len(parts), vote
    stacked = np.zeros((stack.runs * stack.classes + 1, stack.classes))
    stacked[:-1] = np.tile(np.eye(stack.classes) / stack.runs, (stack.runs, 1))
    said = []
    for structure in STRUCTURES:
        if not parts or (structure == "all classes" and len(stack) < stack.runs * stack.classes**2):
            break
        found = rotated(logs, stack.runs, structure)
        chosen, bases = _path(found, bases, stack.labels, parts)
        at = found.start
        for strength in STRENGTHS[:chosen]:
            at = fit(
                found,
                base,
                stack.labels,
                strength,
                at,
                tolerance=1e-10 if strength == STRENGTHS[chosen - 1] else _ON_THE_WAY,
            )
        base = base + found.logits(at)
        stacked += coefficients(found, at)
        said += [f"{structure}, strength {STRENGTHS[chosen - 1]:g}"] if chosen else []
    return Combination(stack.names, pool="geometric", stacked=stacked, summary="; ".join(said) or "the geometric vote")


def rotated(logs: NDArray[np.float64], runs: int, structure: str) -> Rotated:
    """The features (n, runs × classes) of one of `STRUCTURES`."""
    n, classes = len(logs), logs.shape[1] // runs
    blocks = logs[None] if structure == "all classes" else logs.reshape(n, runs, classes).transpose(2, 0, 1)
    blocks = np.concatenate([blocks, np.full((len(blocks), n, 1), runs**0.5)], axis=2)
    sizes, vectors = np.linalg.eigh(np.matmul(blocks.transpose(0, 2, 1), blocks))
    return Rotated(np.matmul(blocks, vectors), vectors, np.maximum(sizes, 0), runs, classes)


def fit(
    found: Rotated,
    base: NDArray[np.float64],
    labels: NDArray[np.int64],
    strength: float,
    at: NDArray[np.float64],
    there: NDArray[np.bool_] | None = None,
    tolerance: float = 1e-10,
) -> NDArray[np.float64]:
    """(size, classes) coefficients with the least Σ log loss + strength/2 · (runs · Σ Δ² + Σ intercept²), by L-BFGS.

    Parameters
    ----------
    base : (n, classes) logits that the features add to.
    at : where to begin.
    there : (n,) the rows to fit on; all without it.
    tolerance : it ends where a step lowers the loss by less than this share.
    """
    from scipy.optimize import minimize

    rows = np.arange(len(labels))
    held = strength * found.runs
    # In these units every direction is about equally curved.
    scale = 1 / np.sqrt(_CURVATURE * found.sizes + held)
    scale = scale.T if len(scale) > 1 else scale[0][:, None]

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        now = flat.reshape(at.shape) * scale
        logits = base + found.logits(now)
        logits -= logits.max(axis=1, keepdims=True)
        true = logits[rows, labels]
        rest = np.exp(logits, out=logits)
        total = rest.sum(axis=1)
        losses = np.log(total) - true
        rest /= total[:, None]
        rest[rows, labels] -= 1
        if there is not None:
            losses, rest = losses[there], rest * there[:, None]
        slope = found.slope(rest) + held * now
        return float(losses.sum() + held / 2 * (now**2).sum()), (slope * scale).ravel()

    limits = {"maxiter": _STEPS, "ftol": tolerance, "gtol": 1e-6, "maxcor": 15}
    return minimize(loss, (at / scale).ravel(), jac=True, method="L-BFGS-B", options=limits).x.reshape(at.shape) * scale


def coefficients(found: Rotated, at: NDArray[np.float64]) -> NDArray[np.float64]:
    """(runs × classes + 1, classes) what they add to `Combination.stacked`."""
    classes, runs = found.classes, found.runs
    stacked = np.zeros((runs * classes + 1, classes))
    if len(found.vectors) == 1 and classes > 1:
        stacked[:] = found.vectors[0] @ at
        stacked[-1] *= runs**0.5
    else:
        own = np.matmul(found.vectors, at.T[:, :, None])[:, :, 0]  # (classes, runs + 1)
        for c in range(classes):
            stacked[c:-1:classes, c] = own[c, :-1]
        stacked[-1] = own[:, -1] * runs**0.5
    return stacked


def _path(
    found: Rotated,
    bases: list[NDArray[np.float64]],
    labels: NDArray[np.int64],
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> tuple[int, list[NDArray[np.float64]]]:
    """How many of the strengths to go through, by the log loss on held-out people, and the logits without each part
    then.
    """
    now = [found.start for _ in parts]
    best, least, logits = (
        0,
        sum(_total_loss(base[inside], labels[inside]) for base, (inside, _) in zip(bases, parts)),
        bases,
    )
    for step, strength in enumerate(STRENGTHS, start=1):
        for i, (inside, _) in enumerate(parts):
            there = np.ones(len(labels), bool)
            there[inside] = False
            now[i] = fit(found, bases[i], labels, strength, now[i], there, tolerance=_ON_THE_WAY)
        moved = [base + found.logits(at) for base, at in zip(bases, now)]
        loss = sum(_total_loss(values[inside], labels[inside]) for values, (inside, _) in zip(moved, parts))
        if loss < least:
            best, least, logits = step, loss, moved
        elif loss > least + _WORSE * len(labels):
            break
    return best, logits


def _total_loss(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    top = logits.max(axis=1)
    return float(
        (np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top - logits[np.arange(len(labels)), labels]).sum()
    )


def _features(stack: Stack) -> NDArray[np.float64]:
    """(n, runs × classes) log p as `Combination.apply` takes it."""
    return np.concatenate([features(ballots.probabilities, ballots.weights > 0) for _, ballots in stack.ballots()])
