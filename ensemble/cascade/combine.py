"""Combine the models that have predicted so far, and bound what the remaining ones can change; numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.combination import Calibration, Combination
from ensemble.tta.merge import margins
from ensemble.voting.base import FLOOR, VoteInput
from ensemble.voting.blocks import rank_order
from ensemble.voting.vote import METHODS
from folds.errors import UsageError

Floats = NDArray[np.float64]
# Predictions of a model in another batch differ by about 1e-6, so a lead must be larger than that to be certain.
SLACK = 1e-5


def used_runs(combination: Combination) -> list[str]:
    """Return the runs of a combination that can change its result, in its order."""
    return [run for run, share in zip(combination.runs, combination.shares.tolist(), strict=True) if share > 0]


def check_combination(combination: Combination) -> None:
    """Raise UsageError if images cannot be decided one at a time."""
    if METHODS[combination.pool].needs_all_rows and combination.stacked is None:
        raise UsageError(
            f"a cascade decides each image by itself, but {combination.pool} voting compares the images of a table",
            hint="blend with another `method`, or use all models (no cascade)",
        )


@dataclass(frozen=True)
class Combined:
    """The result of the models so far: (m, classes) probabilities, and (m,) the lead of the highest class.

    The lead of a vote that counts decisions is that of the mean probability of its runs for the class that wins.
    """

    probabilities: Floats
    lead: Floats

    @property
    def classes(self) -> NDArray[np.int64]:
        """Return (m,) the predicted classes."""
        return self.probabilities.argmax(axis=1)


@dataclass(frozen=True)
class Combiner:
    """A combination, applied to runs of which some have not predicted yet.

    Attributes
    ----------
    ranking : run names, best first, for ties of hard votes.
    """

    combination: Combination
    ranking: tuple[str, ...] = ()

    @property
    def counts_votes(self) -> bool:
        """Return whether decisions of models are counted, instead of averaging probabilities."""
        return self.combination.stacked is None and METHODS[self.combination.pool].counts_votes

    def __call__(self, values: Floats, votes: Floats | None, present: Sequence[bool] | NDArray[np.bool_]) -> Combined:
        """Return the combination of the runs that are present.

        Parameters
        ----------
        values : (runs, m, classes) mean of the probabilities of each run's models so far.
        votes : (runs, m, classes) share of them that vote for a class; needed if `counts_votes`.
        present : (runs,) whether a run has predicted, in the order of the combination.
        """
        rows, here = values.shape[1], np.asarray(present, bool)
        weights = np.repeat(here[:, None], rows, axis=1).astype(np.float64)
        ranked = rank_order(self.combination.runs, self.ranking, self.combination.runs)
        inputs = VoteInput(np.where(here[:, None, None], values, 0), votes, weights, np.zeros(len(here), bool), ranked)
        probabilities = self.combination.apply(inputs)[0]
        if not self.counts_votes:
            return Combined(probabilities, margins(probabilities))
        mean = replace(self.combination, pool="soft").apply(replace(inputs, votes=None))[0]
        rest = mean.copy()
        chosen = probabilities.argmax(axis=1)[:, None]
        np.put_along_axis(rest, chosen, -np.inf, axis=1)
        lead = np.take_along_axis(mean, chosen, 1)[:, 0] - rest.max(axis=1)
        return Combined(probabilities, lead)


def votes_of(probabilities: NDArray[np.floating]) -> Floats:
    """Return (…, classes) 1 for the highest class of each row, 0 for the others."""
    found = np.zeros(np.shape(probabilities))
    np.put_along_axis(found, np.argmax(probabilities, axis=-1)[..., None], 1.0, axis=-1)
    return found


class ExactBound:
    """What the models that have not predicted can still change, for combinations that are linear in the runs.

    Every probability is from 0 to 1, so the remaining models cannot move the mean by more than their weight. With a
    calibration of each run, a run counts as remaining until all its models have predicted.

    Parameters
    ----------
    folds : run → number of its fold models.
    """

    def __init__(self, combination: Combination, folds: Sequence[int]) -> None:
        self.combination, self.folds = combination, np.asarray(folds)
        runs = len(combination.runs)
        weights = np.ones(runs) if combination.weights is None else np.asarray(combination.weights, np.float64)
        weights = weights[:, None] if weights.ndim == 1 else weights
        self.weights = weights / weights.sum(axis=0)  # (runs, 1) or (runs, classes)
        self.counts_votes = METHODS[combination.pool].counts_votes
        scale = np.zeros(1)
        if combination.after is not None and combination.after.offset is not None:
            scale = scale + combination.after.offset
        if combination.bias is not None:
            scale = scale + combination.bias
        if combination.after is not None:
            scale = scale * float(combination.after.temperature)
        # argmax(log p / T + offset + bias) = argmax(p · exp(T · (offset + bias)))
        self.scale = np.exp(scale - scale.max())

    @staticmethod
    def holds_for(combination: Combination) -> bool:
        """Return whether the bound exists for this combination."""
        return combination.stacked is None and combination.pool in ("soft", "weighted", "hard")

    def settled(self, sums: Floats, done: NDArray[np.int64]) -> tuple[NDArray[np.bool_], Floats]:
        """Return (m,) whether the decision is certain, and (m, classes) the probabilities of the models so far.

        Parameters
        ----------
        sums : (runs, m, classes) sum of the probabilities, or votes, of each run's models so far.
        done : (runs,) number of these models.
        """
        means = sums / self.folds[:, None, None]
        share = done / self.folds
        if self.combination.before is not None:
            share = (done == self.folds).astype(np.float64)
            means = np.where(share[:, None, None] > 0, self.combination.before(np.maximum(means, 0)), 0)
        reached = np.einsum("rmc,rc->mc", means, np.broadcast_to(self.weights, (len(means), means.shape[2])))
        left = ((1 - share)[:, None] * self.weights).sum(axis=0)  # (1,) or (classes,)
        best = reached * self.scale
        at = best.argmax(axis=1)
        most = np.maximum(reached + left, FLOOR) * self.scale
        np.put_along_axis(most, at[:, None], -np.inf, axis=1)
        lead = np.take_along_axis(best, at[:, None], 1)[:, 0] - most.max(axis=1)
        return lead > SLACK * self.scale.max(), self._finished(reached)

    def _finished(self, reached: Floats) -> Floats:
        """Return probabilities (m, classes) of weighted sums, with the calibration and bias of the combination."""
        total = reached.sum(axis=1, keepdims=True)
        pooled = np.where(total > 0, reached / np.where(total > 0, total, 1), 1 / reached.shape[1])
        after: Calibration | None = self.combination.after
        if after is not None:
            pooled = after(pooled)
        if self.combination.bias is not None:
            pooled = pooled * np.exp(self.combination.bias - self.combination.bias.max())
            pooled /= pooled.sum(axis=1, keepdims=True)
        return np.asarray(pooled)
