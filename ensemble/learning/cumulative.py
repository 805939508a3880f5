"""Turn a number into probabilities of ordered grades: a cumulative logistic fit (McCullagh, 1980); numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from folds.utils.numeric import sigmoid

Floats = NDArray[np.float64]
# L2 penalty, added to the summed log losses, of the slope and of the log distances of the cuts, for numbers of variance
# 1: a grade that no person has keeps a place, and numbers that separate all grades keep a finite slope.
STRENGTH = 0.1
_STEPS = 500
LEAST = 1e-12  # of a probability


@dataclass(frozen=True)
class NumberToGrades:
    """A fit of grades to a number: P(grade ≤ k) = σ(cuts_k − slope · number).

    Attributes
    ----------
    slope : in logits for one unit of the number.
    cuts : (grades − 1,) ascending.
    """

    slope: float
    cuts: tuple[float, ...]

    def probabilities(self, numbers: NDArray[np.floating]) -> Floats:
        """Return (n, grades) probabilities for numbers (n,); rows sum to 1."""
        below = sigmoid(np.asarray(self.cuts)[None] - self.slope * np.asarray(numbers, np.float64)[:, None])
        edges = np.concatenate([np.zeros((len(below), 1)), below, np.ones((len(below), 1))], axis=1)
        values = np.maximum(np.diff(edges, axis=1), LEAST)
        return values / values.sum(axis=1, keepdims=True)

    @property
    def points(self) -> list[float]:
        """Return the numbers at which it is even whether a grade is above each cut; [] for a slope of 0."""
        return [cut / self.slope for cut in self.cuts] if self.slope else []

    def reversed(self) -> NumberToGrades:
        """Return the same fit with the grades in descending order."""
        return NumberToGrades(-self.slope, tuple(-cut for cut in self.cuts[::-1]))

    def as_record(self) -> list[float]:
        """Return the numbers that files hold: the slope, then the cuts."""
        return [self.slope, *self.cuts]

    @classmethod
    def from_record(cls, values: Sequence[float]) -> NumberToGrades | None:
        """Return the fit of a record without a `record_problem`; None for an empty one."""
        return cls(float(values[0]), tuple(map(float, values[1:]))) if values else None


def record_problem(values: Sequence[float], grades: int) -> str:
    """Return what finite numbers must be to be the record of a fit to this number of grades; "" if they are."""
    if len(values) == grades and list(values[1:]) == sorted(values[1:]):
        return ""
    return f"must be a slope and {grades - 1} ascending cuts"


def fit_grades(numbers: NDArray[np.floating], grades: NDArray[np.int64], count: int) -> NumberToGrades:
    """Return the fit with the smallest penalized log loss.

    Parameters
    ----------
    numbers : (n,) finite.
    grades : (n,) from 0 to `count` − 1.
    """
    from scipy.optimize import minimize

    x = np.asarray(numbers, np.float64)
    center, scale = float(x.mean()), float(x.std()) or 1.0
    x, rows = (x - center) / scale, np.arange(len(x))
    shares = np.cumsum(np.bincount(grades, minlength=count) + 0.5)[:-1] / (len(x) + 0.5 * count)
    first = np.log(shares / (1 - shares))
    start = np.concatenate([[1.0, first[0]], np.log(np.maximum(np.diff(first), 1e-2))])

    def loss(params: Floats) -> tuple[float, Floats]:
        slope, steps = params[0], np.exp(np.clip(params[2:], -20, 20))
        cuts = params[1] + np.concatenate([[0.0], np.cumsum(steps)])
        below = sigmoid(cuts[None] - slope * x[:, None])
        edges = np.concatenate([np.zeros((len(x), 1)), below, np.ones((len(x), 1))], axis=1)
        density = edges * (1 - edges)
        p = np.maximum(edges[rows, grades + 1] - edges[rows, grades], LEAST)
        high, low = density[rows, grades + 1] / p, density[rows, grades] / p
        by_cut = np.zeros(count + 1)
        np.add.at(by_cut, grades + 1, -high)
        np.add.at(by_cut, grades, low)
        of_cuts = by_cut[1:-1]
        later = np.cumsum(of_cuts[::-1])[::-1]
        gradient = np.concatenate([[(x * (high - low)).sum()], [of_cuts.sum()], later[1:] * steps])
        gradient[0] += STRENGTH * slope
        gradient[2:] += STRENGTH * params[2:]
        penalty = STRENGTH / 2 * (slope**2 + float((params[2:] ** 2).sum()))
        return float(-np.log(p).sum()) + penalty, gradient

    limits = {"maxiter": _STEPS, "ftol": 1e-12, "gtol": 1e-8}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=limits).x
    slope = float(found[0]) / scale
    cuts = found[1] + np.concatenate([[0.0], np.cumsum(np.exp(found[2:]))]) + slope * center
    return NumberToGrades(slope, tuple(cuts.tolist()))
