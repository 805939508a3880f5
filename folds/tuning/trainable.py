"""Train the folds of one trial, one after the other, in a process of Ray Tune."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from folds.data.targets import resolve_target
from folds.errors import EnsembleError, TrainingDivergedError
from folds.execution.ray_task import require_gpu
from folds.execution.shared_files import missing_here
from folds.metrics.task_names import CLASSES
from folds.predictions.file_names import FOLD_HISTORY
from folds.predictions.files import read_array
from folds.predictions.label_columns import encode_labels
from folds.predictions.task_scores import epoch_column
from folds.splits.assignment import read_folds
from folds.training.job import Job, job_from_dict
from folds.training.scores import score_of_part
from folds.training.trainer import train_fold
from folds.tuning.trials import FAILED, FINISHED, Trial, write_trial
from folds.utils.csv_table import read_csv

# Keys of a report to Ray Tune: progress in epochs of the longest trial, at which trials are compared; score; reason why
# the trial could not be trained here, which does not depend on its settings.
PROGRESS, SCORE, LOST = "progress", "score", "lost"


def run_trial(config: Mapping[str, Any]) -> None:
    """Train the folds of a trial and report each epoch to Ray Tune, which may end the process at any report.

    A diverged training is recorded as failed. Any other failure leaves no record, so a resumed study retries the trial.
    Epochs that a killed process trained and reported are reported again, so the trial is compared as if there had been
    no interruption. The last epoch is reported after all files are written.

    Parameters
    ----------
    config : ``{"trial": …}``, a JSON object with ``number``, ``settings``, ``metric``, ``longest`` (epochs of the
        longest trial), ``jobs`` and ``proof`` (file manifests of `folds.execution.shared_files`).
    """
    task = json.loads(config["trial"])
    jobs = [job_from_dict(record) for record in task["jobs"]]
    course = _Course(task, jobs)
    try:
        node = os.uname().nodename
        for job, manifest in zip(jobs, task["proof"], strict=True):
            for line in missing_here(manifest):
                raise EnsembleError(f"the machine {node} {line}; all machines must share one drive under one path")
            require_gpu(job, node)
        for index, job in enumerate(jobs):
            for epoch in _history(job):
                course.epoch(index, epoch)

            def report(event: dict[str, Any], index: int = index) -> None:
                if event["event"] == "epoch":
                    course.epoch(index, event)

            result = train_fold(job, report)
            score = _score(job, task["metric"])
            if math.isnan(score):
                reason = f"{task['metric']} is undefined on fold {job.fold}, whose images lack what it compares"
                write_trial(Path(jobs[0].folder), course.trial(FAILED, reason))
                return
            course.fold(index, score, int(result["epochs"]), float(result["seconds"]))
        write_trial(Path(jobs[0].folder), course.trial(FINISHED))
        course.report(course.max_epochs * len(jobs), float(course.mean or 0.0))
    except TrainingDivergedError as error:
        # Divergence is a result of the settings, e.g. of a high learning rate.
        write_trial(Path(jobs[0].folder), course.trial(FAILED, error.message))
    except EnsembleError as error:
        course.lost(error.message)


def _history(job: Job) -> list[dict[str, float]]:
    """Return the records of the epochs that are trained already."""
    path = job.fold_dir / FOLD_HISTORY
    if not path.exists():
        return []
    columns = read_csv(path).columns
    return [dict(zip(columns, map(float, row), strict=True)) for row in zip(*columns.values(), strict=True)]


class _Course:
    """Progress and scores of a trial."""

    def __init__(self, task: Mapping[str, Any], jobs: list[Job]) -> None:
        self.task = task
        self.metric = task["metric"]
        self.by_person = jobs[0].person_metric is not None
        self.max_epochs = int(task["longest"])
        self.epochs = int(jobs[0].recipe["epochs"])
        self.jobs = jobs
        self.scores: dict[int, float] = {}
        self.trained: dict[int, int] = {}
        self.seconds: dict[int, float] = {}

    @property
    def mean(self) -> float | None:
        """Return the mean score of the folds so far; None before the first epoch."""
        return float(np.mean(list(self.scores.values()))) if self.scores else None

    def epoch(self, index: int, record: Mapping[str, Any]) -> None:
        """Add an epoch of the fold at `index`, and report it unless it is the last epoch of the trial.

        An epoch that is trained again after a kill, because the state was saved before it, is not reported again.
        """
        number = int(record["epoch"])
        fold = self.jobs[index].fold
        first = self.trained.get(fold, 0) < number
        self.seconds[fold] = self.seconds.get(fold, 0.0) + (float(record["seconds"]) if first else 0.0)
        self.trained[fold] = max(self.trained.get(fold, 0), number)
        score = float(record[epoch_column(self.metric, self.by_person)])
        if math.isnan(score):  # as a correlation of equal predictions, or where a fold lacks one kind of images
            return
        self.scores[fold] = score
        if first and (number < self.epochs or index + 1 < len(self.jobs)):
            self.report(round((index + number / self.epochs) * self.max_epochs, 6), float(self.mean or 0.0))

    def fold(self, index: int, score: float, epochs: int, seconds: float) -> None:
        """Set the final score, epochs and seconds of the fold at `index`."""
        fold = self.jobs[index].fold
        self.scores[fold], self.trained[fold], self.seconds[fold] = score, epochs, seconds

    def report(self, progress: float, score: float) -> None:
        """Report to Ray Tune; the call returns if the trial continues."""
        from ray import tune

        state = {
            "folds": json.dumps(self.scores),
            "epochs": sum(self.trained.values()),
            "seconds": sum(self.seconds.values()),
        }
        tune.report({PROGRESS: progress, SCORE: score, **state})

    def lost(self, reason: str) -> None:
        """Report to Ray Tune that the trial cannot be trained here."""
        from ray import tune

        tune.report({LOST: reason})

    def trial(self, state: str, reason: str = "") -> Trial:
        """Return the record of the trial in its present state."""
        score = None if state == FAILED else self.mean
        trained, seconds = sum(self.trained.values()), sum(self.seconds.values())
        return Trial(
            self.task["number"],
            self.task["settings"],
            state,
            score,
            self.scores,
            trained,
            self.epochs * len(self.jobs),
            seconds,
            reason,
        )


def _score(job: Job, metric: str) -> float:
    """Return the score of the predictions in the files of a finished fold, by person if its epochs are scored so."""
    folds = read_folds(Path(job.folder) / "folds.csv")
    order = job.recipe.get("class_order") or ()
    task = job.recipe.get("task")
    target = resolve_target(job.recipe["target"], job.classes, job.class_attributes, order, task)
    rows = folds.validation_index(job.fold)
    labels = target.encode_scored(encode_labels(folds.labels[rows], job.classes, task or CLASSES))
    persons = None if job.person_metric is None else folds.persons[rows]
    return score_of_part(metric, labels, read_array(job.fold_dir / "oof.npy"), persons, task or CLASSES)
