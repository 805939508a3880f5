"""Votes of runs: soft, hard, weighted, geometric; read in blocks of rows and summed in float64, numpy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.runs import Split
from folds.errors import UsageError, nearest, unknown

# Shares of the vote nearer to each other than this are a tie: .1 + .2 and .3 are the same share, and float32 must tell others apart.
TIE = 1e-7
# What the class that wins a tie has more than the others, so that it is the largest in float32 as well.
TIE_MARGIN = 2.0**-20
# Least probability in a geometric mean: one member's rounding to 0 must not veto a class for ever.
FLOOR = float(np.finfo(np.float32).eps)
_ROUNDING = 1e-6
_NUMBERS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Ballots:
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


Combine = Callable[[Ballots], tuple[NDArray[np.float64], int]]


@dataclass(frozen=True)
class Method:
    """A way to combine: `combine` gives (m, classes) values ≥ 0, whose largest is the decision, and the number of ties.

    `counts_votes` : it needs `Ballots.votes`, and takes members with hard labels only.
    """

    combine: Combine
    title: str
    counts_votes: bool = False


@dataclass(frozen=True)
class Vote:
    """A combination of runs on one split.

    Attributes
    ----------
    probabilities : (n, classes) float32, rows sum to 1; the largest of a row is the decision.
    ties : rows in which several classes had equally many votes (hard voting).
    """

    probabilities: NDArray[np.float32]
    ties: int = 0


def soft(ballots: Ballots) -> tuple[NDArray[np.float64], int]:
    """The (weighted) arithmetic mean of probabilities."""
    return np.einsum("rm,rmc->mc", ballots.weights, ballots.probabilities), 0


def geometric(ballots: Ballots) -> tuple[NDArray[np.float64], int]:
    """The (weighted) geometric mean of the runs' probabilities, in log space, then normalised.

    Each run's own folds are averaged arithmetically before. Probabilities below `FLOOR` count as `FLOOR`.
    """
    logs = np.einsum("rm,rmc->mc", ballots.weights, np.log(np.maximum(ballots.probabilities, FLOOR)))
    return np.exp(logs - logs.max(axis=1, keepdims=True)), 0


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


METHODS: dict[str, Method] = {
    "soft": Method(soft, "mean of probabilities"),
    "hard": Method(hard, "majority of votes", counts_votes=True),
    "weighted": Method(soft, "weighted mean of probabilities"),
    "geometric": Method(geometric, "geometric mean of probabilities"),
}


def vote(split: Split, method: str = "soft", weights: Mapping[str, float] | None = None, ranking: Sequence[str] | None = None) -> Vote:
    """Combine the runs of a split; a run that is absent on a row leaves its weight to the others.

    The runs are summed in the order of their names, so the result is the same to the bit in whatever order files come.

    Parameters
    ----------
    weights : run → weight ≥ 0, scaled to sum to 1; a run that is not named has none. Equal weights without it.
    ranking : run names, best first, for ties of hard votes; runs it lacks come last. The split's order without it.

    Raises
    ------
    UsageError : an unknown method, or one that needs probabilities where a run has hard labels only.
    ValueError : a row has no run with a weight (see `Split.only`).
    """
    if method not in METHODS:
        raise unknown("method", method, list(METHODS))
    how = METHODS[method]
    runs = sorted(split.runs, key=lambda run: run.name)
    without = [run.name for run in runs if run.hard]
    if without and not how.counts_votes:
        raise UsageError(
            f"--method {method} needs probabilities, and {', '.join(without)} has hard labels only",
            hint="--method hard, or leave it out with --run",
        )
    share = np.array([1.0 if weights is None else weights.get(run.name, 0.0) for run in runs])
    order = [*(ranking or ()), *(run.name for run in split.runs)]
    ranks = np.array(sorted(range(len(runs)), key=lambda i: order.index(runs[i].name)), dtype=np.int64)
    is_hard = np.array([run.hard for run in runs])
    n, classes = len(split), len(split.classes)
    combined = np.empty((n, classes), np.float32)
    ties = 0
    size = max(256, _NUMBERS_AT_ONCE // (len(runs) * classes))
    stacked = np.zeros((len(runs), size, classes))
    for start in range(0, n, size):
        stop = min(start + size, n)
        present = np.stack([run.models(start, stop) > 0 for run in runs])
        block_weights = share[:, None] * present
        total = block_weights.sum(axis=0)
        if not (total > 0).all():
            raise ValueError(f"no run with a weight predicts the sample '{split.rows.ids[start + int(np.argmin(total > 0))]}'")
        for i, run in enumerate(runs):
            if not is_hard[i]:
                stacked[i, : stop - start] = run.probabilities(start, stop)
        votes = np.stack([run.votes(start, stop) for run in runs]) if how.counts_votes else None
        values, tied = how.combine(Ballots(stacked[:, : stop - start], votes, block_weights / total, is_hard, ranks))
        ties += tied
        np.maximum(values, 0, out=values)
        sums = values.sum(axis=1, keepdims=True)
        # What sums to 1 already is left as it is: a blend of one float32 member is that member, to the bit.
        combined[start:stop] = values / np.where(np.abs(sums - 1) < _ROUNDING, 1, sums)
    return Vote(combined, ties)


def parse_weights(text: str, runs: Sequence[str]) -> dict[str, float]:
    """``swin=.7,resnet18=.3``, or ``.7,.3`` in the order of `runs`, as run → weight; they sum to 1.

    Raises
    ------
    UsageError : a run that is unknown or has no weight, another number of weights than runs, a weight that is not a
        number ≥ 0, or a sum of 0.
    """
    parts = [part.strip() for part in text.split(",")]
    named = ["=" in part for part in parts]
    example = ",".join(f"{name}={1 / len(runs):.2g}" for name in runs)
    if any(named) and not all(named):
        raise UsageError(f"--weights {text}: some weights have a name and some have none", hint=f"--weights {example}")
    if not any(named):
        if len(parts) != len(runs):
            raise UsageError(
                f"number of weights and runs must be equal: got {len(parts)} weights for {len(runs)} runs ({', '.join(runs)})",
                hint=f"--weights {example}",
            )
        given = dict(zip(runs, (_number(part, text) for part in parts), strict=True))
    else:
        given = {}
        for part in parts:
            name, _, value = part.rpartition("=")
            name = name.strip()
            if name not in runs:
                close = nearest(name, runs)
                meant = f"; did you mean {' or '.join(close)}?" if close else ""
                raise UsageError(f"--weights: unknown run '{name}'{meant}", hint=f"the runs are {', '.join(runs)}")
            if name in given:
                raise UsageError(f"--weights names {name} twice", hint=f"--weights {example}")
            given[name] = _number(value.strip(), text)
        missing = [name for name in runs if name not in given]
        if missing:
            raise UsageError(f"--weights has no weight for {', '.join(missing)}", hint=f"{missing[0]}=0 leaves it out, and so does --run")
    total = sum(given.values())
    if total <= 0:
        raise UsageError(f"--weights {text}: the weights sum to 0", hint=f"--weights {example}")
    return {name: given[name] / total for name in runs}


def _number(part: str, text: str) -> float:
    try:
        value = float(part)
    except ValueError:
        raise UsageError(f"--weights {text}: '{part}' is not a number", hint="--weights .7,.3 or --weights swin=.7,resnet18=.3") from None
    if not math.isfinite(value) or value < 0:
        raise UsageError(f"--weights {text}: a weight must be a finite number from 0 up, found {part}", hint="weights are scaled to sum to 1")
    return value
