"""Rank voting: where each sample stands among all samples, class by class; numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ensemble.voting.base import Ballots


def rank_column(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rank vote on one class: the samples in the order of their mean rank, with the values that such ranks have.

    A run's rank of a sample is its place among the samples that the run has, from 0 to 1, ties sharing the middle. The
    (weighted) mean of these places is then read off the mean of the runs' sorted columns (quantile normalisation, as
    Bolstad et al. 2003, doi 10.1093/bioinformatics/19.2.185). So runs of different sharpness count alike in the order,
    while a class keeps the level that the runs give it: bare ranks would make all classes equally frequent. One run
    alone keeps its values.

    Parameters
    ----------
    values, weights : (runs, n); weights sum to 1 over the runs, 0 where one is absent.

    Returns
    -------
    (n,) values, in time n·log(n) a run.
    """
    n = values.shape[1]
    grid = (np.arange(n) + 0.5) / n
    place, level = np.zeros(n), np.zeros(n)
    for mine, weight in zip(values, weights, strict=True):
        present = weight > 0
        if not present.any():
            continue
        ordered, ranks = _ranked(mine[present])
        own = (np.arange(len(ordered)) + 0.5) / len(ordered)
        place[present] += weight[present] * (ranks / len(ordered))
        level += weight.mean() * (ordered if len(ordered) == n else np.interp(grid, own, ordered))
    return np.interp(place, grid, level)


def ranked(ballots: Ballots) -> tuple[NDArray[np.float64], int]:
    """The rank vote on each class; the ballots must hold all rows. Rows need not sum to 1, and may be all 0."""
    return np.stack([rank_column(ballots.probabilities[:, :, c], ballots.weights) for c in range(ballots.probabilities.shape[2])], axis=1), 0


def _ranked(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(m,) sorted, and each value's rank from .5 up, the mean of the ranks where values are equal."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    ends = np.append(starts[1:], len(ordered))
    ranks = np.empty(len(ordered))
    ranks[order] = np.repeat((starts + ends) / 2, ends - starts)
    return ordered, ranks
