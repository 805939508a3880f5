"""Choose a bias for each class with the best expected score, one class at a time; numpy only.

Only the two best classes of a row matter for the bias of a third one, so they are kept and updated in the few rows that
a new bias changes. The expected counts change by one row at a time as a bias grows, and the score is a function of sums
over classes (`folds.metrics.classification.ClassSums`), so all values of a bias are scored in one sort, whatever the
number of classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from folds.metrics.confusion import ClassSums

Floats = NDArray[np.float64]


class ExpectedScores:
    """The expected score of decisions by log p + bias, if labels are drawn from p.

    Parameters
    ----------
    probabilities : (n, classes) p.
    max_bias : limit of the absolute bias.
    sign : 1 if greater scores are better, otherwise −1.
    """

    def __init__(self, probabilities: Floats, sums: ClassSums, max_bias: float, sign: float) -> None:
        self.logs = np.log(probabilities)
        self.columns = np.ascontiguousarray(self.logs.T)
        self.probabilities = np.ascontiguousarray(probabilities.T)  # (classes, n)
        self.support = probabilities.sum(axis=0)
        self.sums, self.max_bias, self.sign = sums, max_bias, sign
        n, self.classes = self.logs.shape
        self.bias = np.zeros(self.classes)
        self.weights = sums.weights(self.classes)
        self.value, self.best = np.empty((2, n)), np.empty((2, n), np.int64)  # of the best class and of the second
        self._rank(np.arange(n))

    def improve(self, c: int) -> float:
        """Set the bias of class `c` to the one with the best expected score for fixed others; return that score.

        The score is multiplied by `sign`. The bias stays if no other value is better.
        """
        is_best = self.best[0] == c
        rival = np.where(is_best, self.best[1], self.best[0])
        # With a larger bias, the sample is classified as c.
        threshold = np.where(is_best, self.value[1], self.value[0]) - self.columns[c]
        never, always = threshold > self.max_bias, threshold < -self.max_bias
        moving = np.flatnonzero(~(never | always))
        moving = moving[np.argsort(threshold[moving], kind="stable")]
        scores = self._scores(c, rival, np.flatnonzero(always), moving)
        threshold = threshold[moving]
        edges = np.concatenate([[-self.max_bias], threshold, [self.max_bias]])
        scores[edges[1:] - edges[:-1] <= 1e-9] = -np.inf  # no bias lies between these thresholds
        unchanged = int(np.searchsorted(threshold, self.bias[c]))
        best = int(np.argmax(scores))
        if scores[best] <= scores[unchanged] + 1e-9:
            return float(scores[unchanged])
        self._set(c, float((edges[best] + edges[best + 1]) / 2))
        return float(scores[best])

    def _scores(self, c: int, rival: NDArray[np.int64], always: NDArray[np.int64], moving: NDArray[np.int64]) -> Floats:
        """Return (moving + 1,) the scores if the first rows of `moving` are classified as c, the others as `rival`."""
        others = np.delete(np.arange(len(rival)), always)
        lost_of = rival[others]
        hits: Floats = np.bincount(lost_of, self.probabilities[lost_of, others], self.classes).astype(np.float64)
        decided = np.bincount(lost_of, minlength=self.classes).astype(np.float64)
        steps = self._steps(rival[moving], self.probabilities[rival[moving], moving], hits, decided)
        own_hits = _from_zero(self.probabilities[c, moving]) + self.probabilities[c, always].sum()
        own_decided = np.arange(len(moving) + 1) + float(len(always))
        own = self.sums.terms(own_hits, np.full(len(own_hits), self.support[c]), own_decided)
        every = [term * self.weights for term in self.sums.terms(hits, self.support, decided)]
        start = [term.sum() - term[c] for term in every]
        totals = [
            first + _from_zero(step) + term * self.weights[c]
            for first, step, term in zip(start, steps, own, strict=True)
        ]
        return np.asarray(self.sign * self.sums.score(totals, self.classes), np.float64)

    def _steps(self, rival: NDArray[np.int64], lost: Floats, hits: Floats, decided: Floats) -> Sequence[Floats]:
        """Return the change of each term at each step, when a row leaves its `rival` with `lost` of its hits."""
        order = np.argsort(rival.astype(np.min_scalar_type(self.classes)), kind="stable")
        group, lost = rival[order], lost[order]
        is_first = np.concatenate([[True], group[1:] != group[:-1]])[: len(group)]
        first = np.flatnonzero(is_first)[np.cumsum(is_first) - 1]  # of the rows with the same rival
        before = np.cumsum(lost) - lost
        count, taken, support = np.arange(len(group)) - first, before - before[first], self.support[group]
        old = self.sums.terms(hits[group] - taken, support, decided[group] - count)
        new = self.sums.terms(hits[group] - taken - lost, support, decided[group] - count - 1)
        steps = []
        for one, other in zip(old, new, strict=True):
            step = np.empty(len(group))
            step[order] = (np.asarray(other, np.float64) - one) * self.weights[group]
            steps.append(step)
        return steps

    def _set(self, c: int, bias: float) -> None:
        """Change the bias of class `c`."""
        self.bias[c] = bias
        value = self.columns[c] + bias
        among = (self.best[0] == c) | (self.best[1] == c)
        # Of equal values, the lowest class wins, as in an argmax.
        above = ~among & ((value > self.value[1]) | ((value == self.value[1]) & (c < self.best[1])))
        first = above & ((value > self.value[0]) | ((value == self.value[0]) & (c < self.best[0])))
        self.value[1, first], self.best[1, first] = self.value[0, first], self.best[0, first]
        self.value[0, first], self.best[0, first] = value[first], c
        second = above & ~first
        self.value[1, second], self.best[1, second] = value[second], c
        self._rank(np.flatnonzero(among))

    def _rank(self, rows: NDArray[np.int64]) -> None:
        """Find the two best classes of `rows` anew."""
        for start in range(0, len(rows), 4096):
            part = rows[start : start + 4096]
            values, index = self.logs[part] + self.bias, np.arange(len(part))
            for place in range(2):
                best = values.argmax(axis=1)
                self.best[place, part], self.value[place, part] = best, values[index, best]
                values[index, best] = -np.inf


def _from_zero(steps: Floats) -> Floats:
    """Return (n + 1,) the sums of the first 0, 1, …, n steps."""
    return np.concatenate([[0.0], np.cumsum(steps)])
