"""What the members of a blend are worth, all together: contributions, score against cost, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.advice import advice
from ensemble.combination import Combination, Fitter
from ensemble.cost import Costs
from ensemble.evaluation import FEWEST, Progress, nested, nests_of
from ensemble.fitted import Fitted
from ensemble.found_files import Note
from ensemble.pareto import Pareto, pareto
from ensemble.request import Request
from ensemble.runs import Split
from ensemble.scoring import Truth
from ensemble.stack import stack_of
from ensemble.worth import Worth, worth


@dataclass(frozen=True)
class Worths:
    """Contributions of the runs, the best subsets for each cost, and both in sentences."""

    worth: Worth
    pareto: Pareto
    sentences: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For --json and blend.json."""
        return self.worth.as_json() | {"pareto": self.pareto.as_json(), "sentences": list(self.sentences)}


def worths_of(
    splits: Mapping[str, Split],
    truths: Mapping[str, Truth],
    request: Request,
    weights: Mapping[str, float],
    fitted: Fitted | None,
    costs: Costs,
    progress: Progress,
    note: Note,
    seed: int = 0,
) -> Worths | None:
    """What the runs are worth out of fold; None, and a note why, where that cannot be said.

    Parameters
    ----------
    weights : of a plain vote.
    fitted : of one that was learnt; its method is learnt again on each subset of the runs.
    """
    if "oof" not in truths:
        note("what each run is worth cannot be said without out-of-fold predictions whose labels are known")
        return None
    split, truth, metric = splits["oof"], truths["oof"], request.scored
    if fitted is None and any(run.hard for run in split.runs):
        note("what each run is worth cannot be said where some have hard labels only")
        return None
    stack = fitted.stack if fitted is not None else stack_of(split, truth, nests_of(truth.persons, truth.labels, split.fold))
    if stack.runs < 2 or len(np.unique(stack.nests)) < FEWEST:
        note("what each run is worth cannot be said of one run, or of so few people")
        return None
    if fitted is not None:
        whole = fitted.nested
        fitter = whole.fitter
    else:
        plain = Combination(stack.names, request.name, np.array([weights[name] for name in stack.names]))
        fitter = Fitter(request.name, request.name, lambda part, metric, seed: _of_those(plain, part.names), learns=False)
        whole = nested(stack, fitter, metric, seed)
    contributions = worth(stack, whole, metric, seed=seed, progress=progress)
    front = pareto(stack, metric, costs, fitter, seed, progress=progress)
    return Worths(contributions, front, tuple(advice(contributions, front)))


def _of_those(plain: Combination, names: tuple[str, ...]) -> Combination:
    """A plain combination for fewer runs."""
    assert plain.weights is not None  # noqa: S101 - given to it above
    kept = [plain.runs.index(name) for name in names]
    return Combination(names, plain.pool, plain.weights[kept])
