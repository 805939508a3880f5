"""The majority of votes, and who wins a tie; numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ensemble.voting.base import TIE, TIE_MARGIN, Ballots


def hard(ballots: Ballots) -> tuple[NDArray[np.float64], int]:
    """The share of the vote of each class: a run's weight, divided equally among its fold models.

    A tie goes to the class with the higher mean probability; where there is none or it is equal too, to the class for
    which the highest-ranked run among the tied ones has voted. So that the largest value is the decision, the winner of
    a tie then gets `TIE_MARGIN` (about 1e-6) more, and the row is normalised again.
    """
    votes = ballots.votes
    assert votes is not None  # noqa: S101 - `counts_votes` asks for them
    shares = np.einsum("rm,rmc->mc", ballots.weights, votes)
    best = shares >= shares.max(axis=1, keepdims=True) - TIE
    tied = np.flatnonzero(best.sum(axis=1) > 1)
    if len(tied):
        winners = _settle(ballots, votes, best, tied)
        shares[tied, winners] = shares[tied].max(axis=1) + TIE_MARGIN
    return shares, len(tied)


def _settle(ballots: Ballots, votes: NDArray[np.float64], best: NDArray[np.bool_], tied: NDArray[np.int64]) -> NDArray[np.int64]:
    """The class that wins each tied row."""
    open_ = best[tied]
    if not ballots.hard.all():
        with_probability = ballots.weights[:, tied] * ~ballots.hard[:, None]
        means = np.einsum("rm,rmc->mc", with_probability, ballots.probabilities[:, tied])
        means[~open_] = -1
        # Where no run present has probabilities, all means are 0 and nothing is decided.
        open_ = open_ & (means >= means.max(axis=1, keepdims=True) - 1e-12)
    for run in ballots.ranking:
        cast = np.where(open_, votes[run, tied], 0)
        narrowed = (cast > 0) & (cast >= cast.max(axis=1, keepdims=True) - TIE) & (ballots.weights[run, tied] > 0)[:, None]
        open_ = np.where(narrowed.any(axis=1, keepdims=True), narrowed, open_)
    return open_.argmax(axis=1)
