"""Contributions of the runs of a blend, the Pareto front of score and cost, and recommendations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ensemble.alignment.split import AlignedSplit
from ensemble.alignment.truth import GroundTruth
from ensemble.analysis.advice import advice
from ensemble.analysis.column_contributions import estimate_column_contributions
from ensemble.analysis.column_importance import ColumnImportance, estimate_importance
from ensemble.analysis.contributions import Contributions, estimate_contributions
from ensemble.analysis.cost import Costs
from ensemble.analysis.pareto import Pareto, pareto
from ensemble.blending.fit import FittedBlend
from ensemble.blending.request import BlendConfig
from ensemble.learning.columns.stack import ColumnStack, column_stack_of
from ensemble.learning.combination import Combination, Fitter
from ensemble.learning.nested import MIN_FOLDS, NestedResult, nested_cv, outer_fold_ids
from ensemble.learning.stack import Stack, stack_of
from folds.metrics.classification import Metric
from folds.utils.progress import Progress


@dataclass(frozen=True)
class ContributionReport:
    """Contributions of the runs, the best subsets for each cost (None for labels and numbers, and with columns of the
    samples), a summary of both in sentences, and what the columns add (None without columns).
    """

    contributions: Contributions
    pareto: Pareto | None
    summary_lines: tuple[str, ...]
    columns: ColumnImportance | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``--json`` and blend.json."""
        front = None if self.pareto is None else self.pareto.to_dict()
        record = self.contributions.to_dict() | {"pareto": front, "sentences": list(self.summary_lines)}
        return record | ({} if self.columns is None else {"columns": self.columns.to_dict()})


def analyze_contributions(
    splits: Mapping[str, AlignedSplit],
    truths: Mapping[str, GroundTruth],
    request: BlendConfig,
    combination: Combination | None,
    fitted: FittedBlend | None,
    costs: Costs,
    progress: Progress,
    seed: int = 0,
) -> tuple[ContributionReport | None, list[str]]:
    """Return the out-of-fold contributions of the runs, per image, and notes; None and the reason if not available.

    Parameters
    ----------
    combination : the vote; None if attributes are voted on separately.
    fitted : the fitted blend, if any. Its method is fitted again on each subset of the runs; with ``auto``, each outer
        fold uses the method that was chosen without it.
    """
    reason = _unavailable(splits, truths, combination, fitted)
    if reason or combination is None:
        return None, [reason]
    split, truth, metric = splits["oof"], truths["oof"], request.scored
    outer_folds = outer_fold_ids(truth.persons, truth.labels, split.fold)
    if fitted is not None:
        stack = fitted.stack
    elif split.has_columns:
        stack = column_stack_of(split, truth, outer_folds)
    else:
        stack = stack_of(split, truth, outer_folds)
    reason = _unavailable_for(stack)
    if reason:
        return None, [reason]
    if fitted is not None:
        nested, fitters = fitted.nested, fitted.fitters
    else:
        own = _select_runs(combination, stack.names)
        plain = Fitter(request.name, request.name, partial(_fit_plain, own), is_fitted=False)
        nested, fitters = nested_cv(stack, plain, metric, seed), (plain,) * len(np.unique(stack.outer_folds))
    by_image = request.per_person and request.pool is None
    notes = ["contributions are computed per image, not per person"] if by_image else []
    if isinstance(stack, ColumnStack):
        of_columns = estimate_column_contributions(stack, nested, metric)
        return ContributionReport(of_columns, None, tuple(advice(of_columns))), notes
    if stack.extra:
        return _with_columns(stack, nested, fitters, metric, progress, seed), notes
    with progress.step("contributions of the runs") as advance:
        contributions = estimate_contributions(stack, nested, metric, seed=seed, progress=advance)
    with progress.step("score against cost") as advance:
        front = pareto(stack, metric, costs, fitters[0], seed, progress=advance, by_part=fitters)
    return ContributionReport(contributions, front, tuple(advice(contributions, front))), notes


def _with_columns(
    stack: Stack, nested: NestedResult, fitters: Sequence[Fitter], metric: Metric, progress: Progress, seed: int
) -> ContributionReport:
    """Return the contributions of the runs, each left out and the rest fitted again, and what the columns add."""
    with progress.step("contributions of the runs") as advance:
        found = estimate_contributions(stack, nested, metric, refit=True, seed=seed, progress=advance)
    with progress.step("contributions of the columns") as advance:
        columns = estimate_importance(stack, nested, fitters, metric, seed, advance)
    return ContributionReport(found, None, (*advice(found), *columns.sentences()), columns)


def _unavailable(
    splits: Mapping[str, AlignedSplit],
    truths: Mapping[str, GroundTruth],
    combination: Combination | None,
    fitted: FittedBlend | None,
) -> str:
    """Return why contributions are not available for this request; "" if no reason is known yet."""
    if combination is None:
        return "contributions are not available with `by=attribute`; use `by=class`"
    if "oof" not in truths:
        return "contributions need out-of-fold predictions with known labels"
    if fitted is None and any(run.hard for run in splits["oof"].runs):
        return "contributions are not available for runs with hard labels only"
    return ""


def _unavailable_for(stack: Stack) -> str:
    """Return why contributions are not available for these samples; "" if they are."""
    unlabeled = [] if stack.present is None else np.flatnonzero(~stack.present.any(axis=1)).tolist()
    if unlabeled:
        names = ", ".join(stack.names[i] for i in unlabeled)
        return f"contributions need labeled samples of every run, found none for {names}"
    folds = len(np.unique(stack.outer_folds))
    if stack.runs < 2 or folds < MIN_FOLDS:
        return f"contributions need 2 or more runs and {MIN_FOLDS} or more outer folds, found {stack.runs} and {folds}"
    return ""


def _fit_plain(plain: Combination, stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    return _select_runs(plain, stack.names)


def _select_runs(plain: Combination, names: tuple[str, ...]) -> Combination:
    """Return a plain combination for fewer runs."""
    index = [plain.runs.index(name) for name in names]
    return replace(plain, runs=names, weights=None if plain.weights is None else plain.weights[index])
