"""What the members of a blend are worth, all together: contributions, score against cost, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ensemble.alignment.split import AlignedSplit
from ensemble.alignment.truth import Truth
from ensemble.analysis.advice import advice
from ensemble.analysis.contributions import Contributions, worth
from ensemble.analysis.cost import Costs
from ensemble.analysis.pareto import Pareto, pareto
from ensemble.blending.fit import FittedBlend
from ensemble.blending.request import BlendConfig
from ensemble.learning.combination import Combination, Fitter
from ensemble.learning.nested import FEWEST, Progress, nested_cv, outer_fold_ids
from ensemble.learning.stack import stack_of
from folds.utils.text import Note


@dataclass(frozen=True)
class ContributionReport:
    """Contributions of the runs, the best subsets for each cost, and both in sentences."""

    worth: Contributions
    pareto: Pareto
    summary_lines: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For --json and blend.json."""
        return self.worth.to_dict() | {"pareto": self.pareto.to_dict(), "sentences": list(self.summary_lines)}


def analyze_contributions(
    splits: Mapping[str, AlignedSplit],
    truths: Mapping[str, Truth],
    request: BlendConfig,
    combination: Combination | None,
    fitted: FittedBlend | None,
    costs: Costs,
    progress: Progress,
    note: Note,
    seed: int = 0,
) -> ContributionReport | None:
    """What the runs are worth out of fold, image by image; None, and a note why, where that cannot be said.

    Parameters
    ----------
    combination : the vote; None where attributes are voted on apart.
    fitted : what was learnt; its method is learnt again on each subset of the runs, in each part what was chosen without it.
    """
    if combination is None:
        note("what each run is worth is not said of a vote by attribute; --by class says it")
        return None
    if "oof" not in truths:
        note("what each run is worth cannot be said without out-of-fold predictions whose labels are known")
        return None
    split, truth, metric = splits["oof"], truths["oof"], request.scored
    if fitted is None and any(run.hard for run in split.runs):
        note("what each run is worth cannot be said where some have hard labels only")
        return None
    stack = (
        fitted.stack
        if fitted is not None
        else stack_of(split, truth, outer_fold_ids(truth.persons, truth.labels, split.fold))
    )
    silent = [] if stack.present is None else np.flatnonzero(~stack.present.any(axis=1)).tolist()
    if silent:
        note(
            f"what each run is worth cannot be said where one has no labelled sample: {', '.join(stack.names[i] for i in silent)}"
        )
        return None
    if stack.runs < 2 or len(np.unique(stack.outer_folds)) < FEWEST:
        note("what each run is worth cannot be said of one run, or of so few people")
        return None
    if fitted is not None:
        whole, fitters = fitted.nested, fitted.fitters
    else:
        mine = _of_those(combination, stack.names)
        plain = Fitter(
            request.name, request.name, lambda part, metric, seed: _of_those(mine, part.names), is_fitted=False
        )
        whole, fitters = nested_cv(stack, plain, metric, seed), (plain,) * len(np.unique(stack.outer_folds))
    contributions = worth(stack, whole, metric, seed=seed, progress=progress)
    front = pareto(stack, metric, costs, fitters[0], seed, progress=progress, by_part=fitters)
    if request.per_person:
        note("what each run is worth is told image by image")
    return ContributionReport(contributions, front, tuple(advice(contributions, front)))


def _of_those(plain: Combination, names: tuple[str, ...]) -> Combination:
    """A plain combination for fewer runs."""
    kept = [plain.runs.index(name) for name in names]
    return replace(plain, runs=names, weights=None if plain.weights is None else plain.weights[kept])
