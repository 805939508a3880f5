"""Find out whether the out-of-fold predictions of a source are optimistic: of students, and of selected models."""

from __future__ import annotations

from pathlib import Path

from ensemble.decisions.record import SELECTED, STUDENT
from ensemble.prediction.source import PredictionSource
from folds.predictions.optimism import selected_runs, selected_text, student_text


def teacher_of(source: PredictionSource) -> str:
    """Return what the first student among the models learned from: a blend, a run, or ``unknown``; "" without one."""
    for model in source.models:
        recipe = model.checkpoint.recipe
        found = recipe.get("teacher", "unknown" if "soft_sha" in recipe else None)
        if found:
            return str(found)
    return ""


def selected_models(source: PredictionSource, root: Path) -> list[str]:
    """Return the runs of which something was selected on the people that they are scored on.

    Parameters
    ----------
    root : the folder that holds ``runs/``: models of all people do not say it themselves, the records of the folds do.
    """
    marked = [model.checkpoint.run for model in source.models if model.checkpoint.selected_on_validation]
    names = dict.fromkeys(model.checkpoint.run for model in source.models)
    return list(dict.fromkeys([*marked, *selected_runs(root / "runs", names)]))


def optimism(source: PredictionSource, root: Path, teacher: str | None = None) -> str:
    """Return why the out-of-fold score of a source is optimistic; "" if no reason is known.

    Parameters
    ----------
    teacher : the teacher that the sidecar of the predictions names.
    """
    teacher = teacher or teacher_of(source)
    return student_text(teacher) if teacher else selected_text(selected_models(source, root))


def optimism_basis(source: PredictionSource, root: Path) -> str:
    """Return `STUDENT` or `SELECTED` for decision rules; "" if no reason is known."""
    return STUDENT if teacher_of(source) else SELECTED if selected_models(source, root) else ""
