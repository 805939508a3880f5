"""What voting is made of: ballots, a method that combines them, the vote that comes out; numpy only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from folds.errors import UsageError

# Shares of the vote nearer to each other than this are a tie: .1 + .2 and .3 are the same share, and float32 must tell
# others apart.
TIE = 1e-7
# What the class that wins a tie has more than the others, so that it is the largest in float32 as well.
TIE_MARGIN = 2.0**-20
# Least probability where zeros would decide alone (geometric mean): one member's rounding to 0 must not veto a class
# for ever.
FLOOR = float(np.finfo(np.float32).eps)
BY = ("class", "attribute")
_ROUNDING = 1e-6


@dataclass(frozen=True)
class VoteInput:
    """What the runs say on a block of m rows.

    Attributes
    ----------
    probabilities : (runs, m, classes) each run's mean over its fold models; 0 where it is absent or has hard labels.
    votes : (runs, m, classes) the share of each run's fold models that vote for a class; None unless the method asks.
    weights : (runs, m) what each run's word is worth: sums to 1 over the runs present, 0 where one is absent.
    hard : (runs,) whether a run has hard labels only.
    ranking : (runs,) run indices, best first.
    """

    probabilities: NDArray[np.float64]
    votes: NDArray[np.float64] | None
    weights: NDArray[np.float64]
    hard: NDArray[np.bool_]
    ranking: NDArray[np.int64]


Combine = Callable[[VoteInput], tuple[NDArray[np.float64], int]]


@dataclass(frozen=True)
class PoolingRule:
    """A way to combine: `combine` gives (m, classes) values ≥ 0, whose largest is the decision, and the number of ties.

    Attributes
    ----------
    counts_votes : it needs `Ballots.votes`, and takes members with hard labels only.
    weighs : weights other than 0 and 1 mean something to it.
    whole : it compares samples with each other, so its ballots must hold all rows.
    """

    combine: Combine
    title: str
    counts_votes: bool = False
    supports_weights: bool = True
    needs_all_rows: bool = False


@dataclass(frozen=True)
class Options:
    """What some methods can be told.

    Attributes
    ----------
    power : the exponent of the power mean: 1 is the arithmetic mean, 0 the geometric, −1 the harmonic; the greater, the
        nearer to the largest.
    trim : share of the vote that the trimmed mean leaves out at either end, from 0 (the mean) to below .5 (near it: the
        median).
    by : ``class``, or ``attribute``: each attribute of the class is voted on by itself.

    Raises
    ------
    UsageError : a value that none of them can have.
    """

    power: float = 2.0
    trim: float = 0.2
    by: str = "class"

    def __post_init__(self) -> None:
        if not np.isfinite(self.power):
            raise UsageError(
                f"`power={self.power}`: expected a finite number",
                hint="`power=2`; for the largest of all: `method=max`",
            )
        if not 0 <= self.trim < 0.5:
            raise UsageError(
                f"`trim={self.trim:g}`: expected a share from 0 to below .5",
                hint="`trim=.2`; for the middle alone: `method=median`",
            )
        if self.by not in BY:
            raise UsageError(
                f"`by={self.by}`: expected {' or '.join(BY)}", hint="`by=attribute` votes on mask, gender and age apart"
            )


@dataclass(frozen=True)
class Vote:
    """A combination of runs on one split.

    Attributes
    ----------
    probabilities : (n, classes) float32, rows sum to 1; the largest of a row is the decision.
    ties : rows in which several classes had equally many votes (hard voting); by attribute, those of all attributes
        added up.
    undecided : rows whose attributes contradicted each other for every class there is, so that the vote by class
        decided (by attribute).
    """

    probabilities: NDArray[np.float32]
    ties: int = 0
    undecided: int = 0


def normalised(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """(m, classes) scaled in place so that rows sum to 1; negative roundings are 0.

    What sums to 1 already is left as it is: a blend of one float32 member is that member, to the bit.
    """
    np.maximum(values, 0, out=values)
    sums = values @ np.ones(values.shape[1], values.dtype)
    off = np.flatnonzero(np.abs(sums - 1) >= _ROUNDING)
    if len(off):
        values[off] /= sums[off, None]
    return values
