"""Define the input, the pooling rules, the options and the result of a vote; numpy only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from folds.errors import UsageError

# Shares of the vote that differ by less are a tie: .1 + .2 equals .3, and other differences must survive float32.
TIE = 1e-7
# Added to the share of the class that wins a tie, so that it is the largest in float32 as well.
TIE_MARGIN = 2.0**-20
# Lower limit of probabilities in geometric means: a probability that one member rounds to 0 must not exclude a class.
FLOOR = float(np.finfo(np.float32).eps)
BY = ("class", "attribute")
_ROUNDING = 1e-6


@dataclass(frozen=True)
class VoteInput:
    """The runs' predictions on a block of m rows.

    Attributes
    ----------
    probabilities : (runs, m, classes) each run's mean over its fold models; 0 where it is absent or has hard labels.
    votes : (runs, m, classes) share of each run's fold models that vote for a class; None unless the method needs it.
    weights : (runs, m) weight of each run: sums to 1 over the runs that are present, 0 where a run is absent.
    hard : (runs,) whether a run has only hard labels.
    ranking : (runs,) run indices, best first.
    offset : (m, classes) added to the logits of a stacked model, from other columns of the samples; None for none.
    """

    probabilities: NDArray[np.float64]
    votes: NDArray[np.float64] | None
    weights: NDArray[np.float64]
    hard: NDArray[np.bool_]
    ranking: NDArray[np.int64]
    offset: NDArray[np.float64] | None = None


Combine = Callable[[VoteInput], tuple[NDArray[np.float64], int]]


@dataclass(frozen=True)
class PoolingRule:
    """A method of combining runs.

    Attributes
    ----------
    combine : returns (m, classes) values ≥ 0, whose largest is the predicted class, and the number of ties.
    title : the method in words.
    counts_votes : the method uses `VoteInput.votes` and accepts members with hard labels only.
    supports_weights : weights other than 0 and 1 have an effect.
    needs_all_rows : the method compares samples, so its input must hold all rows.
    """

    combine: Combine
    title: str
    counts_votes: bool = False
    supports_weights: bool = True
    needs_all_rows: bool = False


@dataclass(frozen=True)
class Options:
    """Parameters of the methods.

    Attributes
    ----------
    power : exponent of the power mean: 1 is the arithmetic mean, 0 the geometric, −1 the harmonic; with a larger
        exponent the result is closer to the maximum.
    trim : share of the weight that the trimmed mean removes at each end, from 0 (the mean) to below .5 (close to .5:
        the median).
    by : ``class``, or ``attribute`` to vote on each attribute of the class separately.

    Raises
    ------
    UsageError : a value out of range.
    """

    power: float = 2.0
    trim: float = 0.2
    by: str = "class"

    def __post_init__(self) -> None:
        if not np.isfinite(self.power):
            raise UsageError(
                f"`power={self.power}`: expected a finite number",
                hint="`power=2`; for the maximum: `method=max`",
            )
        if not 0 <= self.trim < 0.5:
            raise UsageError(
                f"`trim={self.trim:g}`: expected a share from 0 to below .5",
                hint="`trim=.2`; for the median: `method=median`",
            )
        if self.by not in BY:
            raise UsageError(
                f"`by={self.by}`: expected {' or '.join(BY)}",
                hint="`by=attribute` votes on mask, gender and age separately",
            )


@dataclass(frozen=True)
class Vote:
    """The combined prediction of runs on one split.

    Attributes
    ----------
    probabilities : (n, classes) float32, rows sum to 1; the largest value of a row is the predicted class.
    ties : number of rows where several classes had the same share of votes (hard voting); summed over the attributes in
        a vote by attribute.
    undecided : number of rows where every class had probability 0 in a vote by attribute; the vote by class decides
        them.
    """

    probabilities: NDArray[np.float32]
    ties: int = 0
    undecided: int = 0


def is_normalized(values: NDArray[np.floating]) -> bool:
    """Return whether `normalize_rows` does not change (m, classes) values in float64."""
    sums = values.astype(np.float64) @ np.ones(values.shape[1])
    return bool(values.min() >= 0 and sums.min() > 1 - _ROUNDING and sums.max() < 1 + _ROUNDING)


def normalize_rows(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return (m, classes) values scaled in place so that rows sum to 1; negative values from rounding become 0.

    Rows that already sum to 1 are not changed: a blend of one float32 member is bit-identical to that member.
    """
    np.maximum(values, 0, out=values)
    sums = values @ np.ones(values.shape[1], values.dtype)
    unnormalized = np.flatnonzero(np.abs(sums - 1) >= _ROUNDING)
    if len(unnormalized):
        values[unnormalized] /= sums[unnormalized, None]
    return values
