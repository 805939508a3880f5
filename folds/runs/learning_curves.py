"""Learning curves of the runs of a plan: by heads on frozen features, or by training on shares of the people."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from folds.errors import UsageError
from folds.features.curve_files import write_curve
from folds.features.learning_curve import LearningCurve, learning_curve
from folds.runs.execute import lock_runs, train_unpublished, with_features
from folds.runs.open import prepare
from folds.runs.plan import Plan
from folds.runs.trained_curve import check_known_people, check_trained_curve, trained_curve
from folds.training.job import Job, Outcome
from folds.utils.progress import SILENT, Progress

logger = logging.getLogger(__name__)


def check_learning_curve(plan: Plan) -> None:
    """Raise UsageError if models on fewer people would know all people through the settings of a run."""
    for run in plan.runs:
        if not run.recipe.features:
            check_trained_curve(run)
            left = [fold for fold in range(run.assignment.k) if fold not in plan.folds and run.done(fold) is None]
            if left:
                raise UsageError(
                    f"`learning_curve` needs all folds of {run.name}, and fold {left[0]} is not trained",
                    hint="leave out `fold`",
                )
            continue
        check_known_people(run)
        # Their features differ from fold to fold, and those of one fold know the people of the others.
        if run.recipe.init_run is not None or run.recipe.normalise == "data":
            setting = "init_run" if run.recipe.init_run is not None else "normalize=data"
            raise UsageError(
                f"`learning_curve` needs the same features for all folds, and with `{setting}` each fold has its own",
                hint=f"leave out `{setting}`",
            )
        if run.target.joined:
            raise UsageError("a learning curve is of one target", hint="`target=label`, or one attribute")


def write_learning_curves(plan: Plan, progress: Progress = SILENT) -> dict[str, tuple[LearningCurve, Path]]:
    """Compute and write the learning curve of the first run of each architecture and recipe; return it and its drawing.

    Runs on frozen features that differ only in their head have one curve, because it is that of logistic heads. Other
    models are trained on shares of the people; an interruption passes through, and the next call continues.

    Raises
    ------
    FoldsFailed : a training failed; the others are saved.
    """
    check_learning_curve(plan)
    curves: dict[str, tuple[LearningCurve, Path]] = {}
    seen = set()
    by_person = plan.spec.label_of is not None
    with lock_runs(plan):
        prepared = prepare(plan, resume=True)
        plan = replace(plan, placement=prepared.placement)
        for run in plan.runs:
            template = prepared.templates[run.name]
            if run.name != run.base:
                continue
            if not run.recipe.features:
                curve = trained_curve(run, template, partial(_train, plan, progress), by_person=by_person)
                curves[run.name] = curve, write_curve(run.folder, curve)
                continue
            (job,) = with_features(plan, [template], progress)
            changes = run.recipe.relabel, run.recipe.drop
            key = (str(job.features), run.target.name, run.assignment.sha, *changes)
            if key in seen:
                continue
            seen.add(key)
            with progress.step("learning curve") as advance:
                curve = learning_curve(job, advance=advance, by_person=by_person)
            curves[run.name] = curve, write_curve(run.folder, curve)
    return curves


def _train(plan: Plan, progress: Progress, jobs: Sequence[Job]) -> list[Outcome]:
    found = []
    with progress.jobs(jobs, len(plan.placement.devices)) as view:
        for outcome in train_unpublished(plan, jobs, view.event):
            view.outcome(outcome)
            if outcome.error is not None:
                logger.error(outcome.error.full_text())
            found.append(outcome)
    return found
