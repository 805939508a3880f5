"""Compare a vote with the best single run: is the blend worth more than one of its members?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.split import AlignedSplit
from ensemble.alignment.truth import GroundTruth
from ensemble.blending.request import BlendConfig
from ensemble.blending.scores import RunScore
from ensemble.voting.base import Vote
from ensemble.voting.vote import vote, vote_of_run
from folds.metrics.classification import Metric
from folds.metrics.intervals import Difference, difference_over_people
from folds.metrics.scored_units import scored_units


@dataclass(frozen=True)
class BestSingle:
    """The paired difference of a vote to the run with the best score on the same samples.

    Attributes
    ----------
    difference : vote − run.
    among : number of runs that it is the best of.
    """

    split: str
    run: str
    metric: Metric
    difference: Difference
    among: int

    def text(self, method: str) -> str:
        """Return the verdict in one line."""
        found, shown = self.difference, "OOF" if self.split == "oof" else self.split
        gained = found.difference.value * (1 if self.metric.greater_is_better else -1)
        if found.is_significant:
            word = "significantly better" if gained > 0 else f"significantly worse: {self.run} alone is better"
        else:
            word = "no significant difference"
        return (
            f"{method} vote vs the best single run, {self.run} (best of {self.among} on these samples): {shown} "
            f"{self.metric.title} {found.second:.3f} vs {found.first:.3f}, {found.difference.signed_text()}, {word}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``--json`` and blend.json."""
        return {"split": self.split, "run": self.run, "metric": self.metric.name, **self.difference.to_dict()}


def against_best_single(
    splits: Mapping[str, AlignedSplit],
    votes: Mapping[str, Vote],
    truths: Mapping[str, GroundTruth],
    ranking: Sequence[str],
    scores: Mapping[str, Mapping[str, RunScore]],
    request: BlendConfig,
) -> BestSingle | None:
    """Return the comparison on the out-of-fold samples, or else on the test samples; None for one run, or no labels.

    Parameters
    ----------
    ranking : the runs, best out-of-fold score first.
    """
    name = next((split for split in ("oof", "test") if split in truths), None)
    if name is None or len(splits[name].runs) < 2:
        return None
    metric, split = request.scored, splits[name]
    measured = {run: one.score for run in ranking if (one := scores[run].get(name)) is not None}
    known = {run: score.interval.value for run, score in measured.items() if score is not None}
    if len(known) < 2 or np.isnan(list(known.values())).any():
        return None
    best = (max if metric.greater_is_better else min)(known, key=lambda run: known[run])
    found = against_run(split, votes[name], truths[name], best, request)
    return None if found is None else BestSingle(name, best, metric, found, len(known))


def against_run(
    split: AlignedSplit, voted: Vote, truth: GroundTruth, name: str, request: BlendConfig
) -> Difference | None:
    """Return the paired difference of a vote to one of its runs, on the samples of that run; None without the run."""
    metric = request.scored
    run, alone = next(one for one in split.runs if one.name == name), split.select_runs([name])
    if alone is None:
        return None
    rows = np.arange(len(split)) if len(alone) == len(split) else np.flatnonzero(run.models(0, len(split)) > 0)
    truth = truth.take(rows)
    own = metric.function is not None  # a function of the user may write into what it is given
    first: NDArray[np.floating] = (
        vote(alone, "hard" if run.hard else "soft") if own else vote_of_run(alone)
    ).probabilities
    second: NDArray[np.floating] = voted.probabilities[rows]
    units = scored_units(truth.labels, [first, second], truth.persons, request.per_person, split.task)
    first, second = units.predictions
    return difference_over_people(metric, units.labels, first, second, units.persons)
