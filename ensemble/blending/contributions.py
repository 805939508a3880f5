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
from ensemble.learning.nested import FEWEST, nested_cv, outer_fold_ids
from ensemble.learning.stack import Stack, stack_of
from folds.utils.progress import Advance


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
    progress: Advance,
    seed: int = 0,
) -> tuple[ContributionReport | None, list[str]]:
    """Return what the runs are worth out of fold, image by image, and notes; None, and a note why, where that cannot be said.

    Parameters
    ----------
    combination : the vote; None where attributes are voted on apart.
    fitted : what was learnt; its method is learnt again on each subset of the runs, in each part what was chosen without it.
    """
    unknown = _unknown_before(splits, truths, combination, fitted)
    if unknown or combination is None:
        return None, [unknown]
    split, truth, metric = splits["oof"], truths["oof"], request.scored
    if fitted is not None:
        stack = fitted.stack
    else:
        stack = stack_of(split, truth, outer_fold_ids(truth.persons, truth.labels, split.fold))
    unknown = _unknown_of(stack)
    if unknown:
        return None, [unknown]
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
    notes = ["what each run is worth is told image by image"] if request.per_person else []
    return ContributionReport(contributions, front, tuple(advice(contributions, front))), notes


def _unknown_before(
    splits: Mapping[str, AlignedSplit],
    truths: Mapping[str, Truth],
    combination: Combination | None,
    fitted: FittedBlend | None,
) -> str:
    """Return why it cannot be said what each run is worth; "" where that is not seen yet."""
    if combination is None:
        return "what each run is worth is not said of a vote by attribute; `by=class` says it"
    if "oof" not in truths:
        return "what each run is worth cannot be said without out-of-fold predictions whose labels are known"
    if fitted is None and any(run.hard for run in splits["oof"].runs):
        return "what each run is worth cannot be said where some have hard labels only"
    return ""


def _unknown_of(stack: Stack) -> str:
    """Return why it cannot be said of these samples what each run is worth; "" where it can."""
    silent = [] if stack.present is None else np.flatnonzero(~stack.present.any(axis=1)).tolist()
    if silent:
        names = ", ".join(stack.names[i] for i in silent)
        return f"what each run is worth cannot be said where one has no labelled sample: {names}"
    if stack.runs < 2 or len(np.unique(stack.outer_folds)) < FEWEST:
        return "what each run is worth cannot be said of one run, or of so few people"
    return ""


def _of_those(plain: Combination, names: tuple[str, ...]) -> Combination:
    """Return a plain combination for fewer runs."""
    kept = [plain.runs.index(name) for name in names]
    return replace(plain, runs=names, weights=None if plain.weights is None else plain.weights[kept])
