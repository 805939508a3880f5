"""Learning curves of the runs of a plan, from the features of their images."""

from __future__ import annotations

from pathlib import Path

from folds.errors import UsageError
from folds.features.curve_files import write_curve
from folds.features.learning_curve import LearningCurve, learning_curve
from folds.runs.execute import with_features
from folds.runs.open import prepare
from folds.runs.plan import Plan
from folds.utils.progress import SILENT, Progress


def check_learning_curve(plan: Plan) -> None:
    """Raise UsageError if a run has no frozen features, or several heads."""
    for run in plan.runs:
        if not run.recipe.features:
            raise UsageError(
                f"`learning_curve` needs frozen features, and {run.name} has none",
                hint="`features=True`; a curve by fine-tuning would take many trainings",
            )
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

    Runs that differ only in their head have one curve, because it is that of logistic heads.
    """
    check_learning_curve(plan)
    templates = prepare(plan, resume=True).templates
    curves: dict[str, tuple[LearningCurve, Path]] = {}
    seen = set()
    for run in plan.runs:
        (job,) = with_features(plan, [templates[run.name]], progress)
        changes = run.recipe.relabel, run.recipe.drop
        key = (str(job.features), run.target.name, run.assignment.sha, *changes)
        if run.name != run.base or key in seen:
            continue
        seen.add(key)
        with progress.step("learning curve") as advance:
            curve = learning_curve(job, advance=advance)
        curves[run.name] = curve, write_curve(run.folder, curve)
    return curves
