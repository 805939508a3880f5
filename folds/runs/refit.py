"""Train one model of a run on all people, with as many epochs as cross-validation says (``fold=all``).

The model has no validation part: nothing is selected on it, nothing stops it early, and no out-of-fold score is its
own. What it follows from (the epochs and the checkpoints of the folds) is recorded in its checkpoint.
"""

from __future__ import annotations

import csv
import io
import logging
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from folds.data.tasks import recorded_task
from folds.errors import EnsembleError
from folds.experiments.refit import refit_done
from folds.metrics.task_names import CLASSES
from folds.predictions.file_names import FOLD_DONE, FOLD_HISTORY, FOLD_STATE
from folds.predictions.files import ALL, PredictionMetadata, read_array, refit_file, sidecar_path, write_prediction
from folds.predictions.links import kind_of
from folds.runs.plan import Plan
from folds.runs.run import Run
from folds.training.job import REFIT_TEST, Job
from folds.training.loop import best_epoch
from folds.training.stages import epochs_below
from folds.utils.files import read_json, write_json

logger = logging.getLogger(__name__)
PLAN = "refit.json"  # beside the saved state: what it was started with


@dataclass(frozen=True)
class RefitPlan:
    """What a model of all people follows from.

    Attributes
    ----------
    epochs : its epochs, which its schedule is made for.
    fold_epochs : fold → the epochs of its weights: the best epoch if that is kept, otherwise all that were trained.
    folds : fold → hash of its checkpoint.
    """

    epochs: int
    fold_epochs: Mapping[str, int]
    folds: Mapping[str, str]


def plan_refit(run: Run) -> RefitPlan:
    """Return the epochs of a run's model of all people: the median over its folds (a half is rounded up).

    The number is not scaled by the larger training set. An epoch shows every image once, so the same number of epochs
    fits each image as often as in the folds; the more numerous steps belong to the further images.

    Raises
    ------
    EnsembleError : a fold is not trained yet, or its history cannot be read.
    """
    epochs, shas = {}, {}
    for fold in range(run.assignment.k):
        done = run.done(fold)
        if done is None:
            raise EnsembleError(
                f"{run.name} fold {fold} is not trained yet, and the model of all people follows from all folds",
                hint="`fold=all` trains the missing folds first",
            )
        shas[str(fold)] = str(done["checkpoint_sha"])
        epochs[str(fold)] = int(done["epochs"])
        if run.recipe.keep == "best":
            below, history = epochs_below(run.recipe.progressive), _history(run.fold_folder(fold) / FOLD_HISTORY)
            epochs[str(fold)] = below + best_epoch(history[below:], run.recipe.metric)
    return RefitPlan(int(statistics.median(epochs.values()) + 0.5), epochs, shas)


def _history(path: Path) -> list[dict[str, float]]:
    """Return the epochs of a fold, from its history.csv."""
    try:
        text = path.read_text(encoding="utf-8")
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(io.StringIO(text))]
    except (OSError, ValueError, TypeError) as error:
        raise EnsembleError(
            f"{path} cannot be read, and the epochs of the model of all people follow from it: {error}",
            hint="`force=True` with this `fold` trains the fold again",
        ) from None
    if not rows:
        raise EnsembleError(f"{path} has no epochs", hint="`force=True` with this `fold` trains the fold again")
    return rows


def refit_job(run: Run, job: Job, init: Path | None = None) -> Job | None:
    """Return the job of a run's model of all people; None if that is trained already.

    What was started or trained from other folds is removed, which is logged.

    Parameters
    ----------
    job : the job of any fold of the run.
    init : initial weights, if the folds start from those of another run.
    """
    found = plan_refit(run)
    record: dict[str, Any] = asdict(found)
    folder, path = run.refit_folder, run.refit_folder / PLAN
    if refit_done(run.folder, found.folds) is not None and run.refit_checkpoint.is_file():
        (folder / FOLD_STATE).unlink(missing_ok=True)
        return None
    finished = (folder / FOLD_DONE).exists()
    if folder.is_dir() and (finished or not path.is_file() or read_json(path) != record):
        logger.info(f"{run.name}: the model of all people follows from other folds and is trained from scratch")
        run.remove_refit()
    write_json(path, record)
    each = sorted(set(found.fold_epochs.values()))
    what = "best epochs" if run.recipe.keep == "best" else "epochs"
    spread = str(each[0]) if len(each) == 1 else f"{each[0]} to {each[-1]}, the median"
    logger.info(f"{run.name}: one model on all people with {found.epochs} epochs ({what} of the folds: {spread})")
    recipe = job.recipe | {"epochs": found.epochs, "keep": "last", "patience": 0}
    return replace(
        job,
        fold=run.assignment.k,
        checkpoint=str(run.refit_checkpoint),
        recipe=recipe,
        init=None if init is None else str(init),
        refit=record,
        selected_on_validation=False,
    )


def refit_jobs(plan: Plan, templates: Mapping[str, Job], failed: Sequence[str] = ()) -> list[Job]:
    """Return the jobs of the models of all people that are not trained yet.

    Parameters
    ----------
    templates : run → the job of any of its folds.
    failed : runs with a failed fold, which are left out; this is logged.
    """
    jobs = []
    for run in plan.runs:
        if run.name in failed:
            logger.warning(f"{run.name}: no model is trained on all people, because a fold has failed")
            continue
        weights = plan.initial_weights.get(run.name)
        job = refit_job(run, templates[run.name], None if weights is None else weights.refit)
        jobs += [] if job is None else [job]
    return jobs


def write_refit_predictions(plan: Plan, run: Run) -> None:
    """Write ``runs/<run>/all/test.json`` beside the test predictions of the model of all people, if it is trained."""
    done, test = refit_done(run.folder), plan.data.test
    path, made = refit_file(run.runs, run.name), run.refit_folder / REFIT_TEST
    if done is None or test is None or not made.is_file():
        return
    beside = sidecar_path(path)
    if path.is_file() and beside.is_file() and read_json(beside).get("checkpoint_sha") == done["checkpoint_sha"]:
        return
    metadata = PredictionMetadata(
        kind=kind_of(run.target.task),
        split="test",
        classes=run.target.classes,
        rows=test.rows(),
        target=run.target.name,
        class_attributes=plan.table.class_attributes,
        run=f"{run.name}.{ALL}",
        arch=run.architecture.timm_name,
        seed=run.recipe.seed,
        repeat=run.assignment.repeat,
        folds_sha=run.assignment.sha,
        checkpoint_sha=done["checkpoint_sha"],
        teacher=done.get("teacher"),
        task=recorded_task(run.recipe.task, run.recipe.positive, run.target.name, run.target.classes),
        exclusive=run.recipe.task == CLASSES,
        label_of=plan.spec.label_of,
    )
    write_prediction(path, read_array(made), metadata, samples=test.rows())
